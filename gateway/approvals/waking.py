"""Who waits for which held action, and the one reader per process that wakes them.

Waiters do not poll: a waiter is a future in a table. The reader follows the stream of changes on a connection of its
own; after an outage it goes on where it stopped, and whatever it may have missed makes everybody look again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

from gateway.approvals.link import RedisLink
from gateway.core.errors import StoreError
from gateway.core.held import State

log = logging.getLogger(__name__)

WAITERS_MAX = 20_000
"""In this process. 10,000 were measured at under 5 kB each, task and all, and one is woken 1 ms after its decision; the
agent's open request behind each costs three times as much."""

SUBSCRIBERS_MAX = 1_000
"""Open inboxes in this process, and the executor. A person has a few tabs."""

BACKLOG_MAX = 1_024
"""Changes a subscriber may fall behind; then it is told to read its lists again, which is cheaper than catching up."""

READ_COUNT = 1_000
BLOCK_S = 5.0
"""How long one XREAD waits at the server. Bounded so that a connection that died silently is noticed."""

RETRY_S = 0.2
"""Between reads while the store is away; the link itself backs off between attempts to connect."""


class Change(NamedTuple):
    """An action reached a state. With an empty id: changes were missed, read your lists again."""

    id: str
    state: State | None


MISSED = Change("", None)


@dataclass(frozen=True, slots=True, eq=False)
class _Waiter:
    until: Collection[State]
    woken: asyncio.Future[None]


class Changes(AsyncIterator[Change]):
    """Every change from the moment it was made. Close it, or use it as a context manager."""

    def __init__(self, leave: Callable[[Changes], None]) -> None:
        self._leave = leave
        self._backlog: deque[Change] = deque()
        self._arrived = asyncio.Event()
        self._closed = False

    async def __anext__(self) -> Change:
        while not self._backlog:
            if self._closed:
                raise StopAsyncIteration
            self._arrived.clear()
            await self._arrived.wait()
        return self._backlog.popleft()

    def __enter__(self) -> Changes:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._closed = True
        self._arrived.set()
        self._leave(self)

    def _push(self, change: Change) -> None:
        if len(self._backlog) >= BACKLOG_MAX:
            self._backlog.clear()
            change = MISSED
        self._backlog.append(change)
        self._arrived.set()


class Waker:
    """The table of waiters and subscribers, and the task that reads the stream of changes."""

    def __init__(self, link: RedisLink, stream: str) -> None:
        self._link = link  # for the blocking read alone: commands of others would wait behind it
        self._stream = stream
        self._waiters: dict[str, set[_Waiter]] = {}
        self.waiting = 0  # how many, for the bound and for metrics
        self._subscribers: set[Changes] = set()
        self._task: asyncio.Task[None] | None = None
        self._position: bytes | None = None
        self._number: int | None = None  # of the last change seen
        self._ready = asyncio.Event()

    async def ready(self) -> None:
        """From here on no change is missed. Raises StoreError when the store does not answer."""
        if self._position is None:
            await self._find_position()
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._read(), name="held-action-changes")

    @contextmanager
    def waiter(self, action_id: str, until: Collection[State]) -> Iterator[asyncio.Future[None]]:
        """A future that is done when the action reaches one of the states, or may have. `ready` comes first."""
        if self.waiting >= WAITERS_MAX:
            raise StoreError("store_overloaded", "too many requests wait for approvals; try again", retry_after_s=30)
        waiter = _Waiter(until, asyncio.get_running_loop().create_future())
        self._waiters.setdefault(action_id, set()).add(waiter)
        self.waiting += 1
        try:
            yield waiter.woken
        finally:
            self.waiting -= 1
            waiters = self._waiters[action_id]
            waiters.discard(waiter)
            if not waiters:
                del self._waiters[action_id]

    def subscribe(self) -> Changes:
        if len(self._subscribers) >= SUBSCRIBERS_MAX:
            raise StoreError("store_overloaded", "too many pages follow the inbox; close some")
        changes = Changes(self._subscribers.discard)
        self._subscribers.add(changes)
        return changes

    async def aclose(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for changes in tuple(self._subscribers):
            changes.close()
        self._wake_all()
        await self._link.aclose()

    async def _find_position(self) -> None:
        newest = await self._link.command("XREVRANGE", self._stream, "+", "-", "COUNT", 1, idempotent=True)
        if self._position is None:  # two may have asked at once
            self._position = newest[0][0] if newest else b"0-0"
            self._number = int(newest[0][1][1]) if newest else 0

    async def _read(self) -> None:
        while True:
            assert self._position is not None
            try:
                streams = await self._link.command(
                    *("XREAD", "COUNT", READ_COUNT, "BLOCK", int(BLOCK_S * 1000), "STREAMS", self._stream),
                    self._position,
                    idempotent=True,
                    timeout_s=BLOCK_S * 2,
                )
            except StoreError as error:
                log.warning("cannot follow the approval queue: %s", error.message)
                await asyncio.sleep(RETRY_S)
                continue
            for position, fields in streams[0][1] if streams else ():
                self._position = position
                self._changed(int(fields[1]), Change(fields[3].decode(), State(fields[5].decode())))

    def _changed(self, number: int, change: Change) -> None:
        missed = number != (self._number or 0) + 1  # trimmed while we were away, or another store altogether
        self._number = number
        if missed:
            log.warning("changes of the approval queue were missed; everybody looks again")
            self._wake_all()
            self._publish(MISSED)
        for waiter in self._waiters.get(change.id, ()):
            if change.state in waiter.until and not waiter.woken.done():
                waiter.woken.set_result(None)
        self._publish(change)

    def _publish(self, change: Change) -> None:
        for changes in self._subscribers:
            changes._push(change)

    def _wake_all(self) -> None:
        for waiters in self._waiters.values():
            for waiter in waiters:
                if not waiter.woken.done():
                    waiter.woken.set_result(None)
