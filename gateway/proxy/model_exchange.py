"""One exchange with a model endpoint: what all kinds of it share.

Order: decode, route, filters, audit intent, upstream, guard, answer, record. Nothing of an answer leaves before
its verdict; what no rule touches is forwarded byte for byte in both directions.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from gateway.core.action import Surface
from gateway.core.decision import Effect
from gateway.core.errors import ClientError, GatewayError, UpstreamError
from gateway.core.exchange import Direction, Origin, Part
from gateway.core.filtering import TextGuard
from gateway.proxy.asgi import DisconnectedError, Header, read_body
from gateway.proxy.model_stream import Relay
from gateway.proxy.model_upstream import ERROR_BODY_BYTES_MAX, ModelEndpoint, response_headers, upstream_refusal
from gateway.proxy.plane import Request
from gateway.proxy.screening import Screening, content_denied, screen
from gateway.traces import context
from gateway.traces.record import ALLOWED_FAILED_OPEN, EFFECT_RANK, Attempt, ExchangeRecord

if TYPE_CHECKING:
    from gateway.proxy.caller import Caller
    from gateway.proxy.model import ModelSurface
    from gateway.proxy.pool import Response
    from gateway.wire.outputs import StreamGuard

CHARS_PER_TOKEN = 4  # where an upstream does not count, tokens are estimated so that a limit still limits


class ModelExchange:
    """From the first byte of a request to the last of its response. Subclasses say how a body is read and answered."""

    operation = "chat"

    def __init__(self, surface: ModelSurface, request: Request) -> None:
        self.surface = surface
        self.deps = deps = surface.deps
        self.request = request
        self.caller: Caller = request.caller
        self.began_ns = time.perf_counter_ns()
        self.failed_open = False
        self.sent_bytes = 0
        self.record = ExchangeRecord(
            id=context.exchange_id(),
            trace_id=self.caller.trace_id,
            span=self.caller.span,
            parent_span=self.caller.parent_span,
            run=self.caller.run,
            agent=self.caller.agent.name,
            surface=Surface.MODEL.value,
            operation=self.operation,
            started_s=deps.clock(),
            request_type="application/json",
        )

    async def run(self) -> None:
        """Serve the exchange and record it, whatever becomes of it. Raises GatewayError to be answered as such."""
        record = self.record
        try:
            record.request = await read_body(self.request.receive, self.request.headers, self.deps.body_bytes_max)
            await self.serve(record.request)
            self._charge()
        except GatewayError as error:
            record.error, record.status = error.code, error.status
            record.reason = record.reason or error.message
            raise
        except DisconnectedError:
            record.error = "client_closed"
            raise
        except BaseException:  # recorded here, handled by whoever catches it
            record.error = record.error or "internal_error"
            raise
        finally:
            record.duration_ns = time.perf_counter_ns() - self.began_ns
            self.deps.finished(record)

    async def serve(self, body: bytes) -> None:
        """Read the body, forward it, answer."""
        raise NotImplementedError

    async def answer(self, response: Response) -> None:
        """Judge the upstream's answer and send it on."""
        raise NotImplementedError

    async def screened(self, parts: Iterable[Part], direction: Direction) -> Screening:
        """The filters' verdict on these parts. Raises ClientError `content_denied`."""
        if not self.caller.agent.filter_rules:
            return Screening()
        result = await screen(
            self.deps.scanner,
            self.caller.agent,
            parts,
            surface=Surface.MODEL,
            direction=direction,
            record=self.record,
            began_ns=self.began_ns,
        )
        self.failed_open |= result.failed_open
        if result.denied is not None:
            self.record.rule = f"{result.denied.policy}/{result.denied.id}"
            self.record.reason = result.denied.reason
            raise content_denied(result.denied)
        return result

    async def forward(
        self, endpoint: ModelEndpoint, path: bytes, body: bytes, *, stream: bool = False, method: str = "POST"
    ) -> None:
        """Write the intent, send the request, have the answer judged and sent on."""
        record = self.record
        record.upstream, record.release = endpoint.route.name, self.deps.policy().release
        self.sent_bytes = len(body)
        self._intend(body)
        target, began_ns = endpoint.target, self.began_ns
        span, started_ns = context.span_id(), time.perf_counter_ns() - began_ns
        first_ns: int | None = None
        status: int | None = None
        failure: str | None = None
        try:
            headers = endpoint.headers(self.caller, self.request.headers, stream=stream)
            response = await self.deps.pool.request(
                target, method, endpoint.base + path, headers, body, timeouts=endpoint.timeouts
            )
            first_ns, status = time.perf_counter_ns() - began_ns - started_ns, response.status
            try:
                if status >= 400:
                    raise await self._refusal(response)
                await self.answer(response)
            finally:
                await response.aclose()
        except GatewayError as error:
            failure = error.code
            raise
        finally:
            duration_ns = time.perf_counter_ns() - began_ns - started_ns
            name = endpoint.route.name
            record.attempts = (
                Attempt(span, name, started_ns, duration_ns, first_ns, status, failure, target.host, target.port),
            )

    async def _refusal(self, response: Response) -> GatewayError:
        """What the agent reads of an upstream's error. The upstream's own words are an answer as any other: filters see
        them, and the record, which keeps reasons as they are, does not have them. Raises ClientError `content_denied`.
        """
        error = upstream_refusal(response.status, response.headers, await _error_body(response))
        if isinstance(error, ClientError):
            self.record.reason = "the model endpoint refused the request"
            said = Part(Origin.ASSISTANT, error.message, ())
            edits = (await self.screened((said,), Direction.RESPONSE)).edits
            if edits:
                return ClientError(error.code, edits[()], status=error.status)
        return error

    def _intend(self, body: bytes) -> None:
        """Written before acting; when it cannot be written, nothing is sent."""
        record = self.record
        self.deps.audit.write(
            {
                "event": "model_call",
                "exchange": record.id,
                "trace": record.trace_id,
                "agent": record.agent,
                "model": record.model,
                "upstream": record.upstream,
                "release": record.release,
                "bytes": len(body),
                "findings": dict(record.findings or {}),
            }
        )

    def headers(self, response: Response, held: Iterable[str] = ()) -> list[Header]:
        headers = [header for header in response_headers(response.headers) if header[0] != b"content-type"]
        headers.extend((b"x-held-action", action.encode("ascii")) for action in held)
        headers.append((b"x-gateway-trace", self.caller.trace_id.encode("ascii")))
        return headers

    def give_verdict(self) -> None:
        """The exchange's effect is the strictest of those of its calls."""
        if not self.record.decisions:
            self.record.effect = ALLOWED_FAILED_OPEN if self.failed_open else Effect.ALLOW.value
            self.record.status = 200
            return
        effects = [decision.effect for decision in self.record.decisions]
        effects.append(ALLOWED_FAILED_OPEN if self.failed_open else Effect.ALLOW.value)
        self.record.effect = max(effects, key=lambda effect: EFFECT_RANK[effect])
        self.record.status = 200
        for decision in self.record.decisions:
            if decision.effect == self.record.effect:
                self.record.rule, self.record.reason = decision.rule, decision.reason
                break

    def _charge(self) -> None:
        usage = self.record.usage
        tokens = (
            usage.input + usage.output
            if usage is not None
            else (self.sent_bytes + len(self.record.response or b"")) // CHARS_PER_TOKEN
        )
        self.surface.limiter.charge(self.caller.agent, tokens, now=self.deps.clock())


