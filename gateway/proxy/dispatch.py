"""One approved action, made ready and sent: over MCP or as the HTTP operation that its arguments spell.

Everything that can fail harmlessly (connecting, the handshake, reading the definition) happens in `ready`, before the
claim. `send` puts the stored bytes on the wire once and says what came of it; it raises where nobody can know.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from gateway.core.action import Surface
from gateway.core.canonical import JSON, parse
from gateway.core.errors import ClientError, UpstreamError
from gateway.proxy.asgi import JSON_TYPE
from gateway.proxy.definitions import Definition, definition
from gateway.proxy.endpoint import Endpoint, endpoint_of
from gateway.proxy.http_surface import check_status, idempotency_key
from gateway.proxy.mcp_client import McpClient, McpSession, UpstreamRefusedError
from gateway.proxy.mcp_relay import clean_error
from gateway.proxy.obligations import RESULT_TOO_LARGE, Duties
from gateway.proxy.upstream import UpstreamFailure
from gateway.wire import http_tool, leaves, mcp_tools

if TYPE_CHECKING:
    from gateway.approvals.held_action import HeldAction
    from gateway.proxy.deps import Deps
    from gateway.proxy.http_calls import Operations, Prepared

EXECUTION_S_MAX = 900.0  # longer than any tool that answers in one request; beyond, the outcome is UNKNOWN


class GoneError(ClientError):
    """The bundle or the upstream no longer has what people approved."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the tool answered. `ok` is False where it said that it failed, or where it certainly did not run. `error` is
    the code that the record gets, where `ok` does not say it all."""

    ok: bool
    result: bytes
    error: str | None = None


class Ready(Protocol):
    """An action that needs only to be sent. `definition` is the digest as served at this moment."""

    endpoint: Endpoint
    definition: str | None

    @property
    def credential(self) -> str | None: ...
    def check(self, arguments: Mapping[str, JSON]) -> str | None: ...
    async def send(self, held: HeldAction, duties: Duties) -> Outcome:
        """Send it and meet the duties. An answer that they do not let through changes nothing about `ok`."""
        ...


class Dispatcher:
    """Makes actions ready."""

    def __init__(self, deps: Deps, client: McpClient, operations: Operations) -> None:
        self._deps = deps
        self._client = client
        self._operations = operations

    @asynccontextmanager
    async def ready(self, held: HeldAction, traceparent: str) -> AsyncIterator[Ready]:
        """Raises GoneError where the bundle or the upstream no longer has the tool, UpstreamError where the upstream
        cannot be reached. Nothing of the call was sent then."""
        policy = self._deps.policy()
        if held.surface is Surface.HTTP:
            tool = policy.http_tools.get(held.server)
            prepared = None if tool is None else self._operations.of(tool).get(held.tool)
            if tool is None or prepared is None:
                raise GoneError("unknown_tool", "the bundle no longer has this operation")
            yield _HttpReady(self._deps, endpoint_of(tool), prepared, traceparent)
            return
        server = policy.servers.get(held.server)
        if server is None:
            raise GoneError("unknown_server", "the bundle no longer has this server")
        endpoint = endpoint_of(server)
        async with self._client.session(endpoint, traceparent=traceparent) as session:
            tools = await session.list_tools()
            self._deps.definitions.store(endpoint, tools)
            served = next((tool for tool in tools if tool.get("name") == held.tool), None)
            found = None if served is None else definition(served)
            if found is None:
                raise GoneError("unknown_tool", "the tool server no longer has this tool")
            yield _McpReady(endpoint, found, session)


class _McpReady:
    def __init__(self, endpoint: Endpoint, served: Definition, session: McpSession) -> None:
        self.endpoint = endpoint
        self.definition: str | None = served.digest
        self._served = served
        self._session = session

    @property
    def credential(self) -> str | None:
        return self.endpoint.credential

    def check(self, arguments: Mapping[str, JSON]) -> str | None:
        return self._served.problem(arguments)

    async def send(self, held: HeldAction, duties: Duties) -> Outcome:
        """Raises UpstreamFailure where it is not known whether the tool ran."""
        mirrored = mcp_tools.mirrored_headers(self._served.schema, held.action().arguments)
        try:
            answer = await self._session.call_tool(
                held.tool, held.arguments, headers=mirrored, added=duties.headers, total_s=EXECUTION_S_MAX
            )
        except UpstreamRefusedError as error:
            return _not_run(error)
        except UpstreamFailure as failure:
            if failure.dispatched:
                raise
            return _not_run(failure)
        if answer.error is not None:
            return _said(str(clean_error(answer.error)["message"]))
        result = answer.result or {}
        if not isinstance(result.get("content"), list):
            # A question or a task instead of a result: the gateway has nobody to ask and cannot follow it.
            return _said("the tool answered with a question or a task of its own instead of a result")
        ok = result.get("isError") is not True
        if not duties.permits(self._session.answer_bytes):
            ended = "succeeded" if ok else "failed"
            text = f"EXECUTED, and the tool says that it {ended}. Its answer is withheld: {duties.too_large}."
            return Outcome(ok, _tool_error(text), RESULT_TOO_LARGE)
        return Outcome(ok, leaves.encode(result))


class _HttpReady:
    def __init__(self, deps: Deps, endpoint: Endpoint, prepared: Prepared, traceparent: str) -> None:
        self.endpoint = endpoint
        self.definition: str | None = prepared.definition.digest
        self._deps = deps
        self._prepared = prepared
        self._traceparent = traceparent

    @property
    def credential(self) -> str | None:
        return self.endpoint.credential

    def check(self, arguments: Mapping[str, JSON]) -> str | None:
        try:
            http_tool.encode(self._prepared.template, arguments)
        except ClientError as error:
            return error.message
        return self._prepared.problem(arguments)

    async def send(self, held: HeldAction, duties: Duties) -> Outcome:
        """Raises UpstreamError where it is not known whether the operation ran: a server error leaves that open."""
        wire = http_tool.encode(self._prepared.template, held.action().arguments)
        body = wire.body or (b"{}" if _wants_body(held, wire.method) else b"")
        headers = [
            *([JSON_TYPE] if body else []),
            (b"accept", b"application/json, */*;q=0.5"),
            (b"accept-encoding", b"identity"),
            (b"traceparent", self._traceparent.encode()),
        ]
        if self.endpoint.idempotency_key:
            headers.append((b"idempotency-key", idempotency_key(held.digest, held.id)))
        timeouts = replace(self.endpoint.timeouts, total_s=self.endpoint.timeouts.total_s or EXECUTION_S_MAX)
        try:
            response = await self._deps.pool.request(
                self.endpoint.target,
                wire.method,
                self.endpoint.path + wire.target.encode(),
                [*headers, *duties.headers, *self.endpoint.headers],
                body,
                timeouts=timeouts,
            )
        except UpstreamFailure as failure:
            if failure.dispatched:
                raise
            return _http(False, 502, "application/json", leaves.encode({"error": failure.code}))
        async with response:
            if response.status >= 500:
                raise UpstreamError("upstream_status", "the tool answered with a server error")
            try:
                check_status(response.status)
                answer = await response.read(duties.bound(self._deps.response_bytes_max))
            except UpstreamFailure as failure:
                if failure.code != "upstream_too_large":
                    raise
                return _http_too_large(response.status, failure.message)
            except UpstreamError as error:  # a redirect, or the operator's credential was refused: it did not run
                return _http(False, error.status, "application/json", leaves.encode({"error": error.code}))
            kind = dict(response.headers).get(b"content-type", b"").decode("latin-1")
        return _http(response.status < 300, response.status, kind, answer)


def _wants_body(held: HeldAction, method: str) -> bool:
    """Whether the call came with a body, if only an empty object."""
    return method in http_tool.BODY_METHODS and held.execution.get("empty_body") is False


def _http(ok: bool, status: int, kind: str, body: bytes) -> Outcome:
    """An HTTP answer as it is kept: status, type, and the body as JSON, text or base64."""
    value: dict[str, JSON] = {"status": status, "content_type": kind}
    try:
        value["json"] = parse(body)
    except ClientError:
        try:
            value["text"] = body.decode()
        except UnicodeDecodeError:
            value["base64"] = base64.b64encode(body).decode()
    return Outcome(ok, leaves.encode(value))


def _http_too_large(status: int, message: str) -> Outcome:
    """The operation was answered, so its outcome is known; only what it answered is not kept. For the agent it is the
    same error as that of a call which nobody held."""
    said = f"the tool was called and answered {status}, but {message}, so none of it is kept"
    error: JSON = {"error": {"code": RESULT_TOO_LARGE, "message": said}}
    kept: JSON = {"status": 502, "content_type": "application/json", "json": error}
    return Outcome(status < 300, leaves.encode(kept), RESULT_TOO_LARGE)


def _not_run(error: UpstreamError) -> Outcome:
    return _said(f"NOT EXECUTED. {error.message}")


def _said(text: str) -> Outcome:
    """A failure in the form of a tool's result."""
    return Outcome(False, _tool_error(text))


def _tool_error(text: str) -> bytes:
    return leaves.encode({"content": [{"type": "text", "text": text}], "isError": True})
