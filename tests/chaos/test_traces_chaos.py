"""The trace store under SIGKILL, a full disk and a store that cannot be written."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gateway.traces import Recorder, RecorderLimits, RunStore, TraceStore, flatten
from tests.trace_records import exchange, mask, recording

ROOT = Path(__file__).parents[2]


def start(path: Path, first: int, bytes_max: int = 0) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.chaos.traces_process", str(path), str(first), str(bytes_max)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def test_sigkill_loses_what_was_not_flushed_and_corrupts_nothing(tmp_path: Path) -> None:
    path = tmp_path / "traces.db"
    acknowledged = 0
    for round_ in range(3):
        process = start(path, 1_500)
        assert process.stdout is not None
        assert process.stdout.readline() == "flushed True 1500\n"
        acknowledged += 1_500
        for _ in range(3):
            assert process.stdout.readline() == "flushed more\n"
            acknowledged += 500
        process.kill()
        process.wait()
        process.stdout.close()
        with recording(path) as recorder:  # the next gateway finds a whole store and goes on
            recorder.put(exchange())
        acknowledged += 1
        checker = sqlite3.connect(path)
        assert checker.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert _count(checker) >= acknowledged, round_
        orphans = "SELECT count(*) FROM payloads WHERE seq NOT IN (SELECT seq FROM exchanges)"
        assert checker.execute(orphans).fetchone() == (0,)
        torn = "SELECT count(*) FROM runs WHERE exchanges <> (SELECT count(*) FROM exchanges WHERE run = runs.id)"
        assert checker.execute(torn).fetchone() == (0,)
        checker.close()
    (newest,) = RunStore(path).runs(limit=1)
    tree = RunStore(path).run(newest.trace_id)
    assert tree is not None
    assert len(list(flatten(tree.roots))) == 1


def _count(connection: sqlite3.Connection) -> int:
    found: int = connection.execute("SELECT count(*) FROM exchanges").fetchone()[0]
    return found


def test_full_disk_costs_records_which_are_counted_and_nothing_else(tmp_path: Path) -> None:
    process = start(tmp_path / "traces.db", 3_000, 600_000)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    lines = dict(line.split(" ", 1) for line in output.splitlines())
    assert lines["flushed"].startswith("False")
    put, dropped, failures, failing = lines["counts"].split(" ", 3)
    assert put == "100"
    assert int(dropped) >= 90
    assert failures == "True"
    assert "OperationalError" in failing
    assert lines["closed"] == "0"
    assert lines["audit"] == "audit_unavailable"
    checker = sqlite3.connect(tmp_path / "traces.db")
    assert checker.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    checker.close()


def test_store_that_becomes_writable_again_takes_what_waited(tmp_path: Path) -> None:
    path = tmp_path / "traces.db"
    path.mkdir()  # stands in the way
    recorder = Recorder(TraceStore(path), mask, limits=RecorderLimits(records_max=10))
    recorder.start()
    for _ in range(15):
        recorder.put(exchange())
    assert not recorder.flush(0.3)
    counts = recorder.counts()
    assert (counts.put, counts.stored, counts.queued, counts.dropped) == (15, 0, 10, 5)
    assert counts.store_failures > 0
    assert counts.failing is not None
    path.rmdir()
    assert recorder.flush(20)
    counts = recorder.close()
    assert (counts.stored, counts.dropped, counts.failing) == (10, 5, None)
    assert len(RunStore(path).runs()) == 10


def test_read_only_store_is_counted_and_close_does_not_hang(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "traces.db"
    with recording(path) as recorder:
        recorder.put(exchange())
    store = TraceStore(path)
    store.open()
    assert store._connection is not None
    store._connection.execute("PRAGMA query_only = ON")
    open_ = store.open

    def read_only() -> None:
        open_()
        assert store._connection is not None
        store._connection.execute("PRAGMA query_only = ON")

    store.open = read_only  # type: ignore[method-assign]
    recorder = Recorder(store, mask)
    recorder.start()
    recorder.put(exchange())
    assert not recorder.flush(0.3)
    began = time.monotonic()
    counts = recorder.close()
    assert time.monotonic() - began < 5
    assert (counts.stored, counts.dropped) == (0, 1)
    assert caplog.text.count("does not take records") == 1
    assert len(RunStore(path).runs()) == 1


def test_two_processes_share_one_store(tmp_path: Path) -> None:
    path = tmp_path / "traces.db"
    processes = [start(path, 2_000) for _ in range(2)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "flushed True 2000\n"
    for process in processes:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
    checker = sqlite3.connect(path)
    assert checker.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert _count(checker) >= 4_000
    checker.close()
