"""The tree of a run as rows on one time axis. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gateway.console.durations import fine_span
from gateway.traces.query import RunTree
from gateway.traces.record import ActionDecision, Attempt, ExchangeRecord, FilterPass
from gateway.traces.tree import Node, StepKind, flatten

ROWS_MAX = 1_000  # more is a scroll that nobody takes; the page says how many are left out
DEPTH_SHOWN_MAX = 8  # agents choose how deep a tree is; the indent stops here
WIDTH = 1_000  # of the axis, in units of the drawing
BAR_MIN = 4.0  # what took no time is still to be seen


@dataclass(frozen=True, slots=True, kw_only=True)
class TimelineRow:
    """One step. `x` and `width` are units of the axis; texts come from outside and are revealed by the page."""

    depth: int
    kind: str
    span: str
    parent: str | None
    label: str
    x: float
    width: float
    after_ns: int  # from the start of the run
    duration_ns: int
    effect: str | None
    error: str | None
    exchange: str | None  # id, for exchanges alone
    held: str | None
    rule: str
    reason: str
    input_tokens: int | None
    output_tokens: int | None
    cost: float | None
    findings: Mapping[str, int]
    status: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    rows: tuple[TimelineRow, ...]
    ticks: tuple[str, ...]
    left_out: int


def timeline(tree: RunTree) -> Timeline:
    """All steps in the order of reading, on an axis from the first start to the last end."""
    nodes = list(flatten(tree.roots))
    if not nodes:
        return Timeline(rows=(), ticks=(), left_out=0)
    start_s = min(node.started_s for _, node in nodes)
    end_s = max(node.started_s + node.step.duration_ns / 1e9 for _, node in nodes)
    whole_ns = max((end_s - start_s) * 1e9, 1.0)
    rows = tuple(_row(depth, node, start_s, whole_ns, tree) for depth, node in nodes[:ROWS_MAX])
    ticks = tuple(fine_span(int(whole_ns * at / 4)) if at else "0" for at in range(5))
    return Timeline(rows=rows, ticks=ticks, left_out=max(len(nodes) - ROWS_MAX, 0))


def _row(depth: int, node: Node, start_s: float, whole_ns: float, tree: RunTree) -> TimelineRow:
    step, record = node.step, node.record
    after_ns = max((node.started_s - start_s) * 1e9, 0.0)
    width = min(max(step.duration_ns / whole_ns * WIDTH, BAR_MIN), WIDTH)
    exchange = step.kind is StepKind.EXCHANGE
    usage = record.usage if exchange else None
    rule, reason, held = _verdict(step.source)
    # Whoever knows a trace id can put its own exchanges into that trace: they must not pass for those of its agent.
    stranger = exchange and record.agent != tree.summary.agent
    return TimelineRow(
        depth=min(depth, DEPTH_SHOWN_MAX),
        kind=step.kind.value,
        span=step.span,
        parent=step.parent,
        label=f"{step.name} [agent {record.agent}]" if stranger else step.name,
        x=min(after_ns / whole_ns * WIDTH, WIDTH - width),
        width=width,
        after_ns=int(after_ns),
        duration_ns=step.duration_ns,
        effect=step.effect,
        error=step.error,
        exchange=record.id if exchange else None,
        held=held,
        rule=rule,
        reason=reason,
        input_tokens=usage.input if usage else None,
        output_tokens=usage.output if usage else None,
        cost=tree.costs.get(record.id) if exchange else None,
        findings=_findings(step.source),
        status=record.status if exchange else 0,
    )


def _verdict(source: object) -> tuple[str, str, str | None]:
    """Rule, reason and held action."""
    match source:
        case ActionDecision():
            return source.rule, source.reason, source.held
        case FilterPass():
            return source.denied or "", "", None
        case ExchangeRecord() if not source.decisions:
            return source.rule, source.reason, source.held
        case ExchangeRecord() | Attempt():
            return "", "", None
    raise AssertionError(type(source))


def _findings(source: object) -> Mapping[str, int]:
    match source:
        case ExchangeRecord() if not source.filters:
            return source.findings or {}
        case FilterPass():
            return source.findings or {}
    return {}
