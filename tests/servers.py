"""Throwaway Redis servers for tests: real ones, on a unix socket in a temporary folder, stopped by pid.

Other rooms use the fixture `redis_url` of `tests/conftest.py`; tests that kill servers use `throwaway` themselves.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import hiredis

from gateway.approvals.embedded import EmbeddedRedis
from gateway.approvals.endpoint import parse_url

DEBIAN_REDIS = shutil.which("redis-server")


class Throwaway:
    """A running server. `kill` is SIGKILL; `restart` starts it again on the same folder and URL."""

    def __init__(self, folder: Path, binary: str | None) -> None:
        self.state_dir = folder
        self.server = EmbeddedRedis(folder, binary=binary)
        self.url = self.server.start()

    @property
    def pid(self) -> int:
        assert self.server.pid is not None
        return self.server.pid

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        self.server.await_death()

    def restart(self) -> None:
        self.server.revive()

    def flush(self) -> None:
        ask(self.url, "FLUSHALL")


@contextmanager
def throwaway(binary: str | None = None) -> Iterator[Throwaway]:
    """A durable server as the gateway starts it: the embedded one, or `binary` (such as DEBIAN_REDIS)."""
    folder = Path(tempfile.mkdtemp(prefix="gw-test-"))
    running = Throwaway(folder, binary)
    try:
        yield running
    finally:
        running.server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def ask(url: str, *words: str) -> object:
    """One command, without an event loop."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(10)
        sock.connect(parse_url(url).path)
        sock.sendall(hiredis.pack_command(words))
        reader = hiredis.Reader()
        while (reply := reader.gets()) is False:
            data = sock.recv(65536)
            assert data, "the server closed the connection"
            reader.feed(data)
    if isinstance(reply, hiredis.ReplyError):
        raise reply
    return reply
