"""The folder of the embedded server: who may enter, where its socket is, and the locks in it. Starts nothing."""

from __future__ import annotations

import fcntl
import os
import stat
import tempfile
from pathlib import Path

from gateway.core.errors import StoreError

SOCKET_PATH_BYTES_MAX = 100
"""`sun_path` holds 104 bytes on macOS and 108 on Linux, the closing zero included."""


class StateLock:
    """An advisory lock on a file; it ends with its last holder, however that dies."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd: int | None = None

    @property
    def held(self) -> bool:
        return self._fd is not None

    def take(self) -> bool:
        """Whether the lock is ours now; never waits."""
        if self._fd is not None:
            return True
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return False
        self._fd = fd
        return True

    def fileno(self) -> int:
        assert self._fd is not None
        return self._fd

    def close(self) -> None:
        """Close our descriptor; a child that inherited it keeps the lock."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def release(self) -> None:
        """End the lock for everyone who inherited it too."""
        if self._fd is not None:
            fcntl.flock(self._fd, fcntl.LOCK_UN)
            self.close()


class ServerFolder:
    """`redis/` in the state folder: mode 0700, so that the socket and the file are for this user alone."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._note = path / "socket-folder"

    def make(self) -> None:
        """Make it if need be. Raises StoreError where it belongs to someone else or cannot be made."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not _private(self.path):
                self.path.chmod(0o700)
        except OSError as error:
            raise StoreError(
                "store_start_failed", f"the state folder cannot be used ({type(error).__name__}); check its owner"
            ) from None

    def socket_path(self) -> Path:
        """Where the server listens: in the folder, or in the private one noted by `choose_socket`."""
        inside = self.path / "redis.sock"
        if len(os.fsencode(inside)) <= SOCKET_PATH_BYTES_MAX:
            return inside
        try:
            return Path(self._note.read_text("utf-8")) / "redis.sock"
        except OSError:
            return inside

    def choose_socket(self) -> None:
        """Note a short private folder where the path in the state folder is too long for a socket."""
        inside = self.path / "redis.sock"
        if len(os.fsencode(inside)) <= SOCKET_PATH_BYTES_MAX or _private(self.socket_path().parent, here=self.path):
            return
        # /tmp by name: TMPDIR may itself be long. mkdtemp makes a folder that nobody else can have prepared.
        self._note.write_text(tempfile.mkdtemp(prefix="gateway-", dir="/tmp"), "utf-8")

    def clear_socket(self) -> None:
        """Remove what a stopped server leaves behind."""
        at = self.socket_path()
        at.unlink(missing_ok=True)
        if at.parent != self.path and _private(at.parent):
            at.parent.rmdir()
            self._note.unlink(missing_ok=True)


def _private(folder: Path, *, here: Path | None = None) -> bool:
    """Whether it is a folder of ours that nobody else may enter, and not the one given as `here`."""
    if folder == here:
        return False
    try:
        status = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and stat.S_IMODE(status.st_mode) & 0o077 == 0
