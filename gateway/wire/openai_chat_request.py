"""Chat Completions requests: what they ask for, and every piece of text in them.

The promise: each string in the body is a `Part`, or is named here as something that needs no inspection: the model's
name, a word of the protocol's own vocabulary, an identifier at a place where the API has one, or encoded binary content
(counted in `opaque`). Unknown fields are walked like known ones and carried through. Keys of objects are not parts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple, cast

from gateway.core.canonical import JSON, parse, refuse_alike_members
from gateway.core.exchange import Origin, Part, Path
from gateway.wire import leaves
from gateway.wire.openai_chat_tools import fallback_models, offered, provider_tools
from gateway.wire.shapes import list_at, object_at, wrong

_ORIGINS = {
    "system": Origin.SYSTEM,
    "developer": Origin.SYSTEM,
    "user": Origin.USER,
    "assistant": Origin.ASSISTANT,
    "tool": Origin.TOOL_RESULT,
    "function": Origin.TOOL_RESULT,
}

_TOP_ORIGINS = {
    "tools": Origin.SYSTEM,
    "functions": Origin.SYSTEM,
    "tool_choice": Origin.SYSTEM,
    "function_call": Origin.SYSTEM,
    "response_format": Origin.SYSTEM,
}
"""Everything else at the top of a body is the user's."""

# Values of the protocol itself. A string that is one of these says nothing, wherever it stands outside a content.
# fmt: off
PROTOCOL_WORDS = frozenset({
    *_ORIGINS,
    "text", "refusal", "image_url", "input_audio", "file", "thinking", "ephemeral",
    "function_call", "custom", "grammar", "lark", "regex", "allowed_tools", "web_search", "mcp", "approximate",
    "json_object", "json_schema", "content",
    "string", "number", "integer", "boolean", "object", "array", "null",
    "date", "date-time", "time", "email", "uri", "uuid",
    "auto", "none", "required", "default", "flex", "scale", "priority", "fast", "in_memory", "24h",
    "minimal", "low", "medium", "high", "xhigh",
    "audio", "wav", "mp3", "flac", "opus", "pcm16", "aac",
})
# fmt: on

_FALLBACKS = frozenset({"fallbacks", "context_window_fallbacks", "content_policy_fallbacks"})
_DECIDING = frozenset({"model", "models", "messages", "stream", "tools", "functions", *_FALLBACKS})
"""Members that decisions look at. Servers in Go would take `Model` for `model`."""

_CONTENT_KEYS = frozenset({"text", "content"})
_IDENTIFIER_KEYS = frozenset({"id", "tool_call_id", "file_id"})
_OPAQUE_KEYS = frozenset({"url", "data", "file_data"})

_IDENTIFIER = re.compile(r"[A-Za-z0-9_.:|/+=-]{1,256}")
_BASE64 = bytes(range(0x30, 0x3A)) + bytes(range(0x41, 0x5B)) + bytes(range(0x61, 0x7B)) + b"+/=-_\r\n"


class ChatRequest(NamedTuple):
    """One request. `body` are the bytes as they came: forward these unless something is rewritten."""

    body: bytes
    raw: dict[str, JSON]
    model: str
    fallback_models: tuple[str, ...]
    """Models that an upstream which routes (OpenRouter's `models`) may use instead: each needs to be allowed too."""
    stream: bool
    include_usage: bool
    parts: tuple[Part, ...]
    tools: tuple[str, ...]
    """Names of the tools that the agent offers to run itself: functions and custom tools."""
    provider_tools: tuple[str, ...]
    opaque: int
    """Images, sounds and files that were sent encoded: content that no text filter has seen."""


def decode_request(body: bytes) -> ChatRequest:
    """Raises ClientError `invalid_json`, `alike_names` or `invalid_request` (with the path of what is wrong)."""
    return read_request(object_at(parse(body), ()), body)


def read_request(raw: dict[str, JSON], body: bytes | None = None) -> ChatRequest:
    """The same from a decoded body, for one that was changed (`strip_tools`)."""
    refuse_alike_members(raw, known=_DECIDING)
    model = raw.get("model")
    if not isinstance(model, str) or not model:
        raise wrong(("model",), "the name of a model")
    stream = raw.get("stream")
    if stream is not None and not isinstance(stream, bool):
        raise wrong(("stream",), "true or false")
    reader = _Reader()
    messages = list_at(raw.get("messages"), ("messages",))
    if not messages:
        raise wrong(("messages",), "a list with at least one message")
    for index, message in enumerate(messages):
        reader.message(object_at(message, ("messages", index)), index)
    for key, value in raw.items():
        if key not in ("model", "messages") and value is not None and not isinstance(value, (bool, int, float)):
            reader.walk(value, (key,), _TOP_ORIGINS.get(key, Origin.USER))
    options = raw.get("stream_options")
    return ChatRequest(
        body=leaves.encode(raw) if body is None else body,
        raw=raw,
        model=model,
        fallback_models=other_models(raw),
        stream=bool(stream),
        include_usage=isinstance(options, dict) and options.get("include_usage") is True,
        parts=tuple(reader.parts),
        tools=tuple(offered(raw)),
        provider_tools=provider_tools(raw),
        opaque=reader.opaque,
    )


