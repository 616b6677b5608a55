"""The connections of one target: which are idle, how many there may be, and who waits for one. Opens none itself."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from gateway.proxy.connection import Connection
from gateway.proxy.upstream import PoolLimits, Target, request_line_tail


@dataclass(slots=True)
class PoolStats:
    """Counts since the pool was made, for metrics; `open`, `idle` and `waiting` are as of now."""

    requests: int = 0
    reused: int = 0
    dialled: int = 0
    resent: int = 0
    refused_idle: int = 0  # idle connections that turned out dead at the check before reuse
    open: int = 0
    idle: int = 0
    waiting: int = 0


class Lane:
    """The connections of one target, and who waits for one. Implements `connection.Keeper`."""

    __slots__ = ("closing", "idle", "limits", "lost", "open", "stats", "tail", "target", "waiters")

    def __init__(
        self, target: Target, limits: PoolLimits, stats: PoolStats, lost: Callable[[Connection], None]
    ) -> None:
        self.target = target
        self.tail = request_line_tail(target)
        self.limits = limits
        self.stats = stats
        self.lost = lost
        self.open = 0  # connections and dials under way: never more than `connections_max`
        self.idle: list[Connection] = []  # the last one used is taken first, so that the surplus expires
        self.waiters: deque[asyncio.Future[Connection | None]] = deque()
        self.closing = False

    def take(self) -> Connection | None:
        """An idle connection that is alive, if there is one."""
        while self.idle:
            connection = self.idle.pop()
            if connection.usable():
                return connection
            self.stats.refused_idle += 1
            connection.close()
        return None

    def free(self, connection: Connection) -> None:
        if self.closing:
            connection.close()
            return
        connection.deadline = connection.loop.time() + connection.idle_max_s
        if not (self.waiters and self._grant(connection)):
            self.idle.append(connection)

    def gone(self, connection: Connection) -> None:
        if connection in self.idle:
            self.idle.remove(connection)
        self.release()

    def release(self) -> None:
        """One connection fewer: its place goes to the first who waits, who dials."""
        if not (self.waiters and self._grant(None)):
            self.open -= 1

    def give_back(self, granted: Connection | None) -> None:
        """Return what was granted to a waiter that no longer wants it."""
        if granted is None:
            self.release()
        elif not granted.closed:
            self.free(granted)

    def _grant(self, granted: Connection | None) -> bool:
        while self.waiters:
            waiter = self.waiters.popleft()
            if not waiter.done():
                waiter.set_result(granted)
                return True
        return False
