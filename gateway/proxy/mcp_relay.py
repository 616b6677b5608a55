"""Sends an MCP message on and passes the answer back: JSON or a stream of events, each message looked at on its way.

A message that nothing changes passes as the bytes that came. Owns what an agent may learn of an upstream's failure:
codes, never texts. Knows nothing of policies beyond the filter rules that `ToolGate.look` applies.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, cast

from gateway.core.canonical import JSON
from gateway.core.errors import ClientError, FilterError, GatewayError, UpstreamError
from gateway.core.exchange import Direction, Part
from gateway.proxy import texts
from gateway.proxy.obligations import NO_DUTIES, RESULT_TOO_LARGE, Duties
from gateway.traces.record import Attempt
from gateway.wire import mcp, mcp_tools, sse

if TYPE_CHECKING:
    from gateway.core.filtering import FilterRule
    from gateway.proxy.mcp_visit import Visit
    from gateway.proxy.pool import Response
    from gateway.proxy.tool_calls import ToolGate

Shape = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""Changes the result of the request that is answered, such as filtering a list of tools; the same object: no change."""

Look = Callable[[mcp.Message, int], Awaitable[bytes | None]]
"""A message of so many bytes as it may pass; None: as it came."""

_DATA_KEPT = frozenset({mcp.UNSUPPORTED_VERSION, mcp.MISSING_CAPABILITY, -32042})
"""Errors whose data a client needs to go on: supported versions, missing capabilities, addresses to visit."""

_HANDSHAKE = frozenset({"initialize", "server/discover", "tools/list", "ping"})
"""Answers of these are about the protocol: versions look like telephone numbers, and tools are no text."""


