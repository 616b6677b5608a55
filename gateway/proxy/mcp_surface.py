"""MCP over Streamable HTTP at `/mcp/{server}`: POST, GET and DELETE of both protocol eras.

Owns which message goes where: calls and lists of tools are decided and filtered, tasks of held calls are served here,
everything else passes to the server unless the bundle denies it. Every request ends in one record.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Mapping, MutableMapping
from functools import partial
from typing import TYPE_CHECKING, Any

from gateway.core.action import Surface
from gateway.core.errors import ClientError, GatewayError, UpstreamError
from gateway.core.exchange import Direction
from gateway.proxy import texts
from gateway.proxy.asgi import DisconnectedError, Receive, Send, read_body, require_json
from gateway.proxy.endpoint import endpoint_of
from gateway.proxy.mcp_calls import ToolCalls, stamp
from gateway.proxy.mcp_held import STATUS_DEFINITION, TASK_METHODS, HeldCalls, is_held_id
from gateway.proxy.mcp_relay import Relay, Shape, withheld
from gateway.proxy.mcp_visit import Answer, Visit, unbind
from gateway.proxy.obligations import NO_DUTIES, Duties, duties_of
from gateway.wire import mcp, mcp_tools, sse
from gateway.wire.mcp import MODERN_VERSION, RpcError

if TYPE_CHECKING:
    from gateway.policy import McpServer
    from gateway.proxy.plane import Request
    from gateway.proxy.tool_calls import ToolGate

PREFIX = "/mcp/"
_ROUTING = ("mcp-protocol-version", "mcp-method", "mcp-name", "mcp-session-id", "last-event-id")
_TOOL_METHODS = frozenset({"tools/call", "tools/list"})
_HANDSHAKE = {
    "initialize": frozenset({"protocolVersion", "capabilities", "clientInfo"}),
    "tools/list": frozenset({"cursor"}),
}
"""Members of params that are about the protocol: versions look like telephone numbers."""


class McpSurface:
    """The handler of `/mcp/`."""

    def __init__(self, gate: ToolGate) -> None:
        self._gate = gate
        self._deps = gate.deps
        self._relay = Relay(gate)
        self._held = HeldCalls(gate)
        self._calls = ToolCalls(gate, self._relay, self._held)
        self._admitted: dict[tuple[str, str, str], bool] = {}

    async def __call__(self, request: Request) -> None:
        name = request.path.removeprefix(PREFIX)
        server = self._deps.policy().servers.get(name)
        if server is None:
            raise ClientError("unknown_server", "there is no MCP server of this name in the bundle", status=404)
        visit = self._visit(request, server, request.send)
        await self._recorded(visit, self._serve(visit))

    async def _serve(self, visit: Visit) -> None:
        key, caller = self._deps.session_key, visit.exchange.caller
        _no_duplicates(visit.request.scope["headers"])
        if (bound := visit.headers.get("mcp-session-id")) is not None:
            visit.session = unbind(bound, caller.agent.name, visit.server.name, key)
        match visit.request.scope["method"]:
            case "POST":
                await self._post(visit)
            case "GET" | "DELETE" as method:
                visit.version = mcp.header_version(visit.headers)
                visit.identify({})
                if visit.modern:
                    raise _method_not_allowed()
                await self._admit(visit)
                visit.exchange.record.operation = method
                visit.exchange.record.effect = "allow"
                # A stream that is taken up again may bring the answer to an earlier `tools/list` or `tools/call`.
                shape = partial(self._list_tools, visit)
                forward = self._relay.forward(visit, b"", http_method=method, shape=shape, duties=self._bound(visit))
                await _while_connected(visit, forward)
            case _:
                raise _method_not_allowed()

    async def _post(self, visit: Visit) -> None:
        require_json(visit.request.headers)
        body = await read_body(visit.request.receive, visit.request.headers, self._deps.body_bytes_max)
        visit.exchange.record.request, visit.exchange.record.request_type = body, "application/json"
        message = mcp.decode(body)
        if isinstance(message, tuple):
            await _while_connected(visit, self._batch(visit, message))
            return
        try:
            await _while_connected(visit, self._message(visit, message, body))
        except DisconnectedError:
            # 2026-07-28: closing the response stream is the cancellation. Earlier a disconnect is none.
            if visit.modern and visit.waiting is not None:
                await self._gate.withdraw(visit.exchange.caller, visit.waiting)
            raise

    async def _message(self, visit: Visit, message: mcp.Message, body: bytes) -> None:
        if not message.raw.keys() <= mcp.MEMBERS:
            # Nobody looks at others, and a server that reads names whatever their case takes `Method` for `method`.
            raise RpcError(mcp.INVALID_REQUEST, "the message has members that JSON-RPC does not know; remove them")
        if isinstance(message, mcp.Request):
            visit.request_id = message.id
            visit.version = mcp.header_version(visit.headers)
            visit.version = mcp.agree(message, visit.headers)
            visit.identify(message.meta)
            _describe(visit, message.method)
            await self._admit(visit)
            await self._request(visit, message, body)
            return
        visit.version = mcp.header_version(visit.headers)
        method = message.method if isinstance(message, mcp.Notification) else ""
        if isinstance(message, mcp.Notification) and not method.startswith("notifications/"):
            # A `tools/call` without an id would pass undecided, and a careless server would run it.
            raise RpcError(mcp.INVALID_REQUEST, "a message without `id` must be a notification")
        visit.identify(message.meta if isinstance(message, mcp.Notification) else {})
        _describe(visit, method or "response")
        await self._admit(visit)
        if visit.server.denies(method):
            raise ClientError("method_denied", "this method is denied here", status=403)
        await self._pass(visit, message, body, method)

    async def _request(self, visit: Visit, request: mcp.Request, body: bytes) -> None:
        method = request.method
        if visit.server.denies(method):
            raise RpcError(mcp.METHOD_NOT_FOUND, "this method is denied here", status=404)
        if method not in _TOOL_METHODS and method.strip().casefold().startswith("tools/"):
            raise RpcError(mcp.METHOD_NOT_FOUND, "there is no such method about tools", status=404)
        if method == "tools/call":
            await self._calls.call(visit, request, body)
        elif method in TASK_METHODS and is_held_id(request.params.get("taskId")):
            result = await self._held.task_call(visit, request)
            await visit.answer.whole(200, mcp.result(request.id, result))
        else:
            await self._pass(visit, request, body, method)

    async def _pass(self, visit: Visit, message: mcp.Message, body: bytes, method: str) -> None:
        """A message that nothing here decides on: filtered, then forwarded."""
        if visit.exchange.caller.agent.filter_rules:
            body = await self._screened(visit, message, body, method)
        if isinstance(message, mcp.Request | mcp.Notification):
            body = stamp(visit, message, body)
        visit.exchange.record.effect = "allow"
        shape: Shape | None = None
        if method == "tools/list":
            shape = partial(self._list_tools, visit)
        elif method == "server/discover" and self._deps.queue is not None:
            shape = mcp_tools.announce_tasks
        asked = method if isinstance(message, mcp.Request) else ""
        duties = self._bound(visit) if method.startswith("tasks/") else NO_DUTIES
        await self._relay.forward(visit, body, method=asked, shape=shape, duties=duties)

    def _bound(self, visit: Visit) -> Duties:
        """The bound of an answer that comes apart from its call: on a stream that is taken up again, or from a task of
        the server. Which rule decided the call is not known here, so it is the lowest of those that may have."""
        policy, agent = self._deps.policy(), visit.exchange.caller.agent
        asked = policy.obligations(agent, visit.server.name, Surface.MCP)
        duties = duties_of(obligation for obligation in asked if obligation.kind == "cap_result")
        assert duties is not None
        return duties

    async def _screened(self, visit: Visit, message: mcp.Message, body: bytes, method: str) -> bytes:
        """The body with what filters mask in it. What an agent answers to a server's question leaves too."""
        member = "result" if isinstance(message, mcp.Response) else "params"
        value = message.raw.get(member)
        if not isinstance(value, dict):
            return body
        parts = texts.loose_parts(value, known=_HANDSHAKE.get(method, frozenset()))
        if not parts:
            return body
        name = f"{visit.server.name}.{method or 'response'}"
        found = await self._gate.look(visit.exchange, parts, Direction.REQUEST, name)
        if found.denied is not None:
            visit.exchange.record.error = "content_denied"
            raise RpcError(mcp.INVALID_PARAMS, f"the message is {withheld(found.denied)}", status=403)
        return mcp.encode({**message.raw, member: texts.edited(value, found.edits)}) if found.edits else body

    def _list_tools(self, visit: Visit, value: Mapping[str, Any]) -> Mapping[str, Any]:
        policy, agent = self._deps.policy(), visit.exchange.caller.agent
        tools = value.get("tools")
        if not isinstance(tools, list):
            return value
        self._deps.definitions.observe(visit.endpoint, tools)
        return mcp_tools.filter_tools(
            value,
            lambda tool: policy.may_use(agent, f"{visit.server.name}.{tool}", Surface.MCP),
            extra=None if self._deps.queue is None else STATUS_DEFINITION,
            version=visit.version,
        )

    async def _batch(self, visit: Visit, messages: tuple[mcp.Message, ...]) -> None:
        """The messages of a batch, one after the other, each with a verdict and a record of its own."""
        if mcp.header_version(visit.headers) != mcp.BATCH_VERSION:
            raise RpcError(mcp.INVALID_REQUEST, "this protocol version has no batches; send one message per request")
        visit.exchange.record.operation, visit.exchange.record.effect = "batch", "allow"
        answers: list[bytes] = []
        for message in messages:
            if isinstance(message, mcp.Request) and message.method == "initialize":
                raise RpcError(mcp.INVALID_REQUEST, "`initialize` must not be part of a batch")
            collected = _Collected(self._deps.response_bytes_max)
            part = self._visit(visit.request, visit.server, collected)
            part.session = visit.session
            await self._recorded(part, self._message(part, message, mcp.encode(message.raw)))
            answers += collected.responses()
        if answers:
            await visit.answer.whole(200, b"[" + b",".join(answers) + b"]")
        else:
            await visit.answer.whole(202, b"", ())

    async def _admit(self, visit: Visit) -> None:
        """An agent that may use no tool of a server has no business with its resources and prompts either.

        Raises ClientError `server_denied` (403), UpstreamError."""
        policy, agent = self._deps.policy(), visit.exchange.caller.agent
        key = (policy.release, agent.name, visit.server.name)
        if self._admitted.get(key):
            return
        names = await self._deps.definitions.names(visit.endpoint)
        if names and not any(policy.may_use(agent, f"{visit.server.name}.{name}", Surface.MCP) for name in names):
            raise ClientError("server_denied", "this agent may use no tool of this server", status=403)
        if len(self._admitted) > 10_000:  # releases, agents and servers come and go
            self._admitted.clear()
        self._admitted[key] = True

    def _visit(self, request: Request, server: McpServer, send: Send) -> Visit:
        return Visit(
            request=request,
            server=server,
            endpoint=endpoint_of(server),
            exchange=self._gate.begin(request.caller, Surface.MCP, "mcp"),
            answer=Answer(send),
            headers={name.decode("latin-1"): value.decode("latin-1") for name, value in request.headers.items()},
        )

    async def _recorded(self, visit: Visit, work: Awaitable[None]) -> None:
        """Answer errors in the shape of the protocol, and put the record whatever happens."""
        record = visit.exchange.record
        record.upstream = visit.server.name
        error: str | None = "internal_error"
        try:
            await work
            error = record.error
        except DisconnectedError:
            error = "client_disconnected"
            raise
        except GatewayError as failure:
            error = record.error or failure.code
            await visit.fail(failure)
        finally:
            record.response = b"".join(visit.answer.kept)
            record.response_type = visit.answer.content_type
            self._gate.end(visit.exchange, status=visit.answer.status, error=error)


