"""Filters over the parts of an exchange: edits by path, what was found, and whether a rule forbids it.

Turns no failure into a decision but the ones a rule names: `FilterError` of a closed rule travels up and denies.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gateway.core.action import Surface
from gateway.core.errors import ClientError
from gateway.core.exchange import Direction, Part, Path
from gateway.core.filtering import FilterRule, TextVerdict, apply_edits
from gateway.filters import judge, judge_async
from gateway.filters.judging import LONG_CHARACTERS
from gateway.traces.record import ExchangeRecord, FilterPass

if TYPE_CHECKING:
    from gateway.filters import Scanner
    from gateway.policy import AgentView


@dataclass(slots=True)
class Screening:
    """What the filters say about all parts of one body."""

    edits: dict[Path, str] = field(default_factory=dict)
    findings: dict[str, int] = field(default_factory=dict)
    denied: FilterRule | None = None
    failed_open: bool = False


async def screen(  # noqa: PLR0913 - where a text stands is what rules select on
    scanner: Scanner,
    agent: AgentView,
    parts: Iterable[Part],
    *,
    surface: Surface,
    direction: Direction,
    record: ExchangeRecord,
    began_ns: int,
    tool: str | None = None,
) -> Screening:
    """Judge every part, note it in the record, and return what must change. Stops at the first part that is denied."""
    result = Screening()
    if not agent.filter_rules:
        return result
    start_ns = time.perf_counter_ns()
    for part in parts:
        decide = judge if len(part.text) <= LONG_CHARACTERS else judge_async
        answer = decide(
            agent.filter_rules, scanner, part.text, origin=part.origin, direction=direction, surface=surface, tool=tool
        )
        verdict = answer if isinstance(answer, TextVerdict) else await answer
        for finding in verdict.findings:
            result.findings[finding.kind] = result.findings.get(finding.kind, 0) + 1
        result.failed_open |= verdict.failed_open
        if verdict.denied is not None:
            result.denied = verdict.denied
            break
        if verdict.edits:
            result.edits[part.path] = apply_edits(part.text, verdict.edits)
    note(record, direction, start_ns - began_ns, time.perf_counter_ns() - start_ns, result)
    return result


def note(record: ExchangeRecord, direction: Direction, started_ns: int, duration_ns: int, result: Screening) -> None:
    """Add a pass of the filters to the record."""
    denied = f"{result.denied.policy}/{result.denied.id}" if result.denied else None
    record.filters = (
        *record.filters,
        FilterPass(direction.value, started_ns, duration_ns, result.findings or None, denied, None),
    )
    if result.findings:
        counts = dict(record.findings or {})
        for kind, count in result.findings.items():
            counts[kind] = counts.get(kind, 0) + count
        record.findings = counts


def content_denied(rule: FilterRule) -> ClientError:
    """The refusal of a text that a filter rule forbids. The reason is the rule's own; the text is not quoted."""
    return ClientError(
        "content_denied", f"refused by the filter rule `{rule.policy}/{rule.id}`: {rule.reason}", status=403
    )
