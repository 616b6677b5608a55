"""What the trace store forgets, and when: small batches, so that nobody waits long for the lock."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

DAY_S: Final = 86_400
PRUNE_ROWS: Final = 500  # some milliseconds of lock


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """Content goes before metadata, so that counts and verdicts outlive texts. `bytes_max` is about live data: at the
    limit the oldest content goes first, then the oldest metadata; the file itself keeps its pages for what comes."""

    content_days: float = 14
    metadata_days: float | None = None  # four times as long as content unless said otherwise
    bytes_max: int = 5_000_000_000


def forget(connection: sqlite3.Connection, retention: Retention, *, now: float) -> int:
    """Forget one batch of what is too old or too much. Returns how many rows went; 0 means done."""
    content_days, metadata_days = retention.content_days, retention.metadata_days
    if metadata_days is None:
        metadata_days = 4 * content_days
    gone = _content(connection, now - content_days * DAY_S) or _metadata(connection, now - metadata_days * DAY_S)
    if gone or _live_bytes(connection) <= retention.bytes_max:
        return gone
    forever = float("inf")
    return _content(connection, forever) or _metadata(connection, forever)


def _content(connection: sqlite3.Connection, before_s: float) -> int:
    oldest = connection.execute(
        "SELECT payloads.seq, started_s FROM payloads JOIN exchanges USING (seq) ORDER BY payloads.seq LIMIT ?",
        (PRUNE_ROWS,),
    )
    gone = [(seq,) for seq, started_s in oldest.fetchall() if started_s < before_s]
    if gone:
        with _transaction(connection):
            connection.executemany("DELETE FROM payloads WHERE seq = ?", gone)
    return len(gone)


def _metadata(connection: sqlite3.Connection, before_s: float) -> int:
    oldest = connection.execute("SELECT seq, run, started_s FROM exchanges ORDER BY seq LIMIT ?", (PRUNE_ROWS,))
    gone = [(seq, run) for seq, run, started_s in oldest.fetchall() if started_s < before_s]
    if gone:
        with _transaction(connection):
            connection.executemany("DELETE FROM payloads WHERE seq = ?", [(seq,) for seq, _ in gone])
            connection.executemany("DELETE FROM exchanges WHERE seq = ?", [(seq,) for seq, _ in gone])
            connection.executemany(
                "DELETE FROM runs WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM exchanges WHERE run = ?1)",
                [(run,) for run in {run for _, run in gone}],
            )
    return len(gone)


def _live_bytes(connection: sqlite3.Connection) -> int:
    pages, free, size = (
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
