"""The data plane: one bare ASGI callable. Authenticates, names the run, dispatches, and turns errors into answers.

The one broad `except` of the product stands here, at the outer edge, where it denies. Knows no dialect beyond the shape
of its errors.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from gateway.core.errors import ClientError, GatewayError, places
from gateway.proxy.asgi import JSON_TYPE, DisconnectedError, Header, Receive, Scope, Send, header_map, respond
from gateway.proxy.caller import Caller
from gateway.traces import context
from gateway.traces.record import ExchangeRecord
from gateway.wire import anthropic, openai_chat

if TYPE_CHECKING:
    from gateway.policy import AgentView
    from gateway.policy.identity import Keyring
    from gateway.proxy.deps import Deps
    from gateway.proxy.limits import Limiter

log = logging.getLogger("gateway.proxy")

RUN = re.compile(rb"[\x21-\x7e]{1,128}")
_MODEL_SURFACE = "/v1/"
_ANTHROPIC = "/v1/messages"


@dataclass(slots=True, kw_only=True, eq=False)  # not frozen: that costs more than making the caller
class Request:
    """One authenticated request, before its body is read. `named` is False where the trace is still to be guessed."""

    scope: Scope
    receive: Receive
    send: Send
    path: str
    headers: Mapping[bytes, bytes]
    caller: Caller
    named: bool


Handler = Callable[[Request], Awaitable[None]]


class DataPlane:
    """`handlers` maps a path prefix to its surface; the longest prefix wins. `keyring()` is the one in force now."""

    def __init__(
        self,
        deps: Deps,
        *,
        keyring: Callable[[], Keyring],
        limiter: Limiter,
        handlers: Mapping[str, Handler],
        ready: Callable[[], tuple[bool, dict[str, object]]],
    ) -> None:
        self._deps = deps
        self._keyring = keyring
        self._limiter = limiter
        self._handlers = sorted(handlers.items(), key=lambda item: -len(item[0]))
        self._ready = ready

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await receive()
                await send({"type": "websocket.close", "code": 1008})
            return
        started = _Started(send)
        path: str = scope["path"]
        try:
            await self._dispatch(path, scope, receive, started)
        except DisconnectedError:
            return
        except GatewayError as error:
            await self._refuse(path, error, started)
        except Exception as error:  # noqa: BLE001 - the one broad edge, which denies
            # The outer edge: whatever went wrong, nothing more is let through. The message of a foreign exception may
            # quote the prompt, so the log has its type and place only.
            log.error("request failed: %s at %s", type(error).__name__, places(error))
            await self._refuse(
                path, GatewayError("internal_error", "the gateway failed; nothing was executed"), started
            )

    async def _dispatch(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        if path == "/healthz":
            await respond(send, 200, b'{"status":"ok"}')
            return
        if path == "/readyz":
            ready, report = self._ready()
            await respond(send, 200 if ready else 503, orjson.dumps(report))
            return
        headers = header_map(scope)
        agent = self._authenticate(headers)
        caller, named = self._caller(agent, headers)
        for prefix, handler in self._handlers:
            if path.startswith(prefix):
                if not self._limiter.take(agent, now=self._deps.clock()):
                    await self._admit(caller, _surface(path))
                await handler(
                    Request(
                        scope=scope,
                        receive=receive,
                        send=send,
                        path=path,
                        headers=headers,
                        caller=caller,
                        named=named,
                    )
                )
                return
        raise ClientError("not_found", "there is nothing at this path; see the README for the paths", status=404)

    async def _admit(self, caller: Caller, surface: str) -> None:
        """Take one of the agent's requests, whatever the surface. A refusal is recorded: it says why nothing ran."""
        now = self._deps.clock()
        try:
            await self._limiter.admit(caller.agent, now=now)
        except GatewayError as error:
            self._deps.recorder.put(
                ExchangeRecord(
                    id=context.exchange_id(),
                    trace_id=caller.trace_id,
                    span=caller.span,
                    parent_span=caller.parent_span,
                    run=caller.run,
                    agent=caller.agent.name,
                    surface=surface,
                    operation="admit",
                    started_s=now,
                    status=error.status,
                    error=error.code,
                    reason=error.message,
                    release=self._deps.policy().release,
                )
            )
            raise

    def _authenticate(self, headers: Mapping[bytes, bytes]) -> AgentView:
        """The agent that holds the presented gateway key. What a caller says of itself is not looked at."""
        token = headers.get(b"authorization", b"")
        scheme, _, token = token.partition(b" ")
        if scheme.lower() != b"bearer":
            token = headers.get(b"x-api-key", b"")
        name = self._keyring().agent(token.strip().decode("latin-1"))
        if name is None:
            raise ClientError(
                "unknown_key",
                "the gateway key is missing or unknown; send it as `Authorization: Bearer gk_...`",
                status=401,
            )
        agent = self._deps.policy().agent(name)
        if agent is None:
            raise ClientError("unknown_agent", f"the agent `{name}` is not in the policy bundle", status=403)
        return agent

    def _caller(self, agent: AgentView, headers: Mapping[bytes, bytes]) -> tuple[Caller, bool]:
        run: str | None = None
        asked = headers.get(b"x-gateway-run")
        if asked is not None:
            if not RUN.fullmatch(asked):
                raise ClientError(
                    "bad_run", "`x-gateway-run` must be 1 to 128 printable ASCII characters without spaces"
                )
            run = asked.decode("ascii")
        parent = context.parse_traceparent(headers.get(b"traceparent"))
        if run is not None:
            trace = context.normalise_run(run, scope=agent.name)
        else:
            trace = parent.trace_id if parent else context.trace_id()
        caller = Caller(
            agent=agent,
            trace_id=trace,
            span=context.span_id(),
            run=run,
            parent_span=parent.span if parent and parent.trace_id == trace else None,
        )
        return caller, run is not None or parent is not None

    async def _refuse(self, path: str, error: GatewayError, send: _Started) -> None:
        if send.started:
            return  # the surface that had begun to answer has ended its stream in its own dialect
        headers: list[Header] = [JSON_TYPE]
        if error.retry_after_s is not None:
            headers.append((b"retry-after", b"%d" % error.retry_after_s))
        if error.status == 401:
            headers.append((b"www-authenticate", b'Bearer realm="gateway"'))
        await respond(send, error.status, error_body(path, error), headers)


def error_body(path: str, error: GatewayError) -> bytes:
    """The error in the shape that clients of this path parse."""
    surface = _surface(path)
    if path.startswith(_ANTHROPIC):
        return anthropic.error(error.code, error.message, error.status)
    if surface == "model":
        return openai_chat.error(error.code, error.message, error.status)
    if surface == "mcp":
        return orjson.dumps(
            {
                "jsonrpc": "2.0",
                "id": None,
                "error": {"code": -32600, "message": error.message, "data": {"code": error.code}},
            }
        )
    return orjson.dumps({"error": {"code": error.code, "message": error.message}})


def _surface(path: str) -> str:
    if path.startswith(_MODEL_SURFACE):
        return "model"
    return "mcp" if path.startswith("/mcp") else "http"


class _Started:
    """The send of one request, which knows whether the response has begun."""

    __slots__ = ("send", "started")

    def __init__(self, send: Send) -> None:
        self.send = send
        self.started = False

    def __call__(self, message: MutableMapping[str, Any]) -> Awaitable[None]:
        self.started = True
        return self.send(message)
