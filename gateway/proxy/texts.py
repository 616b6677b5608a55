"""Which pieces of a tool message are text that filters look at, and the message with their edits made.

Strings count, and so do long integers (a card number needs no quotes) and member names that could hold content. Base64
in results is looked at decoded: where that is no text (images, sounds) it is left alone.
"""

from __future__ import annotations

import base64
import codecs
import re
from collections.abc import Iterator, Mapping
from typing import Any

from gateway.core.canonical import JSON
from gateway.core.errors import ClientError
from gateway.core.exchange import Origin, Part, Path
from gateway.wire import leaves

PARTS_MAX = 20_000  # a tool message with more strings than this is not looked at one by one; it is refused
_KEY = "\x00key"  # begins the path of a part that is a member name
_BASE64 = "\x00base64"  # begins the path of a part that was decoded; the encoding of its text follows
_BOMS = ((codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"), (codecs.BOM_UTF16_LE, "utf-16"),
         (codecs.BOM_UTF16_BE, "utf-16"))  # fmt: skip
_ENCODED_CHARS = 1024  # what is longer than this and base64 is no token
_CONTROL = re.compile("[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f]")
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
    changes: dict[Path, JSON] = {}
    for path, text in edits.items():
        if path and path[0] == _BASE64:
            changes[path[2:]] = base64.b64encode(text.encode(str(path[1]))).decode()
        else:
            changes[path] = text
    return leaves.with_values(value, changes)


def decoded(data: bytes) -> tuple[str, str] | None:
    """The text of bytes, and the codec that turns it back into them; None for what is no text.

    Text in another encoding than UTF-8 is text all the same: a filter that overlooked it would be no filter."""
    for bom, codec in _BOMS:
        if data.startswith(bom) and (text := _decode(data, codec)) is not None:
            return text, codec
    if b"\0" in data:
        big = data[::2].count(0) > data[1::2].count(0)  # where ASCII has its zeros
        for codec in ("utf-32-be", "utf-16-be") if big else ("utf-32-le", "utf-16-le"):
            text = _decode(data, codec)
            if text is not None and _CONTROL.search(text) is None:
                return text, codec
    text = _decode(data, "utf-8")
    if text is not None:
        return text, "utf-8"
    text = data.decode("latin-1")  # never fails; patterns are ASCII, whichever of its relatives it is
    return None if _CONTROL.search(text) else (text, "latin-1")


def _decode(data: bytes, codec: str) -> str | None:
    try:
        return data.decode(codec)
    except UnicodeDecodeError:
        return None


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
                encoded = node[key]
                if key == binary and isinstance(encoded, str):
                    yield from _encoded(encoded, (*at, key), origin)
                else:
                    stack.append(((*at, key), encoded))
        elif isinstance(node, list):
            stack.extend([((*at, index), node[index]) for index in range(len(node) - 1, -1, -1)])
        elif isinstance(node, int | float) and not isinstance(node, bool) and 10**13 <= abs(node) < 10**_DIGITS_MAX:
            text = str(int(node))
            if _DIGITS_MIN <= len(text.lstrip("-")) <= _DIGITS_MAX:
                yield Part(origin, text, at)


def _encoded(value: str, path: Path, origin: Origin) -> Iterator[Part]:
    """What stands where base64 belongs: its text if it has one, or what it says if it is none or may be a token."""
    spelled = "".join(value.split()).translate(_URL_SAFE)
    try:
        found = decoded(base64.b64decode(spelled + "=" * (-len(spelled) % 4), validate=True))
    except ValueError:
        found, spelled = None, ""
    if found is not None and found[0]:
        yield Part(origin, found[0], (_BASE64, found[1], *path))
    elif spelled != value or len(value) <= _ENCODED_CHARS:
        yield Part(origin, value, path)


_URL_SAFE = str.maketrans("-_", "+/")


def _binary(node: Mapping[str, JSON]) -> str | None:
    """The member of a content block, or of a stored HTTP answer, that holds base64."""
    if node.get("type") in {"image", "audio"}:
        return "data"
    if "base64" in node and "content_type" in node:
        return "base64"
    return "blob" if "blob" in node and "uri" in node else None
