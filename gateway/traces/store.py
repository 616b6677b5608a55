"""The trace store's writing side: batches into SQLite, and what is forgotten when.

One connection, used by one thread. A statement carries many rows, because Python lets go of its lock around every step
of SQLite and a thread that competes with a busy event loop pays for each of those handovers, not for the row.
"""

from __future__ import annotations

import os
import sqlite3
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Final

from gateway.traces import schema
from gateway.traces.record import EFFECT_RANK
from gateway.traces.retention import Retention, forget
from gateway.traces.rows import COLUMNS, Row, Value

ROWS_PER_STATEMENT: Final = 32  # beyond this a row costs no less; SQLite binds at most 32,766 values
KNOWN_RUNS_MAX: Final = 20_000  # 3 MB; a run that was forgotten here is looked up by its index

_RUN_COLUMNS: Final = (
    "id", "trace", "name", "agent", "started_s", "ended_s", "exchanges", "errors", "effects", "input", "output",
    "cost", "unpriced",
)  # fmt: skip
_MERGE: Final = """ ON CONFLICT (trace) DO UPDATE SET
    name = coalesce(name, excluded.name), started_s = min(started_s, excluded.started_s),
    ended_s = max(ended_s, excluded.ended_s), exchanges = exchanges + excluded.exchanges,
    errors = errors + excluded.errors, effects = effects | excluded.effects, input = input + excluded.input,
    output = output + excluded.output, unpriced = unpriced + excluded.unpriced,
    cost = CASE WHEN excluded.cost IS NULL THEN cost ELSE coalesce(cost, 0) + excluded.cost END"""


@dataclass(slots=True)
class _RunDelta:
    """What one batch adds to a run."""

    name: str | None
    agent: str
    started_s: float
    ended_s: float
    exchanges: int = 0
    errors: int = 0
    effects: int = 0
    input: int = 0
    output: int = 0
    cost: float | None = None
    unpriced: int = 0

    def add(self, row: Row) -> None:
        record = row.record
        self.started_s = min(self.started_s, record.started_s)
        self.ended_s = max(self.ended_s, record.started_s + record.duration_ns / 1e9)
        self.exchanges += 1
        self.errors += record.error is not None
        self.effects |= 1 << EFFECT_RANK.get(record.effect, 3)
        if record.usage is not None:
            self.input += record.usage.input
            self.output += record.usage.output
            if row.cost is None:
                self.unpriced += 1
            else:
                self.cost = (self.cost or 0.0) + row.cost


class TraceStore:
    """Writes batches of rows. Every method but the constructor and `open` belongs to the writer's thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection: sqlite3.Connection | None = None
        self.salt = os.urandom(16)  # of the content sample; the store's own once it is open
        self._known: OrderedDict[bytes, int] = OrderedDict()

    def open(self) -> None:
        """Connect, unless connected. Raises StoreError for a store of another version, sqlite3.Error or OSError where
        the file cannot be used."""
        if self._connection is None:
            self._connection = schema.open_writer(self.path)
            self.salt = self._connection.execute("SELECT value FROM meta WHERE name = 'salt'").fetchone()[0]

    def close(self) -> None:
        """Disconnect. The next `open` begins anew."""
        connection, self._connection = self._connection, None
        self._known.clear()
        if connection is not None:
            connection.close()

    def write(self, rows: Sequence[Row]) -> None:
        """Store a batch in one transaction: all of it or nothing. Raises sqlite3.Error."""
        connection = self._live()
        connection.execute("BEGIN IMMEDIATE")
        try:
            runs = self._write_runs(connection, rows)
            self._write_exchanges(connection, rows, runs)
        except BaseException:
            connection.execute("ROLLBACK")
            self._known.clear()
            raise
        connection.execute("COMMIT")

    def prune(self, retention: Retention, *, now: float) -> int:
        """Forget one small batch of what is too old or too much. Returns how many rows went; 0 means done."""
        gone = forget(self._live(), retention, now=now)
        if gone:
            self._known.clear()  # a run may be among them
        return gone

    def _live(self) -> sqlite3.Connection:
        self.open()
        assert self._connection is not None
        return self._connection

    def _write_runs(self, connection: sqlite3.Connection, rows: Sequence[Row]) -> dict[bytes, int]:
        """Merge the batch into its runs. Returns the number of each run."""
        deltas: dict[bytes, _RunDelta] = {}
        for row in rows:
            record = row.record
            delta = deltas.get(row.trace)
            if delta is None:
                delta = _RunDelta(record.run, record.agent, record.started_s, record.started_s)
                deltas[row.trace] = delta
            delta.add(row)
        numbers = self._number(connection, deltas)
        _insert(
            connection,
            "runs",
            _RUN_COLUMNS,
            [
                (
                    numbers[trace], trace, delta.name, delta.agent, delta.started_s, delta.ended_s,
                    delta.exchanges, delta.errors, delta.effects, delta.input, delta.output, delta.cost, delta.unpriced,
                )
                for trace, delta in deltas.items()
            ],
            _MERGE,
        )  # fmt: skip
        return numbers

    def _number(self, connection: sqlite3.Connection, traces: Iterable[bytes]) -> dict[bytes, int]:
        """The number of each run: known here, known to the store, or the next free one (the write lock is held)."""
        known = self._known
        missing = [trace for trace in traces if trace not in known]
        for at in range(0, len(missing), 500):
            some = missing[at : at + 500]
            marks = ",".join("?" * len(some))
            found = connection.execute(
                f"SELECT trace, id FROM runs WHERE trace IN ({marks})",  # noqa: S608 - only question marks go in
                some,
            )
            known.update(found.fetchall())
        following = _last(connection, "SELECT max(id) FROM runs") + 1
        for trace in missing:
            if trace not in known:
                known[trace] = following
                following += 1
        numbers = {trace: known[trace] for trace in traces}
        while len(known) > KNOWN_RUNS_MAX:
            known.popitem(last=False)
        return numbers

    def _write_exchanges(self, connection: sqlite3.Connection, rows: Sequence[Row], runs: dict[bytes, int]) -> None:
        first = _last(connection, "SELECT max(seq) FROM exchanges") + 1
        exchanges = [(seq, runs[row.trace], *row.columns) for seq, row in enumerate(rows, first)]
        _insert(connection, "exchanges", COLUMNS, exchanges)
        payloads = [
            (seq, row.request, row.response)
            for seq, row in enumerate(rows, first)
            if row.request is not None or row.response is not None
        ]
        _insert(connection, "payloads", ("seq", "request", "response"), payloads)


def _insert(
    connection: sqlite3.Connection,
    table: str,
    columns: Sequence[str],
    rows: Sequence[tuple[Value, ...]],
    then: str = "",
) -> None:
    """Insert the rows, many to a statement. The sizes are powers of two so that few statements are ever prepared."""
    one = f"({','.join('?' * len(columns))})"
    at, size = 0, ROWS_PER_STATEMENT
    while at < len(rows):
        while size > len(rows) - at:
            size //= 2
        names = ", ".join(columns)
        statement = f"INSERT INTO {table} ({names}) VALUES {','.join([one] * size)}{then}"  # noqa: S608 - our own names
        connection.execute(statement, tuple(chain.from_iterable(rows[at : at + size])))
        at += size


def _last(connection: sqlite3.Connection, query: str) -> int:
    return connection.execute(query).fetchone()[0] or 0
