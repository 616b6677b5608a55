"""The gateway's own MCP client: small, both eras, one upstream session at a time.

Used to read tool definitions and to run what people approved. Owns negotiation, the JSON or SSE answer, and the
question that matters afterwards: is it certain that nothing ran? Knows no policy and no queue.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast

from gateway import __version__
from gateway.core.errors import ClientError, UpstreamError
from gateway.proxy.upstream import Phase, UpstreamFailure
from gateway.wire import mcp, sse
from gateway.wire.mcp import MODERN_VERSION

if TYPE_CHECKING:
    from gateway.proxy.endpoint import Endpoint
    from gateway.proxy.pool import Pool, Response

PAGES_MAX = 50  # of tools/list: a server that pages for ever is cut off
TOOLS_MAX = 5_000
LIST_S_MAX = 30.0  # for the whole of one handshake or list request
_ACCEPT = (b"accept", b"application/json, text/event-stream")
_JSON = (b"content-type", b"application/json")
_IDENTITY = (b"accept-encoding", b"identity")


class UpstreamRefusedError(UpstreamError):
    """The upstream answered that it did not take the request: certainly nothing ran."""


class McpClient:
    """Opens sessions, and remembers which era each endpoint speaks."""

    def __init__(self, pool: Pool, *, response_bytes_max: int = 16 * 1024 * 1024) -> None:
        self._pool = pool
        self._bytes_max = response_bytes_max
        self._modern: dict[tuple[object, bytes], bool] = {}  # bounded by the endpoints of the bundle

    def session(self, endpoint: Endpoint, *, traceparent: str | None = None) -> McpSession:
        """A session to be used with `async with`: entering negotiates, leaving ends it at the upstream."""
        return McpSession(self._pool, endpoint, self._bytes_max, self._modern, traceparent)

    async def list_tools(self, endpoint: Endpoint) -> list[dict[str, Any]]:
        """All tools of an upstream, as it serves them to the operator's credential. Raises UpstreamError."""
        async with self.session(endpoint) as session:
            return await session.list_tools()


