"""What the tests of the wire room share: events of a model stream, a text guard that can be checked by eye, and the
official SDK reading what the gateway wrote."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import httpx2
import openai
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from gateway.core.filtering import Edit, FilterAction, FilterRule
from gateway.wire.openai_chat import Blocked, CallVerdict, ChatStreamGuard, Decide, Failed, Output, Release

DONE = b"data: [DONE]\n\n"
HEAD = {
    "id": "chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT",
    "object": "chat.completion.chunk",
    "created": 1741569952,
    "model": "gpt-4.1-2025-04-14",
}
DENY = FilterRule(policy="test", id="no-forbidden", action=FilterAction.DENY, reason="forbidden", kinds=("test.word",))


def dumps(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def event(delta: dict[str, Any], finish: str | None = None, *, index: int = 0, **more: Any) -> bytes:
    """One event with one choice."""
    choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
    return b"data: " + dumps({**HEAD, "choices": [choice], **more}) + b"\n\n"


def opening(index: int = 0) -> bytes:
    return event({"role": "assistant", "content": "", "refusal": None}, index=index)


def text(content: str, index: int = 0) -> bytes:
    return event({"content": content}, index=index)


def call(number: int, name: str, *pieces: str, index: int = 0, identifier: str | None = None) -> list[bytes]:
    """The events of one function call."""
    function = {"name": name, "arguments": ""}
    entry = {"index": number, "id": identifier or f"call_{number}", "type": "function", "function": function}
    more = [{"index": number, "function": {"arguments": piece}} for piece in pieces]
    return [event({"tool_calls": [each]}, index=index) for each in (entry, *more)]


class WordGuard:
    """Masks SECRET as <WORD> and denies FORBIDDEN. Holds back as much as the longest word may still need."""

    def __init__(self) -> None:
        self.text = ""
        self.settled = 0
        self.edits: list[Edit] = []
        self.findings: tuple[()] = ()
        self.denied: FilterRule | None = None
        self.finished = False

    def feed(self, piece: str) -> None:
        assert not self.finished
        self.text += piece
        self._judge(len(self.text) - len("FORBIDDEN") + 1)

    def finish(self) -> None:
        self.finished = True
        self._judge(len(self.text))

    def _judge(self, sure: int) -> None:
        at = self.edits[-1].end if self.edits else 0
        while (found := self.text.find("SECRET", at)) >= 0:
            at = found + len("SECRET")
            self.edits.append(Edit(found, at, "<WORD>"))
        if "FORBIDDEN" in self.text:
            self.denied = DENY
        last = self.edits[-1].end if self.edits else 0
        self.settled = max(self.settled, sure, last) if sure > 0 or self.edits else 0


def word_guards() -> Callable[[int, str], WordGuard]:
    return lambda choice, field: WordGuard()


Judge = Callable[[Decide], Sequence[CallVerdict]]


def refuse(*names: str) -> Judge:
    """Denies these calls and those without arguments, each with a text."""
    return lambda decide: [
        CallVerdict(False, f"NOT EXECUTED: {each.name}")
        if each.name in names or each.arguments is None
        else CallVerdict(True)
        for each in decide.calls
    ]


allow = refuse()


def drive(guard: ChatStreamGuard, chunks: Iterable[bytes], judge: Judge = allow) -> tuple[bytes, list[Output]]:
    """Runs a stream to its end: all bytes that an agent would get, and all outputs beside the releases."""
    sent: list[bytes] = []
    told: list[Output] = []

    def act(outputs: list[Output]) -> None:
        for output in outputs:
            if isinstance(output, Release):
                sent.append(output.data)
                continue
            told.append(output)
            if isinstance(output, Blocked | Failed):
                sent.append(output.data)
            elif isinstance(output, Decide):
                act(guard.resolve(output.choice, judge(output)))

    for chunk in chunks:
        act(guard.feed(chunk))
    act(guard.finish())
    return b"".join(sent), told


def client(body: bytes, *, status: int = 200, content_type: str = "application/json") -> openai.OpenAI:
    """The official SDK, talking to a server that always gives this answer."""

    def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(status, content=body, headers={"content-type": content_type})

    transport = httpx2.MockTransport(answer)
    return openai.OpenAI(
        api_key="key", base_url="http://gateway/v1", max_retries=0, http_client=httpx2.Client(transport=transport)
    )


def read_stream(body: bytes) -> list[ChatCompletionChunk]:
    """The chunks as the SDK gives them out. Raises what the SDK raises."""
    with client(body, content_type="text/event-stream") as sdk:
        stream = sdk.chat.completions.create(model="m", messages=[{"role": "user", "content": "q"}], stream=True)
        return list(stream)


def accumulate(body: bytes) -> ChatCompletion:
    """The answer as the SDK's own accumulator builds it. Raises what the SDK raises for an end such as
    `content_filter`."""
    return _state(body).get_final_completion()


def snapshot(body: bytes) -> ChatCompletion:
    """The same without the SDK's judgement of the end."""
    return _state(body).current_completion_snapshot


def _state(body: bytes) -> ChatCompletionStreamState[Any]:
    """Each chunk is checked against the SDK's types."""
    state: ChatCompletionStreamState[Any] = ChatCompletionStreamState()
    for chunk in read_stream(body):
        if chunk.object:  # the first event of an Azure stream has an empty one
            ChatCompletionChunk.model_validate(chunk.model_dump(exclude_unset=True))
        state.handle_chunk(chunk)
    return state


def read_answer(body: bytes) -> ChatCompletion:
    with client(body) as sdk:
        answer = sdk.chat.completions.create(model="m", messages=[{"role": "user", "content": "q"}])
    return ChatCompletion.model_validate(answer.model_dump(exclude_unset=True))
