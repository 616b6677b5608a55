"""Plain HTTP calls as operations with flat arguments, and back.

Owns: matching method and path against templates, one flat object of path, query and body arguments, and the exact
inverse. Pure. What is decided is what is sent: a request is written again from its arguments, never passed on as it was
spelt, so every path value is percent-encoded and nothing that a server might read in two ways gets through.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NoReturn
from urllib.parse import quote, unquote_to_bytes

from gateway.core.canonical import JSON, parse, refuse_alike
from gateway.core.errors import ClientError
from gateway.wire import leaves

SEGMENTS_MAX = 64  # far above any REST path; bounds the work of matching
BODY_METHODS = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_SEGMENT = re.compile(r"([^{}]*)\{([A-Za-z_][A-Za-z0-9_.-]*)\}([^{}]*)")
_PERCENT = re.compile(rb"%(?![0-9A-Fa-f]{2})")


@dataclass(frozen=True, slots=True)
class Segment:
    """A literal segment (`name` is None, the text is `prefix`) or one variable with text around it."""

    prefix: str
    name: str | None = None
    suffix: str = ""

    @property
    def rank(self) -> int:
        """Literals match before variables, and variables with text around them before bare ones."""
        return 0 if self.name is None else 1 if self.prefix or self.suffix else 2

    def match(self, value: str) -> str | None:
        """What the variable is ('' for a literal that matches), or None."""
        if self.name is None:
            return "" if value == self.prefix else None
        inner = value[len(self.prefix) : len(value) - len(self.suffix)]
        if inner and value.startswith(self.prefix) and value.endswith(self.suffix) and _plain(inner):
            return inner
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One operation of an HTTP tool. `query` are the declared query parameters; all other arguments go in the body."""

    name: str
    method: str
    segments: tuple[Segment, ...]
    query: tuple[str, ...] = ()

    @property
    def variables(self) -> frozenset[str]:
        return frozenset(segment.name for segment in self.segments if segment.name is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wire:
    """A request as it goes out: an encoded path with query, and a body (None where there is none)."""

    method: str
    target: str
    body: bytes | None


def operation(name: str, method: str, path: str, query: Iterable[str] = ()) -> Operation:
    """An operation from its template, such as `/contacts/{id}/notes`. Raises ClientError `bad_template`."""
    if not path.startswith("/"):
        raise ClientError("bad_template", f"the path template `{path}` must begin with `/`")
    segments = tuple(_segment(part, path) for part in path[1:].split("/"))
    variables = [segment.name for segment in segments if segment.name is not None]
    declared = [*variables, *query]
    if len(set(declared)) != len(declared):
        raise ClientError("bad_template", f"`{path}` names an argument twice")
    return Operation(name=name, method=method.upper(), segments=segments, query=tuple(query))


def _segment(part: str, path: str) -> Segment:
    match = _SEGMENT.fullmatch(part)
    if match is not None:
        return Segment(prefix=match[1], name=match[2], suffix=match[3])
    if "{" in part or "}" in part or (path != "/" and not _plain(part)):
        raise ClientError("bad_template", f"`{path}` may hold one `{{name}}` per segment and no empty or dot segment")
    return Segment(prefix=part)


def decode(
    operations: Iterable[Operation], method: str, path: bytes, query: bytes, body: bytes
) -> tuple[Operation, dict[str, JSON]]:
    """The operation that a request calls and its arguments.

    `path` is the part after the tool's prefix, as it came (percent-encoded). Path and query values are strings. Raises
    ClientError: `operation_unknown` (404); 400 `bad_path`, `bad_query`, `query_undeclared`, `argument_twice`,
    `body_not_object`, `body_unexpected`, `invalid_json`, `alike_names`.
    """
    found, arguments = _match(operations, method, _segments(path))
    for name, value in _query(query):
        if name not in found.query:
            raise ClientError("query_undeclared", f"`{found.name}` declares no such query parameter; remove it")
        if name in arguments:
            _twice(name)
        arguments[name] = value
    for name, item in _body(found, body).items():
        if name in found.query or name in found.variables:
            _twice(name)
        arguments[name] = item
    return found, arguments


def _match(operations: Iterable[Operation], method: str, parts: list[str]) -> tuple[Operation, dict[str, JSON]]:
    best: tuple[tuple[int, ...], Operation, dict[str, JSON]] | None = None
    for candidate in operations:
        if candidate.method != method or len(candidate.segments) != len(parts):
            continue
        values = [segment.match(part) for segment, part in zip(candidate.segments, parts, strict=True)]
        if None in values:
            continue
        ranks = tuple(segment.rank for segment in candidate.segments)
        if best is None or ranks < best[0]:
            pairs = zip(candidate.segments, values, strict=True)
            best = ranks, candidate, {segment.name: value for segment, value in pairs if segment.name is not None}
    if best is None:
        raise ClientError("operation_unknown", "no operation of this tool has this method and path", status=404)
    return best[1], best[2]


def encode(operation: Operation, arguments: Mapping[str, JSON]) -> Wire:
    """The request for these arguments: `decode` of it gives them back. Raises ClientError `not_encodable`."""
    rest = dict(arguments)
    path = "".join("/" + _spell(segment, rest) for segment in operation.segments)
    pairs = []
    for name in operation.query:
        if name in rest:
            pairs.append(f"{quote(name, safe='')}={quote(_text(name, rest.pop(name)), safe='')}")
    if rest and operation.method not in BODY_METHODS:
        raise ClientError("not_encodable", f"`{operation.name}` has no body, and an argument has no other place")
    return Wire(
        method=operation.method,
        target=path + ("?" + "&".join(pairs) if pairs else ""),
        body=leaves.encode(rest) if rest else None,
    )


def _spell(segment: Segment, rest: dict[str, JSON]) -> str:
    if segment.name is None:
        return quote(segment.prefix, safe="")
    if segment.name not in rest:
        raise ClientError("not_encodable", f"the argument `{segment.name}` is missing")
    value = _text(segment.name, rest.pop(segment.name))
    if not _plain(value) or not _plain(segment.prefix + value + segment.suffix):
        raise ClientError("not_encodable", f"the argument `{segment.name}` cannot stand in a path")
    return quote(segment.prefix + value + segment.suffix, safe="")


def _text(name: str, value: JSON) -> str:
    if not isinstance(value, str):
        raise ClientError("not_encodable", f"the argument `{name}` must be a string")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ClientError("not_encodable", f"the argument `{name}` is not valid text") from None
    return value


def _segments(path: bytes) -> list[str]:
    """The decoded segments of a path. Raises ClientError `bad_path` for what two servers could read differently."""
    if not path.startswith(b"/") or path.count(b"/") > SEGMENTS_MAX:
        _bad_path()
    if path == b"/":
        return [""]
    parts = [_unquote(part, "bad_path") for part in path[1:].split(b"/")]
    if not all(_plain(part) for part in parts):
        _bad_path()
    return parts


def _plain(value: str) -> bool:
    """Whether a path segment has one reading, even for a server that decodes it once more or again and again."""
    previous = None
    for _ in range(4):  # nobody decodes more often; what still changes after that is an attack
        if (
            value in {"", ".", ".."}
            or any(char in "/\\" or ord(char) < 0x20 or ord(char) == 0x7F for char in value)
            or value.split(";", 1)[0] in {".", ".."}  # some servers cut a segment at `;` before they look for dots
        ):
            return False
        previous, value = value, unquote_to_bytes(value).decode("utf-8", "replace")
        if value == previous:
            return True
    return False


def _query(query: bytes) -> Iterable[tuple[str, str]]:
    for pair in query.split(b"&") if query else ():
        name, _, value = pair.partition(b"=")
        yield (
            _unquote(name.replace(b"+", b" "), "bad_query"),
            _unquote(value.replace(b"+", b" "), "bad_query"),
        )


def _unquote(text: bytes, code: str) -> str:
    try:
        if _PERCENT.search(text) is None:
            return unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        pass
    raise ClientError(code, "the address has an escape that is not percent-encoded UTF-8") from None


def _body(found: Operation, body: bytes) -> dict[str, JSON]:
    if not body:
        return {}
    if found.method not in BODY_METHODS:
        raise ClientError("body_unexpected", f"`{found.name}` takes no body; send its arguments in path and query")
    value = parse(body)
    if not isinstance(value, dict):
        raise ClientError("body_not_object", "the body must be a JSON object: its members are the arguments")
    refuse_alike(value, known=(*found.query, *found.variables))
    return value


def _twice(name: str) -> NoReturn:
    raise ClientError("argument_twice", f"the argument `{name[:64]}` is given in two places, or in the wrong one")


def _bad_path() -> NoReturn:
    raise ClientError("bad_path", "the path has an empty or dot segment, an encoded slash or a control character")
