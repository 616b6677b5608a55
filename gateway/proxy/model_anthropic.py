"""Anthropic Messages, streamed or not, and the counting of tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gateway.core.errors import GatewayError
from gateway.core.exchange import Direction, Origin
from gateway.core.filtering import TextGuard
from gateway.proxy.asgi import JSON_TYPE, require_json, respond
from gateway.proxy.model_admission import admit_provider_tools, find_route, hidden_tools, join_run
from gateway.proxy.model_calls import CallJudge
from gateway.proxy.model_exchange import StreamedExchange
from gateway.proxy.runs import opening_of
from gateway.traces.record import Usage
from gateway.wire import anthropic

if TYPE_CHECKING:
    from gateway.proxy.pool import Response
    from gateway.wire.outputs import StreamGuard


class AnthropicExchange(StreamedExchange):
    """One turn of a conversation."""

    upstream_path = b"/messages"
    streamed = False
    provider_runs = False
    _guard: anthropic.AnthropicStreamGuard | None = None

    async def serve(self, body: bytes) -> None:
        require_json(self.request.headers)
        turn = anthropic.decode_request(body)
        self.record.model = turn.model
        self.streamed = self.may_stream(turn)
        join_run(self, opening_of(turn.parts))
        route = find_route(self, turn.model, turn.fallback_models)
        admit_provider_tools(self, turn.provider_tools)
        self.provider_runs = bool(turn.provider_tools)
        hidden = hidden_tools(self, turn.tools)
        if hidden:
            turn = anthropic.read_request(anthropic.strip_tools(turn.raw, hidden))
        edits = (await self.screened(turn.parts, Direction.REQUEST)).edits if self.caller.agent.filter_rules else {}
        renamed = route.upstream_model(turn.model)
        if renamed != turn.model:
            edits["model",] = renamed
        # The caller's own bytes, unless a rule or the route rewrote something.
        sent = anthropic.rewrite(turn.raw, edits) if edits else turn.body
        await self.forward(self.surface.endpoint(route), self.upstream_path, sent, stream=self.streamed)

    def may_stream(self, turn: anthropic.MessagesRequest) -> bool:
        return turn.stream

    async def answer(self, response: Response) -> None:
        if self.streamed:
            try:
                await self.relay(response)
            finally:
                self.count_tokens(self._guard.usage if self._guard else None)
        else:
            await self._whole(response)

    async def _whole(self, response: Response) -> None:
        raw = await response.read(self.deps.body_bytes_max)
        answer = anthropic.decode_response(raw, provider_runs=self.provider_runs)
        record = self.record
        record.response, record.response_type = raw, "application/json"
        record.model_responded = _word(answer.raw.get("model"))
        record.response_id = _word(answer.raw.get("id"))
        record.finish_reasons = tuple(answer.finish_reasons.values())
        self.count_tokens(answer.usage)
        judge = CallJudge(self.deps, self.surface.runs, self.caller, record, self.began_ns)
        verdicts = await judge.judge(answer.calls) if answer.calls else ()
        edits = {}
        if self.caller.agent.filter_rules:  # arguments are not text on their way to the agent: `judge` has seen them
            texts = [part for part in answer.parts if part.origin is not Origin.TOOL_ARGS]
            edits = (await self.screened(texts, Direction.RESPONSE)).edits
        record.response = anthropic.replace_calls(answer, verdicts, edits)
        self.give_verdict()
        await respond(self.request.send, 200, record.response, [*self.headers(response, judge.held), JSON_TYPE])
        await judge.settle()

    def stream_guard(self, text_guard: Callable[[int, str], TextGuard] | None) -> StreamGuard:
        self._guard = anthropic.AnthropicStreamGuard(text_guard, provider_runs=self.provider_runs)
        return self._guard

    def error_event(self, error: GatewayError) -> bytes:
        return anthropic.error_event(error.code, error.message, error.status)

    def count_tokens(self, usage: anthropic.Usage | None) -> None:
        if usage is not None:
            read, written = usage.cache_read_tokens, usage.cache_creation_tokens
            self.record.usage = Usage(
                usage.input_tokens + read + written, usage.output_tokens, read, usage.thinking_tokens, written
            )


class CountTokensExchange(AnthropicExchange):
    """How many tokens a turn would have. The request goes to the provider, so it is filtered like the turn itself; the
    answer is numbers."""

    operation = "count_tokens"
    upstream_path = b"/messages/count_tokens"

    def may_stream(self, turn: anthropic.MessagesRequest) -> bool:
        return False

    async def answer(self, response: Response) -> None:
        raw = await response.read(self.deps.body_bytes_max)
        self.record.response = anthropic.decode_count(raw)
        self.record.response_type = "application/json"
        self.record.usage = Usage(0, 0)  # counting costs nothing
        self.give_verdict()
        await respond(self.request.send, 200, self.record.response, [*self.headers(response), JSON_TYPE])


def _word(value: object) -> str | None:
    """An identifier of the upstream, if it is one."""
    return value if isinstance(value, str) and len(value) <= 128 else None
