"""One connection to Redis, shared by every coroutine of the process.

Commands of one turn of the event loop leave in one write and their answers come back in order, so a command costs a
fifth of what a pooled client takes (FACTS section 9). Owns reconnection and the rule of what may be sent twice: only
what its caller marked idempotent. Knows nothing of what the commands mean.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, cast

import hiredis

from gateway.approvals.endpoint import Endpoint, parse_url
from gateway.core.errors import StoreError

Arg: TypeAlias = "str | bytes | int | float"

log = logging.getLogger(__name__)

pack: Callable[[tuple[Arg, ...]], bytes] = hiredis.pack_command  # type: ignore[assignment]  # its stub says tuple of one
"""The RESP bytes of one command."""

CALLS_MAX = 16_384
"""Commands not yet answered. 10,000 waiters that wake at once fit; at the 10,000 commands a second that a server with
`appendfsync always` takes, more would time out anyway."""

BYTES_MAX = 64 * 1024 * 1024
"""Bytes of commands not yet answered: what a stalled server may cost this process in memory."""

TIMEOUT_S = 5.0
"""From the call to its answer, reconnecting included. A Sentinel failover takes 2 to 4 s (FACTS section 2)."""

CONNECT_TIMEOUT_S = 2.0
"""One attempt to connect, log in and get a PONG. A server nearby takes milliseconds; a silent host must not hang us."""

BACKOFF_S = (0.02, 1.0)
"""First and longest pause between attempts. Short first: the embedded server is back within 100 ms."""

WATCH_S = 0.1
"""How often deadlines are checked. One timer per link instead of one per command: a timer costs as much as a write."""


class Script:
    """Lua source, and the SHA-1 that Redis knows it by."""

    __slots__ = ("name", "sha", "source")

    def __init__(self, name: str, source: str) -> None:
        self.name = name
        self.source = source
        self.sha = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()


class _Call:
    __slots__ = ("deadline", "future", "idempotent", "packed")

    def __init__(self, packed: bytes, deadline: float, idempotent: bool, future: asyncio.Future[Any]) -> None:
        self.packed = packed
        self.deadline = deadline
        self.idempotent = idempotent
        self.future = future


class _Wire(asyncio.Protocol):
    """The socket's side: answers go to the oldest call in flight."""

    def __init__(self, link: RedisLink) -> None:
        self.link = link
        self.reader = hiredis.Reader()
        self.in_flight: deque[_Call] = deque()
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's are not instances of it

    def data_received(self, data: bytes) -> None:
        reader, in_flight = self.reader, self.in_flight
        reader.feed(data)
        try:
            while (reply := reader.gets()) is not False:
                call = in_flight.popleft()
                self.link._answered(call, reply)
        except (hiredis.ProtocolError, IndexError):
            # Answers without a question, or not RESP at all: nothing read from here on can be matched to a call.
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self.link._lost(self)

    def send(self, calls: Sequence[_Call]) -> None:
        assert self.transport is not None
        self.in_flight.extend(calls)
        self.transport.write(b"".join([call.packed for call in calls]))

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()


