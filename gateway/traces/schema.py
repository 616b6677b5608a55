"""The tables of the trace store, their version, and how they are opened."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Final
from urllib.parse import quote

from gateway.core.errors import StoreError

VERSION: Final = 1

# One row an exchange: what lists, filters and sums need is a column, the rest is JSON in `detail`. A run gets a small
# number, so that the index by run grows at its end; only `runs.trace` and `exchanges.id` are indexed by bytes, and ids
# begin with the time.
DDL: Final = (
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL)",
    "INSERT INTO meta VALUES ('salt', randomblob(16))",
    """CREATE TABLE runs (
        id INTEGER PRIMARY KEY, trace BLOB NOT NULL UNIQUE, name TEXT, agent TEXT NOT NULL,
        started_s REAL NOT NULL, ended_s REAL NOT NULL, exchanges INTEGER NOT NULL, errors INTEGER NOT NULL,
        effects INTEGER NOT NULL, input INTEGER NOT NULL, output INTEGER NOT NULL, cost REAL, unpriced INTEGER NOT NULL
    )""",
    """CREATE TABLE exchanges (
        seq INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, run INTEGER NOT NULL, started_s REAL NOT NULL,
        duration_ns INTEGER NOT NULL, agent TEXT NOT NULL, surface TEXT NOT NULL, operation TEXT NOT NULL,
        name TEXT NOT NULL, model TEXT, status INTEGER NOT NULL, error TEXT, effect TEXT NOT NULL, held TEXT,
        input INTEGER, output INTEGER, cost REAL, release TEXT NOT NULL, detail BLOB NOT NULL
    )""",
    "CREATE INDEX exchanges_run ON exchanges (run)",
    "CREATE INDEX exchanges_held ON exchanges (run, held) WHERE held IS NOT NULL",
    "CREATE INDEX runs_errors ON runs (id) WHERE errors > 0",
    "CREATE INDEX runs_notable ON runs (id) WHERE effects > 1",
    "CREATE TABLE payloads (seq INTEGER PRIMARY KEY, request BLOB, response BLOB)",
)

BUSY_S: Final = 5.0  # another worker's batch holds the lock for some milliseconds; five seconds means trouble
WAL_BYTES_MAX: Final = 64 * 1024 * 1024


def open_writer(path: Path) -> sqlite3.Connection:
    """A connection that writes, to a file that only its owner reads; makes the tables where there are none.

    Raises StoreError `trace_store_version` for a file of another version, and sqlite3.Error or OSError for a file that
    cannot be used now. The connection may move to another thread, but one thread at a time uses it.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))  # the -wal and -shm files inherit the mode
    connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    try:
        _prepare(connection, path)
    except (sqlite3.Error, StoreError):
        connection.close()
        raise
    return connection


def open_reader(path: Path) -> sqlite3.Connection:
    """A connection that only reads; raises as `open_writer` does."""
    connection = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=BUSY_S, isolation_level=None)
    try:
        require_version(connection, path)
    except (sqlite3.Error, StoreError):
        connection.close()
        raise
    return connection


def require_version(connection: sqlite3.Connection, path: Path) -> None:
    found = connection.execute("PRAGMA user_version").fetchone()[0]
    if found != VERSION:
        raise StoreError(
            "trace_store_version",
            f"the trace store `{path.name}` has version {found} and this gateway knows version {VERSION}; "
            "run the gateway that wrote it, or move the file away to begin a new one",
        )


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    # NORMAL: a killed process loses nothing committed, a power cut may lose the last commits, neither corrupts.
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute(f"PRAGMA journal_size_limit = {WAL_BYTES_MAX}")
    connection.execute("PRAGMA wal_autocheckpoint = 4000")
    # 16 MB hold the index of half a million runs; with the default of 2 MB a row costs 15 µs more long before that.
    connection.execute("PRAGMA cache_size = -16000")
    connection.execute("BEGIN IMMEDIATE")  # two workers may start at once
    try:
        empty = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0
        if empty and connection.execute("PRAGMA user_version").fetchone()[0] == 0:
            for statement in DDL:
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {VERSION}")
        else:
            require_version(connection, path)
    except (sqlite3.Error, StoreError):
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
