"""OpenAI Responses, streamed or not."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gateway.core.action import PROVIDER_SERVER, Action, Surface
from gateway.core.decision import Effect
from gateway.core.errors import ClientError, GatewayError
from gateway.core.exchange import Direction, Origin
from gateway.core.filtering import TextGuard
from gateway.proxy.asgi import JSON_TYPE, require_json, respond
from gateway.proxy.model_admission import admit_provider_tools, find_route, hidden_tools, join_run
from gateway.proxy.model_calls import CallJudge
from gateway.proxy.model_exchange import StreamedExchange
from gateway.proxy.runs import opening_of
from gateway.traces.record import Usage
from gateway.wire import openai_responses

if TYPE_CHECKING:
    from gateway.proxy.pool import Response
    from gateway.wire.openai_chat_fields import Usage as Counts
    from gateway.wire.outputs import StreamGuard

STORED_CONTEXT = "stored_context"
"""`provider.stored_context`: the name by which a rule allows content that the provider keeps and nobody here has seen,
as earlier turns (`previous_response_id`, `conversation`, references to items) and stored prompts, which may bring tools
of the provider with them."""


class ResponsesExchange(StreamedExchange):
    """One turn of a conversation."""

    streamed = False
    provider_runs = False
    _guard: openai_responses.ResponsesStreamGuard | None = None

    async def serve(self, body: bytes) -> None:
        require_json(self.request.headers)
        turn = openai_responses.decode_request(body)
        self.record.model = turn.model
        self.streamed = turn.stream
        join_run(self, opening_of(turn.parts))
        route = find_route(self, turn.model, turn.fallback_models)
        self._admit_unseen(turn.unseen)
        admit_provider_tools(self, turn.provider_tools)
        self.provider_runs = bool(turn.provider_tools or turn.unseen)  # a stored prompt may bring tools
        hidden = hidden_tools(self, turn.tools)
        if hidden:
            turn = openai_responses.read_request(openai_responses.strip_tools(turn.raw, hidden))
        edits = (await self.screened(turn.parts, Direction.REQUEST)).edits if self.caller.agent.filter_rules else {}
        renamed = route.upstream_model(turn.model)
        if renamed != turn.model:
            edits["model",] = renamed
        # The caller's own bytes, unless a rule or the route rewrote something.
        sent = openai_responses.rewrite(turn.raw, edits) if edits else turn.body
        await self.forward(self.surface.endpoint(route), b"/responses", sent, stream=turn.stream)

    def _admit_unseen(self, fields: tuple[str, ...]) -> None:
        """Raises ClientError `unseen_context` unless a rule allows `provider.stored_context`."""
        if not fields:
            return
        action = Action(
            surface=Surface.MODEL, server=PROVIDER_SERVER, tool=STORED_CONTEXT, arguments={"fields": list(fields)}
        )
        session = self.deps.session(self.caller)
        decision = self.deps.policy().decide(self.caller.agent, action, session, now=self.record.started_s)
        if decision.effect is not Effect.ALLOW:
            self.record.rule, self.record.reason = decision.rule, decision.reason
            raise ClientError(
                "unseen_context",
                f"`{fields[0]}` refers to content that the gateway has not inspected; send it in `input`, or ask for a "
                f"rule that allows `provider.{STORED_CONTEXT}`",
                status=403,
            )

    async def answer(self, response: Response) -> None:
        if self.streamed:
            try:
                await self.relay(response)
            finally:
                if self._guard is not None:
                    self.record.model_responded = _word(self._guard.model)
                    self.record.response_id = _word(self._guard.response_id)
                    self.count_tokens(self._guard.usage)
        else:
            await self._whole(response)

    async def _whole(self, response: Response) -> None:
        raw = await response.read(self.deps.body_bytes_max)
        answer = openai_responses.decode_response(raw, provider_runs=self.provider_runs)
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
        record.response = openai_responses.replace_calls(answer, verdicts, edits)
        self.give_verdict()
        await respond(self.request.send, 200, record.response, [*self.headers(response, judge.held), JSON_TYPE])
        await judge.settle()

    def stream_guard(self, text_guard: Callable[[int, str], TextGuard] | None) -> StreamGuard:
        self._guard = openai_responses.ResponsesStreamGuard(text_guard, provider_runs=self.provider_runs)
        return self._guard

    def error_event(self, error: GatewayError) -> bytes:
        number = self._guard.next_number if self._guard else 0
        return openai_responses.error_event(error.code, error.message, error.status, number=number)

    def count_tokens(self, usage: Counts | None) -> None:
        if usage is not None:
            self.record.usage = Usage(
                usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens, usage.reasoning_tokens
            )


def _word(value: object) -> str | None:
    """An identifier of the upstream, if it is one."""
    return value if isinstance(value, str) and len(value) <= 128 else None
