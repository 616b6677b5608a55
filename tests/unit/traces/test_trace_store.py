"""What the trace store keeps, sums up and forgets."""

from __future__ import annotations

import sqlite3
import stat
from pathlib import Path

import pytest
import zstandard

from gateway.core.filtering import Masked
from gateway.traces import ExchangeRecord, Retention, RunStore, TraceStore, retention, schema
from gateway.traces import store as store_module
from gateway.traces.rows import Body, Row, encode
from tests.trace_records import STARTED_S, chat, exchange

DAY_S = 86_400


def rows(*records: ExchangeRecord, body: bytes | None = None) -> list[Row]:
    kept = Body(body, len(body), None) if body is not None else None
    return [encode(record, 0.5, kept, None) for record in records]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "traces.db"


def count(path: Path, table: str) -> int:
    connection = schema.open_reader(path)
    found: int = connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
    connection.close()
    return found


def test_files_are_for_their_owner_only(path: Path) -> None:
    store = TraceStore(path)
    store.write(rows(exchange()))
    assert {file.name for file in path.parent.iterdir()} == {"traces.db", "traces.db-wal", "traces.db-shm"}
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    store.close()


def test_sizes_of_batches_do_not_matter(path: Path) -> None:
    store = TraceStore(path)
    records = [exchange() for _ in range(store_module.ROWS_PER_STATEMENT * 2 + 7)]
    store.write(rows(*records))
    store.write(rows(exchange()))
    assert count(path, "exchanges") == count(path, "runs") == len(records) + 1
    store.close()


def test_run_sums_its_exchanges_over_batches_and_restarts(path: Path) -> None:
    run = "ab" * 16
    for batch in ([chat(trace_id=run), chat(trace_id=run, effect="deny")], [exchange(trace_id=run, error="denied")]):
        store = TraceStore(path)
        store.write(rows(*batch))
        store.close()
    (summary,) = RunStore(path).runs()
    assert (summary.exchanges, summary.errors, summary.effect) == (3, 1, "deny")
    assert (summary.input_tokens, summary.output_tokens, summary.cost, summary.unpriced) == (2_000, 200, 1.0, 0)


def test_two_writers_number_their_runs_apart(path: Path) -> None:
    """Workers share the file: neither may take the other's number for a new run, or lose a run that both know."""
    shared = "cd" * 16
    first, second = TraceStore(path), TraceStore(path)
    for _ in range(3):
        first.write(rows(exchange(), exchange(trace_id=shared)))
        second.write(rows(exchange(), exchange(trace_id=shared)))
    first.close()
    second.close()
    summaries = RunStore(path).runs()
    assert len(summaries) == 7
    assert {summary.exchanges for summary in summaries if summary.trace_id == shared} == {6}
    assert len({summary.cursor for summary in summaries}) == 7


def test_failed_batch_leaves_nothing_behind(path: Path) -> None:
    store = TraceStore(path)
    twin = exchange()
    with pytest.raises(sqlite3.IntegrityError):
        store.write(rows(exchange(), twin, exchange(id=twin.id)))
    assert count(path, "exchanges") == count(path, "runs") == 0
    store.write(rows(exchange()))
    assert count(path, "runs") == 1
    store.close()


def test_forgotten_run_is_known_again_when_it_comes_back(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "KNOWN_RUNS_MAX", 2)
    store = TraceStore(path)
    records = [exchange() for _ in range(5)]
    store.write(rows(*records))
    store.write(rows(*(exchange(trace_id=record.trace_id) for record in records)))
    assert {summary.exchanges for summary in RunStore(path).runs()} == {2}
    store.close()


def test_content_is_forgotten_before_metadata(path: Path) -> None:
    store = TraceStore(path)
    old = [exchange(started_s=STARTED_S - age * DAY_S) for age in (100, 40, 20)]
    new = exchange()
    store.write(rows(*old, new, body=zstandard.compress(b"text")))
    rule = Retention(content_days=14, metadata_days=56)
    while store.prune(rule, now=STARTED_S):
        pass
    reader = RunStore(path)
    assert reader.exchange(old[0].id) is None
    assert reader.run(old[0].trace_id) is None
    assert [reader.exchange(record.id) is not None for record in (old[1], old[2], new)] == [True] * 3
    assert (count(path, "payloads"), count(path, "exchanges"), count(path, "runs")) == (1, 3, 3)
    store.close()


def test_metadata_lives_four_times_as_long_unless_said_otherwise(path: Path) -> None:
    store = TraceStore(path)
    store.write(rows(exchange(started_s=STARTED_S - 39 * DAY_S), exchange(started_s=STARTED_S - 41 * DAY_S)))
    while store.prune(Retention(content_days=10), now=STARTED_S):
        pass
    assert count(path, "exchanges") == 1
    store.close()


def test_run_with_younger_exchanges_outlives_its_oldest(path: Path) -> None:
    store = TraceStore(path)
    run = "ab" * 16
    store.write(rows(exchange(trace_id=run, started_s=STARTED_S - 100 * DAY_S), exchange(trace_id=run)))
    while store.prune(Retention(), now=STARTED_S):
        pass
    tree = RunStore(path).run(run)
    assert tree is not None and len(tree.roots) == 1
    store.close()


def test_size_is_kept_by_dropping_oldest_content_in_small_batches(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "PRUNE_ROWS", 10)
    store = TraceStore(path)
    store.write(rows(*(exchange() for _ in range(50)), body=b"x" * 20_000))
    rule = Retention(bytes_max=500_000)
    gone = []
    while batch := store.prune(rule, now=STARTED_S):
        gone.append(batch)
    assert set(gone) == {10}
    assert 0 < count(path, "payloads") < 30
    assert count(path, "exchanges") == 50
    connection = schema.open_reader(path)
    kept = [seq for (seq,) in connection.execute("SELECT seq FROM payloads")]
    connection.close()
    assert max(kept) == 50  # the newest
    store.close()


def test_size_that_content_cannot_meet_takes_metadata(path: Path) -> None:
    store = TraceStore(path)
    store.write(rows(*(exchange() for _ in range(2_000))))
    while store.prune(Retention(bytes_max=400_000), now=STARTED_S):
        pass
    assert 0 < count(path, "exchanges") < 2_000
    assert count(path, "runs") == count(path, "exchanges")
    store.write(rows(exchange()))
    store.close()


def test_file_that_is_no_database_is_not_touched(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"this is not a database, but somebody's notes\n" * 100)
    with pytest.raises(sqlite3.DatabaseError):
        TraceStore(path).open()
    assert path.read_bytes().startswith(b"this is not")


def test_foreign_database_is_refused(path: Path) -> None:
    path.parent.mkdir()
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE notes (text)")
    other.close()
    with pytest.raises(schema.StoreError, match="has version 0"):
        TraceStore(path).open()


def test_masked_is_what_the_masker_returned() -> None:
    # NewType is bytes at run time; this keeps the import honest where mypy is not run.
    assert Masked(b"x") == b"x"