class _Collected:
    """Takes what would be sent to a client, to be put into the answer to a batch."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._body = bytearray()
        self._stream = False

    async def __call__(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self._stream = (b"content-type", b"text/event-stream") in message["headers"]
        else:
            self._body += message.get("body", b"")
            if len(self._body) > self._bytes_max:
                raise UpstreamError("upstream_too_large", "the answers to the batch are too long")

    def responses(self) -> list[bytes]:
        """The JSON-RPC responses; notifications of a stream have no place in a batch's answer."""
        if not self._stream:
            return [bytes(self._body)] if self._body else []
        events = sse.Parser(len(self._body) + 1).feed(bytes(self._body))
        return [e.data for e in events if e.data and isinstance(mcp.decode(e.data), mcp.Response)]


async def _while_connected(visit: Visit, work: Awaitable[None]) -> None:
    """Do the work until it is done or the client goes away, which ends it. Raises DisconnectedError then."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(visit.request.receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise DisconnectedError
        await task
    finally:
        for pending in (task, gone):
            pending.cancel()
        with contextlib.suppress(asyncio.CancelledError, GatewayError):
            await asyncio.gather(task, gone, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _describe(visit: Visit, method: str) -> None:
    record = visit.exchange.record
    record.operation = method[:64]
    record.attributes = {"mcp.method.name": method[:64], "mcp.protocol.version": visit.version}
    if visit.request_id is not None:
        record.attributes = {**record.attributes, "jsonrpc.request.id": str(visit.request_id)[:64]}


def _no_duplicates(headers: list[tuple[bytes, bytes]]) -> None:
    """Raises RpcError -32020: whoever reads the first copy and whoever reads the last would disagree."""
    seen: set[bytes] = set()
    for name, _ in headers:
        if name in seen and (name.decode("latin-1") in _ROUTING or name.startswith(b"mcp-param-")):
            raise RpcError(mcp.HEADER_MISMATCH, f"the `{name.decode('latin-1')[:64]}` header appears more than once")
        seen.add(name)


def _method_not_allowed() -> ClientError:
    return ClientError("method_not_allowed", f"use POST here (GET and DELETE before {MODERN_VERSION})", status=405)
