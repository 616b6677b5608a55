"""The queue against a model of it: any sequence of proposals, votes, claims and passing time, on a real server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

import hypothesis.strategies as st
from hypothesis import Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from gateway.approvals.held_action import Claim
from gateway.approvals.link import connect
from gateway.approvals.queue import Queue
from gateway.approvals.queue_limits import QueueLimits
from gateway.core.decision import ApprovalTerms
from gateway.core.errors import ClientError, TransitionError
from gateway.core.held import OPEN, TERMINAL, TRANSITIONS, State
from tests.held_actions import proposal
from tests.servers import Throwaway

LIMITS = QueueLimits(pending_per_agent_max=2, result_ttl_s=40, retention_s=90)
LEASE_S = 20.0
PEOPLE = st.sampled_from(["ann", "bob", "cleo"])
MOSTLY = st.sampled_from([True, True, True, True, False])
PICK = st.integers(min_value=0, max_value=5)
T = TypeVar("T")


def some(*states: State) -> Callable[[QueueMachine], bool]:
    """Whether a step on such an action is possible; else few sequences would get far."""
    return lambda machine: any(action.state in states for action in machine.actions)


def claimed(machine: QueueMachine) -> bool:
    return any(action.claim is not None for action in machine.actions)


@dataclass
class Modelled:
    """What one action should be."""

    id: str
    key: tuple[int, int]  # what is proposed, and its quorum: the same key is the same digest
    digest: str
    quorum: int
    expires_s: float
    state: State = State.PENDING
    approvals: set[str] = field(default_factory=set)
    denials: set[str] = field(default_factory=set)
    claim: Claim | None = None
    claims: int = 0
    lease_until_s: float = 0.0
    outcome: State | None = None
    settled_s: float = 0.0
    settled_by: str = ""
    result_s: float | None = None


class QueueMachine(RuleBasedStateMachine):
    url = ""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.link = connect(self.url)
        self.queue = Queue(self.link, limits=LIMITS)
        self.do(self.link.command("FLUSHALL"))
        self.now = 1_000.0
        self.actions: list[Modelled] = []
        self.gone: list[str] = []

    def teardown(self) -> None:
        self.do(self.queue.aclose())
        self.do(self.link.aclose())
        self.runner.close()

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def pick(self, number: int, *wanted: State) -> Modelled:
        """An action; mostly one where the step means something."""
        fitting = [action for action in self.actions if action.state in wanted]
        choice = fitting if fitting and number < 4 else self.actions
        return choice[-1 - number % len(choice)]

    def settle(self, action: Modelled, state: State, by: str) -> None:
        assert state in TRANSITIONS[action.state]
        action.state, action.settled_s, action.settled_by = state, self.now, by

    def late(self, action: Modelled) -> bool:
        """The model of lazy expiry; whoever touches a late action makes it EXPIRED."""
        if action.state in (State.PENDING, State.APPROVED) and action.expires_s <= self.now:
            self.settle(action, State.EXPIRED, "gateway")
        return action.state is State.EXPIRED

    def attachable(self, action: Modelled) -> bool:
        answers = (State.SUCCEEDED, State.FAILED, State.DENIED)
        fresh = action.state in answers and action.settled_s + LIMITS.result_ttl_s > self.now
        return action.state in OPEN or action.state is State.UNKNOWN or fresh

    @rule(what=st.integers(0, 2), quorum=st.sampled_from([1, 1, 1, 2]))
    def propose(self, what: int, quorum: int) -> None:
        terms = ApprovalTerms(quorum=quorum, expires_s=50)
        of = proposal({"n": what}, terms=terms)
        known = next((action for action in reversed(self.actions) if action.digest == of.digest), None)
        if known is not None:
            self.late(known)
        attach = known if known is not None and self.attachable(known) else None
        full = sum(action.state is State.PENDING for action in self.actions) >= LIMITS.pending_per_agent_max
        try:
            held, created = self.do(self.queue.propose(of, now=self.now))
        except ClientError as error:
            assert error.code == "held_actions_limit"
            assert full
            assert attach is None
            return
        if attach is not None:
            assert (held.id, created) == (attach.id, False)
            return
        assert created
        assert not full
        self.actions.append(Modelled(held.id, (what, quorum), held.digest, quorum, held.expires_s))

    @precondition(some(*State))
    @rule(
        number=PICK,
        person=PEOPLE,
        approve=MOSTLY,
        member=MOSTLY,
        right=MOSTLY,
    )
    def vote(self, number: int, person: str, approve: bool, member: bool, right: bool) -> None:
        action = self.pick(number, State.PENDING)
        method = self.queue.approve if approve else self.queue.deny
        groups = ("approvers",) if member else ("others",)
        digest = action.digest if right else "f" * 64
        try:
            after = self.do(method(action.id, person, groups, digest=digest, now=self.now))
        except ClientError as error:
            assert error.code == ("approval_not_permitted" if right else "approval_digest_mismatch")
            assert not (member and right)
            return
        except TransitionError:
            assert not self.late(action)
            assert action.state is not State.PENDING
            assert person not in (action.approvals if approve else action.denials)
            return
        assert member
        assert right
        if not self.late(action):
            mine = action.approvals if approve else action.denials
            if person not in mine:
                assert action.state is State.PENDING
                mine.add(person)
                if not approve:
                    action.approvals.discard(person)
                    self.settle(action, State.DENIED, person)
                elif len(action.approvals) >= action.quorum:
                    action.state = State.APPROVED
        assert after.state is action.state

    @precondition(some(State.PENDING))
    @rule(number=PICK, claim=MOSTLY)
    def agree(self, number: int, claim: bool) -> None:
        """As many people as it takes approve: the straight way to what comes after."""
        for person in ("ann", "bob"):
            if some(State.PENDING)(self):
                self.vote(number, person, True, True, True)
        if claim and some(State.APPROVED)(self):
            self.claim(number)

    @precondition(some(*State))
    @rule(number=PICK, cancel=st.booleans())
    def withdraw(self, number: int, cancel: bool) -> None:
        action = self.pick(number)
        target, by = (State.CANCELLED, "clerk") if cancel else (State.INVALIDATED, "gateway")
        work = self.queue.cancel(action.id, by, now=self.now) if cancel else None
        work = work or self.queue.invalidate(action.id, "changed", now=self.now)
        try:
            after = self.do(work)
        except TransitionError:
            assert not self.late(action)
            assert target not in TRANSITIONS[action.state]
            assert action.state is not target
            return
        if not self.late(action) and action.state is not target:
            self.settle(action, target, by)
        assert after.state is action.state

    @precondition(some(State.PENDING, State.APPROVED))
    @rule(number=PICK)
    def claim(self, number: int) -> None:
        action = self.pick(number, State.APPROVED)
        claim = self.do(self.queue.claim(action.id, worker="w", lease_s=LEASE_S, now=self.now))
        if self.late(action) or action.state is not State.APPROVED:
            assert claim is None
            return
        assert claim is not None
        action.claims += 1
        assert claim.fence == action.claims == 1
        action.state, action.claim, action.lease_until_s = State.EXECUTING, claim, self.now + LEASE_S

    @precondition(claimed)
    @rule(number=PICK)
    def renew(self, number: int) -> None:
        action = self.pick(number, State.EXECUTING)
        if action.claim is None:
            return
        renewed = self.do(self.queue.renew(action.claim, now=self.now))
        self.lapse(action)
        assert renewed is (action.state is State.EXECUTING)
        if renewed:
            action.lease_until_s = self.now + LEASE_S

    def lapse(self, action: Modelled) -> None:
        if action.state is State.EXECUTING and action.lease_until_s <= self.now:
            self.settle(action, State.UNKNOWN, "gateway")

    @precondition(claimed)
    @rule(number=PICK, ok=st.booleans())
    def complete(self, number: int, ok: bool) -> None:
        action = self.pick(number, State.EXECUTING, State.UNKNOWN)
        if action.claim is None:
            return
        outcome = State.SUCCEEDED if ok else State.FAILED
        done = self.do(self.queue.complete(action.claim, ok=ok, result=b"{}", now=self.now))
        if action.state is State.EXECUTING:
            assert done
            self.settle(action, outcome, "w")
            action.outcome, action.result_s = outcome, self.now
        else:
            assert done is (action.outcome is outcome)

    @precondition(some(State.PENDING, State.UNKNOWN))
    @rule(number=PICK, ok=st.booleans(), person=PEOPLE)
    def reconcile(self, number: int, ok: bool, person: str) -> None:
        action = self.pick(number, State.UNKNOWN)
        target = State.SUCCEEDED if ok else State.FAILED
        try:
            after = self.do(self.queue.reconcile(action.id, person, ok, "seen", now=self.now))
        except TransitionError:
            assert not self.late(action)
            assert action.state is not State.UNKNOWN
            assert (action.state, action.settled_by) != (target, person)
            return
        if not self.late(action) and action.state is State.UNKNOWN:
            self.settle(action, target, person)
        assert after.state is action.state

    @rule(seconds=st.sampled_from([1, 10, 19, 20, 30, 40]))  # on the deadlines, and beside them
    def time_passes(self, seconds: int) -> None:
        self.now += seconds

    @rule()
    def sweep(self) -> None:
        while self.do(self.queue.sweep(now=self.now)):
            pass
        for action in tuple(self.actions):
            self.late(action)
            self.lapse(action)
            if action.result_s is not None and action.result_s + LIMITS.result_ttl_s <= self.now:
                action.result_s = None
            if action.state in TERMINAL and action.settled_s + LIMITS.retention_s <= self.now:
                self.actions.remove(action)
                self.gone.append(action.id)

    @invariant()
    def every_action_is_as_modelled(self) -> None:
        for action in self.actions:
            held = self.do(self.queue.get(action.id))
            assert held is not None
            assert held.state is action.state
            assert {vote.person for vote in held.decisions} == action.approvals | action.denials
            assert held.result == (None if action.result_s is None else b"{}")

    @invariant()
    def the_indexes_agree_with_the_states(self) -> None:
        def ids(state: State) -> set[str]:
            return {action.id for action in self.actions if action.state is state}

        page = self.do(self.queue.pending(200))
        assert {held.id for held in page.actions} == ids(State.PENDING)
        assert [held.expires_s for held in page.actions] == sorted(held.expires_s for held in page.actions)
        assert set(self.do(self.queue.approved())) == ids(State.APPROVED)
        assert {held.id for held in self.do(self.queue.unknown(200))} == ids(State.UNKNOWN)
        assert self.do(self.queue.counts()) == {state: len(ids(state)) for state in State}
        assert self.do(self.queue.pending_of("clerk")) == len(ids(State.PENDING))
        assert all(self.do(self.queue.get(action_id)) is None for action_id in self.gone[-3:])

    @invariant()
    def every_life_follows_the_table(self) -> None:
        for action in self.actions:
            state: State | None = None
            for event in self.do(self.queue.events(action.id)):
                assert event.source is state
                assert state is None or event.target is state or event.target in TRANSITIONS[state]
                state = event.target
            assert state is action.state


# Shrinking plays thousands of sequences against a real server, which outlasts any time-out. Add Phase.shrink by hand to
# look into a failure.
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)


def test_the_queue_does_what_its_model_does(redis_server: Throwaway) -> None:
    QueueMachine.url = redis_server.url
    run_state_machine_as_test(
        QueueMachine, settings=settings(max_examples=80, stateful_step_count=40, deadline=None, phases=PHASES)
    )
