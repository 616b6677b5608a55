"""Plain HTTP tools at `/tools/{name}/...`, and `/held/{id}` where an agent asks what became of a held call.

Owns the plain-HTTP shape of verdicts: 403 for a denial, 202 with `Location` for a held call, and what of an upstream's
answer may reach the agent. The request that leaves is written anew from the arguments that were decided on.
"""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.core.action import Action, Surface
from gateway.core.canonical import JSON, canonical, parse
from gateway.core.errors import ClientError, FilterError, GatewayError, UpstreamError
from gateway.core.exchange import Direction, Origin, Part
from gateway.core.held import State
from gateway.proxy import texts
from gateway.proxy.asgi import JSON_TYPE, DisconnectedError, Header, read_body, require_json, respond
from gateway.proxy.endpoint import Endpoint, endpoint_of
from gateway.proxy.held_words import describe
from gateway.proxy.http_calls import Operations
from gateway.proxy.obligations import RESULT_TOO_LARGE, Duties
from gateway.proxy.screening import content_denied
from gateway.proxy.tool_calls import Call, Exchange, Proceed, Refused, ToolGate, after_dispatch
from gateway.proxy.upstream import UpstreamFailure
from gateway.traces.record import Attempt
from gateway.wire import http_tool, leaves

if TYPE_CHECKING:
    from gateway.approvals.held_action import HeldAction
    from gateway.proxy.plane import Request
    from gateway.proxy.pool import Response

PREFIX = "/tools/"
HELD_PREFIX = "/held/"
RETRY_AFTER_S = 5  # a person decides: asking more often only costs
_TO_UPSTREAM = (b"accept", b"accept-language", b"if-match", b"if-none-match")
_TO_AGENT = frozenset(
    b"content-type content-language content-disposition etag last-modified cache-control retry-after".split()
)


