"""Messages requests: what they ask for, and every piece of text in them.

The promise: each string in the body is a `Part`, or is named here as something that needs no inspection: the model's
name, a word of the protocol's own vocabulary, an identifier at a place where the API has one, or encoded binary content
(images and files are counted in `opaque`). Unknown fields are walked like known ones and carried through.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple, cast

from gateway.core.canonical import JSON, parse, refuse_alike_members
from gateway.core.exchange import Origin, Part, Path
from gateway.wire import leaves
from gateway.wire.anthropic_fields import ANSWER_BLOCKS, CALL, PROVIDER_CALLS, is_base64, is_encoded, is_sealed
from gateway.wire.anthropic_tools import PROVIDER_FIELDS, offered, provider_tools
from gateway.wire.openai_chat_request import other_models
from gateway.wire.shapes import list_at, object_at, wrong

_ORIGINS = {"system": Origin.SYSTEM, "user": Origin.USER, "assistant": Origin.ASSISTANT}

_TOP_ORIGINS = {
    "system": Origin.SYSTEM,
    "tools": Origin.SYSTEM,
    "tool_choice": Origin.SYSTEM,
    "output_config": Origin.SYSTEM,
    "output_format": Origin.SYSTEM,
}
"""Everything else at the top of a body is the user's."""

# Values of the protocol itself. A string that is one of these says nothing, wherever it stands outside a content or
# the arguments of a call.
# fmt: off
PROTOCOL_WORDS = frozenset({
    *_ORIGINS, *ANSWER_BLOCKS,
    "image", "document", "search_result", "tool_result", "tool_reference", "web_search_result", "web_fetch_result",
    "base64", "url", "file", "content", "ephemeral", "5m", "1h", "direct", "default",
    "image/jpeg", "image/png", "image/gif", "image/webp", "application/pdf", "text/plain",
    "custom", "auto", "any", "tool", "none", "enabled", "disabled", "adaptive", "summarized", "omitted",
    "string", "number", "integer", "boolean", "object", "array", "null", "json_schema",
    "date", "date-time", "time", "email", "uri", "uuid",
    "low", "medium", "high", "xhigh", "max", "standard_only", "standard", "fast",
})
# fmt: on

_DECIDING = frozenset({"model", "messages", "system", "stream", "tools", "tool_choice", "fallbacks", *PROVIDER_FIELDS})
"""Names by which is decided: in another case they would be read by some upstreams and by nobody here."""

_CONTENT_KEYS = frozenset({"text", "content", "thinking"})
_IDENTIFIER_KEYS = frozenset({"id", "tool_use_id"})
_IDENTIFIER = re.compile(r"[A-Za-z0-9_-]{1,128}")
_BLOCK_DEPTH_MAX = 8  # blocks within blocks: a tool's result holds a document that holds blocks, which is 3


class MessagesRequest(NamedTuple):
    """One request. `body` are the bytes as they came: forward these unless something is rewritten."""

    body: bytes
    raw: dict[str, JSON]
    model: str
    fallback_models: tuple[str, ...]
    """Models that the provider may use instead when the first one declines: each needs to be allowed too. Where the
    choice is left to the provider (`"fallbacks": "default"`), a model of the name `default` needs to be."""
    stream: bool
    parts: tuple[Part, ...]
    tools: tuple[str, ...]
    """Names of the tools that the agent offers to run itself."""
    provider_tools: tuple[str, ...]
    opaque: int
    """Images and files that were sent encoded or by their id: content that no text filter has seen."""


def decode_request(body: bytes) -> MessagesRequest:
    """Raises ClientError `invalid_json`, `alike_names` or `invalid_request` (with the path of what is wrong)."""
    return read_request(object_at(parse(body), ()), body)


def read_request(raw: dict[str, JSON], body: bytes | None = None) -> MessagesRequest:
    """The same from a decoded body, for one that was changed (`strip_tools`)."""
    refuse_alike_members(raw, known=_DECIDING)
    model = raw.get("model")
    if not isinstance(model, str) or not model:
        raise wrong(("model",), "the name of a model")
    stream = raw.get("stream")
    if stream is not None and not isinstance(stream, bool):
        raise wrong(("stream",), "true or false")
    reader = _Reader()
    system = raw.get("system")
    if isinstance(system, str):
        reader.parts.append(Part(Origin.SYSTEM, system, ("system",)))
    elif system is not None:
        reader.blocks(system, ("system",), Origin.SYSTEM)
    messages = list_at(raw.get("messages"), ("messages",))
    if not messages:
        raise wrong(("messages",), "a list with at least one message")
    for index, message in enumerate(messages):
        reader.message(object_at(message, ("messages", index)), index)
    for key, value in raw.items():
        if key not in ("model", "messages", "system"):
            reader.walk(value, (key,), _TOP_ORIGINS.get(key, Origin.USER))
    return MessagesRequest(
        body=leaves.encode(raw) if body is None else body,
        raw=raw,
        model=model,
        fallback_models=other_models(raw),
        stream=bool(stream),
        parts=tuple(reader.parts),
        tools=tuple(offered(raw)),
        provider_tools=provider_tools(raw),
        opaque=reader.opaque,
    )