class RedisLink:
    """One auto-pipelined connection that reconnects by itself. Belongs to the event loop of its first command.

    Every failure is a StoreError. A command whose connection dies before its answer is sent again only if it was
    marked idempotent; the caller of any other learns that its outcome is unknown.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        timeout_s: float = TIMEOUT_S,
        calls_max: int = CALLS_MAX,
        bytes_max: int = BYTES_MAX,
    ) -> None:
        self.endpoint = endpoint
        self._timeout_s = timeout_s
        self._calls_max = calls_max
        self._bytes_max = bytes_max
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wire: _Wire | None = None  # set once logged in
        self._connecting: asyncio.Task[None] | None = None
        self._away_since: float | None = None
        self._waiting: deque[_Call] = deque()  # not written yet
        self._flush_due = False
        self._calls = 0
        self._bytes = 0
        self._watch: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def connected(self) -> bool:
        return self._wire is not None

    async def command(self, *args: Arg, idempotent: bool = False, timeout_s: float | None = None) -> Any:
        """The answer to one command: bytes, int, None or a list of these. Raises StoreError."""
        reply = await self._send(args, idempotent, timeout_s)
        if isinstance(reply, hiredis.ReplyError):
            raise _refused(reply)
        return reply

    async def script(
        self, script: Script, keys: Sequence[str], args: Sequence[Arg], *, idempotent: bool = False
    ) -> Any:
        """The answer of a script, by its SHA-1; a server that does not know it gets the source. Raises StoreError."""
        reply = await self._send(("EVALSHA", script.sha, len(keys), *keys, *args), idempotent, None)
        if isinstance(reply, hiredis.ReplyError) and str(reply).startswith("NOSCRIPT"):
            # Not run, so sending it again is safe whatever it does.
            reply = await self._send(("EVAL", script.source, len(keys), *keys, *args), idempotent, None)
        if isinstance(reply, hiredis.ReplyError):
            raise _refused(reply)
        return reply

    async def aclose(self) -> None:
        """Give up what is not answered and close. The link cannot be used again."""
        self._closed = True
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.gather(self._connecting, return_exceptions=True)
        if self._watch is not None:
            self._watch.cancel()
        wire, self._wire = self._wire, None
        for call in (*(wire.in_flight if wire else ()), *self._waiting):
            self._fail(call, StoreError("store_closed", "the gateway is stopping; try again"))
        self._waiting.clear()
        if wire is not None:
            wire.in_flight.clear()
            wire.abort()

    # A plain function that returns the future: one coroutine less per command on the hot path.
    def _send(self, args: tuple[Arg, ...], idempotent: bool, timeout_s: float | None) -> asyncio.Future[Any]:
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        now = loop.time()
        if self._closed:
            raise StoreError("store_closed", "the gateway is stopping; try again")
        if self._away_since is not None and now >= self._away_since + self._timeout_s:
            # Known to be away for longer than anyone may wait: say so at once, while attempts go on behind.
            raise StoreError()
        packed = pack(args)
        if self._calls >= self._calls_max or self._bytes + len(packed) > self._bytes_max:
            raise StoreError("store_overloaded", "too many commands wait for the store; try again")
        self._calls += 1
        self._bytes += len(packed)
        future: asyncio.Future[Any] = loop.create_future()
        timeout = self._timeout_s if timeout_s is None else timeout_s
        self._waiting.append(_Call(packed, now + timeout, idempotent, future))
        if self._wire is None:
            self._connect_soon(now)
        elif not self._flush_due:
            self._flush_due = True
            loop.call_soon(self._flush)
        if self._watch is None:
            self._watch = loop.call_later(WATCH_S, self._check_deadlines)
        return future

    def _flush(self) -> None:
        self._flush_due = False
        wire = self._wire
        if wire is None or wire.transport is None or not self._waiting:
            return
        calls: list[_Call] = []
        for call in self._waiting:
            if call.future.done():  # its caller went away before anything was sent
                self._forget(call)
            else:
                calls.append(call)
        self._waiting.clear()
        wire.send(calls)

    def _answered(self, call: _Call, reply: Any) -> None:
        self._forget(call)
        if not call.future.done():
            call.future.set_result(reply)

    def _forget(self, call: _Call) -> None:
        self._calls -= 1
        self._bytes -= len(call.packed)

    def _fail(self, call: _Call, error: StoreError) -> None:
        self._forget(call)
        if not call.future.done():
            call.future.set_exception(error)

    def _lost(self, wire: _Wire) -> None:
        assert self._loop is not None
        if wire is not self._wire:  # still logging in, or closed by us
            for call in wire.in_flight:
                self._fail(call, StoreError())
            wire.in_flight.clear()
            return
        self._wire = None
        again = []
        for call in wire.in_flight:
            if call.idempotent:
                again.append(call)
            else:
                self._fail(call, StoreError("store_lost", "the store went away before it answered"))
        wire.in_flight.clear()
        self._waiting.extendleft(reversed(again))  # before what came later: the order of commands is kept
        if not self._closed:
            log.warning("the connection to redis was lost; %d commands are sent again", len(again))
            self._connect_soon(self._loop.time())

    def _check_deadlines(self) -> None:
        assert self._loop is not None
        self._watch = None
        now = self._loop.time()
        wire = self._wire
        if wire is not None and wire.in_flight and wire.in_flight[0].deadline <= now:
            # Answers come in order: when the oldest is overdue the connection is stuck, and what follows it too.
            self._fail(
                wire.in_flight.popleft(), StoreError("store_timeout", "the store did not answer in time; try again")
            )
            wire.abort()
        overdue = [call for call in self._waiting if call.deadline <= now]
        if overdue:
            self._waiting = deque(call for call in self._waiting if call.deadline > now)
            for call in overdue:
                self._fail(call, StoreError())
        if self._calls:
            self._watch = self._loop.call_later(WATCH_S, self._check_deadlines)

    def _connect_soon(self, now: float) -> None:
        assert self._loop is not None
        if self._connecting is None or self._connecting.done():
            if self._away_since is None:
                self._away_since = now
            self._connecting = self._loop.create_task(self._connect(), name="redis-link-connect")

    async def _connect(self) -> None:
        pause, longest = BACKOFF_S
        said = ""
        while True:
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT_S):
                    wire = await self._open()
                if wire.transport is not None:  # it may have been lost right after its PONG
                    break
            except (OSError, StoreError) as error:
                reason = error.message if isinstance(error, StoreError) else type(error).__name__
                if reason != said:
                    log.warning("cannot reach redis at %s: %s", self.endpoint, reason)
                said = reason
            # Jitter, so that many gateways do not return in step.
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - spreads load, guards nothing
            pause = min(pause * 2, longest)
        self._away_since = None
        self._wire = wire
        self._flush()

    async def _open(self) -> _Wire:
        assert self._loop is not None
        at, wire = self.endpoint, _Wire(self)
        try:
            if at.path:
                await self._loop.create_unix_connection(lambda: wire, at.path)
            else:
                await self._loop.create_connection(lambda: wire, at.host, at.port, ssl=at.ssl_context())
            if at.password is not None:
                login = (at.username, at.password) if at.username else (at.password,)
                await self._greet(wire, "AUTH", *login)
            if at.db:
                await self._greet(wire, "SELECT", at.db)
            await self._greet(wire, "PING")  # a server that still loads its file answers -LOADING: not there yet
        except BaseException:
            wire.abort()
            raise
        return wire

    async def _greet(self, wire: _Wire, *args: Arg) -> None:
        assert self._loop is not None
        if wire.transport is None:
            raise StoreError()
        packed = pack(args)
        call = _Call(packed, 0.0, False, self._loop.create_future())
        self._calls += 1
        self._bytes += len(packed)
        wire.send((call,))
        reply = await call.future
        if isinstance(reply, hiredis.ReplyError):
            raise _refused(reply)


def connect(
    url: str, *, timeout_s: float = TIMEOUT_S, calls_max: int = CALLS_MAX, bytes_max: int = BYTES_MAX
) -> RedisLink:
    """A link to the Redis of a URL; it connects with its first command. Raises ClientError for a URL it cannot read."""
    return RedisLink(parse_url(url), timeout_s=timeout_s, calls_max=calls_max, bytes_max=bytes_max)


def _refused(reply: Exception) -> StoreError:
    # The first word is Redis's error code. The rest may quote arguments, so it does not leave this room.
    code = str(reply).split(" ", 1)[0][:40]
    if code in ("LOADING", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN"):
        return StoreError("store_unavailable", f"the store is not ready (`{code}`); try again")
    return StoreError("store_refused", f"the store refused a command (`{code}`)")
