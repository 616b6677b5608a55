"""YAML text into plain nodes that know their place. Owns ruamel.yaml: nothing above this module sees it.

A policy must have one reading: YAML 1.2, one document, no anchors, aliases, merge keys, tags or duplicate keys. Files
are bounded before they are parsed. The result depends on the bytes alone, so it is cached: a reload parses only what
changed.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import lru_cache
from io import StringIO

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode
from ruamel.yaml.nodes import Node as YamlNode

from gateway.policy.problems import Place, Problem, Problems, quote

FILE_BYTES_MAX = 256 * 1024  # ruamel takes 0.1 ms a line: this is under a second, and no policy is a tenth of it
DEPTH_MAX = 40  # JSON Schema of arguments is the deepest thing in a bundle; 12 is a lot there

NOTHING, FLAG, WHOLE, NUMBER, TEXT, LIST, MAPPING = (
    "nothing", "true or false", "a whole number", "a number", "text", "a list", "a mapping",
)  # fmt: skip
_TAG = "tag:yaml.org,2002:"
_STRUCTURE = re.compile(r"^(%|\.\.\.)", re.M)
_DECIMAL = re.compile(r"[-+]?(0|[1-9][0-9]{0,18})", re.A)  # 012 and 1_000 are read differently by different people
_FLOAT = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?", re.A)
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Node:
    """A value with its place. `kind` is one of the words above; only the fields of that kind are set."""

    place: Place
    kind: str
    scalar: bool | int | float | str | None = None
    items: tuple[Node, ...] = ()
    entries: tuple[tuple[Node, Node], ...] = ()  # keys are text nodes, each once
    style: str | None = None  # of scalars: None for plain, else one of ' " | >


@dataclass(frozen=True, slots=True)
class Source:
    """One parsed file. `root` is None exactly when there are problems."""

    file: str
    lines: tuple[str, ...]
    root: Node | None
    problems: tuple[Problem, ...] = ()


@lru_cache(maxsize=512)  # a bundle has at most 200 files; releases before and after an edit share most of them
def parse(file: str, data: bytes) -> Source:
    """The file as nodes, or the problems that keep it from being one. Never raises for what is in the file."""
    problems = Problems()
    root: Node | None = None
    lines: tuple[str, ...] = ()
    try:
        text = data.decode("utf-8-sig")
        lines = tuple(text.splitlines())
        root = _compose(file, text, problems)
    except UnicodeDecodeError as error:
        problems.add(Place(file), f"bytes that are not UTF-8 at offset {error.start}", "UTF-8 text")
    except RecursionError:
        problems.add(Place(file), "deeply nested brackets", f"at most {DEPTH_MAX} levels")
    listed = problems.sorted()
    return Source(file, lines, None if listed else root, listed)


def _compose(file: str, text: str, problems: Problems) -> Node | None:
    directive = _STRUCTURE.search(text)
    if directive:
        line = text.count("\n", 0, directive.start()) + 1
        problems.add(Place(file, line), quote(directive[0]), "one YAML 1.2 document without directives")
        return None
    try:
        composed = YAML(typ="safe", pure=True).compose(StringIO(text))
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(file, mark.line + 1, mark.column + 1) if mark else Place(file)
        problems.add(place, *_explain(error))
        return None
    except YAMLError:
        problems.add(Place(file), "a control character", "printable text")
        return None
    if composed is None:
        problems.add(Place(file), "an empty file", "a mapping; `gateway policy schema` lists its keys")
        return None
    return _Reader(file, problems).node(composed, 0)


def _explain(error: MarkedYAMLError) -> tuple[str, str]:
    """(found, expected) in our words; the parser's own are kept where there is nothing better."""
    problem = " ".join(str(error.problem).split())
    if "'\\t'" in problem:
        return "a tab", "spaces: YAML does not indent with tabs"
    if "another document" in problem:
        return "a second document (`---`)", "one document in a file"
    if "undefined alias" in problem:
        return "an alias (`*name`)", "the value written out: anchors and aliases are not read"
    if "could not find expected ':'" in problem:
        return "a line without `:`", "`key: value`; text with special characters needs quotes"
    if "mapping values are not allowed" in problem:
        return "a second `:` in one line", "one `key: value`; put text that holds `: ` in quotes"
    context = " ".join(str(error.context or "").split())
    return f"broken YAML ({problem}{' ' + context if context else ''})", "valid YAML 1.2"


