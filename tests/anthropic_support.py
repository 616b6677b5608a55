"""What the tests of the Messages dialect share: answers and streams in Anthropic's published shapes, and the official
SDK reading what the gateway wrote."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import anthropic
import httpx2
from anthropic.types import Message

from gateway.wire.anthropic import AnthropicStreamGuard
from gateway.wire.calls import CallVerdict
from gateway.wire.outputs import Blocked, Decide, Failed, Output, Release
from tests.wire_support import Judge, allow, dumps

USAGE = {"input_tokens": 25, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 1}
SIGNATURE = (
    "EqQBCgIYAhIM1gbcDa9GJwZA2b3hGgxBdjrkzLoky3dl1pkiMOYds0+d1gYzoE3Oq6TTGyHkQ2hPTLz4ppRuPiNSGLpwdgJQ05MFqtJfDkMxyfs="
)


def tool_use(name: str, arguments: dict[str, Any], identifier: str = "toolu_1", **more: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": identifier, "name": name, "input": arguments, **more}


def answer(*content: dict[str, Any] | str, stop_reason: str | None = None, **more: Any) -> dict[str, Any]:
    """A whole answer; a string is a text block."""
    blocks = [{"type": "text", "text": block} if isinstance(block, str) else block for block in content]
    calls = any(block["type"] == "tool_use" for block in blocks)
    return {
        "id": "msg_013Zva2CMHLNnjNjtJKqJ2EF",
        "type": "message",
        "role": "assistant",
        "model": "claude-upstream",
        "content": blocks,
        "stop_reason": stop_reason or ("tool_use" if calls else "end_turn"),
        "stop_sequence": None,
        "usage": {**USAGE, "output_tokens": 12},
        **more,
    }


def event(body: dict[str, Any]) -> bytes:
    return b"event: " + body["type"].encode() + b"\ndata: " + dumps(body) + b"\n\n"


def start(index: int, block: dict[str, Any]) -> bytes:
    return event({"type": "content_block_start", "index": index, "content_block": block})


def delta(index: int, kind: str, field: str, value: Any) -> bytes:
    return event({"type": "content_block_delta", "index": index, "delta": {"type": kind, field: value}})


def stop(index: int) -> bytes:
    return event({"type": "content_block_stop", "index": index})


PING = event({"type": "ping"})
END = event({"type": "message_stop"})


def opening(**more: Any) -> bytes:
    message = {**answer(), "stop_reason": None, "usage": USAGE, **more}
    return event({"type": "message_start", "message": message})


def text(index: int, *pieces: str) -> list[bytes]:
    """The events of a text block."""
    deltas = [delta(index, "text_delta", "text", piece) for piece in pieces]
    return [start(index, {"type": "text", "text": ""}), *deltas, stop(index)]


def thinking(index: int, *pieces: str) -> list[bytes]:
    deltas = [delta(index, "thinking_delta", "thinking", piece) for piece in pieces]
    signature = delta(index, "signature_delta", "signature", SIGNATURE)
    return [start(index, {"type": "thinking", "thinking": "", "signature": ""}), *deltas, signature, stop(index)]


def call(index: int, name: str, *pieces: str, identifier: str = "", **more: Any) -> list[bytes]:
    """The events of a tool call."""
    block = tool_use(name, {}, identifier or f"toolu_{index}", **more)
    deltas = [delta(index, "input_json_delta", "partial_json", piece) for piece in ("", *pieces)]
    return [start(index, block), *deltas, stop(index)]


def ending(reason: str = "end_turn") -> bytes:
    body = {
        "type": "message_delta",
        "delta": {"stop_reason": reason, "stop_sequence": None},
        "usage": {"output_tokens": 15},
    }
    return event(body) + END


def whole(*blocks: Sequence[bytes], reason: str = "end_turn") -> list[bytes]:
    """A whole stream of these blocks."""
    return [opening(), PING, *(piece for block in blocks for piece in block), ending(reason)]


def drive(guard: AnthropicStreamGuard, chunks: Iterable[bytes], judge: Judge = allow) -> tuple[bytes, list[Output]]:
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


def client(body: bytes, *, status: int = 200, content_type: str = "application/json") -> anthropic.Anthropic:
    """The official SDK, talking to a server that always gives this answer."""

    def reply(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(status, content=body, headers={"content-type": content_type})

    return anthropic.Anthropic(
        api_key="key",
        base_url="http://gateway",
        max_retries=0,
        http_client=httpx2.Client(transport=httpx2.MockTransport(reply)),
    )


def accumulate(body: bytes) -> Message:
    """The answer as the SDK's own accumulator builds it. Raises what the SDK raises."""
    with client(body, content_type="text/event-stream") as sdk:
        with sdk.messages.stream(model="m", max_tokens=9, messages=[{"role": "user", "content": "q"}]) as stream:
            return Message.model_validate(json.loads(stream.get_final_message().to_json()))


def refuse_all(decide: Decide) -> list[CallVerdict]:
    return [CallVerdict(False, f"NOT EXECUTED: {call.name}") for call in decide.calls]
