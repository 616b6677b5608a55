"""The one path of every tool call, whatever wire it came on: filter, decide, write the intent; refuse, hold or let go.

Knows neither MCP nor HTTP: a surface brings an `Action` and renders the verdict. No byte leaves for an upstream here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from gateway.approvals.held_action import HeldAction, Proposal
from gateway.core.action import Action, Surface
from gateway.core.canonical import JSON
from gateway.core.decision import Decision, Effect
from gateway.core.errors import ClientError, GatewayError, StoreError, TransitionError, UpstreamError
from gateway.core.exchange import Direction, Part
from gateway.core.held import OPEN, State
from gateway.proxy import texts
from gateway.proxy.obligations import NO_DUTIES, Duties, duties_of
from gateway.proxy.screening import Screening, screen
from gateway.proxy.upstream import UpstreamFailure
from gateway.traces import context
from gateway.traces.record import ALLOWED_FAILED_OPEN, ActionDecision, ExchangeRecord

if TYPE_CHECKING:
    from gateway.proxy.caller import Caller
    from gateway.proxy.deps import Deps

PROGRESS_S = 5.0  # between signs of life to a client that waits; most clients and proxies give up after 15 s or more
OVER = frozenset(State) - OPEN


def no_check(arguments: Mapping[str, JSON]) -> str | None:
    """For calls whose arguments have no schema."""
    del arguments
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A tool call as a surface read it. `spelled` are the canonical bytes of its arguments: what has no one spelling
    never becomes a call. `check` says what is wrong with arguments, or None; it is asked again where a filter changed
    them. `execution` goes to the executor with a held call."""

    action: Action
    spelled: bytes
    check: Callable[[Mapping[str, JSON]], str | None] = no_check
    execution: Mapping[str, JSON] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Proceed:
    """Dispatch it now, and do what the rules ask with it. `edited`: a filter masked arguments, so the bytes that came
    must not be sent."""

    action: Action
    edited: bool
    duties: Duties = NO_DUTIES


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """It must not run. `reason` is what the rule's author wrote for people and agents."""

    code: str
    reason: str
    rule: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parked:
    """It is in the queue: open (nothing ran yet) or over (`held.result` is what ran, if it is still kept)."""

    held: HeldAction
    created: bool


Verdict = Proceed | Refused | Parked


class Waiter(Protocol):
    """Who waits while a call is held."""

    def parked(self, held: HeldAction, created: bool) -> None:
        """The held action is durable now. `created`: by this very call."""

    async def waiting(self, held: HeldAction) -> None:
        """Called every few seconds while people have not decided, for a sign of life."""


@dataclass(slots=True, eq=False, kw_only=True)
class Exchange:
    """One request on a tool surface: who asks, and what will be remembered of it."""

    caller: Caller
    surface: Surface
    record: ExchangeRecord
    began_ns: int

    def note(self, said: ActionDecision, start_ns: int) -> None:
        """Add a decision to the record; its times are filled in. `start_ns` is when the question was asked."""
        duration_ns = time.perf_counter_ns() - start_ns
        timed = said._replace(
            started_ns=start_ns - self.began_ns,
            duration_ns=duration_ns,
            waited_ns=duration_ns if said.held else 0,
        )
        self.record.decisions = (*self.record.decisions, timed)
        self.record.effect, self.record.rule = said.effect, said.rule
        self.record.reason, self.record.held = said.reason, said.held


