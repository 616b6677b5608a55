"""What people read of the trace store: lists of runs, the tree of a run, an exchange with its masked bodies.

Safe from any thread and any process: every call opens a read-only connection of its own, which takes 0.2 ms.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import zstandard

from gateway.core.errors import ClientError, StoreError
from gateway.traces import schema
from gateway.traces.record import EFFECT_RANK, ExchangeRecord
from gateway.traces.rows import COLUMNS, Stored, decode
from gateway.traces.tree import Node, grow

RUNS_MAX: Final = 200
EXCHANGES_MAX: Final = 2_000  # of one run in one answer: a page with more than that helps nobody
_HEX = re.compile(r"[0-9a-f]{32}", re.ASCII)
_EFFECTS: Final = tuple(sorted(EFFECT_RANK, key=lambda effect: EFFECT_RANK[effect]))


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """One line of the list of runs. `cost` is in US dollars: None where nothing has a known price, and too low by
    `unpriced` exchanges otherwise. `cursor` continues the list after this run."""

    trace_id: str
    name: str | None  # what the caller calls it
    agent: str
    started_s: float
    duration_s: float
    exchanges: int
    errors: int
    effect: str  # the worst of the run
    input_tokens: int
    output_tokens: int
    cost: float | None
    unpriced: int
    held: tuple[str, ...]
    cursor: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunTree:
    """A run with its tree. `truncated`: it has more exchanges than are shown."""

    summary: RunSummary
    roots: tuple[Node, ...]
    costs: dict[str, float | None]  # by exchange id
    truncated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyView:
    """A masked body. `size` is what it was on the wire; `note` says what is missing and why (see `rows.Body`)."""

    data: bytes | None
    size: int
    note: str | None
    content_type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeView:
    """One exchange in full."""

    record: ExchangeRecord
    cost: float | None
    request: BodyView | None
    response: BodyView | None


class RunStore:
    """Reads the store at `path`, which need not exist yet. Raises StoreError where it cannot be read."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def runs(
        self,
        *,
        limit: int = 50,
        before: str | None = None,
        agent: str | None = None,
        effect: str | None = None,
        has_error: bool | None = None,
    ) -> list[RunSummary]:
        """Runs, newest first, after the cursor `before`. `effect` selects runs in which it occurred."""
        conditions, parameters = _conditions(before, agent, effect, has_error)
        with self._connection() as connection:
            if connection is None:
                return []
            rows = connection.execute(
                f"SELECT * FROM runs {conditions} ORDER BY id DESC LIMIT ?",  # noqa: S608 - only our own words
                (*parameters, max(1, min(limit, RUNS_MAX))),
            ).fetchall()
            held = _held(connection, [row["id"] for row in rows])
        return [_summary(row, held.get(row["id"], ())) for row in rows]

    def run(self, trace_id: str) -> RunTree | None:
        """The tree of a run, or None. Its first EXCHANGES_MAX exchanges."""
        if not _HEX.fullmatch(trace_id):
            return None
        with self._connection() as connection:
            if connection is None:
                return None
            row = connection.execute("SELECT * FROM runs WHERE trace = ?", (bytes.fromhex(trace_id),)).fetchone()
            if row is None:
                return None
            found = connection.execute(
                f"SELECT {', '.join(COLUMNS)} FROM exchanges WHERE run = ? ORDER BY seq LIMIT ?",  # noqa: S608
                (row["id"], EXCHANGES_MAX + 1),
            ).fetchall()
            held = _held(connection, [row["id"]])
        stored = [decode(one, trace_id) for one in found[:EXCHANGES_MAX]]
        return RunTree(
            summary=_summary(row, held.get(row["id"], ())),
            roots=grow([one.record for one in stored]),
            costs={one.record.id: one.cost for one in stored},
            truncated=len(found) > EXCHANGES_MAX,
        )

    def exchange(self, exchange_id: str) -> ExchangeView | None:
        """One exchange with its bodies, or None."""
        if not _HEX.fullmatch(exchange_id):
            return None
        with self._connection() as connection:
            if connection is None:
                return None
            row = connection.execute(
                f"SELECT {', '.join(f'exchanges.{name}' for name in COLUMNS)}, trace"  # noqa: S608
                " FROM exchanges JOIN runs ON runs.id = run WHERE exchanges.id = ?",
                (bytes.fromhex(exchange_id),),
            ).fetchone()
            if row is None:
                return None
            stored = decode(row, row["trace"].hex())
            bodies = connection.execute("SELECT * FROM payloads WHERE seq = ?", (stored.seq,)).fetchone()
        return ExchangeView(
            record=stored.record,
            cost=stored.cost,
            request=_body(stored, "request", bodies),
            response=_body(stored, "response", bodies),
        )

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection | None]:
        """A connection, or None where nothing was ever recorded."""
        if not self._path.exists():
            yield None
            return
        try:
            connection = schema.open_reader(self._path)
            connection.row_factory = sqlite3.Row
            try:
                yield connection
            finally:
                connection.close()
        except sqlite3.Error as error:
            raise StoreError(
                "trace_store_unavailable", f"the traces cannot be read now ({type(error).__name__}); try again"
            ) from None


