"""`tools/call` over MCP: the definition, the check of the arguments, the verdict, and what the client reads of it.

The verdict itself is `ToolGate`'s, the same as on every surface.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from gateway.core.action import Action, Surface
from gateway.core.canonical import JSON, canonical
from gateway.core.exchange import Direction, Path
from gateway.proxy import texts
from gateway.proxy.held_words import STATUS_TOOL
from gateway.proxy.mcp_held import HeldCalls
from gateway.proxy.mcp_relay import Relay, withheld
from gateway.proxy.tool_calls import Call, Parked, Proceed, Refused, ToolGate, after_dispatch, no_check
from gateway.proxy.upstream import UpstreamFailure
from gateway.wire import leaves, mcp, mcp_tools
from gateway.wire.mcp import RpcError

if TYPE_CHECKING:
    from gateway.approvals.held_action import HeldAction
    from gateway.proxy.definitions import Definition
    from gateway.proxy.mcp_visit import Visit

_KNOWN = frozenset({"name", "arguments", "task"})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """A call as read and as it came. `edits` are those of filters outside of its arguments."""

    request: mcp.Request
    body: bytes
    action: Action
    spelled: bytes
    definition: Definition | None
    edits: Mapping[Path, str]


class ToolCalls:
    """Serves `tools/call` for all visits."""

    def __init__(self, gate: ToolGate, relay: Relay, held: HeldCalls) -> None:
        self._gate = gate
        self._deps = gate.deps
        self._relay = relay
        self._held = held

    async def call(self, visit: Visit, request: mcp.Request, body: bytes) -> None:
        """Decide and answer one call. Raises GatewayError: nothing ran."""
        call = mcp_tools.tool_call(request)
        if call.name == STATUS_TOOL and self._deps.queue is not None:
            await self._answer(visit, await self._held.status_call(visit, call.arguments))
            return
        action = Action(
            surface=Surface.MCP,
            server=visit.server.name,
            tool=call.name,
            arguments=call.arguments,
            upstream=visit.server.name,
            credential=visit.endpoint.credential,
        )
        visit.exchange.record.name = action.name
        spelled = canonical(call.arguments)  # before anything else looks at numbers that have no one reading
        self._join_run(visit, action, spelled.decode())
        definition: Definition | None = None
        if self._deps.policy().may_use(visit.exchange.caller.agent, action.name, Surface.MCP):
            definition = await self._definition(visit, call.name)
            problem = definition.problem(call.arguments)
            if problem is not None:
                await self._invalid(visit, action, problem)
                return
            mirrored = {name: value for name, value in visit.headers.items() if name.startswith("mcp-param-")}
            mcp_tools.check_mirrored(mirrored, mcp_tools.mirrored_headers(definition.schema, call.arguments))
            action = replace(action, definition=definition.digest)
        edits = await self._screen_rest(visit, request, action)
        asked = _Asked(request=request, body=body, action=action, spelled=spelled, definition=definition, edits=edits)
        await self._decide(visit, asked, _Progress(visit, call.progress_token))

    async def _decide(self, visit: Visit, asked: _Asked, progress: _Progress) -> None:
        check = no_check if asked.definition is None else asked.definition.problem
        execution: dict[str, JSON] = {"version": visit.version}
        call = Call(action=asked.action, spelled=asked.spelled, check=check, execution=execution)
        verdict = await self._gate.handle(visit.exchange, call, progress)
        if isinstance(verdict, Refused):
            await self._answer(visit, refused_result(verdict, asked.action, visit.version))
        elif isinstance(verdict, Parked):
            visit.waiting = None
            tasks = visit.modern and mcp_tools.takes_tasks(asked.request)
            await self._answer(visit, await self._held.parked(visit, verdict.held, tasks=tasks))
        elif asked.definition is None:
            raise RpcError(mcp.INVALID_PARAMS, f"unknown tool `{_printable(asked.action.tool)}`")
        else:
            await self._dispatch(visit, asked, verdict, asked.definition)

    async def _dispatch(self, visit: Visit, asked: _Asked, verdict: Proceed, definition: Definition) -> None:
        request, body = asked.request, asked.body
        params: Mapping[str, Any] = request.params
        if asked.edits:
            params = texts.edited(dict(params), asked.edits)  # type: ignore[assignment]
        if verdict.edited:
            params = {**params, "arguments": dict(verdict.action.arguments)}
        if params is not request.params:
            body = mcp.encode({**request.raw, "params": params})
        mirrored = mcp_tools.mirrored_headers(definition.schema, verdict.action.arguments)
        try:
            await self._relay.forward(
                visit, stamp(visit, request, body), method="tools/call", mirrored=mirrored, duties=verdict.duties
            )
        except UpstreamFailure as failure:
            raise after_dispatch(failure) from None

    async def _definition(self, visit: Visit, tool: str) -> Definition:
        definition = await self._deps.definitions.get(visit.endpoint, tool)
        if definition is None:
            visit.exchange.record.error = "unknown_tool"
            raise RpcError(
                mcp.INVALID_PARAMS, f"unknown tool `{_printable(tool)}`; list the tools to see what there is"
            )
        return definition

    async def _invalid(self, visit: Visit, action: Action, problem: str) -> None:
        """Arguments that do not fit. From 2025-11-25 on it is the tool's error, so that a model can read and correct
        it (2025-11-25, "Input validation errors"); before, a protocol error."""
        visit.exchange.record.error = "invalid_arguments"
        text = f"NOT EXECUTED. The arguments of `{action.tool}` do not fit its input schema: {problem}."
        if not mcp.at_least(visit.version, "2025-11-25"):
            raise RpcError(mcp.INVALID_PARAMS, text)
        await self._answer(visit, mcp_tools.text_result(text, is_error=True, version=visit.version))

    async def _screen_rest(self, visit: Visit, request: mcp.Request, action: Action) -> Mapping[Path, str]:
        """Edits for what the message holds beside its arguments."""
        if not visit.exchange.caller.agent.filter_rules:
            return {}
        parts = texts.loose_parts(request.params, known=_KNOWN)
        if not parts:
            return {}
        found = await self._gate.look(visit.exchange, parts, Direction.REQUEST, action.name)
        if found.denied is not None:
            visit.exchange.record.error = "content_denied"
            raise RpcError(mcp.INVALID_PARAMS, f"NOT EXECUTED. The metadata of the call is {withheld(found.denied)}")
        return found.edits

    def _join_run(self, visit: Visit, action: Action, spelled: str) -> None:
        """A call that names no run belongs to the run in which a model proposed it a moment ago."""
        caller = visit.exchange.caller
        if visit.traced:
            return
        trace = self._deps.runs.of_call(caller.agent.name, action.name, spelled, now=self._deps.clock())
        if trace is not None:
            visit.exchange.caller = replace(caller, trace_id=trace)

    @staticmethod
    async def _answer(visit: Visit, result: Mapping[str, JSON]) -> None:
        assert visit.request_id is not None
        await visit.answer.whole(200, mcp.result(visit.request_id, result))


class _Progress:
    """Signs of life for a client that gave a progress token, while its call waits for people."""

    def __init__(self, visit: Visit, token: int | str | None) -> None:
        self._visit = visit
        self._token = token
        self._count = 0

    def parked(self, held: HeldAction, created: bool) -> None:
        self._visit.waiting = held if created else None

    async def waiting(self, held: HeldAction) -> None:
        if self._token is None or not self._visit.takes_events:
            return
        self._count += 1
        params: dict[str, JSON] = {"progressToken": self._token, "progress": self._count}
        if mcp.at_least(self._visit.version, "2025-03-26"):
            params["message"] = f"parked as {held.id}; waits for a person to decide"
        message: dict[str, JSON] = {"jsonrpc": "2.0", "method": "notifications/progress", "params": params}
        await self._visit.answer.event(mcp.encode(message))


def refused_result(refused: Refused, action: Action, version: str) -> dict[str, JSON]:
    """What a model reads of a call that must not run."""
    rule = f" (rule `{refused.rule}`)" if refused.rule else ""
    text = f"NOT EXECUTED. The call of `{_printable(action.tool)}` is denied: {refused.reason}{rule}."
    return mcp_tools.text_result(text, is_error=True, version=version)


def stamp(visit: Visit, request: mcp.Request | mcp.Notification, body: bytes) -> bytes:
    """The body with the gateway's own span where the caller named its span in `_meta`.

    `_meta.traceparent` wins over the header (2026-07-28), so leaving it would hang the upstream's spans beside the
    gateway's. Nothing is added where none was sent. The value is replaced at its path, never by searching the bytes:
    who escapes it there and repeats it in the arguments would have those changed after they were decided.
    """
    if not isinstance(request.meta.get("traceparent"), str):
        return body
    own = visit.exchange.caller.traceparent
    path: Path = ("params", "_meta", "traceparent")
    value = mcp.decode(body)
    assert not isinstance(value, tuple)
    return leaves.encode(leaves.with_values(value.raw, {path: own}))


def _printable(name: str) -> str:
    return name[:64] if name.isprintable() else "?"