class Relay:
    """Forwards for all visits."""

    def __init__(self, gate: ToolGate) -> None:
        self._gate = gate
        self._deps = gate.deps

    async def forward(  # noqa: PLR0913 - what is sent, and what is made of the answer
        self,
        visit: Visit,
        body: bytes,
        *,
        http_method: str = "POST",
        method: str = "",
        shape: Shape | None = None,
        mirrored: Mapping[str, str] | None = None,
        duties: Duties = NO_DUTIES,
    ) -> None:
        """Send `body` to the server and answer the visit with what comes back.

        `method` is the JSON-RPC method of the request that is sent ('' for anything else). `duties` are met on the way.
        Raises GatewayError where nothing has been answered yet; once a stream has begun its end says what happened.
        """
        started_ns = time.perf_counter_ns()
        status, error, first_ns = None, None, None
        try:
            response = await self._deps.pool.request(
                visit.endpoint.target,
                http_method,
                visit.endpoint.path,
                [*visit.to_upstream(mirrored), *duties.headers],
                body,
                timeouts=visit.endpoint.timeouts,
            )
            async with response:
                status, first_ns = response.status, time.perf_counter_ns() - started_ns
                visit.answer.add(visit.to_agent(response.headers, self._deps.session_key))

                async def look(message: mcp.Message, size: int) -> bytes | None:
                    if isinstance(message, mcp.Response) and not duties.permits(size):
                        return self._too_large(visit, message, method, duties)
                    return await self._look(visit, message, method, shape)

                await self._pass(visit, response, look)
        except GatewayError as failure:
            error = failure.code
            if error == "upstream_too_large" and duties.result_bytes_max is not None and visit.request_id is not None:
                answer = mcp.Response(id=visit.request_id, result={}, error=None, raw={})
                await visit.answer.whole(200, self._too_large(visit, answer, method, duties))
                return
            if not visit.answer.started:
                raise
            await self._break(visit, failure)
        finally:
            visit.exchange.record.attempts = (
                *visit.exchange.record.attempts,
                Attempt(
                    visit.exchange.caller.span,
                    visit.endpoint.name,
                    started_ns - visit.exchange.began_ns,
                    time.perf_counter_ns() - started_ns,
                    first_ns,
                    status,
                    error,
                    visit.endpoint.target.host,
                    visit.endpoint.target.port,
                ),
            )

    async def _pass(self, visit: Visit, response: Response, look: Look) -> None:
        kind = dict(response.headers).get(b"content-type", b"").split(b";", 1)[0].strip().lower()
        if response.status < 300 and kind == b"text/event-stream":
            await self._stream(visit, response, look)
            return
        data = await response.read(self._deps.response_bytes_max)
        message = _answer(data) if kind == b"application/json" else None
        if message is None:
            if 200 <= response.status < 300 and (not data or visit.request_id is None):
                await visit.answer.whole(response.status, b"", ())
                return
            raise refusal(response.status, visit.session is not None)
        if response.status >= 500 or (response.status >= 300 and not isinstance(message, mcp.Response)):
            raise refusal(response.status, visit.session is not None)
        if isinstance(message, mcp.Response) and message.id is not None and message.id != visit.request_id:
            raise UpstreamError("upstream_protocol", "the tool server answered another request than this one")
        changed = await look(message, len(data))
        await visit.answer.whole(response.status, data if changed is None else changed)

    async def _stream(self, visit: Visit, response: Response, look: Look) -> None:
        parser = sse.Parser(self._deps.response_bytes_max)
        answered = False
        await visit.answer.open()
        async with aclosing(cast("AsyncGenerator[bytes, None]", response.chunks())) as chunks:
            async for chunk in chunks:
                for event in parser.feed(chunk):
                    if not event.data:
                        await visit.answer.raw(event.raw)
                        continue
                    message = _answer(event.data)
                    if message is None:
                        raise UpstreamError("upstream_protocol", "the tool server's stream is not MCP")
                    answered |= isinstance(message, mcp.Response)
                    changed = await look(message, len(event.data))
                    await visit.answer.raw(event.raw if changed is None else sse.with_data(event, changed))
                if parser.overflow:
                    raise UpstreamError("upstream_too_large", "an event of the tool server is too long")
        if not answered and visit.request_id is not None and not visit.modern and parser.rest == b"":
            await visit.answer.close()  # a stream may end early and be taken up again with Last-Event-ID (2025-11-25)
            return
        if not answered and visit.request_id is not None:
            raise UpstreamError("upstream_closed", "the tool server closed its stream without an answer")
        await visit.answer.close()

    async def _break(self, visit: Visit, failure: GatewayError) -> None:
        """End a stream that can not go on, with an error that its client can match to its request."""
        visit.exchange.record.error = failure.code
        if visit.request_id is not None:
            body = mcp.error(visit.request_id, mcp.INTERNAL_ERROR, failure.message, {"code": failure.code})
            await visit.answer.event(body)
        await visit.answer.close()

    async def _look(self, visit: Visit, message: mcp.Message, method: str, shape: Shape | None) -> bytes | None:
        """The message as it may pass, or None where it passes as it came. Raises FilterError."""
        raw = message.raw
        if not raw.keys() <= mcp.MEMBERS:  # nobody looks at others
            raw = {name: item for name, item in raw.items() if name in mcp.MEMBERS}
        if isinstance(message, mcp.Response) and message.error is not None:
            return mcp.encode({**raw, "error": await self._clean(visit, message.error)})
        changed: Mapping[str, Any] = raw
        if isinstance(message, mcp.Response) and message.result is not None and shape is not None:
            shaped = shape(message.result)
            if shaped is not message.result:
                changed = {**raw, "result": shaped}
        member = "result" if isinstance(message, mcp.Response) else "params"
        value = changed.get(member)
        if method in _HANDSHAKE and isinstance(message, mcp.Response):
            parts = self._instructions(value)
        else:
            parts = texts.result_parts(value) if visit.exchange.caller.agent.filter_rules else []
        if parts:
            name = visit.exchange.record.name or f"{visit.server.name}.{method or 'notification'}"
            try:
                found = await self._gate.look(visit.exchange, parts, Direction.RESPONSE, name)
            except FilterError as error:
                return self._withheld(visit, message, method, f"withheld: {error.message}")
            if found.denied is not None:
                return self._withheld(visit, message, method, withheld(found.denied))
            if found.edits:
                changed = {**changed, member: texts.edited(value, found.edits)}
        return None if changed is message.raw else mcp.encode(changed)

    async def _clean(self, visit: Visit, error: Mapping[str, Any]) -> dict[str, JSON]:
        """The error as it may pass; what filters object to in its data goes with all of it."""
        cleaned = clean_error(error)
        if "data" in cleaned and visit.exchange.caller.agent.filter_rules:
            parts = texts.result_parts(cleaned["data"])
            name = visit.exchange.record.name or f"{visit.server.name}.error"
            try:
                found = await self._gate.look(visit.exchange, parts, Direction.RESPONSE, name)
            except FilterError:
                found = None
            if found is None or found.denied is not None or found.edits:
                del cleaned["data"]
        return cleaned

    @staticmethod
    def _instructions(value: object) -> list[Part]:
        """What a server says to the model at the handshake."""
        words = value.get("instructions") if isinstance(value, dict) else None
        return texts.result_parts({"instructions": words}) if isinstance(words, str) else []

    def _too_large(self, visit: Visit, message: mcp.Response, method: str, duties: Duties) -> bytes:
        """What stands in the place of an answer that a rule's `cap_result` does not let through."""
        if message.error is None:
            return self._withheld(visit, message, method, f"withheld: {duties.too_large}", RESULT_TOO_LARGE)
        visit.exchange.record.error = RESULT_TOO_LARGE
        meaning = str(clean_error(message.error)["message"])  # what did not run must not read as if it had
        return mcp.error(message.id, mcp.INTERNAL_ERROR, meaning, {"code": RESULT_TOO_LARGE})

    @staticmethod
    def _withheld(visit: Visit, message: mcp.Message, method: str, said: str, code: str = "content_denied") -> bytes:
        """What stands in the place of a message that a rule forbids, or that could not be looked at."""
        visit.exchange.record.error = code
        if isinstance(message, mcp.Response) and message.id is not None and method == "tools/call":
            text = f"The tool ran, but its answer is {said}"
            return mcp.result(message.id, mcp_tools.text_result(text, is_error=True, version=visit.version))
        if isinstance(message, mcp.Notification):
            return mcp.encode({"jsonrpc": "2.0", "method": message.method})
        return mcp.error(message.id, mcp.INTERNAL_ERROR, f"the content is {said}", {"code": code})


