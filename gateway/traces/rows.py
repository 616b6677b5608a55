"""An exchange as a row of the store, and back. Everything here was masked before."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from operator import attrgetter
from typing import Any, Final, NamedTuple, TypeAlias

import orjson

from gateway.traces.record import ActionDecision, Attempt, ExchangeRecord, FilterPass, Usage

Value: TypeAlias = "str | bytes | int | float | None"

COLUMNS: Final = (
    "seq", "run", "id", "started_s", "duration_ns", "agent", "surface", "operation", "name", "model", "status",
    "error", "effect", "held", "input", "output", "cost", "release", "detail",
)  # fmt: skip

COUNT_MAX: Final = 2**53  # sums of a run stay within SQLite's 64 bits


class Body(NamedTuple):
    """What became of a body: `packed` is masked and compressed, `size` counts the bytes that there were, `note` says
    what is missing and why (`truncated`, `too_large`, `masking_failed`, `not_sampled`, `queue_full`;
    a reader may add `forgotten`, `unreadable`)."""

    packed: bytes | None
    size: int
    note: str | None


class Row(NamedTuple):
    """One exchange, ready to be stored. `columns` are those of COLUMNS after the first two."""

    record: ExchangeRecord  # without bodies
    trace: bytes
    cost: float | None
    columns: tuple[Value, ...]
    request: bytes | None
    response: bytes | None


def encode(record: ExchangeRecord, cost: float | None, request: Body | None, response: Body | None) -> Row:
    """The row of a record whose labels are masked. Raises ValueError for ids that are not hexadecimal. What has no JSON
    form (an integer beyond 64 bits) costs the record its details, not its row."""
    usage = record.usage
    if usage is not None and (min(usage) < 0 or max(usage) > COUNT_MAX):
        record.usage = usage = None  # an upstream that counts like this is not believed
    try:
        detail = orjson.dumps(_detail(record, request, response))
    except TypeError:
        detail = orjson.dumps(
            {"span": record.span, "rule": "", "reason": "the details of this exchange were unreadable"}
        )
    columns = (
        bytes.fromhex(record.id), record.started_s, record.duration_ns, record.agent, record.surface, record.operation,
        record.name, record.model, record.status, record.error, record.effect, held_ids(record),
        None if usage is None else usage.input, None if usage is None else usage.output, cost, record.release, detail,
    )  # fmt: skip
    return Row(
        record,
        bytes.fromhex(record.trace_id),
        cost,
        columns,
        request.packed if request is not None else None,
        response.packed if response is not None else None,
    )


def _detail(record: ExchangeRecord, request: Body | None, response: Body | None) -> dict[str, Any]:
    """What is no column, without what is empty."""
    detail: dict[str, Any] = {"span": record.span, "rule": record.rule, "reason": record.reason}
    for name, read in _PLAIN:
        if value := read(record):
            detail[name] = value
    if record.usage is not None:
        detail["usage"] = tuple(record.usage)
    if record.attempts:
        detail["attempts"] = list(map(tuple, record.attempts))
    if record.decisions:
        detail["decisions"] = list(map(tuple, record.decisions))
    if record.filters:
        detail["filters"] = list(map(tuple, record.filters))
    if request is not None:
        detail["request"] = (request.size, request.note)
    if response is not None:
        detail["response"] = (response.size, response.note)
    return detail


_PLAIN: Final = tuple(
    (name, attrgetter(name))
    for name in (
        "parent_span", "run", "upstream", "provider", "model_responded", "response_id", "finish_reasons", "findings",
        "facts", "attributes", "request_type", "response_type",
    )
)  # fmt: skip


def held_ids(record: ExchangeRecord) -> str | None:
    """The held actions that the exchange touched, separated by spaces."""
    if record.held is None and not record.decisions:
        return None
    ids = dict.fromkeys(decision.held for decision in record.decisions if decision.held)
    if record.held is not None:
        ids[record.held] = None
    return " ".join(ids) or None


class Stored(NamedTuple):
    """An exchange as it was read: `record` has no bodies; `sizes` has size and note of each body that there was."""

    seq: int
    record: ExchangeRecord
    cost: float | None
    sizes: Mapping[str, tuple[int, str | None]]


def decode(row: sqlite3.Row, trace_id: str) -> Stored:
    """The exchange of a row with COLUMNS."""
    detail: dict[str, Any] = orjson.loads(row["detail"])
    usage = detail.get("usage")
    held = (row["held"] or "").split(" ")
    record = ExchangeRecord(
        id=row["id"].hex(),
        trace_id=trace_id,
        span=detail["span"],
        agent=row["agent"],
        surface=row["surface"],
        operation=row["operation"],
        started_s=row["started_s"],
        name=row["name"],
        duration_ns=row["duration_ns"],
        status=row["status"],
        error=row["error"],
        effect=row["effect"],
        rule=detail["rule"],
        reason=detail["reason"],
        release=row["release"],
        held=held[-1] or None,
        model=row["model"],
        usage=Usage(*usage) if usage is not None else None,
        attempts=tuple(Attempt(*one) for one in detail.get("attempts", ())),
        decisions=tuple(ActionDecision(*one) for one in detail.get("decisions", ())),
        filters=tuple(FilterPass(*one) for one in detail.get("filters", ())),
    )
    for name, _ in _PLAIN:
        if name in detail:
            setattr(record, name, tuple(detail[name]) if name == "finish_reasons" else detail[name])
    sizes: dict[str, tuple[int, str | None]] = {
        name: (detail[name][0], detail[name][1]) for name in ("request", "response") if name in detail
    }
    return Stored(row["seq"], record, row["cost"], sizes)