def other_models(raw: Mapping[str, JSON]) -> tuple[str, ...]:
    """The models beside `model` that a body names for an upstream that routes: OpenRouter's `models`, LiteLLM's
    fallbacks."""
    named = fallback_models(raw.get("models"))
    for key in _FALLBACKS & raw.keys():
        stack = [raw[key]]
        while stack:
            node = stack.pop()
            if isinstance(node, str):
                named = (*named, node)
            elif isinstance(node, dict):
                model = node.get("model")
                named = (*named, model) if isinstance(model, str) else (*named, *node)
                stack.extend(node.values() if model is None else ())
            elif isinstance(node, list):
                stack.extend(node)
    return named


def rewrite(raw: Mapping[str, JSON], edits: Mapping[Path, str]) -> bytes:
    """The body with these values replaced and nothing else changed. `raw` itself is left as it is."""
    return leaves.encode(leaves.with_values(cast("JSON", raw), cast("Mapping[Path, JSON]", edits)))


class _Reader:
    """Collects the parts of one request."""

    __slots__ = ("opaque", "parts")

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.opaque = 0

    def message(self, message: dict[str, JSON], index: int) -> None:
        role = message.get("role")
        path: Path = ("messages", index)
        if not isinstance(role, str):
            raise wrong((*path, "role"), "a string")
        origin = _ORIGINS.get(role, Origin.USER)
        content = message.get("content")
        if len(message) == 2 and isinstance(content, str) and role in _ORIGINS:  # most messages
            self.parts.append(Part(origin, content, (*path, "content")))
            return
        for key, value in message.items():
            if value is None or (key == "role" and role in _ORIGINS):
                continue
            at = (*path, key)
            if key == "content":
                if isinstance(value, str):
                    self.parts.append(Part(origin, value, at))
                    continue
                if not isinstance(value, list):
                    raise wrong(at, "a string or a list of blocks")
                for number, block in enumerate(value):
                    object_at(block, (*at, number))
                self.walk(value, at, origin)
            elif key == "tool_calls":
                for number, call in enumerate(list_at(value, at)):
                    _check_call(object_at(call, (*at, number)), (*at, number))
                self.walk(value, at, Origin.TOOL_ARGS)
            elif key == "function_call":
                _check_function(value, at)
                self.walk(value, at, Origin.TOOL_ARGS)
            else:
                self.walk(value, at, origin)

    def walk(self, value: JSON, path: Path, origin: Origin) -> None:
        for at, text in leaves.leaves(value, path):
            key = at[-1]
            if text in PROTOCOL_WORDS and key not in _CONTENT_KEYS:
                continue
            if key in _IDENTIFIER_KEYS and _is_identifier(at, text):
                continue
            if key in _OPAQUE_KEYS and _is_opaque(at, text):
                self.opaque += 1
                continue
            self.parts.append(Part(origin, text, at))


def _is_identifier(path: Path, text: str) -> bool:
    """At the places where the API has an identifier of its own making, and only if it looks like one."""
    if path[0] != "messages" or not _IDENTIFIER.fullmatch(text):
        return False
    match path[2:]:
        case ("tool_call_id",) | ("tool_calls", int(), "id") | ("audio", "id") | ("content", int(), "file", "file_id"):
            return True
    return False


def _is_opaque(path: Path, text: str) -> bool:
    """Encoded content of a block. Text that only claims to be that is a part like any other."""
    match path[-2:]:
        case ("image_url", "url"):
            head, comma, data = text.partition(",")
            return bool(comma) and head.startswith("data:image/") and head.endswith(";base64") and _is_base64(data)
        case ("input_audio", "data"):
            return _is_base64(text)
        case ("file", "file_data"):
            head, comma, data = text.partition(",")
            return (
                head.startswith("data:") and head.endswith(";base64") and _is_base64(data)
                if comma
                else _is_base64(text)
            )
    return False


def _is_base64(text: str) -> bool:
    return text.isascii() and not text.encode().translate(None, _BASE64)


def _check_call(call: dict[str, JSON], path: Path) -> None:
    for key, field in (("function", "arguments"), ("custom", "input")):
        payload = call.get(key)
        if payload is None:
            continue
        _check_function(payload, (*path, key), field)


def _check_function(value: JSON, path: Path, field: str = "arguments") -> None:
    payload = object_at(value, path)
    for key in ("name", field):
        if not isinstance(payload.get(key, ""), str):
            raise wrong((*path, key), "a string")
