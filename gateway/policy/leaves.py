"""Shapes that mean more than their type: durations, globs, addresses with variables, conditions, JSON Schemas."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

import jsonschema_rs

from gateway.policy.conditions import CONDITION_CHARACTERS_MAX, ConditionError, compile_condition
from gateway.policy.problems import Place, listing
from gateway.policy.shape import At, Page, Text, plain, refuse
from gateway.policy.source import MAPPING, TEXT, Node

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_VARIABLE = re.compile(r"\$\{([A-Z][A-Z0-9_]*)(?::-([^{}$]*))?\}")
_UNSET = "http://unset.invalid"
_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_AUTHORITY = re.compile(r"[A-Za-z0-9.-]+(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?")

GLOB = Text(
    words="a glob (`*` any run of characters, `?` one)",
    many="globs (`*` any run of characters, `?` one)",
    pattern=r"[^\s\x00-\x1f\x7f]{1,200}",
)
TOOL_GLOB = Text(
    words="a glob on `server.tool`, such as `bank.*`",
    many="globs on `server.tool`, such as `bank.*`",
    pattern=r"\*|[A-Za-z0-9_*?-]+\.[^\s\x00-\x1f\x7f]{1,200}|\*[^\s\x00-\x1f\x7f]{1,200}",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Duration:
    """A length of time, read as whole seconds."""

    minimum_s: int = 1
    maximum_s: int = 30 * 86_400

    @property
    def words(self) -> str:
        return f"a duration such as `30s`, `30m`, `1h` or `7d`, at most {_spell(self.maximum_s)}"

    def read(self, node: Node, page: Page) -> At:
        matched = re.fullmatch(r"([1-9][0-9]{0,6})([smhd])", str(node.scalar)) if node.kind == TEXT else None
        if matched is None:
            return refuse(node, page, self.words)
        seconds = int(matched[1]) * _UNITS_S[matched[2]]
        if not self.minimum_s <= seconds <= self.maximum_s:
            return refuse(node, page, self.words, f"`{node.scalar}`")
        return At(seconds, node.place)

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "pattern": "^[1-9][0-9]{0,6}[smhd]$"}


def _spell(seconds: int) -> str:
    unit = next(unit for unit in reversed(_UNITS_S) if seconds % _UNITS_S[unit] == 0)
    return f"`{seconds // _UNITS_S[unit]}{unit}`"


@dataclass(frozen=True, slots=True)
class Address:
    """An http or https URL. The only place where `${NAME}` and `${NAME:-default}` are read, and nothing else with `$`.

    Neither the text nor what a variable holds is ever quoted: addresses are where secrets end up by mistake.
    """

    words: str = "an http or https URL; `${NAME}` and `${NAME:-default}` stand for environment variables"

    def read(self, node: Node, page: Page) -> At:
        if node.kind != TEXT:
            return refuse(node, page, self.words)
        text = str(node.scalar)
        for name, default in (match.groups() for match in _VARIABLE.finditer(text)):
            if default is None and not page.environment.get(name):
                if page.lenient:
                    return At(_UNSET, node.place)
                expected = f"`{name}` in the environment, or `${{{name}:-default}}`"
                return refuse(node, page, expected, f"no value for `{name}`")
        if "$" in _VARIABLE.sub("", text):
            return refuse(node, page, "`${NAME}` or `${NAME:-default}` with NAME in capitals", "another use of `$`")
        url = _VARIABLE.sub(lambda match: page.environment.get(match[1]) or match[2] or "", text)
        mistake = _mistake(url)
        return refuse(node, page, self.words, mistake) if mistake else At(url.rstrip("/"), node.place)

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "pattern": r"^(https?://|\$\{[A-Z])"}


def _mistake(url: str) -> str:
    """What keeps a URL from being an upstream's address, without quoting it; empty when nothing does."""
    if re.search(r"[^\x21-\x7e]", url):
        return "an address with spaces or characters beyond ASCII"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "an address that cannot be read"
    if parts.scheme not in ("http", "https"):
        return "an address that does not begin with `http://` or `https://`"
    if "@" in parts.netloc:
        return "an address with a name or password in it (use `credential`)"
    if not _AUTHORITY.fullmatch(parts.netloc) or port == 0:
        return "an address without a proper host and port"
    if "?" in url or "#" in url:
        return "an address with a query or fragment (secrets belong in `credential`)"
    if any(segment in (".", "..") for segment in parts.path.split("/")):
        return "an address with `.` or `..` in its path"
    return ""


