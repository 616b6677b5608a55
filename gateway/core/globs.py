"""The one glob language of policies: `*` is any run of characters, `?` is one character, everything else is itself.

No brackets and no escapes, so a pattern means what it looks like. Case matters. `*` also crosses dots and slashes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache


@lru_cache(maxsize=4096)  # patterns come from the operator's files, so they are few; the bound is for tests and tools
def compile_glob(glob: str) -> re.Pattern[str]:
    """The pattern as a regular expression for `fullmatch`. Runs of `*` are folded: they would backtrack."""
    pieces = re.split(r"(\*+|\?)", glob)
    return re.compile("".join(".*" if p.startswith("*") else "." if p == "?" else re.escape(p) for p in pieces), re.S)


def matches(glob: str, text: str) -> bool:
    """Whether the whole text is spelled by the pattern."""
    return compile_glob(glob).fullmatch(text) is not None


def matches_any(globs: Iterable[str], text: str) -> bool:
    """Whether at least one pattern spells the whole text; no pattern spells nothing."""
    return any(compile_glob(glob).fullmatch(text) is not None for glob in globs)


def is_literal(glob: str) -> bool:
    """Whether the pattern spells exactly one text."""
    return "*" not in glob and "?" not in glob
