"""Carries out what the stream guard says: releases, decides, ends. Owns no verdict of its own."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

import orjson

from gateway.core.action import Surface
from gateway.core.decision import Effect
from gateway.core.errors import UpstreamError
from gateway.core.exchange import Direction, Origin
from gateway.core.filtering import TextGuard
from gateway.filters import text_guard
from gateway.proxy.asgi import DisconnectedError
from gateway.proxy.model_calls import CallJudge
from gateway.proxy.plane import Request
from gateway.proxy.screening import Screening, note
from gateway.wire import openai_chat
from gateway.wire.openai_chat_answers import error_event

if TYPE_CHECKING:
    from gateway.proxy.model_chat import ChatExchange
    from gateway.proxy.pool import Response


class Relay:
    """Carries out what the stream guard says."""

    def __init__(self, chat: ChatExchange, response: Response) -> None:
        self.chat = chat
        self.response = response
        self.judge = CallJudge(chat.deps, chat.surface.runs, chat.caller, chat.record, chat.began_ns)
        self.guards: list[TextGuard] = []
        agent = chat.caller.agent
        guarded = any(not rule.directions or Direction.RESPONSE in rule.directions for rule in agent.filter_rules)
        self.guard = openai_chat.ChatStreamGuard(self._text_guard if guarded else None)
        self.started = False

    def _text_guard(self, choice: int, field: str) -> TextGuard:
        del choice, field
        guard = text_guard(
            self.chat.caller.agent.filter_rules,
            self.chat.deps.scanner,
            origin=Origin.ASSISTANT,
            direction=Direction.RESPONSE,
            surface=Surface.MODEL,
        )
        self.guards.append(guard)
        return guard

    async def run(self, gone: asyncio.Future[None]) -> None:
        try:
            async for chunk in self.response.chunks():
                if gone.done():
                    raise DisconnectedError
                if await self._carry_out(self.guard.feed(chunk)):
                    break
            else:
                await self._carry_out(self.guard.finish())
        except UpstreamError as error:
            # The connection broke: what was withheld stays here, and the client must not take it for a whole answer.
            if not self.started:
                raise
            self.chat.record.error = error.code
            await self._write(error_event(error.code, error.message, error.status), end=True)
            return
        await self._write(b"", end=True)
        await self.judge.settle()

    async def _carry_out(self, outputs: list[openai_chat.Output]) -> bool:
        """Whether the stream has ended."""
        todo = deque(outputs)
        while todo:
            output = todo.popleft()
            match output:
                case openai_chat.Release(data):
                    await self._write(data)
                case openai_chat.Decide(choice, calls):
                    todo.extend(self.guard.resolve(choice, await self.judge.judge(calls)))
                case openai_chat.Blocked(rule, data):
                    self.chat.record.rule, self.chat.record.reason = f"{rule.policy}/{rule.id}", rule.reason
                    self.chat.record.error = "content_denied"
                    await self._write(data)
                    return True
                case openai_chat.Failed(code, data):
                    self.chat.record.error = code
                    if not self.started:
                        raise UpstreamError(code, "the model endpoint's stream could not be inspected or broke off")
                    await self._write(data)
                    return True
        return False

    async def _write(self, data: bytes, *, end: bool = False) -> None:
        send = self.chat.request.send
        if not self.started:
            self.started = True
            headers = [*self.chat.headers(self.response, self.judge.held), (b"content-type", b"text/event-stream")]
            headers.append((b"cache-control", b"no-cache"))
            await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": data, "more_body": not end})

    def summary(self) -> bytes:
        """What was released, for the trace, and the findings of the guards."""
        chat, guard = self.chat, self.guard
        chat.count_tokens(guard.usage)
        chat.record.finish_reasons = tuple(guard.finish_reasons.values())
        result = Screening()
        for text in self.guards:
            for finding in text.findings:
                result.findings[finding.kind] = result.findings.get(finding.kind, 0) + 1
            result.denied = result.denied or text.denied
        if self.guards:
            note(chat.record, Direction.RESPONSE, 0, 0, result)
        chat.give_verdict()
        if chat.record.error == "content_denied":
            chat.record.effect = Effect.DENY.value
        choices = [
            {"index": index, "text": text, "finish_reason": guard.finish_reasons.get(index)}
            for index, text in guard.texts.items()
        ]
        return orjson.dumps({"object": "gateway.stream", "choices": choices})


async def until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
