"""The approval queue: every transition is one Lua script, so it happens once or not at all.

Owns the promises of DESIGN section 4: at most one claim, no silent loss, a timeout is never a denial. Every method that
depends on time takes `now`. All scripts may be sent twice without doing twice, so the link may send them again.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import orjson

from gateway.approvals import codec, pages, scripts
from gateway.approvals.held_action import Claim, Event, HeldAction, Page, Proposal, Verdict
from gateway.approvals.keys import ID, Keys
from gateway.approvals.link import Arg, RedisLink, Script
from gateway.approvals.queue_limits import QueueLimits
from gateway.approvals.waking import Changes, Waker
from gateway.core.errors import ClientError, TransitionError
from gateway.core.held import State

SETTLED = frozenset(State) - {State.PENDING}


SWEEP_BATCH = 200
"""Actions of each kind per sweep: about 10 ms of the server's time, so that decisions are not held up."""


class Queue:
    """The queue of one Redis. `namespace` separates queues that share a server."""

    def __init__(self, link: RedisLink, *, limits: QueueLimits | None = None, namespace: str = "held") -> None:
        self.limits = limits or QueueLimits()
        self.keys = Keys(namespace)
        self._link = link
        self._waker = Waker(RedisLink(link.endpoint), self.keys.changes)

    async def aclose(self) -> None:
        """Stop following changes. The link given to the queue stays open: it is its owner's."""
        await self._waker.aclose()

    @property
    def waiting(self) -> int:
        """How many coroutines of this process are in `wait`."""
        return self._waker.waiting

    async def propose(self, proposal: Proposal, *, now: float) -> tuple[HeldAction, bool]:
        """The held action, and whether it is new. Returned means durable.

        The same digest attaches to the action that is open, UNKNOWN, or SUCCEEDED, FAILED or DENIED less than
        `result_ttl_s` ago. Raises ClientError `held_actions_limit` (429), `arguments_too_large` (413) or
        `quorum_too_large`, and StoreError.
        """
        self._check(proposal)
        held = codec.pending(proposal, now)
        fields = codec.to_fields(held)
        existing = ""
        while True:  # a second round names the keys of the action that has the digest; a third means a race was lost
            reply = await self._run(
                scripts.PROPOSE,
                (held.id, existing) if existing else (held.id,),
                *(held.id, repr(now), held.digest, held.agent, existing),
                *(self.limits.result_ttl_s, self.limits.pending_per_agent_max, self.limits.pending_max),
                *fields,
            )
            match reply[0]:
                case b"created":
                    return held, True
                case b"attached":
                    return await self._with_result(reply[2]), False
                case b"look":
                    existing = reply[1].decode()
                case b"limit":
                    most = self.limits.pending_per_agent_max
                    raise _limit(f"this agent has {most} held actions waiting; wait for decisions or cancel some")
                case _:
                    raise _limit("too many held actions wait for people; try again later")

    async def get(self, action_id: str) -> HeldAction | None:
        """The action with its result, or None. Raises StoreError."""
        if not ID.fullmatch(action_id):
            return None
        flat = await self._link.command("HGETALL", self.keys.action(action_id), idempotent=True)
        return await self._with_result(flat) if flat else None

    async def get_for_agent(self, action_id: str, agent: str) -> HeldAction | None:
        """The agent's own action, or None: another agent's does not exist for it."""
        held = await self.get(action_id)
        return held if held is not None and held.agent == agent else None

    async def events(self, action_id: str) -> tuple[Event, ...]:
        """The life of an action, oldest first. As long as its votes plus five: the state table has no cycle."""
        if not ID.fullmatch(action_id):
            return ()
        lines = await self._link.command("LRANGE", self.keys.events(action_id), 0, -1, idempotent=True)
        return tuple(codec.from_event(line) for line in lines)

    async def approve(  # noqa: PLR0913 - who, what they saw, what they said, when
        self, action_id: str, person: str, groups: Collection[str], *, digest: str, comment: str = "", now: float
    ) -> HeldAction:
        """One person's yes. Returns the action as it then is: still PENDING below the quorum, EXPIRED when too late.

        `digest` is that of the page the person saw. Raises ClientError `held_action_unknown` (404),
        `approval_digest_mismatch` (409) or `approval_not_permitted` (403); TransitionError when it is over already.
        """
        self._check_text(person, comment)
        args = (action_id, repr(now), Verdict.APPROVE.value, person, digest, comment, *groups)
        return self._moved(await self._run(scripts.DECIDE, (action_id,), *args))

    async def deny(  # noqa: PLR0913
        self, action_id: str, person: str, groups: Collection[str], *, digest: str, comment: str = "", now: float
    ) -> HeldAction:
        """One person's no, final at once. Returns and raises as `approve` does."""
        self._check_text(person, comment)
        args = (action_id, repr(now), Verdict.DENY.value, person, digest, comment, *groups)
        return self._moved(await self._run(scripts.DECIDE, (action_id,), *args))

    async def cancel(self, action_id: str, by: str, *, now: float) -> HeldAction:
        """Withdraw an action that does not run yet. EXPIRED when too late; TransitionError when it runs or is over."""
        self._check_text(by)
        args = (action_id, repr(now), State.CANCELLED.value, by, f"cancelled by {by}", "")
        return self._moved(await self._run(scripts.SETTLE, (action_id,), *args))

    async def invalidate(self, action_id: str, reason: str, *, now: float) -> HeldAction:
        """What people saw is no longer what would run, or no longer allowed. Returns and raises as `cancel` does."""
        self._check_text(reason)
        args = (action_id, repr(now), State.INVALIDATED.value, "gateway", reason, "")
        return self._moved(await self._run(scripts.SETTLE, (action_id,), *args))

    async def reconcile(self, action_id: str, person: str, ok: bool, evidence: str, *, now: float) -> HeldAction:
        """A person says what became of an UNKNOWN action, and how they know. Raises ClientError `evidence_required`."""
        if not evidence.strip():
            raise ClientError("evidence_required", "say how you know what became of the action")
        self._check_text(person, evidence)
        target = State.SUCCEEDED if ok else State.FAILED
        args = (action_id, repr(now), target.value, person, evidence, State.UNKNOWN.value)
        return self._moved(await self._run(scripts.SETTLE, (action_id,), *args))

    async def claim(self, action_id: str, *, worker: str, lease_s: float, now: float) -> Claim | None:
        """The right to run an approved action, given once in its life; None when it is not to be had."""
        token = secrets.token_hex(16)
        args = (action_id, repr(now), token, worker, repr(float(lease_s)))
        reply = await self._run(scripts.CLAIM, (action_id,), *args)
        if reply is None:
            return None
        return Claim(token=token, fence=reply[0], lease_s=lease_s, action=codec.from_fields(reply[1]))

    async def renew(self, claim: Claim, *, now: float) -> bool:
        """Extend the lease by its length from now. False when it ran out: the action is UNKNOWN then."""
        held = claim.action
        return bool(await self._run(scripts.RENEW, (held.id,), held.id, repr(now), claim.token, repr(claim.lease_s)))

    async def complete(self, claim: Claim, *, ok: bool, result: bytes, now: float) -> bool:
        """Record the outcome. False when fenced: its lease ran out, it is UNKNOWN, and a person must reconcile it.

        A result over `result_bytes_max` is not kept; the outcome is, with a note.
        """
        keep = len(result) <= self.limits.result_bytes_max
        note = "" if keep else f"the result of {len(result)} bytes was too large to keep"
        outcome = State.SUCCEEDED if ok else State.FAILED
        args = (repr(now), claim.token, outcome.value, note, int(keep), result if keep else b"")
        return bool(await self._run(scripts.COMPLETE, (claim.action.id,), claim.action.id, *args))

    async def wait(self, action_id: str, *, until: Collection[State] = SETTLED, timeout_s: float) -> HeldAction:
        """The action once it is in one of the states, or as it is when the time is over. Costs no polling.

        Raises ClientError `held_action_unknown`, StoreError. The caller looks at `state`.
        """
        await self._waker.ready()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while True:
            # The waiter stands in the table before the state is read: a change in between is not lost.
            with self._waker.waiter(action_id, until) as woken:
                held = await self.get(action_id)
                if held is None:
                    raise _unknown()
                left = deadline - loop.time()
                if held.state in until or left <= 0:
                    return held
                await asyncio.wait((woken,), timeout=left)

    async def changes(self) -> Changes:
        """Every change from now on, for live pages and the executor. Raises StoreError."""
        await self._waker.ready()
        return self._waker.subscribe()

    async def pending(self, limit: int = 50, cursor: str | None = None) -> Page:
        """What waits for people, the nearest expiry first, without repeats across pages. Raises ClientError."""
        return await pages.pending(self._link, self.keys, limit, cursor)

    async def recent(self, limit: int = 50) -> tuple[HeldAction, ...]:
        """What is no longer pending, the latest change first; without results."""
        return await pages.recent(self._link, self.keys, limit)

    async def unknown(self, limit: int = 50) -> tuple[HeldAction, ...]:
        """What a person must reconcile, oldest first."""
        return await pages.unknown(self._link, self.keys, limit)

    async def counts(self) -> Mapping[State, int]:
        """How many actions are in each state."""
        return await pages.counts(self._link, self.keys)

    async def pending_of(self, agent: str) -> int:
        """How many actions of this agent wait for people."""
        return int(await self._link.command("HGET", self.keys.agents, agent, idempotent=True) or 0)

    async def approved(self, limit: int = 1_000) -> tuple[str, ...]:
        """Ids to be run, the nearest expiry first."""
        ids = await self._link.command("ZRANGE", self.keys.approved, 0, limit - 1, idempotent=True)
        return tuple(each.decode() for each in ids)

    async def sweep(self, *, now: float) -> int:
        """Tidy one batch: expire, end leases, drop results, remove old actions. Returns how many; 0 means done.

        Nothing depends on it but memory and the speed of waking: deadlines are checked at every decision and claim.
        """
        due = await pages.due(self._link, self.keys, self.limits, now, SWEEP_BATCH)
        ttl = self.limits.result_ttl_s
        done = await asyncio.gather(
            *(self._run(scripts.TIDY, (each,), each, repr(now), ttl, retention) for each, retention in due.items())
        )
        return sum(what != b"nothing" for what in done)

    def _moved(self, reply: list[Any]) -> HeldAction:
        """The action that a decision left behind, or why there was none."""
        match reply[0]:
            case b"ok" | b"late":
                return codec.from_fields(reply[1])
            case b"missing":
                raise _unknown()
            case b"digest":
                raise ClientError(
                    "approval_digest_mismatch", "this is not the action that the page showed; read it again", status=409
                )
            case b"group":
                raise _forbidden("you are not in the group that may decide this action")
            case b"separation":
                raise _forbidden("the owner of the agent does not decide for it; ask someone else")
            case _:
                raise TransitionError(
                    "transition_refused", f"the held action is {reply[1].decode()} already; reload it"
                )

    async def _with_result(self, flat: list[bytes]) -> HeldAction:
        held = codec.from_fields(flat)
        if not codec.has_result(flat):
            return held
        return replace(held, result=await self._link.command("GET", self.keys.result(held.id), idempotent=True))

    async def _run(self, script: Script, ids: tuple[str, ...], *args: Arg) -> Any:
        if not all(ID.fullmatch(each) for each in ids):
            raise _unknown()
        return await self._link.script(script, self.keys.of(*ids), args, idempotent=True)

    def _check(self, proposal: Proposal) -> None:
        limits = self.limits
        for what, size, most in (
            ("arguments", len(proposal.arguments), limits.arguments_bytes_max),
            ("context", len(orjson.dumps(dict(proposal.execution))), limits.execution_bytes_max),
        ):
            if size > most:
                message = f"{what} of more than {most} bytes cannot be held for approval; send less"
                raise ClientError("arguments_too_large", message, status=413)
        if not 1 <= proposal.terms.quorum <= limits.quorum_max:
            raise ClientError("quorum_too_large", f"a quorum is from 1 to {limits.quorum_max}; change the rule")
        self._check_text(proposal.agent, proposal.reason, proposal.run or "", proposal.tool)

    def _check_text(self, *texts: str) -> None:
        for text in texts:
            if len(text) > self.limits.text_chars_max or (not text.isascii() and _broken(text)):
                raise ClientError(
                    "text_refused", f"a text is over {self.limits.text_chars_max} characters or not unicode"
                )


def _broken(text: str) -> bool:
    """Whether it holds half a surrogate pair: it has no UTF-8 form, so it cannot be stored."""
    return any("\ud800" <= character <= "\udfff" for character in text)


def _unknown() -> ClientError:
    return ClientError("held_action_unknown", "there is no such held action", status=404)


def _forbidden(why: str) -> ClientError:
    return ClientError("approval_not_permitted", why, status=403)


def _limit(why: str) -> ClientError:
    error = ClientError("held_actions_limit", why, status=429)
    error.retry_after_s = 60
    return error