def withheld(rule: FilterRule) -> str:
    """Why an answer does not reach the agent."""
    return f"withheld by the filter rule `{rule.policy}/{rule.id}`: {rule.reason}"


def _answer(data: bytes) -> mcp.Message | None:
    try:
        message = mcp.decode(data)
    except ClientError:
        return None
    return None if isinstance(message, tuple) else message


def clean_error(error: Mapping[str, Any]) -> dict[str, JSON]:
    """A JSON-RPC error of an upstream without its words: they were written by its programs, for its operators."""
    code = error["code"]
    cleaned: dict[str, JSON] = {"code": code, "message": _MEANINGS.get(code, f"the tool server answered error {code}")}
    if code in _DATA_KEPT and "data" in error:
        cleaned["data"] = error["data"]
    return cleaned


_MEANINGS = {
    mcp.PARSE_ERROR: "the tool server could not read the request",
    mcp.INVALID_REQUEST: "the tool server refused the request as invalid",
    mcp.METHOD_NOT_FOUND: "the tool server does not have this method",
    mcp.INVALID_PARAMS: "the tool server refused the parameters; check the names and types against its definitions",
    mcp.INTERNAL_ERROR: "the tool server failed",
    -32002: "the tool server does not have this resource",
    mcp.UNSUPPORTED_VERSION: "the tool server does not speak this protocol version",
    mcp.MISSING_CAPABILITY: "the tool server needs a capability that the client did not declare",
}


def refusal(status: int, session: bool) -> GatewayError:
    """What an agent learns of an HTTP answer that is no MCP."""
    if status == 404 and session:
        return ClientError("session_unknown", "the tool server ended the session; initialize a new one", status=404)
    if status in {400, 404, 405, 406, 409, 413, 415, 422}:
        return ClientError("upstream_refused", "the tool server refused the request", status=status)
    if status in {401, 403, 407}:
        return UpstreamError("upstream_credential", "the tool server does not accept the operator's credential")
    if status == 429:
        return UpstreamError("upstream_busy", "the tool server is busy; try again", status=503, retry_after_s=5)
    if 200 <= status < 300:
        return UpstreamError("upstream_protocol", "the tool server's answer is not MCP")
    return UpstreamError("upstream_status", "the tool server failed")
