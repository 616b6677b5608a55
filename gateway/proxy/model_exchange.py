"""One exchange with a model.

Order: limits, decode, route, filters, audit intent, upstream, guard, answer, record. Nothing of an answer leaves before
its verdict; what no rule touches is forwarded byte for byte in both directions.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from gateway.core.action import Action, Surface
from gateway.core.decision import Effect
from gateway.core.errors import ClientError, GatewayError, UpstreamError
from gateway.core.exchange import Direction
from gateway.proxy.asgi import JSON_TYPE, DisconnectedError, Header, read_body, require_json, respond
from gateway.proxy.model_calls import CallJudge
from gateway.proxy.model_stream import Relay, until_gone
from gateway.proxy.model_upstream import ERROR_BODY_BYTES_MAX, ModelEndpoint, response_headers, upstream_refusal
from gateway.proxy.plane import Request
from gateway.proxy.screening import content_denied, screen
from gateway.traces import context
from gateway.traces.record import ALLOWED_FAILED_OPEN, EFFECT_RANK, Attempt, ExchangeRecord, Usage
from gateway.wire import openai_chat

if TYPE_CHECKING:
    from gateway.policy import ModelRoute
    from gateway.proxy.caller import Caller
    from gateway.proxy.model import ModelSurface
    from gateway.proxy.pool import Response

CHARS_PER_TOKEN = 4  # where an upstream does not count, tokens are estimated so that a limit still limits


class ChatExchange:
    """One exchange with a model, from the first byte of the request to the last of the response."""

    def __init__(self, surface: ModelSurface, request: Request) -> None:
        self.surface = surface
        self.deps = deps = surface.deps
        self.limiter = surface.limiter
        self.runs = surface.runs
        self.request = request
        self.caller: Caller = request.caller
        self.began_ns = time.perf_counter_ns()
        self.failed_open = False
        self.record = ExchangeRecord(
            id=context.exchange_id(),
            trace_id=self.caller.trace_id,
            span=self.caller.span,
            parent_span=self.caller.parent_span,
            run=self.caller.run,
            agent=self.caller.agent.name,
            surface=Surface.MODEL.value,
            operation="chat",
            started_s=deps.clock(),
            request_type="application/json",
        )

    async def run(self) -> None:
        record = self.record
        try:
            await self._run()
        except GatewayError as error:
            record.error, record.status = error.code, error.status
            record.reason = record.reason or error.message
            raise
        except DisconnectedError:
            record.error = "client_closed"
            raise
        except BaseException:  # recorded, and handled by whoever catches it
            record.error = record.error or "internal_error"
            raise
        finally:
            record.duration_ns = time.perf_counter_ns() - self.began_ns
            self.deps.recorder.put(record)

    async def _run(self) -> None:
        deps, record, request = self.deps, self.record, self.request
        require_json(request.headers)
        await self.limiter.admit(self.caller.agent, now=record.started_s)
        body = await read_body(request.receive, request.headers, deps.body_bytes_max)
        record.request = body
        chat = openai_chat.decode_request(body)
        record.model = chat.model
        self._find_run(chat)
        route = self._route(chat)
        endpoint = self.surface.endpoint(route)
        record.upstream, record.release = route.name, deps.policy().release
        chat = self._without_forbidden_tools(chat)
        body = await self._screened(chat, route)
        self._intend(chat, body)
        response, attempt = await self._send(endpoint, body, stream=chat.stream)
        try:
            if response.status >= 400:
                raise upstream_refusal(response.status, response.headers, await _error_body(response))
            if chat.stream:
                await self._stream(chat, response)
            else:
                await self._whole(response)
        except GatewayError as error:
            attempt = attempt._replace(error=error.code)
            raise
        finally:
            ended = time.perf_counter_ns() - self.began_ns
            record.attempts = (attempt._replace(duration_ns=ended - attempt.started_ns),)
            await response.aclose()
        await self._charge(chat, body)

    def _find_run(self, chat: openai_chat.ChatRequest) -> None:
        """An agent that names neither run nor trace is known by how its conversation begins."""
        if self.request.named:
            return
        opening = "\n".join(part.text for part in chat.parts[:2])
        trace = self.runs.of_conversation(self.caller.agent.name, opening, now=self.record.started_s)
        self.caller = replace(self.caller, trace_id=trace)
        self.record.trace_id = trace

    def _route(self, chat: openai_chat.ChatRequest) -> ModelRoute:
        policy = self.deps.policy()
        for name in chat.fallback_models:
            if policy.route(self.caller.agent, name) is None:
                raise model_not_found(name)
        route = policy.route(self.caller.agent, chat.model)
        if route is None:
            raise model_not_found(chat.model)
        return route

    def _without_forbidden_tools(self, chat: openai_chat.ChatRequest) -> openai_chat.ChatRequest:
        """Tools that the provider would run by itself need a rule that allows them; the agent's own tools that it may
        never use are taken out of the request, so that the model does not propose them."""
        policy, agent = self.deps.policy(), self.caller.agent
        for tool in chat.provider_tools:
            action = Action(surface=Surface.MODEL, server="provider", tool=tool, arguments={})
            decision = policy.decide(agent, action, self.deps.session(self.caller), now=self.record.started_s)
            if decision.effect is not Effect.ALLOW:
                self.record.rule, self.record.reason = decision.rule, decision.reason
                raise ClientError(
                    "tool_denied", f"the provider's tool `{tool}` is not allowed: {decision.reason}", status=403
                )
        if not agent.strip_denied_tools:
            return chat
        refused = []
        for function in chat.tools:
            server, tool = policy.resolve_function(function)
            if not policy.may_use(agent, f"{server}.{tool}", Surface.MODEL):
                refused.append(function)
        return openai_chat.read_request(openai_chat.strip_tools(chat.raw, refused)) if refused else chat

    async def _screened(self, chat: openai_chat.ChatRequest, route: ModelRoute) -> bytes:
        """The body to send: the caller's own bytes unless a rule rewrote something."""
        result = await screen(
            self.deps.scanner,
            self.caller.agent,
            chat.parts,
            surface=Surface.MODEL,
            direction=Direction.REQUEST,
            record=self.record,
            began_ns=self.began_ns,
        )
        self.failed_open |= result.failed_open
        if result.denied is not None:
            self.record.rule = f"{result.denied.policy}/{result.denied.id}"
            self.record.reason = result.denied.reason
            raise content_denied(result.denied)
        edits = dict(result.edits)
        renamed = route.upstream_model(chat.model)
        if renamed != chat.model:
            edits["model",] = renamed
        return openai_chat.rewrite(chat.raw, edits) if edits else chat.body

    def _intend(self, chat: openai_chat.ChatRequest, body: bytes) -> None:
        """Written before acting; when it cannot be written, nothing is sent."""
        record = self.record
        self.deps.audit.write(
            {
                "event": "model_call",
                "exchange": record.id,
                "trace": record.trace_id,
                "agent": record.agent,
                "model": chat.model,
                "upstream": record.upstream,
                "release": record.release,
                "bytes": len(body),
                "findings": dict(record.findings or {}),
            }
        )

    async def _send(self, endpoint: ModelEndpoint, body: bytes, *, stream: bool) -> tuple[Response, Attempt]:
        target = endpoint.target
        attempt = Attempt(
            context.span_id(),
            endpoint.route.name,
            time.perf_counter_ns() - self.began_ns,
            address=target.host,
            port=target.port,
        )
        headers = endpoint.headers(self.caller, self.request.headers, stream=stream)
        path = endpoint.base + b"/chat/completions"
        try:
            response = await self.deps.pool.request(target, "POST", path, headers, body, timeouts=endpoint.timeouts)
        except UpstreamError as error:
            ended = time.perf_counter_ns() - self.began_ns
            self.record.attempts = (attempt._replace(duration_ns=ended - attempt.started_ns, error=error.code),)
            raise
        first = time.perf_counter_ns() - self.began_ns - attempt.started_ns
        return response, attempt._replace(first_byte_ns=first, status=response.status)

    async def _whole(self, response: Response) -> None:
        raw = await response.read(self.deps.body_bytes_max)
        answer = openai_chat.decode_response(raw)
        self.record.response, self.record.response_type = raw, "application/json"
        self.record.model_responded = _word(answer.raw.get("model"))
        self.record.response_id = _word(answer.raw.get("id"))
        self.record.finish_reasons = tuple(answer.finish_reasons.values())
        self.count_tokens(answer.usage)
        judge = CallJudge(self.deps, self.runs, self.caller, self.record, self.began_ns)
        verdicts = await judge.judge(answer.calls) if answer.calls else []
        result = await screen(
            self.deps.scanner,
            self.caller.agent,
            answer.parts,
            surface=Surface.MODEL,
            direction=Direction.RESPONSE,
            record=self.record,
            began_ns=self.began_ns,
        )
        self.failed_open |= result.failed_open
        if result.denied is not None:
            raise content_denied(result.denied)
        body = openai_chat.replace_calls(answer, verdicts, result.edits)
        self.record.response = body
        self.give_verdict(judge)
        await respond(self.request.send, 200, body, [*self.headers(response, judge), JSON_TYPE])
        await judge.settle()

    async def _stream(self, chat: openai_chat.ChatRequest, response: Response) -> None:
        content_type = next((value for name, value in response.headers if name == b"content-type"), b"")
        if not content_type.lower().startswith(b"text/event-stream"):
            raise UpstreamError("upstream_protocol", "the model endpoint did not answer with a stream")
        relay = Relay(self, response)
        gone = asyncio.ensure_future(until_gone(self.request))
        try:
            await relay.run(gone)
        finally:
            gone.cancel()
            self.record.response_type = "application/json"
            self.record.response = relay.summary()

    def headers(self, response: Response, judge: CallJudge) -> list[Header]:
        headers = [header for header in response_headers(response.headers) if header[0] != b"content-type"]
        headers.extend((b"x-held-action", held.encode("ascii")) for held in judge.held)
        headers.append((b"x-gateway-trace", self.caller.trace_id.encode("ascii")))
        return headers

    def give_verdict(self, judge: CallJudge) -> None:
        """The exchange's effect is the strictest of those of its calls."""
        effects = [decision.effect for decision in self.record.decisions]
        effects.append(ALLOWED_FAILED_OPEN if self.failed_open else Effect.ALLOW.value)
        self.record.effect = max(effects, key=lambda effect: EFFECT_RANK[effect])
        self.record.status = 200
        for decision in self.record.decisions:
            if decision.effect == self.record.effect:
                self.record.rule, self.record.reason = decision.rule, decision.reason
                break

    def count_tokens(self, usage: openai_chat.Usage | None) -> None:
        if usage is not None:
            self.record.usage = Usage(
                usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens, usage.reasoning_tokens
            )

    async def _charge(self, chat: openai_chat.ChatRequest, body: bytes) -> None:
        usage = self.record.usage
        tokens = (
            usage.input + usage.output
            if usage is not None
            else (len(body) + len(self.record.response or b"")) // CHARS_PER_TOKEN
        )
        await self.limiter.charge(self.caller.agent, tokens, now=self.deps.clock())


async def _error_body(response: Response) -> bytes:
    try:
        return await response.read(ERROR_BODY_BYTES_MAX)
    except UpstreamError:
        return b""


def _word(value: object) -> str | None:
    """An identifier of the upstream, if it is one."""
    return value if isinstance(value, str) and len(value) <= 128 else None


def model_not_found(name: str) -> ClientError:
    shown = name if name.isascii() and name.isprintable() and len(name) <= 128 else "?"
    return ClientError("model_not_found", f"the model `{shown}` is not available to this agent", status=404)