class ToolGate:
    """Decides the tool calls of all agents."""

    def __init__(self, deps: Deps) -> None:
        self.deps = deps

    def begin(self, caller: Caller, surface: Surface, operation: str) -> Exchange:
        """An exchange that begins now. Its recorded effect stays deny until something better is known."""
        record = ExchangeRecord(
            id=context.exchange_id(),
            trace_id=caller.trace_id,
            span=caller.span,
            parent_span=caller.parent_span,
            agent=caller.agent.name,
            run=caller.run,
            surface=surface.value,
            operation=operation,
            started_s=self.deps.clock(),
        )
        return Exchange(caller=caller, surface=surface, record=record, began_ns=time.perf_counter_ns())

    def end(self, exchange: Exchange, *, status: int, error: str | None = None) -> None:
        """Give the finished record to the recorder."""
        record, caller = exchange.record, exchange.caller
        record.duration_ns = time.perf_counter_ns() - exchange.began_ns
        record.status = status
        record.trace_id, record.run, record.parent_span = caller.trace_id, caller.run, caller.parent_span
        if error is not None:
            record.error = error
        self.deps.finished(record)

    async def handle(self, exchange: Exchange, call: Call, waiter: Waiter | None = None) -> Verdict:
        """The verdict on one call.

        Raises ClientError (too many held actions), FilterError and StoreError: each of them means that nothing was
        allowed.
        """
        caller = exchange.caller
        exchange.record.name = call.action.name
        policy = self.deps.policy()
        agent = policy.agent(caller.agent.name)  # the release may have changed since the key was checked
        if agent is None:
            return self._refuse(exchange, call.action, Refused(code="unknown_agent", reason="the agent is unknown"))
        exchange.caller = caller = replace(caller, agent=agent)
        action, screening, refusal = await self._screened(exchange, call)
        if refusal is not None:
            return self._refuse(exchange, action, refusal)
        start_ns = time.perf_counter_ns()
        decision = policy.decide(agent, action, self.deps.session(caller), now=self.deps.clock())
        exchange.record.release = decision.release
        duties = duties_of(decision.obligations)
        if duties is None:
            reason = "the rule asks for what cannot be done with a tool call"
            return self._refuse(exchange, action, Refused(code="unknown_obligation", reason=reason, rule=decision.rule))
        if decision.effect is Effect.DENY:
            return self._refuse(exchange, action, Refused(code="denied", reason=decision.reason, rule=decision.rule))
        self.audit(exchange, action, decision.effect.value, decision.rule)
        if decision.effect is Effect.HOLD:
            return await self._hold(exchange, replace(call, action=action), decision, waiter)
        effect = ALLOWED_FAILED_OPEN if screening.failed_open else Effect.ALLOW.value
        exchange.note(ActionDecision(action.name, effect, decision.rule, decision.reason), start_ns)
        return Proceed(action=action, edited=bool(screening.edits), duties=duties)

    async def _screened(self, exchange: Exchange, call: Call) -> tuple[Action, Screening, Refused | None]:
        """The action with its arguments as filters leave them, or the refusal of a filter rule."""
        action, arguments = call.action, dict(call.action.arguments)
        if not exchange.caller.agent.filter_rules:
            return action, Screening(), None
        found = await self.look(exchange, texts.argument_parts(arguments), Direction.REQUEST, action.name)
        if found.denied is not None:
            rule = f"{found.denied.policy}/{found.denied.id}"
            return action, found, Refused(code="content_denied", reason=found.denied.reason, rule=rule)
        if found.edits:
            masked = texts.edited(arguments, found.edits)
            assert isinstance(masked, dict)
            problem = call.check(masked)
            if problem is not None:
                reason = f"a filter masked its arguments, and what is left does not fit the tool: {problem}"
                return action, found, Refused(code="masked_arguments", reason=reason)
            action = replace(action, arguments=masked)
        return action, found, None

    async def look(self, exchange: Exchange, parts: list[Part], direction: Direction, name: str) -> Screening:
        """What the agent's filter rules say about these parts of a tool message. Raises FilterError."""
        return await screen(
            self.deps.scanner,
            exchange.caller.agent,
            parts,
            surface=exchange.surface,
            direction=direction,
            record=exchange.record,
            began_ns=exchange.began_ns,
            tool=name,
        )

    async def _hold(self, exchange: Exchange, call: Call, decision: Decision, waiter: Waiter | None) -> Parked:
        queue, caller = self.deps.queue, exchange.caller
        if queue is None:
            raise StoreError
        proposal = Proposal.of(
            call.action,
            decision,
            agent=caller.agent.name,
            owner=caller.agent.owner,
            run=caller.run,
            execution={**call.execution, "trace_id": caller.trace_id, "span": caller.span},
        )
        start_ns = time.perf_counter_ns()
        held, created = await queue.propose(proposal, now=self.deps.clock())
        try:
            if waiter is not None:
                waiter.parked(held, created)
            held = await self.wait(held, waiter)
        finally:
            said = ActionDecision(call.action.name, Effect.HOLD.value, decision.rule, decision.reason, held.id)
            exchange.note(said, start_ns)
        return Parked(held=held, created=created)

    async def wait(
        self, held: HeldAction, waiter: Waiter | None = None, *, until: Collection[State] = OVER
    ) -> HeldAction:
        """The held action once it is over, or as it is after `hold_wait_s`. Raises StoreError."""
        queue = self.deps.queue
        if queue is None:
            raise StoreError
        deadline = time.monotonic() + self.deps.hold_wait_s
        while held.state not in until and (left := deadline - time.monotonic()) > 0:
            if waiter is not None:
                await waiter.waiting(held)
                left = min(left, PROGRESS_S)
            held = await queue.wait(held.id, until=until, timeout_s=left)
        return held

    async def find(self, caller: Caller, held_id: str) -> HeldAction | None:
        """The caller's own held action, or None: another agent's does not exist for it. Raises StoreError."""
        if self.deps.queue is None:
            raise StoreError
        return await self.deps.queue.get_for_agent(held_id, caller.agent.name)

    async def withdraw(self, caller: Caller, held: HeldAction) -> None:
        """Cancel a call that its agent gave up; what can no longer be cancelled stays as it is. Raises StoreError."""
        if self.deps.queue is None:
            raise StoreError
        try:
            await self.deps.queue.cancel(held.id, f"agent {caller.agent.name}", now=self.deps.clock())
        except (ClientError, TransitionError):
            return  # decided or claimed a moment ago: a request to cancel is not a promise

    def audit(self, exchange: Exchange, action: Action, effect: str, rule: str) -> None:
        """Write the intent. Raises StoreError: what cannot be written down must not be done."""
        caller = exchange.caller
        self.deps.audit.write(
            {
                "at": self.deps.clock(),
                "event": "tool_call",
                "exchange": exchange.record.id,
                "agent": caller.agent.name,
                "run": caller.run,
                "trace": caller.trace_id,
                "surface": action.surface.value,
                "action": action.name,
                "definition": action.definition,
                "effect": effect,
                "rule": rule,
                "release": exchange.record.release,
            }
        )

    def _refuse(self, exchange: Exchange, action: Action, refused: Refused) -> Refused:
        self.audit(exchange, action, Effect.DENY.value, refused.rule or refused.code)
        said = ActionDecision(action.name, Effect.DENY.value, refused.rule, refused.reason)
        exchange.note(said, time.perf_counter_ns())
        exchange.record.error = refused.code
        return refused


def after_dispatch(failure: GatewayError) -> GatewayError:
    """A failure of an exchange with a tool, in words that say whether the call may have taken effect."""
    if not isinstance(failure, UpstreamFailure) or not failure.dispatched:
        return failure
    message = f"{failure.message}; the call may have taken effect: look before you repeat it"
    return UpstreamError(failure.code, message, status=failure.status)
