"""Chat Completions, streamed or not."""

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
from gateway.wire import openai_chat
from gateway.wire.openai_chat_answers import error_event

if TYPE_CHECKING:
    from gateway.proxy.pool import Response
    from gateway.wire.outputs import StreamGuard


class ChatExchange(StreamedExchange):
    """One turn of a conversation."""

    streamed = False
    _guard: openai_chat.ChatStreamGuard | None = None

    async def serve(self, body: bytes) -> None:
        require_json(self.request.headers)
        chat = openai_chat.decode_request(body)
        self.record.model = chat.model
        self.streamed = chat.stream
        join_run(self, opening_of(chat.parts))
        route = find_route(self, chat.model, chat.fallback_models)
        admit_provider_tools(self, chat.provider_tools)
        hidden = hidden_tools(self, chat.tools)
        if hidden:
            chat = openai_chat.read_request(openai_chat.strip_tools(chat.raw, hidden))
        edits = (await self.screened(chat.parts, Direction.REQUEST)).edits if self.caller.agent.filter_rules else {}
        renamed = route.upstream_model(chat.model)
        if renamed != chat.model:
            edits["model",] = renamed
        # The caller's own bytes, unless a rule or the route rewrote something.
        sent = openai_chat.rewrite(chat.raw, edits) if edits else chat.body
        await self.forward(self.surface.endpoint(route), b"/chat/completions", sent, stream=chat.stream)

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
        answer = openai_chat.decode_response(raw)
        record = self.record
        record.response, record.response_type = raw, "application/json"
        record.model_responded = _word(answer.raw.get("model"))
        record.response_id = _word(answer.raw.get("id"))
        record.finish_reasons = tuple(answer.finish_reasons.values())
        self.count_tokens(answer.usage)
        judge = CallJudge(self.deps, self.surface.runs, self.caller, record, self.began_ns)
        verdicts = await judge.judge(answer.calls) if answer.calls else ()
        # Arguments are not text on their way to the agent: `judge` has looked at those that the agent executes, and the
        # tool endpoint looks at the others.
        edits = {}
        if self.caller.agent.filter_rules:
            texts = [part for part in answer.parts if part.origin is not Origin.TOOL_ARGS]
            edits = (await self.screened(texts, Direction.RESPONSE)).edits
        record.response = openai_chat.replace_calls(answer, verdicts, edits)
        self.give_verdict()
        await respond(self.request.send, 200, record.response, [*self.headers(response, judge.held), JSON_TYPE])
        await judge.settle()

    def stream_guard(self, text_guard: Callable[[int, str], TextGuard] | None) -> StreamGuard:
        self._guard = openai_chat.ChatStreamGuard(text_guard)
        return self._guard

    def error_event(self, error: GatewayError) -> bytes:
        return error_event(error.code, error.message, error.status)

    def count_tokens(self, usage: openai_chat.Usage | None) -> None:
        if usage is not None:
            self.record.usage = Usage(
                usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens, usage.reasoning_tokens
            )


def _word(value: object) -> str | None:
    """An identifier of the upstream, if it is one."""
    return value if isinstance(value, str) and len(value) <= 128 else None
