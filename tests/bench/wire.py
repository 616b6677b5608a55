"""The bytes that all contenders carry: a chat completion of 1 KB, its stream, and requests with text never seen."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

JSON_MODEL, STREAM_MODEL = "bench-json", "bench-sse"
PATH = "/v1/chat/completions"

_LUA = Path(__file__).with_name("unseen.lua").read_text()
_WORDS = _LUA[_LUA.index("[[") + 2 : _LUA.index("]]")].split()

COMPLETION = json.dumps(
    {
        "id": "chatcmpl-bench",
        "object": "chat.completion",
        "created": 1,
        "model": JSON_MODEL,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": " ".join(_WORDS[:110])},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 200, "completion_tokens": 110, "total_tokens": 310},
    },
    separators=(",", ":"),
).encode()


def _chunk(delta: dict[str, str], finish: str | None = None) -> bytes:
    body = {
        "id": "chatcmpl-bench",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": STREAM_MODEL,
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    }
    return b"data: " + json.dumps(body, separators=(",", ":")).encode() + b"\n\n"


def events(count: int) -> list[bytes]:
    """What is sent at once, in turn: the role with the first word, as model servers do; word by word; at last the
    finish reason with `[DONE]`. `count` events in all."""
    words = [_WORDS[number % len(_WORDS)] + " " for number in range(count - 2)]
    return [
        _chunk({"role": "assistant", "content": ""}) + _chunk({"content": words[0]}),
        *(_chunk({"content": word}) for word in words[1:]),
        _chunk({}, "stop") + b"data: [DONE]\n\n",
    ]


def unseen_bodies(model: str, *, stream: bool, seed: int) -> Iterator[bytes]:
    """Request bodies of about 1 KB whose text did not occur before; as `unseen.lua` makes them."""
    chance = random.Random(seed)
    fragments = [" ".join(chance.choices(_WORDS, k=10)) for _ in range(4096)]
    head = '{"model":"' + model + '",' + ('"stream":true,' if stream else "") + '"messages":[{"role":"user","content":"'
    while True:
        yield (head + ". ".join(chance.choices(fragments, k=14)) + '."}]}').encode()
