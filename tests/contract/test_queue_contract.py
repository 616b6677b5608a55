"""What the queue promises, on every server that it runs on, and when every transition is sent twice."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from gateway.approvals import scripts
from gateway.approvals.endpoint import parse_url
from gateway.approvals.held_action import Claim, HeldAction, Proposal, Verdict, Vote
from gateway.approvals.link import Arg, RedisLink, Script
from gateway.approvals.queue import Queue
from gateway.approvals.queue_limits import QueueLimits
from gateway.core.decision import ApprovalTerms
from gateway.core.errors import ClientError, GatewayError, TransitionError
from gateway.core.held import TERMINAL, State
from tests.held_actions import proposal
from tests.servers import DEBIAN_REDIS, Throwaway, throwaway

NOW = 1_800_000_000.0
STAFF = ("approvers",)
NEEDS_DEBIAN = pytest.mark.skipif(DEBIAN_REDIS is None, reason="no redis-server on this machine")


class StutteringLink(RedisLink):
    """Sends every transition twice, as a link does whose connection died before the answer: nothing may differ."""

    async def script(
        self, script: Script, keys: Sequence[str], args: Sequence[Arg], *, idempotent: bool = False
    ) -> Any:
        assert idempotent
        if script is not scripts.TIDY:  # it answers what it did, and the second time there is nothing to do
            await super().script(script, keys, args, idempotent=idempotent)
        return await super().script(script, keys, args, idempotent=idempotent)


SETUPS = [
    pytest.param((None, RedisLink), id="embedded"),
    pytest.param((DEBIAN_REDIS, RedisLink), id="debian", marks=NEEDS_DEBIAN),
    pytest.param((None, StutteringLink), id="sent-twice"),
]
Scenario = Callable[[Queue], Coroutine[Any, Any, None]]
Play = Callable[..., None]


@pytest.fixture(scope="module", params=SETUPS)
def setup(request: pytest.FixtureRequest) -> Iterator[tuple[Throwaway, type[RedisLink]]]:
    binary, link = request.param
    with throwaway(binary) as running:
        yield running, link


@pytest.fixture
def play(setup: tuple[Throwaway, type[RedisLink]]) -> Play:
    """Runs a scenario against an empty queue."""
    server, link_type = setup
    server.flush()

    def run(scenario: Scenario, **limits: int) -> None:
        async def main() -> None:
            link = link_type(parse_url(server.url))
            queue = Queue(link, limits=QueueLimits(**limits))
            try:
                async with asyncio.timeout(30):
                    await scenario(queue)
            finally:
                await queue.aclose()
                await link.aclose()

        asyncio.run(main())

    return run


async def held(queue: Queue, of: Proposal | None = None, *, now: float = NOW) -> HeldAction:
    action, created = await queue.propose(of or proposal(), now=now)
    assert created
    return action


async def approved(queue: Queue, of: Proposal | None = None, *, now: float = NOW) -> HeldAction:
    action = await held(queue, of, now=now)
    return await queue.approve(action.id, "ann", STAFF, digest=action.digest, now=now)


async def claimed(queue: Queue, of: Proposal | None = None, *, lease_s: float = 30) -> Claim:
    action = await approved(queue, of)
    claim = await queue.claim(action.id, worker="w1", lease_s=lease_s, now=NOW)
    assert claim is not None
    return claim


async def refused(awaitable: Awaitable[object], error: type[GatewayError] = ClientError) -> str:
    with pytest.raises(error) as caught:
        await awaitable
    return caught.value.code


async def state(queue: Queue, action_id: str) -> State:
    action = await queue.get(action_id)
    assert action is not None
    return action.state


def raw(queue: Queue) -> RedisLink:
    return queue._link


# Proposing


def test_what_is_read_is_what_was_proposed(play: Play) -> None:
    async def scenario(queue: Queue) -> None:
        of = proposal({"text": "ünïcödé \u202e", "n": 1.5}, owner="ann", run="r1")
        action = await held(queue, of)
        assert action == await queue.get(action.id)
        assert action.arguments == of.arguments
        assert action.execution == {"protocol": "2026-07-28"}
        assert action.action().arguments == {"text": "ünïcödé \u202e", "n": 1.5}

    play(scenario)


def test_the_same_digest_attaches_and_another_run_or_agent_does_not(play: Play) -> None:
    async def scenario(queue: Queue) -> None:
        first = await held(queue)
        again, created = await queue.propose(proposal(), now=NOW + 1)
        assert (again.id, created) == (first.id, False)
        assert (await held(queue, proposal(run="r2"))).id != first.id
        assert (await held(queue, proposal(agent="other"))).id != first.id
        assert (await queue.counts())[State.PENDING] == 3

    play(scenario)


def test_racing_duplicates_become_one_action(play: Play) -> None:
    async def scenario(queue: Queue) -> None:
        answers = await asyncio.gather(*(queue.propose(proposal(), now=NOW) for _ in range(50)))
        assert len({action.id for action, _ in answers}) == 1
        assert sum(created for _, created in answers) == 1

    play(scenario)


def test_a_proposal_that_is_sent_twice_is_created_once(play: Play) -> None:
    async def scenario(queue: Queue) -> None:
        of = proposal()
        assert (await queue.propose(of, now=NOW))[1]
        assert (await queue.propose(of, now=NOW))[1]
        assert (await queue.counts())[State.PENDING] == 1
        assert await queue.pending_of("clerk") == 1

    play(scenario)


@pytest.mark.parametrize("ok", [True, False])
def test_asking_again_after_the_end_returns_the_result_while_it_is_kept(play: Play, ok: bool) -> None:
    async def scenario(queue: Queue) -> None:
        claim = await claimed(queue)
        assert await queue.complete(claim, ok=ok, result=b'{"done":1}', now=NOW + 5)
        again, created = await queue.propose(proposal(), now=NOW + 5 + 59)
        assert (again.id, created, again.result, again.result_error) == (claim.action.id, False, b'{"done":1}', not ok)
        fresh, created = await queue.propose(proposal(), now=NOW + 5 + 60)
        assert created
        assert fresh.id != claim.action.id

    play(scenario, result_ttl_s=60)


def test_a_denied_action_is_not_asked_again_at_once(play: Play) -> None:
    async def scenario(queue: Queue) -> None:
        action = await held(queue)
        await queue.deny(action.id, "ann", STAFF, digest=action.digest, now=NOW)
        again, created = await queue.propose(proposal(), now=NOW + 1)
        assert (again.id, again.state, created) == (action.id, State.DENIED, False)

    play(scenario)


def test_an_end_without_an_answer_lets_it_be_asked_anew(play: Play) -> None:
    async def scenario(queue: Queue) -> None:
        one = await held(queue)
        await queue.cancel(one.id, "clerk", now=NOW)
        two = await held(queue)
        await queue.invalidate(two.id, "the tool changed", now=NOW)
        three = await held(queue)
        four = await held(queue, now=three.expires_s)  # nobody swept: the proposal itself sees that three is late
        assert await state(queue, three.id) is State.EXPIRED
        assert len({one.id, two.id, three.id, four.id}) == 4

    play(scenario)


def test_an_unknown_outcome_blocks_the_same_action_until_a_person_looked(play: Play) -> None:
    async def scenario(queue: Queue) -> None:
        claim = await claimed(queue, lease_s=30)
        await queue.sweep(now=NOW + 30)
        much_later = NOW + 10 * queue.limits.result_ttl_s
        again, created = await queue.propose(proposal(), now=much_later)
        assert (again.id, again.state, created) == (claim.action.id, State.UNKNOWN, False)

    play(scenario)


def test_pending_actions_are_capped_per_agent_and_in_all(play: Play) -> None:
    async def scenario(queue: Queue) -> None:
        actions = [await held(queue, proposal({"n": n})) for n in range(3)]
        with pytest.raises(ClientError) as caught:
            await queue.propose(proposal({"n": 3}), now=NOW)
        assert (caught.value.code, caught.value.status) == ("held_actions_limit", 429)
        assert not (await queue.propose(proposal({"n": 2}), now=NOW))[1]  # attaching is not capped
        await held(queue, proposal(agent="other"))
        assert await refused(queue.propose(proposal(agent="third"), now=NOW)) == "held_actions_limit"
        await queue.cancel(actions[0].id, "clerk", now=NOW)
        await held(queue, proposal({"n": 3}))

    play(scenario, pending_per_agent_max=3, pending_max=4)


def test_what_is_too_large_is_refused(play: Play) -> None:
    async def scenario(queue: Queue) -> None:
        assert await refused(queue.propose(proposal({"x": "y" * 1_000}), now=NOW)) == "arguments_too_large"
        too_many = proposal(terms=ApprovalTerms(quorum=21))
        assert await refused(queue.propose(too_many, now=NOW)) == "quorum_too_large"
        context = replace(proposal(), execution={"x": "y" * 20_000})
        assert await refused(queue.propose(context, now=NOW)) == "arguments_too_large"
        assert await queue.counts() == dict.fromkeys(State, 0)

    play(scenario, arguments_bytes_max=1_000)


# Deciding


def test_one_approval_is_enough_for_a_quorum_of_one(play: Play) -> None:
    async def scenario(queue: Queue) -> None:
        action = await held(queue)
        after = await queue.approve(action.id, "ann", STAFF, digest=action.digest, comment="fine\nby me", now=NOW + 1)
        assert after.state is State.APPROVED
        vote = Vote(person="ann", verdict=Verdict.APPROVE, comment="fine\nby me", at_s=NOW + 1)
        assert after.decisions == (vote,)
        assert await queue.approved() == (action.id,)

    play(scenario)


def test_a_quorum_counts_distinct_people(play: Play) -> None:
    async def scenario(queue: Queue) -> None:
        action = await held(queue, proposal(terms=ApprovalTerms(quorum=2)))
        for _ in range(3):
            after = await queue.approve(action.id, "ann", STAFF, digest=action.digest, now=NOW)
            assert (after.state, after.approvals) == (State.PENDING, 1)
        after = await queue.approve(action.id, "bob", STAFF, digest=action.digest, now=NOW)
        assert (after.state, after.approvals) == (State.APPROVED, 2)

    play(scenario)


def test_a_denial_is_final_whatever_was_approved_before(play: Play) -> None:
    async def scenario(queue: Queue) -> None:
        action = await held(queue, proposal(terms=ApprovalTerms(quorum=2)))
        await queue.approve(action.id, "ann", STAFF, digest=action.digest, now=NOW)
        after = await queue.deny(action.id, "ann", STAFF, digest=action.digest, now=NOW)  # ann thought again
        assert after.state is State.DENIED
        late = queue.approve(action.id, "bob", STAFF, digest=action.digest, now=NOW)
        assert await refused(late, TransitionError) == "transition_refused"

    play(scenario)


def test_another_digest_decides_nothing(play: Play) -> None:
    async def scenario(queue: Queue) -> None:
        action = await held(queue)
        for vote in (queue.approve, queue.deny):
            code = await refused(vote(action.id, "ann", STAFF, digest="0" * 64, now=NOW))
            assert code == "approval_digest_mismatch"
        assert await queue.get(action.id) == action

    play(scenario)


@pytest.mark.parametrize("groups", [(), ("approver",), ("finance", "Approvers")])
def test_only_members_of_the_group_decide(play: Play, groups: tuple[str, ...]) -> None:
    async def scenario(queue: Queue) -> None:
        action = await held(queue)
        for vote in (queue.approve, queue.deny):
            with pytest.raises(ClientError) as caught:
                await vote(action.id, "eve", groups, digest=action.digest, now=NOW)
            assert (caught.value.code, caught.value.status) == ("approval_not_permitted", 403)
        assert await queue.get(action.id) == action

    play(scenario)


def test_the_owner_does_not_count_where_the_rule_separates(play: Play) -> None:
    async def scenario(queue: Queue) -> None:
        apart = await held(queue, proposal(owner="ann", terms=ApprovalTerms(separation=True)))
        for person in ("ann", "clerk"):  # the owner, and whoever is called as the agent
            code = await refused(queue.approve(apart.id, person, STAFF, digest=apart.digest, now=NOW))
            assert code == "approval_not_permitted"
        assert (await queue.approve(apart.id, "bob", STAFF, digest=apart.digest, now=NOW)).state is State.APPROVED
        alone = await held(queue, proposal(owner="ann"))
        assert (await queue.approve(alone.id, "ann", STAFF, digest=alone.digest, now=NOW)).state is State.APPROVED

    play(scenario)


def test_a_decision_at_the_deadline_is_too_late_and_is_no_denial(play: Play) -> None:
    async def scenario(queue: Queue) -> None:
        for n, vote in enumerate((queue.approve, queue.deny)):
            action = await held(queue, proposal({"n": n}))
            for _ in range(2):
                after = await vote(action.id, "ann", STAFF, digest=action.digest, now=action.expires_s)
                assert (after.state, after.decisions) == (State.EXPIRED, ())
        in_time = await held(queue)
        after = await queue.approve(in_time.id, "ann", STAFF, digest=in_time.digest, now=in_time.expires_s - 0.001)
        assert after.state is State.APPROVED

    play(scenario)


def test_ids_that_are_unknown_or_no_ids_are_not_found(play: Play) -> None:
    async def scenario(queue: Queue) -> None:
        for strange in (proposal().id, "", "ha_x", "ha_" + "a" * 26 + "\n", "*", "gw:{held}:pending"):
            assert await queue.get(strange) is None
            assert await queue.events(strange) == ()
            assert await refused(queue.cancel(strange, "x", now=NOW)) == "held_action_unknown"
            assert await refused(queue.wait(strange, timeout_s=1)) == "held_action_unknown"
            code = await refused(queue.approve(strange, "ann", STAFF, digest="", now=NOW))
            assert code == "held_action_unknown"

    play(scenario)


def test_an_agent_sees_only_its_own(play: Play) -> None:
    async def scenario(queue: Queue) -> None:
        action = await held(queue)
        assert await queue.get_for_agent(action.id, "clerk") == action
        assert await queue.get_for_agent(action.id, "other") is None

    play(scenario)


def test_texts_without_utf8_form_or_end_are_refused(play: Play) -> None:
    async def scenario(queue: Queue) -> None:
        action = await held(queue)
        for comment in ("\ud800", "x" * 5_000):
            vote = queue.approve(action.id, "ann", STAFF, digest=action.digest, comment=comment, now=NOW)
            assert await refused(vote) == "text_refused"

    play(scenario)


# Claiming and completing


def test_an_approved_action_is_claimed_once(play: Play) -> None:
    async def scenario(queue: Queue) -> None:
        action = await approved(queue)
        claims = await asyncio.gather(*(queue.claim(action.id, worker=f"w{n}", lease_s=30, now=NOW) for n in range(64)))
        won = [claim for claim in claims if claim is not None]
        assert len(won) == 1
        assert (won[0].fence, won[0].action.state, won[0].action.arguments) == (1, State.EXECUTING, action.arguments)
        assert await queue.approved() == ()

    play(scenario)


@pytest.mark.parametrize("target", [State.PENDING, State.DENIED, State.CANCELLED, State.INVALIDATED, State.EXPIRED])
def test_nothing_but_an_approved_action_is_claimed(play: Play, target: State) -> None:
    async def scenario(queue: Queue) -> None:
        action = await held(queue)
        if target is State.DENIED:
            await queue.deny(action.id, "ann", STAFF, digest=action.digest, now=NOW)
        elif target is State.CANCELLED:
            await queue.cancel(action.id, "clerk", now=NOW)
        elif target is State.INVALIDATED:
            await queue.invalidate(action.id, "changed", now=NOW)
        elif target is State.EXPIRED:
            await queue.sweep(now=action.expires_s)
        assert await queue.claim(action.id, worker="w", lease_s=30, now=NOW) is None
        assert await state(queue, action.id) is target

    play(scenario)


def test_an_expired_action_cannot_be_claimed_even_before_any_sweep(play: Play) -> None:
    async def scenario(queue: Queue) -> None:
        action = await approved(queue)
        assert await queue.claim(action.id, worker="w", lease_s=30, now=action.expires_s) is None
        assert await state(queue, action.id) is State.EXPIRED

    play(scenario)


def test_an_action_can_be_withdrawn_until_it_runs(play: Play) -> None:
    async def scenario(queue: Queue) -> None:
        action = await approved(queue)
        after = await queue.invalidate(action.id, "the tool's definition changed", now=NOW)
        assert (after.state, after.note) == (State.INVALIDATED, "the tool's definition changed")
        claim = await claimed(queue)
        assert await refused(queue.cancel(claim.action.id, "clerk", now=NOW), TransitionError) == "transition_refused"
        assert await state(queue, claim.action.id) is State.EXECUTING

    play(scenario)


def test_completion_is_recorded_once(play: Play) -> None:
    async def scenario(queue: Queue) -> None:
        claim = await claimed(queue)
        assert await queue.complete(claim, ok=True, result=b"\x00\xff", now=NOW + 2)
        assert await queue.complete(claim, ok=True, result=b"\x00\xff", now=NOW + 3)  # sent twice
        assert not await queue.complete(claim, ok=False, result=b"", now=NOW + 4)
        action = await queue.get(claim.action.id)
        assert action is not None
        assert (action.state, action.result, action.settled_s) == (State.SUCCEEDED, b"\x00\xff", NOW + 2)

    play(scenario)


def test_only_the_claimer_completes_and_renews(play: Play) -> None:
    async def scenario(queue: Queue) -> None:
        claim = await claimed(queue)
        forged = replace(claim, token="0" * 32)
        assert not await queue.complete(forged, ok=True, result=b"", now=NOW)
        assert not await queue.renew(forged, now=NOW)
        assert await state(queue, claim.action.id) is State.EXECUTING

    play(scenario)


def test_a_lease_that_runs_out_gives_unknown_and_fences_the_worker(play: Play) -> None:
    async def scenario(queue: Queue) -> None:
        claim = await claimed(queue, lease_s=30)
        assert await queue.sweep(now=NOW + 29.9) == 0
        assert await queue.sweep(now=NOW + 30) == 1
        assert await state(queue, claim.action.id) is State.UNKNOWN
        assert not await queue.complete(claim, ok=True, result=b"late", now=NOW + 31)
        assert await state(queue, claim.action.id) is State.UNKNOWN
        assert [event.note for event in await queue.events(claim.action.id)][-1] == "reported too late: SUCCEEDED"
        assert await queue.claim(claim.action.id, worker="w2", lease_s=30, now=NOW + 31) is None
        assert [action.id for action in await queue.unknown()] == [claim.action.id]

    play(scenario)


def test_a_renewed_lease_lasts_and_one_that_ran_out_is_not_renewed(play: Play) -> None:
    async def scenario(queue: Queue) -> None:
        claim = await claimed(queue, lease_s=30)
        assert await queue.renew(claim, now=NOW + 20)
        assert await queue.sweep(now=NOW + 49) == 0
        assert not await queue.renew(claim, now=NOW + 50)
        assert await state(queue, claim.action.id) is State.UNKNOWN

    play(scenario)


def test_a_true_outcome_is_taken_while_nobody_noticed_the_lease(play: Play) -> None:
    async def scenario(queue: Queue) -> None:
        claim = await claimed(queue, lease_s=30)
        assert await queue.complete(claim, ok=True, result=b"", now=NOW + 31)

    play(scenario)


def test_a_result_too_large_to_keep_does_not_lose_the_outcome(play: Play) -> None:
    async def scenario(queue: Queue) -> None:
        claim = await claimed(queue)
        assert await queue.complete(claim, ok=True, result=b"x" * 11, now=NOW)
        action = await queue.get(claim.action.id)
        assert action is not None
        assert (action.state, action.result) == (State.SUCCEEDED, None)
        assert "too large" in action.note

    play(scenario, result_bytes_max=10)


@pytest.mark.parametrize("ok", [True, False])
def test_a_person_reconciles_what_is_unknown_with_evidence(play: Play, ok: bool) -> None:
    async def scenario(queue: Queue) -> None:
        claim = await claimed(queue, lease_s=1)
        action_id = claim.action.id
        early = queue.reconcile(action_id, "ann", ok, "seen on the statement", now=NOW)
        assert await refused(early, TransitionError) == "transition_refused"
        await queue.sweep(now=NOW + 1)
        assert await refused(queue.reconcile(action_id, "ann", ok, " ", now=NOW + 2)) == "evidence_required"
        for _ in range(2):
            after = await queue.reconcile(action_id, "ann", ok, "seen on the statement", now=NOW + 2)
        assert (after.state, after.note) == (State.SUCCEEDED if ok else State.FAILED, "seen on the statement")
        assert after.result_error is not ok
        other = queue.reconcile(action_id, "bob", not ok, "no", now=NOW + 3)
        assert await refused(other, TransitionError) == "transition_refused"

    play(scenario)


def test_a_late_report_stays_late_even_where_a_person_came_to_the_same_outcome(play: Play) -> None:
    async def scenario(queue: Queue) -> None:
        claim = await claimed(queue, lease_s=1)
        await queue.sweep(now=NOW + 1)
        assert not await queue.complete(claim, ok=True, result=b"{}", now=NOW + 2)
        await queue.reconcile(claim.action.id, "ann", True, "seen on the statement", now=NOW + 3)
        assert not await queue.complete(claim, ok=True, result=b"{}", now=NOW + 4)
        action = await queue.get(claim.action.id)
        assert action is not None and action.result is None

    play(scenario)


# Waiting, lists, tidying


def test_a_waiter_is_woken_by_the_decision(play: Play) -> None:
    async def scenario(queue: Queue) -> None:
        action = await held(queue)
        waiter = asyncio.create_task(queue.wait(action.id, timeout_s=20))
        ended = asyncio.create_task(queue.wait(action.id, until=TERMINAL, timeout_s=20))
        await queue.approve(action.id, "ann", STAFF, digest=action.digest, now=NOW)
        assert (await waiter).state is State.APPROVED
        assert not ended.done()
        claim = await queue.claim(action.id, worker="w", lease_s=30, now=NOW)
        assert claim is not None
        await queue.complete(claim, ok=True, result=b"{}", now=NOW)
        assert (await ended).result == b"{}"

    play(scenario)


def test_a_wait_ends_with_its_time_and_says_how_it_stands(play: Play) -> None:
    async def scenario(queue: Queue) -> None:
        action = await held(queue)
        assert (await queue.wait(action.id, timeout_s=0.05)).state is State.PENDING
        assert (await queue.wait(action.id, until={State.PENDING}, timeout_s=20)).state is State.PENDING

    play(scenario)


def test_changes_tell_every_step_in_order(play: Play) -> None:
    async def scenario(queue: Queue) -> None:
        with await queue.changes() as changes:
            claim = await claimed(queue)
            await queue.complete(claim, ok=True, result=b"", now=NOW)
            seen = [await anext(changes) for _ in range(4)]
        assert {change.id for change in seen} == {claim.action.id}
        assert [change.state for change in seen] == [
            State.PENDING,
            State.APPROVED,
            State.EXECUTING,
            State.SUCCEEDED,
        ]

    play(scenario)


def test_the_life_of_an_action_can_be_shown(play: Play) -> None:
    async def scenario(queue: Queue) -> None:
        action = await held(queue, proposal(terms=ApprovalTerms(quorum=2)))
        await queue.approve(action.id, "ann", STAFF, digest=action.digest, comment='"é"', now=NOW + 1)
        await queue.approve(action.id, "bob", STAFF, digest=action.digest, now=NOW + 2)
        events = await queue.events(action.id)
        assert [(event.at_s, event.who, event.source, event.target, event.note) for event in events] == [
            (NOW, "clerk", None, State.PENDING, ""),
            (NOW + 1, "ann", State.PENDING, State.PENDING, '"é"'),
            (NOW + 2, "bob", State.PENDING, State.APPROVED, ""),
        ]
        assert {event.digest for event in events} == {action.digest}

    play(scenario)


def test_pages_run_by_expiry_without_repeats_or_gaps(play: Play) -> None:
    async def scenario(queue: Queue) -> None:
        # Many share an expiry: the hard case for a cursor.
        actions = [await held(queue, proposal({"n": n}, terms=ApprovalTerms(expires_s=60 + n % 3))) for n in range(50)]
        expected = [action.id for action in sorted(actions, key=lambda action: (action.expires_s, action.id))]
        seen: list[str] = []
        cursor = None
        while True:
            page = await queue.pending(7, cursor)
            seen.extend(action.id for action in page.actions)
            cursor = page.next
            if cursor is None:
                break
            # The last one shown leaves before the next page is fetched; so does one that comes later.
            if len(seen) in (7, 14):
                await queue.cancel(seen[-1], "clerk", now=NOW)
        assert seen == expected

    play(scenario)


@pytest.mark.parametrize("cursor", ["", "x", "1", "nan_ha_aaaaaaaaaaaaaaaaaaaaaaaaaa", "1_ha_a", "inf_ha_" + "a" * 26])
def test_a_cursor_of_somebody_else_is_refused(play: Play, cursor: str) -> None:
    async def scenario(queue: Queue) -> None:
        assert await refused(queue.pending(10, cursor)) == "invalid_cursor"

    play(scenario)


def test_recent_shows_the_latest_change_first_and_no_pending(play: Play) -> None:
    async def scenario(queue: Queue) -> None:
        one, two, _ = [await held(queue, proposal({"n": n})) for n in range(3)]
        await queue.deny(two.id, "ann", STAFF, digest=two.digest, now=NOW + 1)
        await queue.cancel(one.id, "clerk", now=NOW + 2)
        assert [action.id for action in await queue.recent()] == [one.id, two.id]
        assert [action.id for action in await queue.recent(1)] == [one.id]

    play(scenario)


def test_sweeping_expires_what_is_due_and_wakes_its_waiters(play: Play) -> None:
    async def scenario(queue: Queue) -> None:
        waiting = await held(queue)
        ready = await approved(queue, proposal({"n": 1}))
        waiter = asyncio.create_task(queue.wait(waiting.id, timeout_s=20))
        assert await queue.sweep(now=waiting.expires_s - 1) == 0
        assert await queue.sweep(now=waiting.expires_s) == 2
        assert (await waiter).state is State.EXPIRED
        assert await state(queue, ready.id) is State.EXPIRED
        assert await queue.sweep(now=waiting.expires_s) == 0
        assert await queue.pending_of("clerk") == 0

    play(scenario)


def test_results_go_first_then_the_action_and_everything_of_it(play: Play) -> None:
    async def scenario(queue: Queue) -> None:
        claim = await claimed(queue)
        await queue.complete(claim, ok=True, result=b"secret", now=NOW)
        assert await queue.sweep(now=NOW + 10) == 1
        action = await queue.get(claim.action.id)
        assert action is not None
        assert (action.state, action.result) == (State.SUCCEEDED, None)
        assert await queue.sweep(now=NOW + 99) == 0
        assert await queue.sweep(now=NOW + 100) == 1
        assert await queue.get(claim.action.id) is None
        assert await queue.counts() == dict.fromkeys(State, 0)
        assert sorted(await raw(queue).command("KEYS", "*")) == [
            queue.keys.changes.encode(),
            queue.keys.counts.encode(),
        ]

    play(scenario, result_ttl_s=10, retention_s=100)


def test_removing_an_old_action_does_not_hide_the_new_one_of_the_same_digest(play: Play) -> None:
    async def scenario(queue: Queue) -> None:
        old = await held(queue)
        await queue.cancel(old.id, "clerk", now=NOW)
        new = await held(queue, now=NOW + 99)
        assert await queue.sweep(now=NOW + 100) == 1
        assert await queue.get(old.id) is None
        assert (await queue.propose(proposal(), now=NOW + 101))[0].id == new.id

    play(scenario, result_ttl_s=10, retention_s=100)


def test_closed_actions_are_bounded_also_before_their_time(play: Play) -> None:
    async def scenario(queue: Queue) -> None:
        for n in range(5):
            action = await held(queue, proposal({"n": n}))
            await queue.cancel(action.id, "clerk", now=NOW + n)
        assert await queue.sweep(now=NOW + 10) == 2
        assert len(await queue.recent()) == 3

    play(scenario, closed_max=3)


def test_what_is_unknown_is_never_removed(play: Play) -> None:
    async def scenario(queue: Queue) -> None:
        claim = await claimed(queue, lease_s=1)
        while await queue.sweep(now=NOW + 10**9):
            pass
        assert await state(queue, claim.action.id) is State.UNKNOWN

    play(scenario)


def test_all_keys_of_the_queue_share_one_hash_slot(play: Play) -> None:
    async def scenario(queue: Queue) -> None:
        claim = await claimed(queue)
        await queue.complete(claim, ok=True, result=b"{}", now=NOW)
        keys = await raw(queue).command("KEYS", "*")
        assert len(keys) > 5
        assert all(key.startswith(b"gw:{held}:") for key in keys)

    play(scenario)
