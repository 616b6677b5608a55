"""What is wrong with a bundle, and where. Problems are collected, never raised one by one: a person
mends them all at once.

Lines read `file:line:column: found ...; expected ...`. They never quote what may be a secret.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

PROBLEMS_MAX = 200  # beyond this a file is of another kind, and the list helps nobody
QUOTE_CHARACTERS_MAX = 60


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A position in a file of the bundle; line and column count from 1."""

    file: str
    line: int = 1
    column: int = 1

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    place: Place
    text: str

    def __str__(self) -> str:
        return f"{self.place}: {self.text}"


class Problems:
    """Collects problems of one load; each line is kept once."""

    def __init__(self) -> None:
        self._all: set[Problem] = set()

    def add(self, place: Place, found: str, expected: str, hint: str = "") -> None:
        self._all.add(Problem(place, f"found {found}; expected {expected}{hint}"))

    def extend(self, problems: Iterable[Problem]) -> None:
        self._all.update(problems)

    def __bool__(self) -> bool:
        return bool(self._all)

    def sorted(self) -> tuple[Problem, ...]:
        """In the order of the files."""
        return tuple(sorted(self._all))

    def lines(self) -> tuple[str, ...]:
        """One text each, in the order of the files; cut at PROBLEMS_MAX with a last line that says so."""
        lines = [str(problem) for problem in self.sorted()]
        if len(lines) > PROBLEMS_MAX:
            lines[PROBLEMS_MAX:] = [f"... and {len(lines) - PROBLEMS_MAX} more problems; mend these first"]
        return tuple(lines)


def quote(text: str) -> str:
    """User input in backticks, on one line and not endless."""
    shown = text if len(text) <= QUOTE_CHARACTERS_MAX else text[:QUOTE_CHARACTERS_MAX] + "..."
    return "`" + "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in shown) + "`"


def listing(words: Iterable[str]) -> str:
    """`a`, `b` or `c`."""
    quoted = [f"`{word}`" for word in words]
    return " or ".join([", ".join(quoted[:-1]), quoted[-1]]) if len(quoted) > 1 else "".join(quoted) or "nothing"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean ...?` when one of the known words is close."""
    close = difflib.get_close_matches(word[:QUOTE_CHARACTERS_MAX], list(known), n=1, cutoff=0.6)
    return f"; did you mean `{close[0]}`?" if close else ""