class HttpSurface:
    """The handlers of `/tools/` and `/held/`."""

    def __init__(self, gate: ToolGate, operations: Operations) -> None:
        self._gate = gate
        self._deps = gate.deps
        self._operations = operations

    async def __call__(self, request: Request) -> None:
        exchange = self._gate.begin(request.caller, Surface.HTTP, "http")
        answer = _Answer(request)
        error: str | None = "internal_error"
        try:
            await self._serve(request, exchange, answer)
            error = exchange.record.error
        except DisconnectedError:
            error = "client_disconnected"
            raise
        except GatewayError as failure:
            error = exchange.record.error or failure.code
            await answer.fail(failure)
        finally:
            exchange.record.response, exchange.record.response_type = b"".join(answer.kept), answer.content_type
            self._gate.end(exchange, status=answer.status, error=error)

    async def held(self, request: Request) -> None:
        """`GET /held/{id}`: the state and, once it ran, the result of the agent's own held call."""
        if request.scope["method"] != "GET":
            raise ClientError("method_not_allowed", "ask for a held call with GET", status=405)
        held = await self._gate.find(request.caller, request.path.removeprefix(HELD_PREFIX))
        if held is None:
            raise ClientError("held_action_unknown", "there is no held call of yours with this id", status=404)
        exchange = self._gate.begin(request.caller, Surface.HTTP, "held")
        exchange.record.name, exchange.record.held, exchange.record.effect = held.name, held.id, "allow"
        body = _status(held)
        if held.state in {State.SUCCEEDED, State.FAILED} and held.result is not None:
            body["result"] = await self._shown(exchange, held)
        headers: list[Header] = [JSON_TYPE]
        if held.open:
            headers.append((b"retry-after", b"%d" % RETRY_AFTER_S))
        await respond(request.send, 200, leaves.encode(body), headers)
        self._gate.end(exchange, status=200)

    async def _serve(self, request: Request, exchange: Exchange, answer: _Answer) -> None:
        name, _, _ = request.path.removeprefix(PREFIX).partition("/")
        tool = self._deps.policy().http_tools.get(name)
        if tool is None:
            raise ClientError("unknown_tool", "there is no HTTP tool of this name in the bundle", status=404)
        endpoint = endpoint_of(tool)
        exchange.record.upstream = tool.name
        body = await read_body(request.receive, request.headers, self._deps.body_bytes_max)
        if body:
            require_json(request.headers)
            exchange.record.request, exchange.record.request_type = body, "application/json"
        raw = request.scope.get("raw_path") or request.path.encode()
        prefix = PREFIX.encode() + name.encode()
        if not raw.startswith(prefix):
            raise ClientError("bad_path", "write the name of the tool without percent-encoding")
        path = raw.partition(b"?")[0].removeprefix(prefix)
        prepared = self._operations.of(tool)
        template, arguments = http_tool.decode(
            [entry.template for entry in prepared.values()],
            request.scope["method"],
            path,
            request.scope.get("query_string", b""),
            body,
        )
        spelled = canonical(arguments)  # before anything else looks at numbers that have no one reading
        operation = prepared[template.name]
        exchange.record.operation = f"{template.method} {operation.declared.path}"
        problem = operation.problem(arguments)
        if problem is not None:
            raise ClientError("invalid_arguments", f"the arguments do not fit: {problem}")
        action = Action(
            surface=Surface.HTTP,
            server=tool.name,
            tool=template.name,
            arguments=arguments,
            upstream=tool.name,
            definition=operation.definition.digest,
            credential=endpoint.credential,
        )
        call = Call(action=action, spelled=spelled, check=operation.problem, execution={"empty_body": not body})
        verdict = await self._gate.handle(exchange, call)
        if isinstance(verdict, Refused):
            await answer.json(403, _error(verdict.code, verdict.reason, verdict.rule))
        elif isinstance(verdict, Proceed):
            wire = http_tool.encode(template, verdict.action.arguments)
            sent = (wire.body if verdict.edited or not body else body) or b""
            outgoing = _Outgoing(endpoint, wire.method, wire.target, sent, verdict.duties)
            await self._dispatch(request, exchange, answer, outgoing)
        else:
            await self._parked(exchange, answer, verdict.held)

    async def _parked(self, exchange: Exchange, answer: _Answer, held: HeldAction) -> None:
        """A held call: its result if it ran meanwhile, else where to ask."""
        if held.state in {State.SUCCEEDED, State.FAILED} and held.result is not None:
            shown = await self._shown(exchange, held)
            if isinstance(shown, dict) and isinstance(shown.get("status"), int):
                body, kind = _unpack(shown)
                await answer.send(
                    int(str(shown["status"])), body, [(b"content-type", kind), (b"x-held-action", held.id.encode())]
                )
                return
        location = (b"location", f"{HELD_PREFIX}{held.id}".encode())
        if held.open:
            retry = (b"retry-after", b"%d" % RETRY_AFTER_S)
            await answer.json(202, _status(held), [location, retry])
        elif held.state is State.SUCCEEDED:
            await answer.json(200, _status(held), [location])
        else:
            status = 403 if held.state is State.DENIED else 409
            await answer.json(
                status, {**_status(held), **_error(f"held_{held.state.lower()}", describe(held), held.rule)}, [location]
            )

    async def _dispatch(self, request: Request, exchange: Exchange, answer: _Answer, sent: _Outgoing) -> None:
        endpoint, body = sent.endpoint, sent.body
        headers = [(name, request.headers[name]) for name in _TO_UPSTREAM if name in request.headers]
        if body:
            headers.append(JSON_TYPE)
        key = request.headers.get(b"idempotency-key")
        if key is not None and endpoint.idempotency_key:
            headers.append((b"idempotency-key", idempotency_key(exchange.caller.agent.name, key.decode("latin-1"))))
        headers += [(b"traceparent", exchange.caller.traceparent.encode()), (b"accept-encoding", b"identity")]
        started_ns = time.perf_counter_ns()
        status, error, first_ns = None, None, None
        try:
            response = await self._deps.pool.request(
                endpoint.target,
                sent.method,
                endpoint.path + sent.target.encode(),
                [*headers, *sent.duties.headers, *endpoint.headers],
                body,
                timeouts=endpoint.timeouts,
            )
            async with response:
                status, first_ns = response.status, time.perf_counter_ns() - started_ns
                await self._pass(exchange, answer, response, sent.duties)
        except GatewayError as failure:
            error = failure.code
            if answer.started:  # nothing valid can follow: without its end no client takes the body for whole
                raise DisconnectedError from None
            raise after_dispatch(failure) from None
        finally:
            exchange.record.attempts = (
                *exchange.record.attempts,
                Attempt(
                    exchange.caller.span,
                    endpoint.name,
                    started_ns - exchange.began_ns,
                    time.perf_counter_ns() - started_ns,
                    first_ns,
                    status,
                    error,
                    endpoint.target.host,
                    endpoint.target.port,
                ),
            )

    async def _pass(self, exchange: Exchange, answer: _Answer, response: Response, duties: Duties) -> None:
        """The upstream's answer to the agent: looked at where the agent's rules ask for it, else as it comes."""
        check_status(response.status)
        headers = [(name, value) for name, value in response.headers if name in _TO_AGENT]
        encoded = any(name == b"content-encoding" for name, _ in response.headers)
        filtered = bool(exchange.caller.agent.filter_rules)
        if not filtered and not encoded and duties.result_bytes_max is None:
            await answer.stream(response, headers, self._deps.response_bytes_max)
            return
        if encoded:
            raise UpstreamError("upstream_protocol", "the tool answered with an encoding that was not asked for")
        body = await _read(response, self._deps.response_bytes_max, duties)
        await answer.send(response.status, await self._filtered(exchange, body) if filtered else body, headers)

    async def _filtered(self, exchange: Exchange, body: bytes) -> bytes:
        """The body as it may pass. Whatever is text is looked at, whatever its declared type and its encoding; bytes
        that are no text pass. Raises ClientError `content_denied`, FilterError."""
        readable = texts.decoded(body)
        if readable is None:
            return body
        text, codec = readable
        try:
            value = parse(body)
        except ClientError:
            value = None
        structured = isinstance(value, dict | list)
        parts = texts.result_parts(value) if structured else [Part(Origin.TOOL_RESULT, text, ())]
        found = await self._gate.look(exchange, parts, Direction.RESPONSE, exchange.record.name)
        if found.denied is not None:
            refused = content_denied(found.denied)
            raise ClientError(refused.code, f"the call ran, but its answer is {refused.message}", status=403)
        if not found.edits:
            return body
        return leaves.encode(texts.edited(value, found.edits)) if structured else found.edits[()].encode(codec)

    async def _shown(self, exchange: Exchange, held: HeldAction) -> JSON:
        """The stored result of a held call, filtered as any answer is."""
        assert held.result is not None
        exchange.record.name = held.name
        value = parse(held.result, "stored result")
        if not exchange.caller.agent.filter_rules:
            return value
        try:
            found = await self._gate.look(exchange, texts.result_parts(value), Direction.RESPONSE, held.name)
        except FilterError as error:
            return f"the tool ran, but its answer is withheld: {error.message}"
        if found.denied is not None:
            return f"the tool ran, but its answer is withheld: {found.denied.reason}"
        return texts.edited(value, found.edits) if found.edits else value


