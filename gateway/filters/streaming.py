"""The verdict on a text that arrives in pieces: the same as on the whole, however it was cut.

Holds back only what may still become a finding (`cutting` has the table): of prose the word that is being written.
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.core.action import Surface
from gateway.core.errors import FilterError
from gateway.core.exchange import Direction, Finding, Origin
from gateway.core.filtering import Edit, FilterAction, FilterRule, TextGuard
from gateway.filters.folding import fold
from gateway.filters.inspection import Inspection
from gateway.filters.judging import RulePlan, Rules, plan
from gateway.filters.scanner import Scanner, to_origin


def text_guard(  # noqa: PLR0913 - where a text stands is what rules select on
    rules: Rules, scanner: Scanner, *, origin: Origin, direction: Direction, surface: Surface, tool: str | None = None
) -> TextGuard:
    """A guard for one stream of text. Its `feed` and `finish` raise FilterError, unless every rule that applies fails
    open."""
    at = plan(rules, surface=surface, direction=direction, origin=origin, tool=tool)
    return PassGuard() if at.is_empty else StreamGuard(at, scanner)


class PassGuard:
    """Where no rule applies: everything is settled at once."""

    __slots__ = ("settled",)

    edits: Sequence[Edit] = ()
    findings: Sequence[Finding] = ()
    denied: FilterRule | None = None
    failed_open = False

    def __init__(self) -> None:
        self.settled = 0

    def feed(self, text: str) -> None:
        self.settled += len(text)

    def finish(self) -> None:
        """Nothing is held back."""


class StreamGuard:
    """Implements `core.filtering.TextGuard`. `failed_open`: a filter failed and the rules let the rest pass."""

    def __init__(self, at: RulePlan, scanner: Scanner) -> None:
        self.settled = 0
        self.edits: list[Edit] = []
        self.findings: list[Finding] = []
        self.denied: FilterRule | None = None
        self.failed_open = False
        self._plan = at
        self._scanner = scanner
        self._inspection = Inspection(scanner.detection)
        self._fed = 0
        self._text = ""  # folded, not yet inspected but for one character of context before `_at`
        self._origins: list[int] = []  # offset of each character of `_text`, used once they are not a plain count
        self._base: int | None = 0  # offset of `_text[0]` while they are
        self._at = 0

    def feed(self, text: str) -> None:
        """More of the text. After a denial nothing more is looked at, or settled."""
        if not text or self.denied is not None:
            return
        start = self._fed
        self._fed += len(text)
        if self.failed_open:
            self.settled = self._fed
            return
        folded, origins = fold(text)
        if origins is not None or self._base is None or self._base + len(self._text) != start:
            if self._base is not None:
                self._origins = list(range(self._base, self._base + len(self._text)))
                self._base = None
            self._origins.extend(range(start, self._fed) if origins is None else (start + o for o in origins))
        self._text += folded
        self._advance(final=False)

    def finish(self) -> None:
        """The text is complete: everything is settled, unless it is denied."""
        if self.denied is None and not self.failed_open:
            self._advance(final=True)

    def _advance(self, final: bool) -> None:
        try:
            while self.denied is None:
                step = self._inspection.step(self._text, self._at, final)
                if step is None:
                    break
                found, self._at = step
                for finding in found:
                    self._apply(self._original(finding))
                    if self.denied is not None:
                        return
        except FilterError:
            self._scanner.counts.failed += 1
            if not self._plan.fails_open:
                raise
            self.failed_open = True
            self.settled = self._fed
            return
        if self.denied is None:
            self.settled = self._fed if self._at >= len(self._text) else self._offset(self._at)
            self._cut()

    def _apply(self, finding: Finding) -> None:
        ruling = self._plan.rule(finding)
        if ruling is None:
            return
        self.findings.append(finding)
        if ruling.edit is not None:
            self.edits.append(ruling.edit)
        elif ruling.rule.action is FilterAction.DENY:
            self.denied = ruling.rule
            self.settled = finding.start

    def _cut(self) -> None:
        """Forget what is settled, all but the one character that the next piece may need as context."""
        done = self._at - 1
        if done <= 0:
            return
        self._text = self._text[done:]
        self._at = 1
        self._inspection.moved()
        if self._base is not None:
            self._base += done
        else:
            del self._origins[:done]
            if self._origins[-1] - self._origins[0] == len(self._origins) - 1:
                self._base, self._origins = self._origins[0], []

    def _offset(self, at: int) -> int:
        return self._base + at if self._base is not None else self._origins[at]

    def _original(self, finding: Finding) -> Finding:
        if self._base is None:
            return to_origin(finding, self._origins)
        base = self._base
        return Finding(finding.filter, finding.kind, finding.start + base, finding.end + base, finding.score)
