"""The audit log writes whole lines, or says that it could not."""

from __future__ import annotations

import json
import os
import stat
import threading
from pathlib import Path

import pytest

from gateway.core.errors import StoreError
from gateway.traces import AuditLog


def lines(path: Path) -> list[object]:
    return [json.loads(line) for line in path.read_bytes().splitlines() if line]


def test_entries_are_json_lines_that_only_the_owner_reads(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "state" / "audit.jsonl")
    log.write({"event": "decision", "action": "bank.transfer"})
    log.write({"event": "claim", "held": "act-1"})
    path = tmp_path / "state" / "audit.jsonl"
    assert lines(path) == [{"event": "decision", "action": "bank.transfer"}, {"event": "claim", "held": "act-1"}]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    log.close()


def test_a_line_is_one_write_to_an_appending_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = AuditLog(tmp_path / "audit.jsonl")
    written: list[bytes] = []
    true_write = os.write
    monkeypatch.setattr(os, "write", lambda file, data: written.append(data) or true_write(file, data))
    log.write({"event": "decision"})
    assert written == [b'{"event":"decision"}\n']
    log.close()


def test_two_logs_on_one_file_do_not_overwrite_each_other(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    logs = [AuditLog(path), AuditLog(path)]
    threads = [
        threading.Thread(target=lambda log=log, n=n: [log.write({"log": n, "i": i}) for i in range(300)])
        for n, log in enumerate(logs)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(lines(path)) == 600
    for log in logs:
        log.close()


def test_full_file_gets_a_number_and_nothing_is_deleted(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit.jsonl", rotate_bytes=200)
    for i in range(50):
        log.write({"i": i})
    names = sorted((path.name for path in tmp_path.glob("audit.jsonl.*") if path.suffix != ".lock"), key=_number)
    found = [entry for name in [*names, "audit.jsonl"] for entry in lines(tmp_path / name)]
    assert len(names) > 1
    assert found == [{"i": i} for i in range(50)]
    log.close()


def _number(name: str) -> int:
    return int(name.rsplit(".", 1)[1])


def test_worker_whose_file_another_rotated_goes_on_without_losing_a_line(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    first, second = AuditLog(path, rotate_bytes=100), AuditLog(path, rotate_bytes=100)
    for i in range(40):
        (first if i % 3 else second).write({"i": i})
    everything = [entry for file in tmp_path.glob("audit.jsonl*") if file.suffix != ".lock" for entry in lines(file)]
    assert sorted(entry["i"] for entry in everything) == list(range(40))  # type: ignore[index]
    first.close()
    second.close()


def test_full_disk_raises_and_spoils_one_line_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "audit.jsonl"
    log = AuditLog(path)
    true_write = os.write
    monkeypatch.setattr(os, "write", lambda file, data: true_write(file, data[:5]))
    with pytest.raises(StoreError, match="half a line"):
        log.write({"event": "decision"})
    monkeypatch.setattr(os, "write", true_write)
    log.write({"event": "next"})
    assert path.read_bytes().splitlines() == [b'{"eve', b'{"event":"next"}']
    log.close()


def test_half_a_line_of_a_crash_spoils_only_itself(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_bytes(b'{"event":"old"}\n{"ev')
    log = AuditLog(path)
    log.write({"event": "new"})
    assert path.read_bytes().splitlines()[-1] == b'{"event":"new"}'
    log.close()


def test_error_of_the_disk_is_a_store_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = AuditLog(tmp_path / "audit.jsonl")

    def full(file: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(StoreError, match="no space left on device") as raised:
        log.write({"event": "decision", "secret": "s3cret"})
    assert raised.value.code == "audit_unavailable"
    assert "s3cret" not in raised.value.message
    log.close()


def test_log_that_cannot_be_opened_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "audit.jsonl").mkdir()
    with pytest.raises(StoreError, match="cannot be opened"):
        AuditLog(tmp_path / "audit.jsonl")


def test_entry_without_json_form_is_a_store_error(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit.jsonl")
    with pytest.raises(StoreError, match="no JSON form"):
        log.write({"action": "\ud800"})
    log.close()


def test_closed_log_opens_again_for_the_next_entry(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit.jsonl")
    log.close()
    log.write({"event": "decision"})
    assert lines(tmp_path / "audit.jsonl") == [{"event": "decision"}]
    log.close()