@dataclass(frozen=True, slots=True)
class _Outgoing:
    """The request that leaves. `target` follows the endpoint's own path."""

    endpoint: Endpoint
    method: str
    target: str
    body: bytes
    duties: Duties


class _Answer:
    """The response to one request."""

    def __init__(self, request: Request) -> None:
        self._send = request.send
        self.started = False
        self.status = 0
        self.content_type = ""
        self.kept: list[bytes] = []

    async def send(self, status: int, body: bytes, headers: list[Header]) -> None:
        self._begin(status, headers)
        self.kept.append(body)
        await respond(self._send, status, body, headers)

    async def json(self, status: int, value: Mapping[str, JSON], headers: list[Header] | None = None) -> None:
        await self.send(status, leaves.encode(dict(value)), [JSON_TYPE, *(headers or [])])

    async def fail(self, error: GatewayError) -> None:
        headers: list[Header] = []
        if error.retry_after_s is not None:
            headers.append((b"retry-after", b"%d" % error.retry_after_s))
        await self.json(error.status, _error(error.code, error.message, ""), headers)

    async def stream(self, response: Response, headers: list[Header], bytes_max: int) -> None:
        """Pass the body as it comes, up to the limit. Raises UpstreamError beyond it, and when it breaks off."""
        total = 0
        started = False
        async for chunk in response.chunks():
            total += len(chunk)
            if total > bytes_max:
                raise UpstreamError("upstream_too_large", "the tool's answer is too long")
            if not started:
                started = True
                self._begin(response.status, headers)
                await self._send({"type": "http.response.start", "status": response.status, "headers": headers})
            self.kept.append(chunk)
            await self._send({"type": "http.response.body", "body": chunk, "more_body": True})
        if not started:
            await self.send(response.status, b"", headers)
            return
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    def _begin(self, status: int, headers: list[Header]) -> None:
        self.started, self.status = True, status
        self.content_type = dict(headers).get(b"content-type", b"").decode("latin-1")


def check_status(status: int) -> None:
    """Raises UpstreamError for an answer that is the operator's or the upstream's failure, not the tool's word."""
    if status in {401, 407}:
        raise UpstreamError("upstream_credential", "the tool does not accept the operator's credential")
    if 300 <= status < 400 and status != 304:
        raise UpstreamError("upstream_redirect", "the tool answered with a redirect, which is not followed")
    if status >= 500:
        raise UpstreamError("upstream_status", "the tool failed; look before you repeat the call")


async def _read(response: Response, bytes_max: int, duties: Duties) -> bytes:
    """The whole body. Raises UpstreamError `result_too_large` where a rule bounds it: nothing of it was sent on yet."""
    try:
        return await response.read(duties.bound(bytes_max))
    except UpstreamFailure as failure:
        if failure.code != "upstream_too_large" or duties.result_bytes_max is None:
            raise
    raise UpstreamError(RESULT_TOO_LARGE, f"the tool ran, but its answer is withheld: {duties.too_large}")


def idempotency_key(*words: str) -> bytes:
    """A key for an upstream that takes one: the same for the same words, and different for different agents."""
    spelled = leaves.encode(list(words))
    return hashlib.sha256(spelled).hexdigest().encode()


def _status(held: HeldAction) -> dict[str, JSON]:
    return {"held_action": held.id, "state": held.state.value, "message": describe(held), "expires_s": held.expires_s}


def _error(code: str, message: str, rule: str) -> dict[str, JSON]:
    error: dict[str, JSON] = {"code": code, "message": message}
    if rule:
        error["rule"] = rule
    return {"error": error}


def _unpack(shown: Mapping[str, JSON]) -> tuple[bytes, bytes]:
    kind = str(shown.get("content_type") or "application/octet-stream").encode("latin-1", "replace")
    if "json" in shown:
        return leaves.encode(shown["json"]), kind
    if isinstance(shown.get("text"), str):
        return str(shown["text"]).encode(), kind
    return base64.b64decode(str(shown.get("base64") or "")), kind
