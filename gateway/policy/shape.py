"""What a value in a bundle may look like. One description serves three readers: validation, the JSON Schema for editors
and the tables of docs/policy.md, so that they cannot disagree.

A shape reads a node into an `At`: the value with its place. What does not fit is reported and becomes INVALID, and
reading goes on, because all problems are shown at once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from gateway.policy.problems import Place, Problems, did_you_mean, listing, quote
from gateway.policy.source import FLAG, LIST, MAPPING, NOTHING, NUMBER, TEXT, WHOLE, Node, parse

INVALID: Final = object()
"""Stands where a value was refused. Its problem is recorded, so a bundle that holds one is never used."""

ITEMS_MAX = 2000  # entries of one list or mapping; agents are the longest list that makes sense
TEXT_CHARACTERS_MAX = 4096


@dataclass(frozen=True, slots=True)
class At:
    """A value and where it stands. Of a record the value is a dict of the keys that were given and fit."""

    value: Any
    place: Place

    def get(self, key: str, default: Any = None) -> Any:
        """The plain value under a key of a record, or the default."""
        found = self.value.get(key)
        return default if found is None else found.value

    def at(self, key: str) -> Place:
        """Where a key's value stands; the record itself when the key is not there."""
        found = self.value.get(key)
        return self.place if found is None else found.place


@dataclass(frozen=True, slots=True)
class Page:
    """What shapes need beside the node: the lines of the file, the environment, and where to put problems."""

    lines: tuple[str, ...]
    problems: Problems
    environment: Mapping[str, str]
    lenient: bool = False  # a variable that is not set is no problem: check and test run without secrets


class Shape(Protocol):
    @property
    def words(self) -> str:
        """What is expected, for error messages and tables: `a list of ...`."""

    def read(self, node: Node, page: Page) -> At: ...
    def schema(self) -> dict[str, Any]: ...


