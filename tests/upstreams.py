"""A model endpoint for tests that speaks the real wire format, byte by byte as told: also the wrong bytes.

Each behaviour belongs to a model name; it gets the decoded request and yields bytes to write. `CUT` closes the
connection in the middle, `RESET` before any byte. Requests are kept as they arrived.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

CUT = object()
Behaviour = Callable[[dict[str, Any]], "list[bytes | object]"]


@dataclass
class Seen:
    """One request as it arrived."""

    line: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        return json.loads(self.body)


@dataclass
class ModelUpstream:
    """`url` is the base URL with `/v1`. Give behaviours by model name before calling."""

    url: str = ""
    behaviours: dict[str, Behaviour] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)

    def on(self, model: str, *writes: bytes | object) -> None:
        self.behaviours[model] = lambda body: list(writes)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                line, *rest = head.split("\r\n")
                headers = {k.lower(): v.strip() for k, _, v in (item.partition(":") for item in rest if item)}
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                self.seen.append(Seen(line, headers, body))
                model = json.loads(body).get("model", "") if body else ""
                for write in self.behaviours[model](json.loads(body) if body else {}):
                    if write is CUT:
                        return
                    assert isinstance(write, bytes)
                    writer.write(write)
                    await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()


@contextmanager
def model_upstream() -> Iterator[ModelUpstream]:
    """Runs in a thread with a loop of its own, so that the code under test may block."""
    upstream = ModelUpstream()
    ready = threading.Event()
    box: dict[str, Any] = {}

    async def main() -> None:
        server = await asyncio.start_server(upstream.serve, "127.0.0.1", 0)
        upstream.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        box["loop"], box["stop"] = asyncio.get_running_loop(), asyncio.Event()
        ready.set()
        await box["stop"].wait()
        server.close()

    thread = threading.Thread(target=lambda: asyncio.run(main()), daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield upstream
    finally:
        box["loop"].call_soon_threadsafe(box["stop"].set)
        thread.join(10)


def whole(body: bytes | dict[str, Any], status: int = 200, content_type: str = "application/json") -> bytes:
    """A complete response."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = (
        f"HTTP/1.1 {status} X\r\ncontent-type: {content_type}\r\ncontent-length: {len(data)}\r\nx-internal: 1\r\n\r\n"
    )
    return head.encode() + data


STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
STREAM_END = b"0\r\n\r\n"


def piece(data: bytes) -> bytes:
    """One chunk of a chunked body."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def completion(
    content: str | None = "Hello.", calls: list[dict[str, Any]] | None = None, **more: Any
) -> dict[str, Any]:
    """A chat.completion as the provider publishes it."""
    message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
    if calls:
        message["tool_calls"] = calls
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "demo-upstream",
        "choices": [
            {"index": 0, "message": message, "logprobs": None, "finish_reason": "tool_calls" if calls else "stop"}
        ],
        "usage": {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18},
        **more,
    }


def function_call(name: str, arguments: dict[str, Any] | str, call_id: str = "call_1") -> dict[str, Any]:
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": text}}


def events(*deltas: dict[str, Any], finish: str = "stop", usage: bool = False) -> list[bytes]:
    """chat.completion.chunk events, the finish reason, optionally usage, and the end mark."""
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_700_000_000, "model": "demo-upstream"}

    def event(choices: list[Any], **more: Any) -> bytes:
        return b"data: " + json.dumps({**head, "choices": choices, **more}).encode() + b"\n\n"

    found = [event([{"index": 0, "delta": delta, "finish_reason": None}]) for delta in deltas]
    found.append(event([{"index": 0, "delta": {}, "finish_reason": finish}]))
    if usage:
        found.append(event([], usage={"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}))
    return [*found, b"data: [DONE]\n\n"]


def stream(*pieces: bytes, end: bool = True) -> list[bytes | object]:
    """A chunked response with these pieces; without `end` the connection breaks."""
    return [STREAM_HEAD, *(piece(data) for data in pieces), STREAM_END if end else CUT]
