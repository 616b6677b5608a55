"""Rules over findings: which action each finding gets, and the verdict on a whole text.

A plan is what is left of an agent's rules at one place (surface, direction, origin, tool), so that the work of a
request is a dictionary lookup. Rules are grouped by policy: inside one the first that matches decides, across them the
strictest action wins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

from gateway.core.action import Surface
from gateway.core.decision import FailureMode
from gateway.core.errors import FilterError
from gateway.core.exchange import Direction, Finding, Origin
from gateway.core.filtering import Edit, FilterAction, FilterRule, TextVerdict
from gateway.filters.kinds import placeholder
from gateway.filters.scanner import Scanner

LONG_CHARACTERS = 2048
"""A longer text is inspected with pauses, so that it cannot hold up other requests."""
_PLANS_MAX = 4096
"""Remembered plans. Tool names come from outside; without a bound they would fill the memory."""

_STRICTNESS: Final = {FilterAction.RECORD: 0, FilterAction.MASK: 1, FilterAction.DENY: 2}
_NOTHING: Final = TextVerdict()
_FAILED_OPEN: Final = TextVerdict(failed_open=True)

Rules = tuple[FilterRule, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruling:
    """What the rules say about one finding; `edit` is None unless it is masked."""

    rule: FilterRule
    edit: Edit | None


class RulePlan:
    """The rules that apply at one place. Empty: nothing there is looked at."""

    __slots__ = ("_by_kind", "_policies", "fails_open", "is_empty")

    def __init__(
        self, rules: Sequence[FilterRule], surface: Surface, direction: Direction, origin: Origin, tool: str | None
    ) -> None:
        policies: dict[str, list[FilterRule]] = {}
        for rule in rules:
            if _applies(rule, surface, direction, origin, tool):
                policies.setdefault(rule.policy, []).append(rule)
        self._policies = tuple(map(tuple, policies.values()))
        self._by_kind: dict[str, tuple[Rules, ...]] = {}
        self.is_empty = not policies
        self.fails_open = all(rule.on_error is FailureMode.OPEN for rules in self._policies for rule in rules)

    def rule(self, finding: Finding) -> Ruling | None:
        """The strictest rule for a finding, None where no rule selects it."""
        policies = self._by_kind.get(finding.kind)
        if policies is None:
            policies = self._by_kind[finding.kind] = self._select(finding.kind)
        strictest: FilterRule | None = None
        for rules in policies:
            for rule in rules:
                if finding.score >= rule.score_min:
                    if strictest is None or _STRICTNESS[rule.action] > _STRICTNESS[strictest.action]:
                        strictest = rule
                    break
        if strictest is None:
            return None
        masked = strictest.action is FilterAction.MASK
        return Ruling(
            rule=strictest,
            edit=Edit(finding.start, finding.end, placeholder(finding.kind)) if masked else None,
        )

    def _select(self, kind: str) -> tuple[Rules, ...]:
        chosen = (tuple(rule for rule in rules if _names(rule, kind)) for rules in self._policies)
        return tuple(rules for rules in chosen if rules)


def _applies(rule: FilterRule, surface: Surface, direction: Direction, origin: Origin, tool: str | None) -> bool:
    return (
        (not rule.surfaces or surface in rule.surfaces)
        and (not rule.directions or direction in rule.directions)
        and (not rule.origins or origin in rule.origins)
        and (not rule.tools or (tool is not None and any(fnmatchcase(tool, glob) for glob in rule.tools)))
    )


def _names(rule: FilterRule, kind: str) -> bool:
    return any(fnmatchcase(kind, glob) for glob in rule.kinds)


class _Plans:
    """Plans by the identity of the rules: an agent's rules are one tuple for the life of a release."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules  # held, so that its identity cannot be given to another tuple
        self.uses_tools = any(rule.tools for rule in rules)
        self.by_place: dict[tuple[Surface, Direction, Origin, str | None], RulePlan] = {}


_plans: dict[int, _Plans] = {}


def plan(rules: Rules, *, surface: Surface, direction: Direction, origin: Origin, tool: str | None = None) -> RulePlan:
    """The plan for a place, from memory where possible."""
    plans = _plans.get(id(rules))
    if plans is None or plans.rules is not rules:
        if len(_plans) >= _PLANS_MAX:
            _plans.clear()
        plans = _plans[id(rules)] = _Plans(rules)
    place = (surface, direction, origin, tool if plans.uses_tools else None)
    known = plans.by_place.get(place)
    if known is None:
        if len(plans.by_place) >= _PLANS_MAX:
            plans.by_place.clear()
        known = plans.by_place[place] = RulePlan(rules, surface, direction, origin, tool)
    return known


def judge(  # noqa: PLR0913 - where a text stands is what rules select on
    rules: Rules,
    scanner: Scanner,
    text: str,
    *,
    origin: Origin,
    direction: Direction,
    surface: Surface,
    tool: str | None = None,
) -> TextVerdict:
    """What the rules say about a whole text. Raises FilterError, unless every rule that applies fails open."""
    at = plan(rules, surface=surface, direction=direction, origin=origin, tool=tool)
    if at.is_empty or not text:
        return _NOTHING
    try:
        found = scanner.scan(text)
    except FilterError:
        if at.fails_open:
            return _FAILED_OPEN
        raise
    return verdict(at, found) if found else _NOTHING


async def judge_async(  # noqa: PLR0913 - as above
    rules: Rules,
    scanner: Scanner,
    text: str,
    *,
    origin: Origin,
    direction: Direction,
    surface: Surface,
    tool: str | None = None,
) -> TextVerdict:
    """The same, without holding the event loop for more than a few milliseconds at a time."""
    if len(text) <= LONG_CHARACTERS:
        return judge(rules, scanner, text, origin=origin, direction=direction, surface=surface, tool=tool)
    at = plan(rules, surface=surface, direction=direction, origin=origin, tool=tool)
    if at.is_empty:
        return _NOTHING
    try:
        found = await scanner.scan_long(text)
    except FilterError:
        if at.fails_open:
            return _FAILED_OPEN
        raise
    return verdict(at, found) if found else _NOTHING


def verdict(at: RulePlan, found: Sequence[Finding]) -> TextVerdict:
    """The verdict that follows from all findings of a text. Findings that no rule selects are not reported."""
    edits: list[Edit] = []
    selected: list[Finding] = []
    denied: FilterRule | None = None
    for finding in found:
        ruling = at.rule(finding)
        if ruling is None:
            continue
        selected.append(finding)
        if ruling.edit is not None:
            edits.append(ruling.edit)
        elif denied is None and ruling.rule.action is FilterAction.DENY:
            denied = ruling.rule
    return TextVerdict(edits=tuple(edits), findings=tuple(selected), denied=denied)
