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
from gateway.wire.calls import ProposedCall
from gateway.wire.outputs import Blocked, Decide, Failed, Output, Release

if TYPE_CHECKING:
    from gateway.proxy.model_exchange import StreamedExchange
    from gateway.proxy.pool import Response


class Relay:
    """Carries out what the stream guard of an exchange says."""

    def __init__(self, exchange: StreamedExchange, response: Response) -> None:
        self.exchange = exchange
        self.response = response
        self.judge = CallJudge(
            exchange.deps, exchange.surface.runs, exchange.caller, exchange.record, exchange.began_ns
        )
        self.guards: list[TextGuard] = []
        self._released: dict[int, list[ProposedCall]] = {}
        rules = exchange.caller.agent.filter_rules
        guarded = any(not rule.directions or Direction.RESPONSE in rule.directions for rule in rules)
        self.guard = exchange.stream_guard(self._text_guard if guarded else None)
        self.started = False

    def _text_guard(self, choice: int, field: str) -> TextGuard:
        del choice, field
        guard = text_guard(
            self.exchange.caller.agent.filter_rules,
            self.exchange.deps.scanner,
            origin=Origin.ASSISTANT,
            direction=Direction.RESPONSE,
            surface=Surface.MODEL,
        )
        self.guards.append(guard)
        return guard

    async def run(self) -> None:
        """Relay the stream to its end, or to the point where a rule, the upstream or the client ends it."""
        gone = asyncio.ensure_future(_until_gone(self.exchange.request))
        try:
            await self._run(gone)
        finally:
            gone.cancel()

    async def _run(self, gone: asyncio.Future[None]) -> None:
        send, feed = self.exchange.request.send, self.guard.feed
        try:
            async for chunk in self.response.chunks():
                if gone.done():
                    raise DisconnectedError
                outputs = feed(chunk)
                if self.started and len(outputs) == 1 and type(outputs[0]) is Release:  # nearly every event
                    await send({"type": "http.response.body", "body": outputs[0].data, "more_body": True})
                elif await self._carry_out(outputs):
                    break
            else:
                await self._carry_out(self.guard.finish())
        except UpstreamError as error:
            # The connection broke: what was withheld stays here, and the client must not take it for a whole answer.
            if not self.started:
                raise
            self.exchange.record.error = error.code
            await self._write(self.exchange.error_event(error), end=True)
            return
        await self._write(b"", end=True)
        if not gone.done():  # else nobody knows what arrived
            await self.judge.settle()

    async def _carry_out(self, outputs: list[Output]) -> bool:
        """Whether the stream has ended."""
        todo = deque(outputs)
        while todo:
            match todo.popleft():
                case Release(data):
                    await self._write(data)
                case Decide(choice, calls):
                    verdicts = await self.judge.judge(calls)
                    self._released[choice] = [
                        call for call, verdict in zip(calls, verdicts, strict=True) if verdict.allow
                    ]
                    todo.extend(self.guard.resolve(choice, verdicts))
                case Blocked(rule, data):
                    record = self.exchange.record
                    record.rule, record.reason = f"{rule.policy}/{rule.id}", rule.reason
                    record.error = "content_denied"
                    await self._write(data)
                    return True
                case Failed(code, data):
                    self.exchange.record.error = code
                    if not self.started:
                        raise UpstreamError(code, "the model endpoint's stream could not be inspected or broke off")
                    await self._write(data)
                    return True
        return False

    async def _write(self, data: bytes, *, end: bool = False) -> None:
        send = self.exchange.request.send
        if not self.started:
            self.started = True
            headers = [*self.exchange.headers(self.response, self.judge.held), (b"content-type", b"text/event-stream")]
            headers.append((b"cache-control", b"no-cache"))
            await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": data, "more_body": not end})

    def summary(self) -> bytes:
        """What was released, for the trace, and the findings of the guards."""
        exchange, guard = self.exchange, self.guard
        exchange.record.finish_reasons = tuple(guard.finish_reasons.values())
        result = Screening()
        for text in self.guards:
            for finding in text.findings:
                result.findings[finding.kind] = result.findings.get(finding.kind, 0) + 1
            result.denied = result.denied or text.denied
            exchange.failed_open |= text.failed_open
        if self.guards:
            note(exchange.record, Direction.RESPONSE, 0, 0, result)
        exchange.give_verdict()
        if exchange.record.error == "content_denied":
            exchange.record.effect = Effect.DENY.value
        indices = sorted({*guard.texts, *self._released})
        return orjson.dumps({"object": "chat.completion", "choices": [self._choice(index) for index in indices]})

    def _choice(self, index: int) -> dict[str, object]:
        """One choice as it was released, in the shape of a whole answer, so that a trace reads the same either way."""
        message: dict[str, object] = {"role": "assistant", "content": self.guard.texts.get(index) or None}
        calls = self._released.get(index)
        if calls:
            message["tool_calls"] = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": call.arguments_text},
                }
                for call in calls
            ]
        return {"index": index, "message": message, "finish_reason": self.guard.finish_reasons.get(index)}


async def _until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