def refuse(node: Node, page: Page, expected: str, found: str = "", hint: str = "") -> At:
    """Record that the node does not fit. The value is not shown unless the caller quotes it: it may be secret."""
    page.problems.add(node.place, found or node.kind, expected, hint)
    return At(INVALID, node.place)


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """Text, bounded by a pattern or a table of choices. `secret` values are never quoted in a problem."""

    words: str = "text"
    many: str = ""
    pattern: str = r"[^\x00-\x1f\x7f]+"
    choices: tuple[str, ...] = ()
    secret: bool = False
    reserved: tuple[str, ...] = ()

    def read(self, node: Node, page: Page) -> At:
        expected = listing(self.choices) if self.choices else self.words
        if node.kind != TEXT:
            return refuse(node, page, f"{expected}, in quotes" if node.kind in (WHOLE, NUMBER, FLAG) else expected)
        text = str(node.scalar)
        shown = "other text" if self.secret else quote(text)
        if self.choices and text not in self.choices:
            return refuse(node, page, expected, shown, did_you_mean(text, self.choices))
        if text in self.reserved:
            return refuse(node, page, f"another name: {shown} has a meaning of its own", shown)
        if len(text) > TEXT_CHARACTERS_MAX:
            return refuse(node, page, f"at most {TEXT_CHARACTERS_MAX} characters", "longer text")
        if not re.fullmatch(self.pattern, text):
            return refuse(node, page, expected, shown)
        return At(text, node.place)

    def schema(self) -> dict[str, Any]:
        if self.choices:
            return {"type": "string", "enum": list(self.choices)}
        return {"type": "string", "pattern": f"^(?:{self.pattern})$"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    minimum: int
    maximum: int

    @property
    def words(self) -> str:
        return f"a whole number from {self.minimum} to {self.maximum}"

    def read(self, node: Node, page: Page) -> At:
        if node.kind != WHOLE:
            return refuse(node, page, self.words)
        if not self.minimum <= int(node.scalar or 0) <= self.maximum:
            return refuse(node, page, self.words, f"`{node.scalar}`")
        return At(node.scalar, node.place)

    def schema(self) -> dict[str, Any]:
        return {"type": "integer", "minimum": self.minimum, "maximum": self.maximum}


@dataclass(frozen=True, slots=True)
class Fraction:
    words: str = "a number from 0 to 1"

    def read(self, node: Node, page: Page) -> At:
        if node.kind not in (WHOLE, NUMBER) or not 0 <= float(node.scalar or 0) <= 1:
            return refuse(node, page, self.words, f"`{node.scalar}`" if node.kind in (WHOLE, NUMBER) else "")
        return At(float(node.scalar or 0), node.place)

    def schema(self) -> dict[str, Any]:
        return {"type": "number", "minimum": 0, "maximum": 1}


@dataclass(frozen=True, slots=True)
class Flag:
    words: str = "`true` or `false`"

    def read(self, node: Node, page: Page) -> At:
        return At(node.scalar, node.place) if node.kind == FLAG else refuse(node, page, self.words)

    def schema(self) -> dict[str, Any]:
        return {"type": "boolean"}


@dataclass(frozen=True, slots=True)
class ListOf:
    item: Shape

    @property
    def words(self) -> str:
        return f"a list of {getattr(self.item, 'many', '') or self.item.words}"

    def read(self, node: Node, page: Page) -> At:
        if node.kind != LIST:
            bare = " (put it in brackets)" if node.kind == TEXT else ""
            return refuse(node, page, f"{self.words}{bare}")
        if not 0 < len(node.items) <= ITEMS_MAX:
            return refuse(node, page, f"1 to {ITEMS_MAX} entries, or no such key", f"{len(node.items)} entries")
        read = (self.item.read(item, page) for item in node.items)
        return At(tuple(item for item in read if item.value is not INVALID), node.place)

    def schema(self) -> dict[str, Any]:
        return {"type": "array", "items": self.item.schema(), "minItems": 1, "maxItems": ITEMS_MAX}


@dataclass(frozen=True, slots=True)
class MapOf:
    """Names of the author's choosing to values of one shape, in the order of the file."""

    name: Text
    value: Shape

    @property
    def words(self) -> str:
        return f"a mapping of {self.name.words} to {self.value.words}"

    def read(self, node: Node, page: Page) -> At:
        if node.kind != MAPPING:
            return refuse(node, page, self.words)
        if len(node.entries) > ITEMS_MAX:
            return refuse(node, page, f"at most {ITEMS_MAX} entries", f"{len(node.entries)} entries")
        values: dict[str, At] = {}
        for key, value in node.entries:
            self.name.read(key, page)
            # A name is kept even when its value is refused, so that mentions of it are not reported as well.
            values[str(key.scalar)] = At(self.value.read(value, page).value, key.place)
        return At(values, node.place)

    def schema(self) -> dict[str, Any]:
        return {
            "type": "object",
            "propertyNames": self.name.schema(),
            "additionalProperties": self.value.schema(),
            "maxProperties": ITEMS_MAX,
        }


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a record: its shape, what it means, an example, and what holds when it is left out."""

    shape: Shape
    doc: str
    example: str
    required: bool = False
    default: str = ""


@dataclass(frozen=True, slots=True)
class Record:
    """A mapping with a fixed set of keys. Anything else is a problem: a misspelt key must not be a missing rule."""

    name: str
    keys: Mapping[str, Key]

    @property
    def words(self) -> str:
        return f"a mapping of {listing(self.keys)}" if len(self.keys) <= 4 else f"a mapping ({self.name})"

    def read(self, node: Node, page: Page) -> At:
        if node.kind != MAPPING:
            return refuse(node, page, self.words)
        values: dict[str, At] = {}
        for key_node, value_node in node.entries:
            name = str(key_node.scalar)
            key = self.keys.get(name)
            if key is None:
                hint = did_you_mean(name, self.keys)
                page.problems.add(key_node.place, f"the key {quote(name)}", f"one of {listing(self.keys)}", hint)
            elif value_node.kind == NOTHING:
                page.problems.add(key_node.place, f"nothing for `{name}`", key.shape.words)
            else:
                value = key.shape.read(value_node, page)
                if value.value is not INVALID:
                    values[name] = value
        given = {str(key.scalar) for key, _ in node.entries}
        for name, key in self.keys.items():
            if key.required and name not in given:
                page.problems.add(node.place, f"no `{name}`", f"`{name}`: {key.shape.words}")
        return At(values, node.place)

    def schema(self) -> dict[str, Any]:
        required = [name for name, key in self.keys.items() if key.required]
        return {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                name: {**key.shape.schema(), "description": _plain(key), "examples": [_example(key)]}
                for name, key in self.keys.items()
            },
            **({"required": required} if required else {}),
        }


@dataclass(frozen=True, slots=True)
class Tagged:
    """One of several records, told apart by the value of one key."""

    tag: str
    records: Mapping[str, Record]

    @property
    def words(self) -> str:
        return f"a mapping with `{self.tag}`: {listing(self.records)}"

    def read(self, node: Node, page: Page) -> At:
        if node.kind != MAPPING:
            return refuse(node, page, self.words)
        for key, value in node.entries:
            if key.scalar == self.tag:
                chosen = Text(choices=tuple(self.records)).read(value, page)
                return chosen if chosen.value is INVALID else self.records[chosen.value].read(node, page)
        return refuse(node, page, self.words, f"no `{self.tag}`")

    def schema(self) -> dict[str, Any]:
        return {"oneOf": [record.schema() for record in self.records.values()]}


def _plain(key: Key) -> str:
    return key.doc + (f" Default: {key.default}." if key.default else "")


def _example(key: Key) -> Any:
    return plain(parse("example", key.example.encode()).root)


def plain(node: Node | None) -> Any:
    """The node as a JSON value."""
    if node is None or node.kind == NOTHING:
        return None
    if node.kind == LIST:
        return [plain(item) for item in node.items]
    if node.kind == MAPPING:
        return {str(key.scalar): plain(value) for key, value in node.entries}
    return node.scalar
