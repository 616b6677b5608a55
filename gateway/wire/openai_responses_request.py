"""Responses requests: what they ask for, and every piece of text in them.

The promise is that of Chat Completions: each string in the body is a `Part`, or is the model's name, a word of the
protocol, an identifier at a place where the API has one, or encoded content (counted in `opaque`). What a request
refers to without bringing it, such as earlier turns that the provider keeps, is named in `unseen`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from gateway.core.canonical import JSON, parse, refuse_alike_members
from gateway.core.errors import ClientError
from gateway.core.exchange import Origin, Part, Path
from gateway.wire import leaves
from gateway.wire.openai_chat_request import PROTOCOL_WORDS, other_models, rewrite
from gateway.wire.openai_chat_tools import PROVIDER_FIELDS
from gateway.wire.openai_responses_items import CALL_TEXTS, is_base64, is_identifier
from gateway.wire.openai_responses_tools import offered, provider_tools
from gateway.wire.shapes import object_at, wrong

__all__ = ["ResponsesRequest", "decode_request", "read_request", "rewrite"]

_ROLES = {
    "system": Origin.SYSTEM,
    "developer": Origin.SYSTEM,
    "user": Origin.USER,
    "assistant": Origin.ASSISTANT,
    "tool": Origin.TOOL_RESULT,
}
_TOP_ORIGINS = {
    "instructions": Origin.SYSTEM,
    "tools": Origin.SYSTEM,
    "tool_choice": Origin.SYSTEM,
    "text": Origin.SYSTEM,
}
_RESULTS = frozenset({"output", "outputs", "results", "result"})
"""What came out of a tool that the provider ran, within the item of its call."""

# fmt: off
_WORDS = PROTOCOL_WORDS | {
    "message", "input_text", "output_text", "input_image", "input_file", "input_audio", "summary_text",
    "reasoning_text", "function", "function_call", "function_call_output", "custom_tool_call",
    "custom_tool_call_output", "reasoning", "item_reference", "namespace", "compaction",
    "completed", "incomplete", "in_progress", "concise", "detailed", "disabled", "commentary", "final_answer",
    "reasoning.encrypted_content", "message.output_text.logprobs", "message.input_image.image_url",
    "file_search_call.results", "web_search_call.action.sources", "code_interpreter_call.outputs",
    "computer_call_output.output.image_url",
}
# fmt: on
_SPOKEN = frozenset({"text", "content", "input", "output", "arguments", "instructions", "refusal"})
_UNSEEN = ("previous_response_id", "conversation", "prompt")
_DECIDING = frozenset(
    {
        "model", "models", "input", "instructions", "stream", "background", "tools", "tool_choice", "fallbacks",
        "context_window_fallbacks", "content_policy_fallbacks", *_UNSEEN, *PROVIDER_FIELDS,
    }
)  # fmt: skip
"""Members that decisions look at. Servers in Go would take `Model` for `model`."""


class ResponsesRequest(NamedTuple):
    """One request. `body` are the bytes as they came: forward these unless something is rewritten."""

    body: bytes
    raw: dict[str, JSON]
    model: str
    fallback_models: tuple[str, ...]
    stream: bool
    parts: tuple[Part, ...]
    tools: tuple[str, ...]
    provider_tools: tuple[str, ...]
    unseen: tuple[str, ...]
    """Fields that make the provider use content which is not in this body: nobody here has judged it."""
    opaque: int


def decode_request(body: bytes) -> ResponsesRequest:
    """Raises ClientError `invalid_json`, `alike_names`, `invalid_request` (with the path of what is wrong) or
    `background_not_supported`."""
    return read_request(object_at(parse(body), ()), body)


def read_request(raw: dict[str, JSON], body: bytes | None = None) -> ResponsesRequest:
    """The same from a decoded body, for one that was changed (`strip_tools`)."""
    refuse_alike_members(raw, known=_DECIDING)
    model = raw.get("model")
    if not isinstance(model, str) or not model:
        raise wrong(("model",), "the name of a model")
    for key in ("stream", "background"):
        if not isinstance(raw.get(key), bool | None):
            raise wrong((key,), "true or false")
    if raw.get("background"):
        raise ClientError(
            "background_not_supported",
            "an answer in the background would be fetched past the gateway; send the request without `background`",
        )
    reader = _Reader()
    if isinstance(raw.get("instructions"), str):
        reader.walk(raw["instructions"], ("instructions",), Origin.SYSTEM)
    reader.input(raw.get("input"))
    for key, value in raw.items():
        if key in ("model", "input") or (key == "instructions" and isinstance(value, str)):
            continue
        if value is not None and not isinstance(value, (bool, int, float)):
            reader.walk(value, (key,), _TOP_ORIGINS.get(key, Origin.USER))
    unseen = [key for key in _UNSEEN if raw.get(key) is not None]
    return ResponsesRequest(
        body=leaves.encode(raw) if body is None else body,
        raw=raw,
        model=model,
        fallback_models=other_models(raw),
        stream=bool(raw.get("stream")),
        parts=tuple(reader.parts),
        tools=tuple(offered(raw)),
        provider_tools=provider_tools(raw),
        unseen=(*unseen, *(["item_reference"] if reader.references else [])),
        opaque=reader.opaque,
    )


class _Reader:
    """Collects the parts of one request."""

    __slots__ = ("opaque", "parts", "references")

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.opaque = 0
        self.references = 0

    def input(self, value: JSON) -> None:
        if value is None:
            return
        if isinstance(value, str):
            self.parts.append(Part(Origin.USER, value, ("input",)))
            return
        if not isinstance(value, list):
            raise wrong(("input",), "a string or a list of items")
        for index, item in enumerate(value):
            self._item(object_at(item, ("input", index)), ("input", index))

    def _item(self, item: dict[str, JSON], path: Path) -> None:
        kind = item.get("type")
        if kind is None:
            kind = "message" if "role" in item else "item_reference"
        if not isinstance(kind, str):
            raise wrong((*path, "type"), "a string")
        if kind == "item_reference":
            self.references += 1
        origin = _origin(kind, item, path)
        for key in ("name", "namespace", CALL_TEXTS.get(kind, "name")):
            if kind in CALL_TEXTS and not isinstance(item.get(key), str | None):
                raise wrong((*path, key), "a string")
        for key, value in item.items():
            result = key in _RESULTS and origin is Origin.TOOL_ARGS
            self.walk(value, (*path, key), Origin.TOOL_RESULT if result else origin)

    def walk(self, value: JSON, path: Path, origin: Origin) -> None:
        for at, text in leaves.leaves(value, path):
            if text in _WORDS and at[-1] not in _SPOKEN:
                continue
            if _is_identifier(at, text):
                continue
            if _is_opaque(at, text):
                self.opaque += 1
                continue
            self.parts.append(Part(origin, text, at))


def _origin(kind: str, item: Mapping[str, JSON], path: Path) -> Origin:
    if kind == "message":
        role = item.get("role")
        if not isinstance(role, str):
            raise wrong((*path, "role"), "a string")
        return _ROLES.get(role, Origin.USER)
    if kind.endswith("_output") or kind in ("mcp_list_tools",):
        return Origin.TOOL_RESULT
    if kind.endswith("_call") or kind in ("program", "mcp_approval_request"):
        return Origin.TOOL_ARGS
    if kind in ("reasoning", "compaction"):
        return Origin.ASSISTANT
    return Origin.SYSTEM if kind == "additional_tools" else Origin.USER


def _is_identifier(path: Path, text: str) -> bool:
    """At the places where the API has an identifier of its own making, and only if it looks like one."""
    match path:
        case ("input", int(), "id" | "call_id" | "approval_request_id") | ("previous_response_id",):
            return is_identifier(text)
        case ("conversation",) | ("conversation" | "prompt", "id"):
            return is_identifier(text)
        case ("input", int(), "content" | "output", int(), "file_id"):
            return is_identifier(text)
    return False


def _is_opaque(path: Path, text: str) -> bool:
    """Encoded content. Text that only claims to be that is a part like any other."""
    match path[-1]:
        case "encrypted_content":
            return len(path) == 3 and path[0] == "input" and is_base64(text)
        case "image_url" | "file_data":
            head, comma, data = text.partition(",")
            return bool(comma) and head.startswith("data:") and head.endswith(";base64") and is_base64(data)
        case "data":
            return path[-2:-1] == ("input_audio",) and is_base64(text)
    return False