class McpSession:
    """One conversation with one upstream. Raises UpstreamFailure (see `dispatched`) and UpstreamRefusedError."""

    def __init__(
        self,
        pool: Pool,
        endpoint: Endpoint,
        bytes_max: int,
        modern: dict[tuple[object, bytes], bool],
        traceparent: str | None,
    ) -> None:
        self._pool = pool
        self._endpoint = endpoint
        self._bytes_max = bytes_max
        self._known = modern
        self._key = (endpoint.target, endpoint.path)
        self._traceparent = traceparent
        self._session_id: bytes | None = None
        self._next_id = 1
        self.answer_bytes = 0
        """How long the last answer was, as it came: the JSON-RPC message without the framing of a stream."""
        self.version = ""
        """The protocol version that was agreed on, once the session is open."""

    async def __aenter__(self) -> Self:
        modern = self._known.get(self._key)
        if modern is None:
            modern = await self._discover()
        self.version = MODERN_VERSION
        if not modern:
            self._known.pop(self._key, None)
            await self._initialize()
        self._known[self._key] = modern
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session_id is not None:
            try:
                response = await self._send("DELETE", b"", (), LIST_S_MAX)
                await response.aclose()
            except UpstreamError:
                pass  # a courtesy: the upstream ends idle sessions by itself
        if isinstance(error, UpstreamError):
            self._known.pop(self._key, None)  # it may have been replaced by a server of the other era

    async def list_tools(self) -> list[dict[str, Any]]:
        """Every page of `tools/list`. Raises UpstreamRefusedError where the upstream answers an error."""
        tools: list[dict[str, Any]] = []
        cursor: str | None = None
        for _ in range(PAGES_MAX):
            params = {} if cursor is None else {"cursor": cursor}
            answer = await self.request("tools/list", mcp.encode(params), total_s=LIST_S_MAX)
            if answer.result is None or not isinstance(answer.result.get("tools"), list):
                raise UpstreamRefusedError("upstream_refused", "the tool server did not answer with a list of tools")
            tools += [tool for tool in answer.result["tools"] if isinstance(tool, dict)]
            cursor = answer.result.get("nextCursor")
            if not isinstance(cursor, str) or len(tools) > TOOLS_MAX:
                break
        return tools[:TOOLS_MAX]

    async def call_tool(
        self,
        name: str,
        arguments: bytes,
        *,
        headers: Mapping[str, str],
        added: Sequence[tuple[bytes, bytes]] = (),
        total_s: float,
    ) -> mcp.Response:
        """Send `tools/call` once, with these very bytes as arguments. `headers` are the mirrored `mcp-param-*`, which
        only 2026-07-28 has; what is `added` goes out in every era."""
        params = b'{"name":' + _text(name) + b',"arguments":' + arguments + b"}"
        return await self.request("tools/call", params, name=name, headers=headers, added=added, total_s=total_s)

    async def request(  # noqa: PLR0913 - one request, word by word
        self,
        method: str,
        params: bytes,
        *,
        name: str | None = None,
        headers: Mapping[str, str] | None = None,
        added: Sequence[tuple[bytes, bytes]] = (),
        total_s: float,
    ) -> mcp.Response:
        """One request and its answer, which may be a JSON-RPC error. `params` is a JSON object as bytes."""
        identifier = self._next_id
        self._next_id += 1
        sent: list[tuple[bytes, bytes]] = [*added]
        meta: dict[str, Any] = {}
        if self._traceparent is not None:
            meta["traceparent"] = self._traceparent
            sent.append((b"traceparent", self._traceparent.encode()))
        if self.version == MODERN_VERSION:
            meta |= {mcp.VERSION_KEY: MODERN_VERSION, mcp.CAPABILITIES_KEY: {}, mcp.CLIENT_INFO_KEY: _client_info()}
            sent.append((b"mcp-method", method.encode()))
            if name is not None:
                sent.append((b"mcp-name", mcp.encode_header(name).encode()))
            sent += [(key.encode(), value.encode()) for key, value in (headers or {}).items()]
        if meta:
            params = params[:-1] + (b"," if len(params) > 2 else b"") + b'"_meta":' + mcp.encode(meta) + b"}"
        body = b'{"jsonrpc":"2.0","id":%d,"method":%s,"params":%s}' % (identifier, _text(method), params)
        response = await self._send("POST", body, sent, total_s)
        async with response:
            return await self._answer(response, identifier)

    async def _discover(self) -> bool:
        """Whether the upstream speaks 2026-07-28. Only a valid answer says so; an outage is not a verdict."""
        self.version = MODERN_VERSION
        try:
            answer = await self.request("server/discover", b"{}", total_s=LIST_S_MAX)
        except UpstreamRefusedError:
            return False
        except UpstreamFailure as failure:
            if failure.code in {"upstream_status", "upstream_protocol"}:
                return False  # old servers stumble over the unknown version in many ways
            raise
        versions = (answer.result or {}).get("supportedVersions")
        return isinstance(versions, list) and MODERN_VERSION in versions

    async def _initialize(self) -> None:
        self.version = ""
        params = {"protocolVersion": mcp.HANDSHAKE_VERSIONS[-1], "capabilities": {}, "clientInfo": _client_info()}
        answer = await self.request("initialize", mcp.encode(params), total_s=LIST_S_MAX)
        version = (answer.result or {}).get("protocolVersion")
        if version not in mcp.HANDSHAKE_VERSIONS:
            raise UpstreamRefusedError(
                "upstream_refused", "the tool server speaks no MCP version that the gateway knows"
            )
        self.version = str(version)
        body = b'{"jsonrpc":"2.0","method":"notifications/initialized"}'
        async with await self._send("POST", body, (), LIST_S_MAX) as response:
            if response.status >= 300:
                raise UpstreamRefusedError("upstream_refused", "the tool server refused the handshake")

    async def _send(
        self, method: str, body: bytes, headers: list[tuple[bytes, bytes]] | tuple[()], total_s: float
    ) -> Response:
        sent = [_ACCEPT, _IDENTITY, *self._endpoint.headers, *headers]
        if body:
            sent.append(_JSON)
        if self.version == MODERN_VERSION or mcp.at_least(self.version, "2025-06-18"):
            sent.append((b"mcp-protocol-version", self.version.encode()))
        if self._session_id is not None:
            sent.append((b"mcp-session-id", self._session_id))
        timeouts = replace(self._endpoint.timeouts, total_s=min(total_s, self._endpoint.timeouts.total_s or total_s))
        response = await self._pool.request(
            self._endpoint.target, method, self._endpoint.path, sent, body, timeouts=timeouts
        )
        for key, value in response.headers:
            if key == b"mcp-session-id" and self._session_id is None:
                self._session_id = value
        return response

    async def _answer(self, response: Response, identifier: int) -> mcp.Response:
        """The answer to this request. An HTTP refusal without a JSON-RPC error in it is UpstreamRefusedError; a server
        error, or an answer that cannot be understood, leaves it open whether something ran."""
        kind = dict(response.headers).get(b"content-type", b"").split(b";", 1)[0].strip().lower()
        if response.status >= 500:
            raise _doubt("upstream_status", "the tool server failed")
        if response.status < 300 and kind == b"text/event-stream":
            return await self._from_stream(response, identifier)
        try:
            data = await response.read(self._bytes_max)
            self.answer_bytes = len(data)
            message = mcp.decode(data)
        except ClientError:
            message = None
        if isinstance(message, mcp.Response) and message.id in {identifier, None}:
            return message
        if response.status >= 300:
            raise UpstreamRefusedError(
                "upstream_refused", f"the tool server refused the request with {response.status}"
            )
        raise _doubt("upstream_protocol", "the tool server's answer is not MCP")

    async def _from_stream(self, response: Response, identifier: int) -> mcp.Response:
        parser = sse.Parser(self._bytes_max)
        total = 0
        async with aclosing(cast("AsyncGenerator[bytes, None]", response.chunks())) as chunks:
            async for chunk in chunks:
                total += len(chunk)
                events = parser.feed(chunk)
                if parser.overflow or total > 4 * self._bytes_max:
                    raise _doubt("upstream_too_large", "the tool server's stream is too long")
                for event in events:
                    message = _message(event.data) if event.data else None
                    if isinstance(message, mcp.Response) and message.id == identifier:
                        self.answer_bytes = len(event.data or b"")
                        return message
                    if isinstance(message, mcp.Request):
                        await self._reply(message)
        raise _doubt("upstream_closed", "the tool server closed its stream without an answer")

    async def _reply(self, request: mcp.Request) -> None:
        """Requests of the server: a ping is answered; the gateway has no model, no roots and nobody to ask."""
        if request.method == "ping":
            body = mcp.result(request.id, {})
        else:
            body = mcp.error(request.id, mcp.METHOD_NOT_FOUND, "this client has no such capability")
        async with await self._send("POST", body, (), LIST_S_MAX):
            pass


def _message(data: bytes) -> object:
    try:
        return mcp.decode(data)
    except ClientError:
        raise _doubt("upstream_protocol", "the tool server's stream is not MCP") from None


def _doubt(code: str, message: str) -> UpstreamFailure:
    return UpstreamFailure(code, message, phase=Phase.READ, dispatched=True)


def _client_info() -> dict[str, str]:
    return {"name": "agent-gateway", "version": __version__}


def _text(value: str) -> bytes:
    return json.dumps(value).encode()