class StreamedExchange(ModelExchange):
    """An exchange whose answer may be a stream."""

    def stream_guard(self, text_guard: Callable[[int, str], TextGuard] | None) -> StreamGuard:
        """The guard of one stream in this dialect. `text_guard` is None where no rule looks at answers."""
        raise NotImplementedError

    def error_event(self, error: GatewayError) -> bytes:
        """What ends a stream that broke off, so that the client's SDK raises."""
        raise NotImplementedError

    async def relay(self, response: Response) -> None:
        """Send the stream on, piece by piece as the guard lets it go."""
        content_type = next((value for name, value in response.headers if name == b"content-type"), b"")
        if not content_type.lower().startswith(b"text/event-stream"):
            raise UpstreamError("upstream_protocol", "the model endpoint did not answer with a stream")
        relay = Relay(self, response)
        try:
            await relay.run()
        finally:
            self.record.response_type = "application/json"
            self.record.response = relay.summary()


async def _error_body(response: Response) -> bytes:
    try:
        return await response.read(ERROR_BODY_BYTES_MAX)
    except UpstreamError:
        return b""


def model_not_found(name: str) -> ClientError:
    shown = name if name.isascii() and name.isprintable() and len(name) <= 128 else "?"
    return ClientError("model_not_found", f"the model `{shown}` is not available to this agent", status=404)
