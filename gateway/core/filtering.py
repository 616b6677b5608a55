"""Rules over findings, and what they say about a text: `policy` writes the rules, `filters` applies them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NewType, Protocol

from gateway.core.action import Surface
from gateway.core.decision import FailureMode
from gateway.core.exchange import Direction, Finding, Origin

Masked = NewType("Masked", bytes)
"""Content that went through `filters.masking`; the trace store accepts nothing else."""


class FilterAction(StrEnum):
    """Ordered: record < mask < deny. The strictest action of all policies that match a finding wins."""

    RECORD = "record"
    MASK = "mask"
    DENY = "deny"


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterRule:
    """What to do with findings of certain kinds in certain places. Empty selections mean "any"."""

    policy: str
    id: str
    action: FilterAction
    reason: str
    kinds: tuple[str, ...]  # globs such as `pii.*` or `secret.github_token`
    origins: frozenset[Origin] = frozenset()
    directions: frozenset[Direction] = frozenset()
    surfaces: frozenset[Surface] = frozenset()
    tools: tuple[str, ...] = ()  # globs on `server.tool`; a rule with tools does not apply to plain model text
    score_min: float = 0.0
    on_error: FailureMode = FailureMode.CLOSED


@dataclass(frozen=True, slots=True)
class Edit:
    """Replace code points start..end of the original text with `replacement`. Edits never overlap and are sorted."""

    start: int
    end: int
    replacement: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TextVerdict:
    """What the rules say about one whole text. `denied` is the rule that forbids it, if one does."""

    edits: tuple[Edit, ...] = ()
    findings: tuple[Finding, ...] = ()
    denied: FilterRule | None = None
    failed_open: bool = False  # a filter failed and its rule says so may pass; recorded as `allowed_failed_open`


class TextGuard(Protocol):
    """The verdict on a text that arrives in pieces. The result must not depend on where the pieces were cut.

    Offsets count code points from the start of the text. Everything before `settled` is judged for good: no edit that
    begins there will still be added, and none reaches beyond it.
    """

    @property
    def settled(self) -> int: ...
    @property
    def edits(self) -> Sequence[Edit]: ...
    @property
    def findings(self) -> Sequence[Finding]: ...
    @property
    def denied(self) -> FilterRule | None: ...
    @property
    def failed_open(self) -> bool: ...
    def feed(self, text: str) -> None: ...
    def finish(self) -> None: ...


def apply_edits(text: str, edits: Sequence[Edit]) -> str:
    """The text with all edits made. Edits must be sorted and must not overlap."""
    pieces: list[str] = []
    at = 0
    for edit in edits:
        pieces.append(text[at : edit.start])
        pieces.append(edit.replacement)
        at = edit.end
    pieces.append(text[at:])
    return "".join(pieces)
