"""Responses bodies and streams in the shapes that the provider publishes, and the official SDK reading them."""

from __future__ import annotations

import json
from typing import Any

from openai.types.responses import Response

from tests.wire_support import client, dumps

BASE: dict[str, Any] = {
    "id": "resp_67ccd2bed1ec8190b14f964abc0542670bb6a6b452d3795b",
    "object": "response",
    "created_at": 1741476542,
    "status": "completed",
    "error": None,
    "incomplete_details": None,
    "instructions": None,
    "max_output_tokens": None,
    "model": "gpt-4.1-2025-04-14",
    "output": [],
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "reasoning": {"effort": None, "summary": None},
    "store": True,
    "temperature": 1.0,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_p": 1.0,
    "truncation": "disabled",
    "usage": {
        "input_tokens": 36,
        "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 0},
        "output_tokens": 87,
        "output_tokens_details": {"reasoning_tokens": 5},
        "total_tokens": 123,
    },
    "user": None,
    "metadata": {},
}


def part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "annotations": [], "logprobs": [], "text": text}


def message(text: str, identifier: str = "msg_1") -> dict[str, Any]:
    return {
        "id": identifier,
        "type": "message",
        "status": "completed",
        "role": "assistant",
        "content": [part(text)],
    }


def function_call(name: str, arguments: Any, call_id: str = "call_1") -> dict[str, Any]:
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    return {
        "id": f"fc_{call_id}",
        "type": "function_call",
        "status": "completed",
        "call_id": call_id,
        "name": name,
        "arguments": text,
    }


def custom_call(name: str, text: str, call_id: str = "call_1") -> dict[str, Any]:
    return {"id": f"ctc_{call_id}", "type": "custom_tool_call", "call_id": call_id, "name": name, "input": text}


def answer(*output: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {**BASE, "output": list(output), **more}


class Script:
    """The events of one stream, numbered as they are added."""

    def __init__(self, *, opened: bool = True) -> None:
        self.events: list[bytes] = []
        self.output: list[dict[str, Any]] = []
        if opened:
            started = {**BASE, "status": "in_progress", "usage": None}
            self.add("response.created", response=started)
            self.add("response.in_progress", response=started)

    def add(self, kind: str, **fields: Any) -> Script:
        doc = {"type": kind, "sequence_number": len(self.events), **fields}
        self.events.append(b"event: " + kind.encode() + b"\ndata: " + dumps(doc) + b"\n\n")
        return self

    def text(self, *pieces: str) -> Script:
        """A message that arrives in these pieces."""
        index, whole = len(self.output), "".join(pieces)
        item = message(whole, f"msg_{index}")
        at = {"item_id": item["id"], "output_index": index, "content_index": 0}
        self.add(
            "response.output_item.added", output_index=index, item={**item, "status": "in_progress", "content": []}
        )
        self.add("response.content_part.added", **at, part=part(""))
        for piece in pieces:
            self.add("response.output_text.delta", **at, delta=piece, logprobs=[])
        self.add("response.output_text.done", **at, text=whole, logprobs=[])
        self.add("response.content_part.done", **at, part=part(whole))
        return self.done(index, item)

    def call(self, name: str, *pieces: str, custom: bool = False) -> Script:
        """A call whose arguments arrive in these pieces."""
        index, whole = len(self.output), "".join(pieces)
        make, key, kind = (
            (custom_call, "input", "custom_tool_call_input")
            if custom
            else (function_call, "arguments", "function_call_arguments")
        )
        item = make(name, whole, f"call_{index}")
        at = {"item_id": item["id"], "output_index": index}
        self.add("response.output_item.added", output_index=index, item={**item, "status": "in_progress", key: ""})
        for piece in pieces:
            self.add(f"response.{kind}.delta", **at, delta=piece)
        self.add(f"response.{kind}.done", **at, **{key: whole})
        return self.done(index, item)

    def reasoning(self, *pieces: str) -> Script:
        """A summary of thoughts that arrives in these pieces."""
        index, whole = len(self.output), "".join(pieces)
        summary = {"type": "summary_text", "text": whole}
        item = {"id": f"rs_{index}", "type": "reasoning", "summary": [summary], "encrypted_content": "gAAAAAB_x-y="}
        at = {"item_id": item["id"], "output_index": index, "summary_index": 0}
        self.add("response.output_item.added", output_index=index, item={**item, "summary": []})
        self.add("response.reasoning_summary_part.added", **at, part={**summary, "text": ""})
        for piece in pieces:
            self.add("response.reasoning_summary_text.delta", **at, delta=piece, obfuscation="x7Yb")
        self.add("response.reasoning_summary_text.done", **at, text=whole)
        self.add("response.reasoning_summary_part.done", **at, part=summary)
        return self.done(index, item)

    def whole(self, item: dict[str, Any]) -> Script:
        """An item that comes in one piece."""
        index = len(self.output)
        self.add("response.output_item.added", output_index=index, item={**item, "status": "in_progress"})
        return self.done(index, item)

    def done(self, index: int, item: dict[str, Any]) -> Script:
        self.output.append(item)
        return self.add("response.output_item.done", output_index=index, item=item)

    def end(self, status: str = "completed", **more: Any) -> list[bytes]:
        return self.add(f"response.{status}", response={**BASE, "status": status, "output": self.output, **more}).events


def read_events(body: bytes) -> list[Any]:
    """The events as the SDK gives them out. Raises what the SDK raises."""
    with client(body, content_type="text/event-stream") as sdk:
        return list(sdk.responses.create(model="m", input="q", stream=True))


def accumulate(body: bytes) -> Any:
    """The answer as the SDK's own helper builds it."""
    with client(body, content_type="text/event-stream") as sdk, sdk.responses.stream(model="m", input="q") as stream:
        return stream.get_final_response()


def read_answer(body: bytes) -> Response:
    with client(body) as sdk:
        answer = sdk.responses.create(model="m", input="q")
    return Response.model_validate(answer.model_dump(exclude_unset=True))


def data_of(body: bytes) -> list[dict[str, Any]]:
    """What stands in the events of a stream."""
    return [json.loads(line[6:]) for line in body.split(b"\n") if line.startswith(b"data: {")]