@dataclass(frozen=True, slots=True)
class ConditionText:
    """A CEL expression that is true or false, compiled on reading. Problems point into the expression."""

    words: str = "a CEL condition (docs/policy.md lists its variables)"

    def read(self, node: Node, page: Page) -> At:
        if node.kind != TEXT:
            return refuse(node, page, f"{self.words}, in quotes")
        try:
            return At(compile_condition(str(node.scalar)), node.place)
        except ConditionError as error:
            for line, column, found, hint in error.mistakes:
                page.problems.add(_within(node, page, line, column), found, "a condition that is true or false", hint)
            return At(None, node.place)

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "minLength": 1, "maxLength": CONDITION_CHARACTERS_MAX}


def _within(node: Node, page: Page, line: int, column: int) -> Place:
    """Where a position in the text of a scalar stands in the file; the scalar's own place where folding blurs it."""
    place = node.place
    if node.style is None and line == 1:
        return Place(place.file, place.line, place.column + column - 1)
    if node.style in ("'", '"') and line == 1:
        return Place(place.file, place.line, place.column + column)
    if node.style == "|" and place.line - 1 + line < len(page.lines):
        body = page.lines[place.line :]
        first = next((text for text in body if text.strip()), "")
        return Place(place.file, place.line + line, len(first) - len(first.lstrip(" ")) + column)
    return place


@dataclass(frozen=True, slots=True)
class JsonObject:
    """Any JSON object."""

    words: str = "a mapping of any JSON values"

    def read(self, node: Node, page: Page) -> At:
        return At(plain(node), node.place) if node.kind == MAPPING else refuse(node, page, self.words)

    def schema(self) -> dict[str, Any]:
        return {"type": "object"}


@dataclass(frozen=True, slots=True)
class ArgumentsSchema:
    """A JSON Schema (2020-12) for the arguments of an operation. It must not refer to anything outside itself."""

    words: str = "a JSON Schema (2020-12) of `type: object`"

    def read(self, node: Node, page: Page) -> At:
        if node.kind != MAPPING:
            return refuse(node, page, self.words)
        schema = plain(node)
        if schema.get("type") != "object":
            return refuse(node, page, self.words, "a schema without `type: object`")
        remote = next(_references(node), None)
        if remote is not None:
            return refuse(remote, page, "`$ref` to a place in the same schema: `#/...`", "a reference to elsewhere")
        try:
            jsonschema_rs.Draft202012Validator(schema)
        except (ValueError, jsonschema_rs.ReferencingError) as error:
            at = "/".join(str(step) for step in getattr(error, "instance_path", ())) or "the top"
            return refuse(node, page, self.words, f"a schema that is not valid at `{at[:100]}`")
        return At(schema, node.place)

    def schema(self) -> dict[str, Any]:
        return {"type": "object", "required": ["type"]}


def _references(node: Node) -> Any:
    """Nodes that lead out of the schema, or change what it means."""
    for key, value in node.entries:
        if key.scalar in ("$ref", "$dynamicRef") and not str(value.scalar).startswith("#"):
            yield value
        if key.scalar in ("$id", "$vocabulary") or (key.scalar == "$schema" and value.scalar != _DIALECT):
            yield value
        yield from _references(value)
    for item in node.items:
        yield from _references(item)


@dataclass(frozen=True, slots=True)
class Moment:
    """A point in time with its zone, read as unix seconds."""

    words: str = "a time such as `2026-11-23T09:30:00Z`"

    def read(self, node: Node, page: Page) -> At:
        if node.kind == TEXT:
            try:
                moment = datetime.fromisoformat(str(node.scalar))
            except ValueError:
                return refuse(node, page, self.words)
            if moment.tzinfo is not None:
                return At(moment.timestamp(), node.place)
        return refuse(node, page, self.words)

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "format": "date-time"}


def choices(words: tuple[str, ...]) -> Text:
    """Text that is one of a few words."""
    return Text(words=listing(words), choices=words)
