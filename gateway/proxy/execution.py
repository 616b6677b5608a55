"""Runs what people approved: at most once, exactly the stored bytes, or not at all.

Watches the queue, decides every approved action again under the release then in force, claims it, keeps its lease and
sends it. Whatever leaves a doubt after bytes were sent ends as UNKNOWN, by letting the lease run out: never a retry.
Before the claim nothing was sent, so what fails there is simply tried again until the approval expires.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from gateway.approvals.held_action import Claim, HeldAction
from gateway.core.action import Surface, action_digest
from gateway.core.decision import Decision, Effect
from gateway.core.errors import ClientError, GatewayError, StoreError, TransitionError, UpstreamError, places
from gateway.core.exchange import Direction
from gateway.core.held import State
from gateway.proxy import texts
from gateway.proxy.caller import Caller
from gateway.proxy.dispatch import Dispatcher, GoneError, Outcome, Ready
from gateway.proxy.http_calls import Operations
from gateway.proxy.mcp_client import McpClient
from gateway.proxy.obligations import Duties, duties_of
from gateway.proxy.tool_calls import Exchange, ToolGate
from gateway.traces import context
from gateway.traces.record import ActionDecision, Attempt

if TYPE_CHECKING:
    from gateway.approvals import Queue
    from gateway.policy import AgentView
    from gateway.proxy.deps import Deps

log = logging.getLogger("gateway.execution")

LEASE_S = 30.0  # a gateway that died is noticed after this; renewed at a third of it
CONCURRENT_MAX = 32  # approvals come from people: more at once means that a backlog is being worked off
RETRY_S = (1.0, 2.0, 5.0, 10.0, 30.0)  # between attempts to get ready, while nothing was sent
STORE_S = 1.0  # between looks at a store that is away


class Executor:
    """One per process. `run` works until it is cancelled, and then lets calls that were sent come to their end."""

    def __init__(self, deps: Deps, *, worker: str | None = None, drain_s: float = 30.0) -> None:
        self._deps = deps
        self._gate = ToolGate(deps)
        self._dispatcher = Dispatcher(
            deps, McpClient(deps.pool, response_bytes_max=deps.response_bytes_max), Operations()
        )
        self._worker = worker or f"executor:{os.getpid()}:{context.span_id()}"
        self._drain_s = drain_s
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._slots = asyncio.Semaphore(CONCURRENT_MAX)
        self._sending: set[str] = set()

    @property
    def running(self) -> int:
        """How many actions are being worked on."""
        return len(self._tasks)

    async def run(self) -> None:
        """Follow the queue until cancelled. The store may go away and come back."""
        queue = self._queue()
        try:
            while True:
                try:
                    with await queue.changes() as changes:
                        await self._take(queue)
                        async for change in changes:
                            if change.state is None:
                                await self._take(queue)
                            elif change.state is State.APPROVED:
                                self._start(change.id)
                except StoreError as error:
                    log.warning("the executor waits for the store: %s", error.message)
                await asyncio.sleep(STORE_S)
        finally:
            await self.drain(self._drain_s)

    async def drain(self, timeout_s: float) -> None:
        """Wait for calls that were sent; those that take longer are left to end as UNKNOWN. Others were not begun."""
        sending = [task for held_id, task in self._tasks.items() if held_id in self._sending]
        if sending:
            await asyncio.wait(sending, timeout=timeout_s)
        left = tuple(self._tasks.values())
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _take(self, queue: Queue) -> None:
        for held_id in await queue.approved():
            self._start(held_id)

    def _start(self, held_id: str) -> None:
        if held_id not in self._tasks:
            task = asyncio.create_task(self._work(held_id), name=f"execute {held_id}")
            self._tasks[held_id] = task
            task.add_done_callback(lambda done: self._finished(held_id, done))

    def _finished(self, held_id: str, task: asyncio.Task[None]) -> None:
        self._tasks.pop(held_id, None)
        self._sending.discard(held_id)
        if not task.cancelled() and (error := task.exception()) is not None:
            # Our own bug. Unclaimed, the action stays approved; claimed, its lease runs out and it is UNKNOWN.
            log.error("%s: the execution failed: %s at %s", held_id, type(error).__name__, places(error))

    async def _work(self, held_id: str) -> None:
        """Try until it was sent, or is over: before the claim nothing is lost by trying again."""
        failures = 0
        while True:
            try:
                async with self._slots:
                    await self._attempt(held_id)
                return
            except GatewayError as error:
                log.warning("%s: not sent, tried again later: %s", held_id, error.message)
            await asyncio.sleep(RETRY_S[min(failures, len(RETRY_S) - 1)])
            failures += 1

    async def _attempt(self, held_id: str) -> None:
        """One action from the queue to its end. Raises GatewayError where nothing was sent and it stays approved."""
        queue = self._queue()
        held = await queue.get(held_id)
        if held is None or held.state is not State.APPROVED or held.surface not in {Surface.MCP, Surface.HTTP}:
            return  # calls that an agent executes itself are claimed by the model surface
        agent = self._deps.policy().agent(held.agent)
        if agent is None:
            await self._invalidate(queue, held, "the agent is no longer in the policy")
            return
        exchange = self._exchange(held, agent)
        try:
            async with self._dispatcher.ready(held, exchange.caller.traceparent) as ready:
                judged = await self._judge(held, exchange, ready)
                if isinstance(judged, str):
                    await self._invalidate(queue, held, judged, exchange)
                    return
                self._audit(held, exchange)
                claim = await queue.claim(held.id, worker=self._worker, lease_s=LEASE_S, now=self._deps.clock())
                if claim is not None:  # else another worker has it, or it expired or was cancelled in this moment
                    await self._execute(queue, claim, exchange, ready, judged)
        except GoneError as error:
            await self._invalidate(queue, held, error.message, exchange)

    async def _judge(self, held: HeldAction, exchange: Exchange, ready: Ready) -> Duties | str:
        """What must be done with the action as the release now in force has it, or why it must not run although people
        approved it. Raises FilterError."""
        policy, agent = self._deps.policy(), exchange.caller.agent
        action = replace(held.action(), definition=ready.definition, credential=ready.credential)
        if action.definition != held.definition:
            return "the tool's definition changed after it was proposed"
        problem = ready.check(action.arguments)
        if problem is not None:
            return f"the arguments no longer fit the tool: {problem}"
        if agent.filter_rules:
            parts = texts.argument_parts(dict(action.arguments))
            found = await self._gate.look(exchange, parts, Direction.REQUEST, action.name)
            if found.denied is not None or found.edits:
                return "a filter rule of the policy now in force objects to its arguments"
        decision = policy.decide(agent, action, self._deps.session(exchange.caller), now=self._deps.clock())
        exchange.record.release = decision.release
        duties = duties_of(decision.obligations)
        if decision.effect is Effect.DENY or duties is None:
            return f"the policy now in force denies it (rule `{decision.rule}`)"
        rule, terms = _approved_under(held, decision)
        if action_digest(action, agent=held.agent, run=held.run, rule=rule, terms=terms) != held.digest:
            return "what people approved is no longer what would run"
        return duties

    async def _execute(self, queue: Queue, claim: Claim, exchange: Exchange, ready: Ready, duties: Duties) -> None:
        held = claim.action
        start_ns = time.perf_counter_ns()
        self._sending.add(held.id)
        renewing = asyncio.create_task(self._renew(queue, claim))
        outcome: Outcome | None = None
        error: str | None = None
        try:
            outcome = await ready.send(held, duties)
        except UpstreamError as failure:
            error = failure.code
            log.warning("%s: the outcome is unknown: %s", held.id, failure.message)
        finally:
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)
            self._note(exchange, held, ready, outcome, error, start_ns)
        if outcome is not None:
            kept = await self._complete(queue, claim, outcome)
            log.info("%s: %s%s", held.id, "succeeded" if outcome.ok else "failed", "" if kept else ", but too late")

    async def _complete(self, queue: Queue, claim: Claim, outcome: Outcome) -> bool:
        """Record the outcome; the store may be away for a moment. Fenced, so that trying again does no harm."""
        for pause in (*RETRY_S[:3], None):
            try:
                return await queue.complete(claim, ok=outcome.ok, result=outcome.result, now=self._deps.clock())
            except StoreError:
                if pause is None:
                    raise
                await asyncio.sleep(pause)
        return False

    async def _renew(self, queue: Queue, claim: Claim) -> None:
        while True:
            await asyncio.sleep(LEASE_S / 3)
            try:
                if not await queue.renew(claim, now=self._deps.clock()):
                    return  # fenced: the outcome will be refused, and a person reconciles
            except StoreError:
                continue  # the next renewal may still be in time

    async def _invalidate(self, queue: Queue, held: HeldAction, reason: str, exchange: Exchange | None = None) -> None:
        log.warning("%s: invalidated: %s", held.id, reason)
        try:
            await queue.invalidate(held.id, reason, now=self._deps.clock())
        except (ClientError, TransitionError):
            return  # cancelled, expired or claimed elsewhere in this moment
        if exchange is not None:
            said = ActionDecision(held.name, Effect.DENY.value, held.rule, reason, held.id)
            exchange.note(said, time.perf_counter_ns())
            self._gate.end(exchange, status=0, error="invalidated")

    def _exchange(self, held: HeldAction, agent: AgentView) -> Exchange:
        """The record of the execution, in the tree of the run that proposed it."""
        execution: Mapping[str, Any] = held.execution
        trace, parent = execution.get("trace_id"), execution.get("span")
        caller = Caller(
            agent=agent,
            trace_id=trace if isinstance(trace, str) else context.trace_id(),
            span=context.span_id(),
            parent_span=parent if isinstance(parent, str) else None,
            run=held.run,
        )
        exchange = self._gate.begin(caller, held.surface, "execute_tool")
        record = exchange.record
        record.name, record.held, record.upstream, record.effect = held.name, held.id, held.upstream, "allow"
        record.rule, record.reason = held.rule, held.reason
        return exchange

    def _audit(self, held: HeldAction, exchange: Exchange) -> None:
        self._deps.audit.write(
            {
                "at": self._deps.clock(),
                "event": "execute",
                "exchange": exchange.record.id,
                "held": held.id,
                "digest": held.digest,
                "agent": held.agent,
                "run": held.run,
                "trace": exchange.caller.trace_id,
                "action": held.name,
                "worker": self._worker,
                "approved_by": [vote.person for vote in held.decisions],
                "release": exchange.record.release,
            }
        )

    def _note(  # noqa: PLR0913, PLR0917 - one line of the record
        self,
        exchange: Exchange,
        held: HeldAction,
        ready: Ready,
        outcome: Outcome | None,
        error: str | None,
        start_ns: int,
    ) -> None:
        record = exchange.record
        record.request, record.request_type = held.arguments, "application/json"
        if outcome is not None:
            record.response, record.response_type = outcome.result, "application/json"
            error = outcome.error or (None if outcome.ok else "tool_error")
        record.attempts = (
            Attempt(
                exchange.caller.span,
                ready.endpoint.name,
                start_ns - exchange.began_ns,
                time.perf_counter_ns() - start_ns,
                None,
                None,
                error,
                ready.endpoint.target.host,
                ready.endpoint.target.port,
            ),
        )
        status = 200 if outcome is not None else 0
        self._gate.end(exchange, status=status, error=error or ("outcome_unknown" if outcome is None else None))

    def _queue(self) -> Queue:
        if self._deps.queue is None:
            raise StoreError
        return self._deps.queue


def _approved_under(held: HeldAction, decision: Decision) -> tuple[str, Any]:
    """The rule and terms to hold the digest against: those of now where the call is still held. Where it is allowed by
    now nobody asks for more than what people approved."""
    if decision.effect is Effect.HOLD:
        return decision.rule, decision.terms
    return held.rule, held.terms
