"""One HTTP request on the MCP surface: who, which server, which era, and the ways to answer it.

Owns the headers that cross the border in each direction (an allowlist each) and the binding of session ids to agents.
Knows no policy and calls no upstream.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from gateway.core.errors import ClientError, GatewayError
from gateway.proxy.asgi import JSON_TYPE, Header, Send, respond
from gateway.traces import context
from gateway.wire import mcp
from gateway.wire.mcp import MODERN_VERSION, RpcError

if TYPE_CHECKING:
    from gateway.approvals.held_action import HeldAction
    from gateway.policy import McpServer
    from gateway.proxy.endpoint import Endpoint
    from gateway.proxy.plane import Request
    from gateway.proxy.tool_calls import Exchange

RUN_KEY = "gateway/run"
RUN_CHARS_MAX = 128
KEPT_BYTES_MAX = 1024 * 1024  # of an answer for its trace; the recorder cuts again
EVENT_STREAM: tuple[Header, ...] = (
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
)
# Request headers that an upstream sees. Everything else (authorization, cookies, forwarding, custom) stays here.
_TO_UPSTREAM = ("accept", "mcp-protocol-version", "last-event-id")
_TO_UPSTREAM_MODERN = ("mcp-method", "mcp-name")
# Response headers that an agent sees. `set-cookie`, `www-authenticate`, `server` and the like do not cross.
_TO_AGENT = frozenset(
    {b"content-type", b"cache-control", b"mcp-protocol-version", b"retry-after", b"x-accel-buffering"}
)


class Answer:
    """The response of one request: a whole JSON body, or a stream of events that ends."""

    __slots__ = ("_headers", "_kept", "_send", "content_type", "kept", "started", "status")

    def __init__(self, send: Send) -> None:
        self._send = send
        self._headers: list[Header] = []
        self.started = False
        self.status = 0
        self.content_type = ""
        self.kept: list[bytes] = []
        """What was answered, for the trace; cut after KEPT_BYTES_MAX."""
        self._kept = 0

    def add(self, headers: list[Header]) -> None:
        """Headers to send with whatever is answered."""
        self._headers += headers

    async def whole(self, status: int, body: bytes, headers: tuple[Header, ...] = (JSON_TYPE,)) -> None:
        """The only message of the response; as the last event where a stream has begun."""
        if self.started:
            await self.event(body)
            await self.close()
            return
        self.started, self.status, self.content_type = True, status, "application/json"
        self._keep(body)
        await respond(self._send, status, body, [*headers, *self._headers])

    async def event(self, data: bytes) -> None:
        """One JSON-RPC message as an event. Begins the stream."""
        await self.raw(b"event: message\ndata: " + data + b"\n\n")

    async def raw(self, data: bytes) -> None:
        """Bytes of a stream of events. Begins it."""
        await self.open()
        self._keep(data)
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def open(self) -> None:
        """Begin a stream of events."""
        if not self.started:
            self.started, self.status, self.content_type = True, 200, "text/event-stream"
            headers = [*EVENT_STREAM, *self._headers]
            await self._send({"type": "http.response.start", "status": 200, "headers": headers})

    def _keep(self, data: bytes) -> None:
        if self._kept < KEPT_BYTES_MAX:
            self.kept.append(data)
            self._kept += len(data)

    async def close(self) -> None:
        """End the stream."""
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})


@dataclass(slots=True, eq=False, kw_only=True)
class Visit:
    """What is known of the request. `request_id` and `version` are set once the body is read."""

    request: Request
    server: McpServer
    endpoint: Endpoint
    exchange: Exchange
    answer: Answer
    headers: Mapping[str, str]
    session: str | None = None  # the upstream's own session id, once the agent proved that it is its own
    request_id: mcp.RequestId | None = None
    version: str = mcp.BATCH_VERSION
    traced: bool = False  # the caller itself said to which trace this belongs
    waiting: HeldAction | None = None
    """The held action that this very request created and still waits for."""

    @property
    def modern(self) -> bool:
        return self.version == MODERN_VERSION

    @property
    def takes_events(self) -> bool:
        """Whether the client reads a stream of events."""
        return "text/event-stream" in self.headers.get("accept", "")

    def identify(self, meta: Mapping[str, Any]) -> None:
        """Take the run and the trace that the body names. `_meta` wins over headers (2026-07-28, "Trace context").

        Raises RpcError -32602 for a run that is no short printable text."""
        caller = self.exchange.caller
        self.traced = self.request.named
        run, parent = meta.get(RUN_KEY), context.parse_traceparent(_text(meta.get("traceparent")))
        if run is not None:
            if (
                not isinstance(run, str)
                or not 0 < len(run) <= RUN_CHARS_MAX
                or not (run.isascii() and run.isprintable())
            ):
                raise RpcError(mcp.INVALID_PARAMS, f"`_meta.{RUN_KEY}` must be 1 to 128 printable ASCII characters")
            caller = replace(caller, run=run, trace_id=context.normalise_run(run, scope=caller.agent.name))
            self.traced = True
        elif parent is not None and caller.run is None:
            caller = replace(caller, trace_id=parent.trace_id)
            self.traced = True
        elif not self.request.named and self.session is not None:
            caller = replace(caller, trace_id=context.normalise_run(self.session, scope=caller.agent.name))
        if parent is not None:
            caller = replace(caller, parent_span=parent.span if parent.trace_id == caller.trace_id else None)
        self.exchange.caller = caller

    def to_upstream(self, mirrored: Mapping[str, str] | None = None) -> list[Header]:
        """The headers of the upstream request: the operator's credential, the gateway's span, and what the protocol
        needs. `mirrored` are the `mcp-param-*` headers, derived anew from the arguments that are sent."""
        names = (*_TO_UPSTREAM, *_TO_UPSTREAM_MODERN) if self.modern else _TO_UPSTREAM
        headers = [(name.encode(), self.headers[name].encode("latin-1")) for name in names if name in self.headers]
        if self.request.scope["method"] == "POST":
            headers.append(JSON_TYPE)
        if mirrored is None:
            mirrored = {name: value for name, value in self.headers.items() if name.startswith("mcp-param-")}
        if self.modern:
            headers += [(name.encode(), value.encode("latin-1")) for name, value in mirrored.items()]
        if self.session is not None:
            headers.append((b"mcp-session-id", self.session.encode("latin-1")))
        headers.append((b"traceparent", self.exchange.caller.traceparent.encode()))
        headers.append((b"accept-encoding", b"identity"))  # what cannot be read cannot be judged
        return [*headers, *self.endpoint.headers]

    def to_agent(self, headers: list[Header], key: bytes) -> list[Header]:
        """The headers of an upstream response that may pass, with the session id bound to this agent."""
        passed = [(name, value) for name, value in headers if name in _TO_AGENT and name != b"content-type"]
        for name, value in headers:
            if name == b"mcp-session-id":
                bound = bind(value.decode("latin-1"), self.exchange.caller.agent.name, self.server.name, key)
                passed.append((name, bound.encode("latin-1")))
        return passed

    async def fail(self, error: GatewayError) -> None:
        """Answer with a JSON-RPC error.

        Clients of the handshake eras look at the HTTP status first and may never match the body to their request, so
        an answered request is 200 there, but for 404: that ends a session (2025-06-18, "Session Management").
        """
        rpc_code, data = mcp.INTERNAL_ERROR if error.status >= 500 else mcp.INVALID_REQUEST, None
        if isinstance(error, RpcError):
            rpc_code, data = error.rpc_code, error.data
        if data is None:
            data = {"code": error.code}
            if error.retry_after_s is not None:
                data["retry_after_s"] = error.retry_after_s
        keep = self.modern or self.request_id is None or error.status in {404, 405}
        headers: list[Header] = [JSON_TYPE]
        if error.retry_after_s is not None:
            headers.append((b"retry-after", b"%d" % error.retry_after_s))
        body = mcp.error(self.request_id, rpc_code, error.message, data)
        await self.answer.whole(error.status if keep else 200, body, tuple(headers))


def bind(session: str, agent: str, server: str, key: bytes) -> str:
    """The session id as its agent sees it. All agents share the operator's credential at the upstream, so only this
    keeps one agent out of another's session (MCP security: bind session ids to users)."""
    return f"{session}~{_tag(session, agent, server, key)}"


def unbind(bound: str, agent: str, server: str, key: bytes) -> str:
    """The upstream's session id. Raises ClientError `session_unknown` (404), upon which clients begin a new session."""
    session, _, tag = bound.rpartition("~")
    if not hmac.compare_digest(tag.encode("latin-1"), _tag(session, agent, server, key).encode()):
        raise ClientError("session_unknown", "there is no such session; initialize a new one", status=404)
    return session


def _tag(session: str, agent: str, server: str, key: bytes) -> str:
    spelled = mcp.encode({"session": session, "agent": agent, "server": server})
    return base64.urlsafe_b64encode(hmac.digest(key, spelled, hashlib.sha256)[:18]).decode()


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
