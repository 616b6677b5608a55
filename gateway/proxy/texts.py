"""Which pieces of a tool message are text that filters look at, and the message with their edits made.

Strings count, and so do long integers (a card number needs no quotes) and member names that could hold content. Base64
of images, sounds and blobs in results is left alone: it is not text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from gateway.core.canonical import JSON
from gateway.core.errors import ClientError
from gateway.core.exchange import Origin, Part, Path
from gateway.wire import leaves

PARTS_MAX = 20_000  # a tool message with more strings than this is not looked at one by one; it is refused
_KEY = "\x00key"  # begins the path of a part that is a member name
_WORD = re.compile(r"[A-Za-z_./:$-]{0,64}|[A-Za-z0-9_-]{0,12}")  # cannot hold a secret or a number worth masking
_DIGITS_MIN, _DIGITS_MAX = 14, 19  # card numbers; timestamps in milliseconds have 13
_PROTOCOL_META = ("io.modelcontextprotocol/", "gateway/", "progressToken", "traceparent", "tracestate")


def argument_parts(value: JSON, origin: Origin = Origin.TOOL_ARGS) -> list[Part]:
    """Everything in `value` that an agent could write a secret into."""
    return _bounded(_parts(value, (), origin, results=False))


def result_parts(value: JSON) -> list[Part]:
    """The text of what a tool answered."""
    return _bounded(_parts(value, (), Origin.TOOL_RESULT, results=True))


def loose_parts(params: Mapping[str, Any], *, known: frozenset[str]) -> list[Part]:
    """Text in the params of a request outside of the members `known`: metadata that the protocol does not define, and
    answers to questions of a server. Paths begin inside params."""
    rest: dict[str, JSON] = {}
    for key, value in params.items():
        if key == "_meta" and isinstance(value, dict):
            rest[key] = {name: item for name, item in value.items() if not name.startswith(_PROTOCOL_META)}
        elif key not in known and key != "requestState":  # the server's own state, which comes back untouched
            rest[key] = value
    return argument_parts(rest) if any(rest.values()) else []


def edited(value: JSON, edits: Mapping[Path, str]) -> JSON:
    """The value with these edits. Raises ClientError `content_denied` where a member name would have to change."""
    if any(path and path[0] == _KEY for path in edits):
        raise ClientError(
            "content_denied", "a member name holds content that must be masked; put it in a value", status=403
        )
    return leaves.with_values(value, dict(edits))


def _bounded(parts: Iterator[Part]) -> list[Part]:
    found = []
    for part in parts:
        found.append(part)
        if len(found) > PARTS_MAX:
            raise ClientError("too_many_strings", f"the message has more than {PARTS_MAX} strings", status=413)
    return found


def _parts(value: JSON, path: Path, origin: Origin, *, results: bool) -> Iterator[Part]:
    stack: list[tuple[Path, JSON]] = [(path, value)]
    while stack:
        at, node = stack.pop()
        if isinstance(node, str):
            if node:
                yield Part(origin, node, at)
        elif isinstance(node, dict):
            binary = _binary(node) if results else None
            for key in reversed(node):
                if not _WORD.fullmatch(key):
                    yield Part(origin, key, (_KEY, *at, key))
                if key != binary:
                    stack.append(((*at, key), node[key]))
        elif isinstance(node, list):
            stack.extend([((*at, index), node[index]) for index in range(len(node) - 1, -1, -1)])
        elif isinstance(node, int) and not isinstance(node, bool) and abs(node) >= 10**13:
            text = str(node) if abs(node) < 10**_DIGITS_MAX else ""
            if _DIGITS_MIN <= len(text.lstrip("-")) <= _DIGITS_MAX:
                yield Part(origin, text, at)


def _binary(node: Mapping[str, JSON]) -> str | None:
    """The member of a content block that holds base64."""
    if node.get("type") in {"image", "audio"}:
        return "data"
    return "blob" if "blob" in node and "uri" in node else None
