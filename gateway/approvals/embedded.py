"""The Redis that the gateway starts by itself, so that one command is enough and nothing acknowledged is lost.

Owns a server process on a unix socket in the state folder: finding its binary, starting, adopting one that survived
its gateway, restarting it when it dies, stopping it. Knows nothing of what is stored. The settings of the server are
measured ones (FACTS section 2); `docs/adr/0002-approval-queue.md` says what each buys.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import hiredis

from gateway.approvals.link import pack
from gateway.approvals.server_binary import ServerBinary, find_server
from gateway.approvals.server_folder import ServerFolder, StateLock
from gateway.core.errors import StoreError

log = logging.getLogger(__name__)

START_TIMEOUT_S = 30.0
"""Until it answers. A start takes 50 ms; loading 100,000 held actions takes seconds on a slow disk."""

STOP_TIMEOUT_S = 10.0
"""Until it is gone after SHUTDOWN. Everything is on disk already, so there is little to do."""

RESTART_PAUSE_S = (0.05, 5.0)
"""First and longest pause before it is started again: a server that cannot start must not spin."""

POLL_S = 0.005
"""Between looks at a starting or stopping server: a tenth of the time that a start takes."""

CLIENTS_MAX = 1_000
"""Connections. A gateway process uses two or three."""


class EmbeddedRedis:
    """A durable server for one state folder. `start` and `stop` block; `supervise` runs beside the gateway.

    The folder is held by a file lock for as long as this object is started, so two gateways never share one. The
    server holds a second lock for as long as it lives, so two servers never write one append-only file.
    """

    def __init__(self, state_dir: Path, *, binary: str | None = None) -> None:
        self._folder = ServerFolder(state_dir.absolute() / "redis")
        self._explicit = binary
        self._binary: ServerBinary | None = None
        self._own = StateLock(self._folder.path / "gateway.lock")
        self._child: subprocess.Popen[bytes] | None = None
        self._busy = threading.Lock()  # `supervise` starts in a thread; `stop` must not pass it half way
        self._stopping = False
        self.pid: int | None = None

    @property
    def url(self) -> str:
        return f"unix://{self._folder.socket_path()}?db=0"

    def start(self) -> str:
        """The URL of a running server: one that survived its gateway is adopted, else one is started.

        Raises StoreError: `store_in_use` when another gateway has the folder, `store_no_server` when there is no server
        of version 7 or newer, `store_start_failed` when it does not come up.
        """
        self._folder.make()
        if not self._own.take():
            raise StoreError(
                "store_in_use", "another gateway runs with this state folder; stop it or set another folder"
            )
        self._stopping = False
        try:
            self.revive()
        except BaseException:
            self._own.release()
            raise
        return self.url

    def stop(self) -> None:
        """Stop the server, wait until it is gone, and let the folder go. Nothing to do twice."""
        self._stopping = True
        with self._busy:
            if not self._own.held:
                return
            try:
                _ask(self._folder.socket_path(), "SHUTDOWN", "NOSAVE")
            except (OSError, StoreError):
                log.warning("the embedded redis did not take SHUTDOWN")
            gone = self.await_death()
            if not gone and self._child is not None:
                self._child.kill()  # acknowledged writes are on disk: `appendfsync always`
                gone = self.await_death()
            if gone:
                self._folder.clear_socket()
            else:
                log.error("the embedded redis, pid %s, does not stop; the next gateway will adopt it", self.pid)
            self.pid = None
            self._own.release()

    def revive(self) -> None:
        """Start the server again if it has died. Blocks until it answers; raises StoreError as `start` does."""
        with self._busy:
            try:
                self._ensure()
            except OSError as error:  # no room for the log, no more descriptors, the binary is gone
                raise StoreError(
                    "store_start_failed", f"the embedded redis cannot be started ({type(error).__name__})"
                ) from error

    async def supervise(self) -> None:
        """Start the server again whenever it dies. Runs until cancelled or stopped; never raises StoreError."""
        pause, longest = RESTART_PAUSE_S
        while not self._stopping:
            await self._until_closed()
            if self._stopping:
                return
            try:
                await asyncio.to_thread(self.revive)
                pause = RESTART_PAUSE_S[0]
            except StoreError as error:
                log.error("the embedded redis does not come back: %s", error.message)
                await asyncio.sleep(pause)
                pause = min(pause * 2, longest)

    async def _until_closed(self) -> None:
        # End of file on an idle connection is the death notice: it also works for an adopted server, which is not our
        # child, and it comes at once.
        try:
            reader, writer = await asyncio.open_unix_connection(str(self._folder.socket_path()))
        except OSError:
            return
        try:
            await reader.read()
        except OSError:
            return
        finally:
            writer.close()

    def _ensure(self) -> None:
        """Adopt or start. Blocks until it answers."""
        deadline = time.monotonic() + START_TIMEOUT_S
        guard = StateLock(self._folder.path / "server.lock")
        while not guard.take():
            # A server of this folder lives, or is just dying: it holds the lock until its last breath.
            if self._adopt():
                return
            if time.monotonic() > deadline:
                raise StoreError(
                    "store_start_failed", "a redis of this state folder lives but does not answer; stop it"
                )
            time.sleep(POLL_S)
        self._reap()
        if self._stopping:
            guard.release()
            return
        try:
            self._launch(guard)
        finally:
            guard.close()  # the server inherited it: the lock stays until the server is gone
        while not self._answers():
            if self._child is None or self._child.poll() is not None or time.monotonic() > deadline:
                tail = "see redis.log in the state folder"
                raise StoreError("store_start_failed", f"the embedded redis did not start; {tail}")
            time.sleep(POLL_S)
        self.pid = self._child.pid if self._child else None

    def _launch(self, guard: StateLock) -> None:
        if self._binary is None:
            self._binary = find_server(self._explicit)
        self._folder.choose_socket()
        log = os.open(self._folder.path / "redis.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with os.fdopen(log, "ab") as output:
            self._child = subprocess.Popen(  # noqa: S603 - the operator's binary with arguments of our own
                [str(self._binary.path), *self._arguments()],
                cwd=self._folder.path,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(guard.fileno(),),
                start_new_session=True,  # a Ctrl-C in the terminal is for the gateway, which then stops it in order
                umask=0o077,  # its files hold arguments unmasked; a copy of the folder keeps their modes
                env={"PATH": os.defpath, "LC_ALL": "C"},  # keys of upstreams are none of its business
            )

    def _arguments(self) -> list[str]:
        settings = {
            "port": "0",
            "unixsocket": str(self._folder.socket_path()),
            "unixsocketperm": "700",
            "dir": str(self._folder.path),
            "daemonize": "no",
            "loglevel": "warning",
            "save": "",
            "appendonly": "yes",
            "appendfsync": "always",  # acknowledged means fsynced
            "aof-use-rdb-preamble": "no",  # readable by every other server of version 7 and newer
            "maxmemory-policy": "noeviction",  # full means an error, never a lost action
            "maxclients": str(CLIENTS_MAX),
        }
        return [word for name, value in settings.items() for word in (f"--{name}", value)]

    def _adopt(self) -> bool:
        """Whether the server that holds the folder answers as one of ours with the durable settings."""
        at = self._folder.socket_path()
        try:
            facts = _ask(at, "INFO", "server")
            config = _ask(at, "CONFIG", "GET", "append*")
        except (OSError, StoreError):
            return False
        settings = dict(zip(config[::2], config[1::2], strict=True))
        if settings.get(b"appendonly") != b"yes" or settings.get(b"appendfsync") != b"always":
            raise StoreError("store_start_failed", "the redis of this state folder is not durable; stop it")
        pid = re.search(rb"process_id:(\d+)", facts)
        self.pid = int(pid[1]) if pid else None
        if self._child is None or self._child.pid != self.pid:
            log.info("adopted the running redis, pid %s", self.pid)
        return True

    def _reap(self) -> None:
        # Its locks end a moment before it does. Asking for its status is what lets the system forget it.
        if self._child is not None:
            self._child.wait(STOP_TIMEOUT_S)
            self._child = None

    def _answers(self) -> bool:
        try:
            return bool(_ask(self._folder.socket_path(), "PING") == b"PONG")
        except (OSError, StoreError):
            return False

    def await_death(self, timeout_s: float = STOP_TIMEOUT_S) -> bool:
        """Whether no server of this folder lives any more, within the time. Blocks; the lock is the witness."""
        deadline = time.monotonic() + timeout_s
        guard = StateLock(self._folder.path / "server.lock")
        while True:
            if guard.take():
                guard.release()
                self._reap()
                return True
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_S)


def _ask(path: Path, *words: str) -> Any:
    """One command on a connection of its own. Raises OSError or StoreError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(1.0)
        sock.connect(str(path))
        sock.sendall(pack(words))
        reader = hiredis.Reader()
        while (reply := reader.gets()) is False:
            data = sock.recv(65536)
            if not data:
                return b""  # SHUTDOWN is answered by silence
            reader.feed(data)
    if isinstance(reply, hiredis.ReplyError):
        raise StoreError("store_refused", f"the embedded redis refused `{words[0]}`")
    return reply