def _conditions(
    before: str | None, agent: str | None, effect: str | None, has_error: bool | None
) -> tuple[str, list[int | str]]:
    words: list[str] = []
    parameters: list[int | str] = []
    if before is not None:
        if not before.isascii() or not before.isdigit() or len(before) > 18:
            raise ClientError("invalid_cursor", "the cursor is not one that a list of runs gave out")
        words.append("id < ?")
        parameters.append(int(before))
    if agent is not None:
        words.append("agent = ?")
        parameters.append(agent)
    if effect is not None:
        if effect not in EFFECT_RANK:
            raise ClientError("invalid_filter", f"`{effect[:40]}` is no effect; use one of {', '.join(_EFFECTS)}")
        # `effects > 1` names the partial index of runs in which something other than an allow occurred.
        words.append("effects & ? <> 0" if effect == "allow" else "effects > 1 AND effects & ? <> 0")
        parameters.append(1 << EFFECT_RANK[effect])
    if has_error is not None:
        words.append("errors > 0" if has_error else "errors = 0")
    return (f"WHERE {' AND '.join(words)}" if words else ""), parameters


def _held(connection: sqlite3.Connection, runs: list[int]) -> dict[int, tuple[str, ...]]:
    """The held actions of each run, in the order in which they appeared."""
    marks = ",".join("?" * len(runs))
    found: dict[int, dict[str, None]] = {}
    for run, held in connection.execute(
        f"SELECT run, held FROM exchanges WHERE run IN ({marks}) AND held IS NOT NULL ORDER BY seq",  # noqa: S608
        runs,
    ):
        found.setdefault(run, {}).update(dict.fromkeys(held.split(" ")))
    return {run: tuple(ids) for run, ids in found.items()}


def _summary(row: sqlite3.Row, held: tuple[str, ...]) -> RunSummary:
    return RunSummary(
        trace_id=row["trace"].hex(),
        name=row["name"],
        agent=row["agent"],
        started_s=row["started_s"],
        duration_s=row["ended_s"] - row["started_s"],
        exchanges=row["exchanges"],
        errors=row["errors"],
        effect=_EFFECTS[row["effects"].bit_length() - 1],
        input_tokens=row["input"],
        output_tokens=row["output"],
        cost=row["cost"],
        unpriced=row["unpriced"],
        held=held,
        cursor=str(row["id"]),
    )


def _body(stored: Stored, which: str, bodies: sqlite3.Row | None) -> BodyView | None:
    if which not in stored.sizes:
        return None
    size, note = stored.sizes[which]
    content_type = stored.record.request_type if which == "request" else stored.record.response_type
    packed = bodies[which] if bodies is not None else None
    data = None
    if packed is None:
        note = note or "forgotten"
    else:
        try:
            data = zstandard.ZstdDecompressor().decompress(packed)
        except zstandard.ZstdError:
            note = "unreadable"
    return BodyView(data=data, size=size, note=note, content_type=content_type)