class _Reader:
    """Walks the composed tree once. Aliases show as a node met twice or an anchor set: both are refused."""

    def __init__(self, file: str, problems: Problems) -> None:
        self._file = file
        self._problems = problems

    def node(self, node: YamlNode, depth: int) -> Node:
        place = Place(self._file, node.start_mark.line + 1, node.start_mark.column + 1)
        if getattr(node, "anchor", None):
            self._problems.add(place, "an anchor (`&name`)", "the value written out: anchors and aliases are not read")
            return Node(place, NOTHING)
        if depth > DEPTH_MAX:
            self._problems.add(place, "deeply nested brackets", f"at most {DEPTH_MAX} levels")
            return Node(place, NOTHING)
        if isinstance(node, MappingNode | SequenceNode) and str(node.tag) not in (_TAG + "map", _TAG + "seq"):
            self._problems.add(place, "a tag (`!...`)", "a plain value: tags are not read")
            return Node(place, NOTHING)
        if isinstance(node, MappingNode):
            return Node(place, MAPPING, entries=self._entries(node, depth))
        if isinstance(node, SequenceNode):
            return Node(place, LIST, items=tuple(self.node(item, depth + 1) for item in node.value))
        assert isinstance(node, ScalarNode)
        return self._scalar(node, place)

    def _entries(self, node: MappingNode, depth: int) -> tuple[tuple[Node, Node], ...]:
        entries: dict[str, tuple[Node, Node]] = {}
        for key_node, value_node in node.value:
            key = self.node(key_node, depth + 1)
            if str(key_node.tag) == _TAG + "merge":
                continue  # already refused by _scalar
            if key.kind != TEXT:
                self._problems.add(key.place, f"{key.kind} as a key", "text; put it in quotes")
                continue
            value = self.node(value_node, depth + 1)
            name = str(key.scalar)
            if name in entries:
                first = entries[name][0].place.line
                self._problems.add(
                    key.place, f"the key {quote(name)} a second time", f"it once (first in line {first})"
                )
                continue
            entries[name] = (key, value)
        return tuple(entries.values())

    def _scalar(self, node: ScalarNode, place: Place) -> Node:
        text = str(node.value)
        match str(node.tag).removeprefix(_TAG):
            case "str" | "timestamp" | "value":  # YAML 1.2 has no dates: an unquoted one is text
                if not _SURROGATE.search(text):
                    return Node(place, TEXT, text, style=node.style)
                self._problems.add(place, "half of a surrogate pair (`\\ud800`)", "whole characters")
            case "null":
                return Node(place, NOTHING)
            case "bool" if text.lower() in ("true", "false"):
                return Node(place, FLAG, text.lower() == "true")
            case "int" if _DECIMAL.fullmatch(text) and -(2**63) <= int(text) < 2**63:
                return Node(place, WHOLE, int(text))
            case "float" if _FLOAT.fullmatch(text) and math.isfinite(float(text)):
                return Node(place, NUMBER, float(text))
            case "bool" | "int" | "float":
                self._problems.add(
                    place, f"the number {quote(text)}", "a finite decimal number of at most 64 bits, or text in quotes"
                )
            case "merge":
                self._problems.add(place, "a merge key (`<<`)", "the keys written out: merge keys are not read")
            case _:
                self._problems.add(place, "a tag (`!...`)", "a plain value: tags are not read")
        return Node(place, NOTHING)
