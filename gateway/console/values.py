"""Arguments as a person reads them: typed rows drawn from the stored bytes, and what differs from last time.

Pure. What is too large for a page is cut with a count of what is left out, never silently.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from gateway.console.reveal import Suspicion, suspicions
from gateway.core.canonical import JSON, canonical, parse
from gateway.core.errors import ClientError

NODES_MAX = 1_500  # rows of one page; more than anybody reads, and still quick on a phone
CHARS_MAX = 250_000  # text of one page; the rest is a download
DEPTH_MAX = 10  # tables in tables; what is deeper is shown as JSON
LONG_CHARS = 240  # longer text is folded
LONG_LINES = 6
CHANGES_MAX = 100
GLANCE_BYTES_MAX = 8_192
_INVISIBLE = re.compile(
    "[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u00ad\\u200b-\\u200f\\u202a-\\u202e\\u2060-\\u206f\\U000e0000-\\U000e01ef]"
)

Path: TypeAlias = tuple[str | int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """How one value differs from the last approved action: `was` is None for a new one, `now` for a removed one."""

    path: str
    was: str | None
    now: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One row: a scalar with its text, or a table of rows. `label` is the key as the agent wrote it, untrusted."""

    label: str
    index: bool  # the label is a position in a list, not a key
    kind: str  # text | number | yes/no | nothing | list | object
    size: str = ""
    text: str = ""
    cut: int = 0  # characters or rows that are not shown
    rows: tuple[Node, ...] = ()
    change: Change | None = None

    @property
    def long(self) -> bool:
        return len(self.text) > LONG_CHARS or self.text.count("\n") > LONG_LINES

    @property
    def preview(self) -> str:
        return clip("\n".join(self.text.split("\n", 3)[:3]), LONG_CHARS // 2)

    @property
    def was(self) -> str:
        """The value of last time; a text without its quotes where this one is a text too."""
        was = self.change.was if self.change is not None and self.change.was is not None else ""
        return _bare(was) if self.kind == "text" else was

    @property
    def table(self) -> bool:
        return self.kind in ("list", "object")


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """Stored arguments, drawn. `problem` says why they cannot be: then nobody may approve them."""

    root: Node | None
    problem: str = ""
    suspicions: tuple[Suspicion, ...] = ()
    complete: bool = True
    removed: tuple[Change, ...] = ()
    changed: int = 0


def draw(data: bytes, before: bytes | None = None) -> Drawing:
    """Draw the stored bytes; `before` are those of the action to compare with, if there is one."""
    try:
        value = parse(data, "stored arguments")
        if canonical(value) != data:
            return Drawing(root=None, problem="the stored arguments are not in canonical form")
    except ClientError as error:
        return Drawing(root=None, problem=error.message)
    changes: dict[Path, Change] = {}
    if before is not None:
        try:
            changes = compare(parse(before, "earlier arguments"), value)
        except ClientError:
            changes = {}
    pen = _Pen(changes)
    root = pen.node("", value, (), index=False)
    return Drawing(
        root=root,
        suspicions=_merged(suspicions(text) for text in _texts(value)),
        complete=pen.complete,
        removed=tuple(change for change in changes.values() if change.now is None)[:CHANGES_MAX],
        changed=len(changes),
    )


def compare(before: JSON, now: JSON) -> dict[Path, Change]:
    """Every value that is new, other or gone, by path."""
    old, new = dict(_leaves(before, ())), dict(_leaves(now, ()))
    changes: dict[Path, Change] = {}
    for path, text in new.items():
        was = old.get(path)
        if was != text:
            changes[path] = Change(path=spell(path), was=was, now=text)
    for path, text in old.items():
        if path not in new:
            changes[path] = Change(path=spell(path), was=text, now=None)
    return changes


def key_arguments(data: bytes, count: int = 3) -> tuple[tuple[str, str], ...]:
    """The few scalars that say most about a call, for one sentence: amounts and addressees before the rest."""
    try:
        value = parse(data, "stored arguments")
    except ClientError:
        return (("arguments", "cannot be read"),)
    scalars = [(path, text) for path, text in _leaves(value, ()) if len(path) <= 2 and text not in ("{}", "[]")]
    scalars.sort(key=lambda item: _weight(item[0]))
    return tuple((clip(spell(path), 40), clip(_bare(text), 60)) for path, text in scalars[:count])


def suspicious(data: bytes) -> bool:
    """Whether stored arguments hold characters that could mislead, for a mark in a list. Large ones are searched for
    the plainly invisible alone: looking at every letter takes 2 µs, and an agent chooses how many there are."""
    if data.isascii() and b"\\" not in data:
        return False
    try:
        texts = tuple(_texts(parse(data, "stored arguments")))
    except ClientError:
        return True
    if len(data) > GLANCE_BYTES_MAX:
        return any(_INVISIBLE.search(text) for text in texts)
    return any(suspicions(text) for text in texts)


def spell(path: Path) -> str:
    """`payments[2].to`, as people write it."""
    out = ""
    for part in path:
        out += f"[{part}]" if isinstance(part, int) else f".{part}" if out else part
    return out or "(all)"


def clip(text: str, chars: int) -> str:
    return text if len(text) <= chars else text[: chars - 1] + "…"


_TELLING = (
    "amount", "currency", "to", "recipient", "recipients", "iban", "account", "email", "path", "file", "url", "method",
    "command", "query", "sql", "table", "id", "subject", "name", "title",
)  # fmt: skip


def _weight(path: Path) -> tuple[int, int]:
    last = str(next((part for part in reversed(path) if isinstance(part, str)), "")).lower()
    words = last.replace("-", "_").split("_")
    ranks = [_TELLING.index(word) for word in (last, *words) if word in _TELLING]
    return (min(ranks, default=len(_TELLING)), len(path))


def _bare(text: str) -> str:
    """A scalar as `_leaves` spells it, without the quotes of a text."""
    if text.startswith('"'):
        value = parse(text.encode(), "text")
        return value if isinstance(value, str) else text
    return text


def _leaves(value: JSON, path: Path) -> Iterator[tuple[Path, str]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _leaves(item, (*path, key))
    elif isinstance(value, list) and value:
        for at, item in enumerate(value):
            yield from _leaves(item, (*path, at))
    else:
        yield path, canonical(value).decode()


def _texts(value: JSON) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield key
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


def _merged(found: Iterator[tuple[Suspicion, ...]]) -> tuple[Suspicion, ...]:
    counts: dict[str, int] = {}
    for each in found:
        for suspicion in each:
            counts[suspicion.phrase] = counts.get(suspicion.phrase, 0) + suspicion.count
    return tuple(Suspicion(phrase, count) for phrase, count in counts.items())


class _Pen:
    """Draws within the budget of one page."""

    def __init__(self, changes: Mapping[Path, Change]) -> None:
        self._changes = changes
        self._nodes = NODES_MAX
        self._chars = CHARS_MAX

    @property
    def complete(self) -> bool:
        return self._nodes > 0 and self._chars > 0

    def node(self, label: str, value: JSON, path: Path, *, index: bool) -> Node:
        self._nodes -= 1
        if isinstance(value, dict | list) and value and len(path) < DEPTH_MAX:
            return self._table(label, value, path, index=index)
        match value:
            case str():
                kind, text, size = "text", value, _plural(len(value), "character")
            case bool():
                kind, text, size = "yes/no", "true" if value else "false", ""
            case None:
                kind, text, size = "nothing", "null", ""
            case int() | float():
                kind, text, size = "number", canonical(value).decode(), ""
            case dict():
                kind, text, size = "object", canonical(value).decode(), "empty" if not value else "as JSON"
            case list():
                kind, text, size = "list", canonical(value).decode(), "empty" if not value else "as JSON"
        shown = text[: max(self._chars, 0)]
        self._chars -= len(text)
        change = self._changes.get(path)
        return Node(
            label=label, index=index, kind=kind, size=size, text=shown, cut=len(text) - len(shown), change=change
        )

    def _table(self, label: str, value: dict[str, JSON] | list[JSON], path: Path, *, index: bool) -> Node:
        rows: list[Node] = []
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            if not self.complete:
                break
            rows.append(self.node(str(key), item, (*path, key), index=isinstance(value, list)))
        kind = "object" if isinstance(value, dict) else "list"
        size = _plural(len(value), "entry")
        return Node(label=label, index=index, kind=kind, size=size, rows=tuple(rows), cut=len(value) - len(rows))


def _plural(count: int, word: str) -> str:
    if count == 1:
        return f"1 {word}"
    return f"{count:,} {word[:-1] + 'ies' if word.endswith('y') else word + 's'}"