def rewrite(raw: Mapping[str, JSON], edits: Mapping[Path, str]) -> bytes:
    """The body with these values replaced and nothing else changed. `raw` itself is left as it is.

    A sealed block of a message in which something would be replaced is left out instead, and a message of which nothing
    is left with it: the provider refuses an edited thinking block, and an empty message.
    """
    sealed = {path[:4] for path in edits if _in_sealed(raw, path)}
    kept = {path: text for path, text in edits.items() if path[:4] not in sealed}
    result = leaves.with_values(cast("JSON", raw), cast("Mapping[Path, JSON]", kept))
    if not sealed:
        return leaves.encode(result)
    messages: list[JSON] = []
    for index, message in enumerate(cast("list[dict[str, JSON]]", cast("dict[str, JSON]", result)["messages"])):
        gone = {path[3] for path in sealed if path[1] == index}
        if gone:
            content = cast("list[JSON]", message["content"])
            blocks = [block for number, block in enumerate(content) if number not in gone]
            if blocks:
                messages.append({**message, "content": blocks})
        else:
            messages.append(message)
    return leaves.encode({**cast("dict[str, JSON]", result), "messages": messages})


def _in_sealed(raw: Mapping[str, JSON], path: Path) -> bool:
    match path:
        case ("messages", int(), "content", int(), _, *_):
            block = leaves.get(cast("JSON", raw), path[:4])
            return isinstance(block, dict) and is_sealed(block)
    return False


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
        for key, value in message.items():
            at = (*path, key)
            if key != "content":
                self.walk(value, at, origin)
            elif isinstance(value, str):
                self.parts.append(Part(origin, value, at))
            elif value is not None:
                self.blocks(value, at, origin)

    def blocks(self, value: JSON, path: Path, origin: Origin) -> None:
        if not isinstance(value, list):
            raise wrong(path, "a string or a list of blocks")
        for number, block in enumerate(value):
            at = (*path, number)
            self.block(object_at(block, at), at, origin, 0)

    def block(self, block: dict[str, JSON], path: Path, origin: Origin, depth: int) -> None:
        kind = block.get("type")
        if not isinstance(kind, str):
            raise wrong((*path, "type"), "a string")
        if kind.endswith("tool_result"):
            origin = Origin.TOOL_RESULT
        for key, value in block.items():
            at = (*path, key)
            if kind == CALL or kind in PROVIDER_CALLS:
                self._call(key, value, at, origin)
            elif key == "content" and isinstance(value, list) and depth < _BLOCK_DEPTH_MAX:
                self._nested(value, at, origin, depth)
            elif key == "source" and isinstance(value, dict):
                self._source(value, at, origin, depth)
            else:
                self.walk(value, at, origin)

    def walk(self, value: JSON, path: Path, origin: Origin) -> None:
        for at, text in leaves.leaves(value, path):
            key = at[-1]
            if text in PROTOCOL_WORDS and key not in _CONTENT_KEYS:
                continue
            if path[0] == "messages":
                if key in _IDENTIFIER_KEYS and _IDENTIFIER.fullmatch(text):
                    continue
                if is_encoded(at, text):
                    continue
            self.parts.append(Part(origin, text, at))

    def _call(self, key: str, value: JSON, path: Path, origin: Origin) -> None:
        if key == "input":  # the tool's own words: nothing in there is the protocol's
            self.parts.extend(Part(Origin.TOOL_ARGS, text, at) for at, text in leaves.leaves(value, path))
        else:
            self.walk(value, path, Origin.TOOL_ARGS if key == "name" else origin)

    def _nested(self, blocks: list[JSON], path: Path, origin: Origin, depth: int) -> None:
        for number, block in enumerate(blocks):
            at = (*path, number)
            if isinstance(block, dict) and isinstance(block.get("type"), str):
                self.block(block, at, origin, depth + 1)
            else:
                self.walk(block, at, origin)

    def _source(self, source: dict[str, JSON], path: Path, origin: Origin, depth: int) -> None:
        """Where an image or a document comes from. Text that only claims to be encoded is a part like any other."""
        kind = source.get("type")
        for key, value in source.items():
            at = (*path, key)
            if isinstance(value, str) and _is_opaque(kind, key, value):
                self.opaque += 1
            elif key == "data" and isinstance(value, str):
                self.parts.append(Part(origin, value, at))
            elif key == "content" and isinstance(value, list) and depth < _BLOCK_DEPTH_MAX:
                self._nested(value, at, origin, depth)
            else:
                self.walk(value, at, origin)


def _is_opaque(kind: JSON, key: str, text: str) -> bool:
    if key == "data":
        return kind == "base64" and is_base64(text)
    return key == "file_id" and kind == "file" and _IDENTIFIER.fullmatch(text) is not None
