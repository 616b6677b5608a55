"""Verdicts on the tool calls that a model proposes.

A call that the gateway itself will execute is only denied here, never held: it is held at the tool endpoint, once. A
call that the agent executes by itself is held here: its release is the execution, so it is claimed and released once.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import orjson

from gateway.approvals import Claim, HeldAction, Proposal
from gateway.core.action import Action, Surface
from gateway.core.canonical import canonical, refuse_alike
from gateway.core.decision import Decision, Effect
from gateway.core.errors import GatewayError, StoreError
from gateway.core.exchange import Direction, Origin, Part
from gateway.core.held import State
from gateway.proxy.screening import screen
from gateway.traces.record import ActionDecision, ExchangeRecord
from gateway.wire.calls import CallVerdict, ProposedCall
from gateway.wire.leaves import leaves

if TYPE_CHECKING:
    from gateway.proxy.caller import Caller
    from gateway.proxy.deps import Deps
    from gateway.proxy.runs import Runs

RELEASE_LEASE_S = 60.0  # from claim to the bytes on the wire: a stalled client makes it UNKNOWN, never twice


class CallJudge:
    """Judges the calls of one response. `held` are the actions they became; `settle` ends those that were released."""

    def __init__(self, deps: Deps, runs: Runs, caller: Caller, record: ExchangeRecord, began_ns: int) -> None:
        self._deps = deps
        self._runs = runs
        self._caller = caller
        self._record = record
        self._began_ns = began_ns
        self._released: list[Claim] = []
        self.held: list[str] = []

    async def judge(self, calls: Sequence[ProposedCall]) -> list[CallVerdict]:
        """One verdict for each call, in their order. Raises StoreError when a hold cannot be stored."""
        return [await self._judge(call) for call in calls]

    async def settle(self) -> None:
        """The released calls have left for the agent. Without this their leases run out and they become UNKNOWN: it is
        not known whether the agent has them, and a person reconciles."""
        queue = self._deps.queue
        while self._released and queue is not None:
            claim = self._released.pop()
            await queue.complete(claim, ok=True, result=orjson.dumps({"released": True}), now=self._deps.clock())

    async def _judge(self, call: ProposedCall) -> CallVerdict:
        start_ns = time.perf_counter_ns()
        policy = self._deps.policy()
        server, tool = policy.resolve_function(call.name)
        name = f"{server}.{tool}"
        if call.arguments is None:
            return self._deny(name, "unreadable_arguments", "its arguments are not one JSON object", start_ns)
        executes = policy.executes(server)
        action = Action(surface=Surface.MODEL, server=server, tool=tool, arguments=call.arguments)
        try:
            refuse_alike(dict(call.arguments))
            spelled = canonical(dict(call.arguments)).decode()
            refusal = None if executes else await self._screen(action)
        except GatewayError as error:
            return self._deny(name, error.code, error.message, start_ns)
        if refusal is not None:
            return self._deny(name, *refusal, start_ns)
        now = self._deps.clock()
        decision = policy.decide(self._caller.agent, action, self._deps.session(self._caller), now=now)
        if decision.obligations and not executes:  # there is no request of ours in which to fulfil one
            return self._deny(
                name, decision.rule, "the rule asks for what cannot be done with a model's call", start_ns
            )
        if decision.effect is Effect.DENY:
            return self._deny(name, decision.rule, decision.reason, start_ns)
        self._runs.proposed(self._caller.agent.name, name, spelled, self._caller.trace_id, now=now)
        if decision.effect is Effect.HOLD and not executes:
            return await self._hold(action, decision, start_ns)
        self._note(ActionDecision(name, Effect.ALLOW.value, decision.rule, decision.reason), start_ns)
        return CallVerdict(True)

    async def _screen(self, action: Action) -> tuple[str, str] | None:
        """The rule and reason that forbid these arguments, or None. Masked arguments would be another call than the
        model proposed, and the agent executes what it is given, so a mask denies too."""
        verdict = await screen(
            self._deps.scanner,
            self._caller.agent,
            [Part(Origin.TOOL_ARGS, text, path) for path, text in leaves(dict(action.arguments), ())],
            surface=Surface.MODEL,
            direction=Direction.RESPONSE,
            record=self._record,
            began_ns=self._began_ns,
            tool=action.name,
        )
        if verdict.denied is not None:
            return f"{verdict.denied.policy}/{verdict.denied.id}", verdict.denied.reason
        if verdict.edits:
            return "masked_arguments", "its arguments hold what a filter rule would mask"
        return None

    async def _hold(self, action: Action, decision: Decision, start_ns: int) -> CallVerdict:
        queue, caller = self._deps.queue, self._caller
        if queue is None:
            raise StoreError
        proposal = Proposal.of(
            action,
            decision,
            agent=caller.agent.name,
            owner=caller.agent.owner,
            run=caller.run,
            execution={"trace_id": caller.trace_id, "span": caller.span},
        )
        held, _ = await queue.propose(proposal, now=self._deps.clock())
        if held.state is State.PENDING and self._deps.hold_wait_s > 0:
            held = await queue.wait(held.id, timeout_s=self._deps.hold_wait_s)
        text: str | None = held_text(held)
        if held.state is State.APPROVED:
            # Decided anew just above, under the release in force and with the same digest: so it may be claimed.
            claim = await queue.claim(
                held.id, worker=f"model:{caller.span}", lease_s=RELEASE_LEASE_S, now=self._deps.clock()
            )
            if claim is not None:
                self._released.append(claim)
                text = None
            else:
                text = held_text(await queue.get(held.id) or held)
        self.held.append(held.id)
        self._record.held = held.id
        self._note(
            ActionDecision(
                action.name,
                Effect.HOLD.value,
                decision.rule,
                decision.reason,
                held.id,
                waited_ns=time.perf_counter_ns() - start_ns,
            ),
            start_ns,
        )
        return CallVerdict(text is None, text)

    def _deny(self, name: str, rule: str, reason: str, start_ns: int) -> CallVerdict:
        self._note(ActionDecision(name, Effect.DENY.value, rule, reason), start_ns)
        return CallVerdict(False, f"The call of `{name}` was NOT EXECUTED: {reason} (rule `{rule}`).")

    def _note(self, decision: ActionDecision, start_ns: int) -> None:
        timed = decision._replace(started_ns=start_ns - self._began_ns, duration_ns=time.perf_counter_ns() - start_ns)
        self._record.decisions = (*self._record.decisions, timed)


def held_text(held: HeldAction) -> str:
    """What the agent reads instead of the call. Never reads like success."""
    what = f"The call of `{held.tool}` was NOT EXECUTED"
    match held.state:
        case State.PENDING | State.APPROVED:
            return f"{what}. It is parked as {held.id} and waits for a person. Propose the same call again later."
        case State.DENIED:
            comment = next((vote.comment for vote in held.decisions if vote.verdict == "deny" and vote.comment), "")
            return f"{what}. A person denied it ({held.id})." + (f" Reason: {comment}" if comment else "")
        case State.EXECUTING | State.SUCCEEDED:
            return f"The call of `{held.tool}` was released to you once already as {held.id}. It is not released again."
        case State.UNKNOWN | State.FAILED:
            return f"The call of `{held.tool}` was released as {held.id}; whether it ran is unknown. Ask a person."
    return f"{what}. {held.id} is {held.state.lower()}. {held.note}".rstrip()
