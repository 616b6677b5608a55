"""An exchange expanded into the steps of a tree, and exchanges joined into the tree of their run. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

from gateway.traces.record import ActionDecision, Attempt, ExchangeRecord, FilterPass


class StepKind(StrEnum):
    EXCHANGE = "exchange"  # what the agent asked
    FILTER = "filter"
    DECISION = "decision"
    HOLD = "hold"  # the inline wait for people, beneath the decision that holds
    ATTEMPT = "attempt"  # one try at the upstream


Source: TypeAlias = ExchangeRecord | ActionDecision | FilterPass | Attempt


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of an exchange. `started_ns` counts from the start of the exchange; `source` is what was recorded."""

    kind: StepKind
    span: str
    parent: str | None
    name: str
    started_ns: int
    duration_ns: int
    source: Source
    effect: str | None = None
    error: str | None = None


@dataclass(slots=True)
class Node:
    """A step in its run, with the steps beneath it in order of time."""

    step: Step
    record: ExchangeRecord
    children: list[Node] = field(default_factory=list)

    @property
    def started_s(self) -> float:
        return self.record.started_s + self.step.started_ns / 1e9


def steps(record: ExchangeRecord) -> Iterator[Step]:
    """The exchange and everything beneath it, parents first. Span ids of steps that were not sent anywhere are derived,
    so that every reader of a record sees the same tree."""
    yield Step(
        kind=StepKind.EXCHANGE,
        span=record.span,
        parent=record.parent_span,
        name=f"{record.operation} {record.name or record.model or ''}".rstrip(),
        started_ns=0,
        duration_ns=record.duration_ns,
        source=record,
        effect=record.effect,
        error=record.error,
    )
    for index, one in enumerate(record.filters):
        yield Step(
            kind=StepKind.FILTER,
            span=_derived(record.span, StepKind.FILTER, index),
            parent=record.span,
            name=f"filter {one.direction}",
            started_ns=one.started_ns,
            duration_ns=one.duration_ns,
            source=one,
            effect="deny" if one.denied else None,
            error=one.error,
        )
    for index, decision in enumerate(record.decisions):
        yield from _decided(record.span, index, decision)
    for attempt in record.attempts:
        yield Step(
            kind=StepKind.ATTEMPT,
            span=attempt.span,
            parent=record.span,
            name=f"attempt {attempt.upstream}",
            started_ns=attempt.started_ns,
            duration_ns=attempt.duration_ns,
            source=attempt,
            error=attempt.error,
        )


def _decided(parent: str, index: int, decision: ActionDecision) -> Iterator[Step]:
    span = _derived(parent, StepKind.DECISION, index)
    yield Step(
        kind=StepKind.DECISION,
        span=span,
        parent=parent,
        name=f"decide {decision.action}",
        started_ns=decision.started_ns,
        duration_ns=decision.duration_ns,
        source=decision,
        effect=decision.effect,
    )
    if decision.held is not None:
        yield Step(
            kind=StepKind.HOLD,
            span=_derived(parent, StepKind.HOLD, index),
            parent=span,
            name=f"hold {decision.action}",
            started_ns=decision.started_ns + decision.duration_ns - decision.waited_ns,
            duration_ns=decision.waited_ns,
            source=decision,
            effect="hold",
        )


def _derived(span: str, kind: StepKind, index: int) -> str:
    return hashlib.blake2b(f"{span}/{kind}/{index}".encode(), digest_size=8).hexdigest()


def grow(records: Sequence[ExchangeRecord]) -> tuple[Node, ...]:
    """The tree of a run. An exchange whose parent nobody recorded (the caller's own span) is a root; so is one that a
    forged parent would make its own ancestor. Roots and children are in order of time."""
    nodes: dict[str, Node] = {}
    exchanges: list[Node] = []
    for record in records:
        for step in steps(record):
            node = Node(step, record)
            if step.kind is StepKind.EXCHANGE:
                exchanges.append(node)
            elif step.parent is not None and nodes[step.parent].record is record:
                nodes[step.parent].children.append(node)
            nodes.setdefault(step.span, node)
    roots: list[Node] = []
    above: dict[int, Node] = {}
    for node in exchanges:
        parent = nodes.get(node.step.parent or "")
        if parent is None or _leads_to(parent, node.record, above):
            roots.append(node)
        else:
            above[id(node.record)] = parent
            parent.children.append(node)
    for node in nodes.values():
        node.children.sort(key=_started)
    return tuple(sorted(roots, key=_started))


def _leads_to(node: Node, record: ExchangeRecord, above: dict[int, Node]) -> bool:
    """Whether going up from `node` arrives at the exchange `record`."""
    at: Node | None = node
    while at is not None:
        if at.record is record:
            return True
        at = above.get(id(at.record))
    return False


def _started(node: Node) -> float:
    return node.started_s


def flatten(roots: Iterable[Node]) -> Iterator[tuple[int, Node]]:
    """Every node with its depth, in the order of reading. Not recursive: agents choose how deep a tree is."""
    waiting = [(0, node) for node in reversed(list(roots))]
    while waiting:
        depth, node = waiting.pop()
        yield depth, node
        waiting.extend((depth + 1, child) for child in reversed(node.children))
