"""The audit log: one JSON line per intent and decision, written before the gateway acts.

Entries hold ids, digests and decisions, never argument values or text. A line reaches the kernel in one `os.write` to a
file opened with O_APPEND, so it survives a SIGKILL of the gateway and workers may share the file. It is not synced to
the disk line by line: a power cut may take the last moments.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Mapping
from pathlib import Path

import orjson

from gateway.core.canonical import JSON
from gateway.core.errors import StoreError

ROTATE_BYTES = 100_000_000  # a file that `grep` and `less` still handle with ease


class AuditLog:
    """Appends to `path`; when it has grown to `rotate_bytes` it becomes `path.1`, `path.2`, ... and a new one begins.

    Old files are never deleted here: how long an audit is kept is the operator's to say. Safe from any thread.
    Raises StoreError `audit_unavailable` when the file cannot be opened or a line cannot be written whole.
    """

    def __init__(self, path: Path, *, rotate_bytes: int = ROTATE_BYTES) -> None:
        self._path = path
        self._rotate_bytes = rotate_bytes
        self._lock = threading.Lock()
        self._file = -1
        self._size = 0
        self._torn = False
        self._open()

    def write(self, entry: Mapping[str, JSON]) -> None:
        """Append one entry. When this returns the kernel has the line; when it raises, do not act."""
        try:
            line = orjson.dumps(entry, option=orjson.OPT_APPEND_NEWLINE)
        except TypeError:
            raise StoreError("audit_unavailable", "the audit entry has no JSON form; nothing was done") from None
        with self._lock:
            if self._file < 0:
                self._open()
            if self._size >= self._rotate_bytes:
                self._rotate()
            if self._torn:  # end the half line that a full disk or a crash left, so that it spoils only itself
                line = b"\n" + line
            try:
                written = os.write(self._file, line)
            except OSError as error:
                raise _unavailable("written", error) from None
            self._size += written
            self._torn = written != len(line)
            if self._torn:
                raise StoreError("audit_unavailable", "the audit log took half a line; free some disk space")

    def close(self) -> None:
        with self._lock:
            if self._file >= 0:
                os.close(self._file)
            self._file = -1

    def _open(self) -> None:
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._size = os.fstat(self._file).st_size
            self._torn = self._size > 0 and os.pread(self._file, 1, self._size - 1) != b"\n"
        except OSError as error:
            raise _unavailable("opened", error) from None

    def _rotate(self) -> None:
        """Give the file its number and begin a new one, unless another worker just did. A failure to rename is not a
        failure to record: the old file goes on growing."""
        try:
            lock = os.open(
                self._path.with_name(self._path.name + ".lock"), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600
            )
        except OSError:
            return
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            mine, named = os.fstat(self._file), self._path.stat()
            if (mine.st_dev, mine.st_ino) == (named.st_dev, named.st_ino):
                self._path.rename(self._numbered())
        except OSError:
            return
        finally:
            os.close(lock)
        os.close(self._file)
        self._file = -1
        self._open()

    def _numbered(self) -> Path:
        """The next free number; larger is newer."""
        prefix = self._path.name + "."
        tails = (path.name.removeprefix(prefix) for path in self._path.parent.glob(f"{prefix}*"))
        return self._path.with_name(f"{prefix}{max((int(tail) for tail in tails if tail.isdigit()), default=0) + 1}")


def _unavailable(what: str, error: OSError) -> StoreError:
    return StoreError("audit_unavailable", f"the audit log cannot be {what} ({os.strerror(error.errno or 0).lower()})")
