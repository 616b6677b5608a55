"""The connection pool to upstreams: HTTP/1.1, kept alive, bounded per target, one write per request.

The promise is at most one dispatch: a request is sent again only when its method is safe, its connection had been idle,
and not one byte came back. No redirect is ever followed and no proxy variable is read. One coarse timer serves all
deadlines; a request costs no task and no timer of its own.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Callable
from math import inf

from gateway.proxy.connection import Connection
from gateway.proxy.lane import Lane, PoolStats
from gateway.proxy.response import Response
from gateway.proxy.upstream import (
    SAFE_METHODS,
    Headers,
    Phase,
    PoolLimits,
    Target,
    Timeouts,
    UpstreamFailure,
    encode_request,
)

__all__ = ["Address", "Phase", "Pool", "PoolLimits", "PoolStats", "Response", "Target", "Timeouts", "UpstreamFailure"]

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

TICK_S = 0.1
"""How exact timeouts are. A sweep looks at one number per connection: 1,000 connections cost 0.1 % of a core."""
ADDRESSES_MAX = 4
"""Addresses of one name that are tried; the connect timeout is shared out among them."""
CLOSING_S = 2.0
"""For sockets to close once nothing is under way; TLS says goodbye within one."""
TARGETS_MAX = 4096
"""Targets remembered at once; they come from the operator's files, so this bounds a mistake, not a caller."""


class Pool:
    """Connections to upstreams, shared by all requests of one event loop.

    `allow_address` is asked about every address before it is dialled, after the name was resolved: the address that was
    checked is the one that is used. `ssl_context` replaces verification by the system's store.
    """

    def __init__(
        self,
        limits: PoolLimits | None = None,
        *,
        ssl_context: ssl.SSLContext | None = None,
        allow_address: Callable[[Address], bool] | None = None,
    ) -> None:
        self.limits = limits or PoolLimits()
        self._ssl_context = ssl_context
        self._allow_address = allow_address
        self._lanes: dict[Target, Lane] = {}
        self._connections: set[Connection] = set()
        self._stats = PoolStats()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed = False
        self._emptied: asyncio.Future[None] | None = None

    async def request(  # noqa: PLR0913 - this is the line on the wire, word by word
        self, target: Target, method: str, path: bytes, headers: Headers, body: bytes, *, timeouts: Timeouts
    ) -> Response:
        """Send one request and return its response once the head has arrived; the caller reads it or closes it.

        Host, content-length and hop-by-hop headers are the pool's own: what the caller passes of these is left out.
        Raises UpstreamFailure, and ClientError for what may not be written into a request. Cancelling it closes the
        connection.
        """
        lane = self._lanes.get(target) or self._lane(target)
        request = encode_request(method, path, lane.tail, headers, body)
        loop = self._loop or self._start()
        total_deadline = inf if timeouts.total_s is None else loop.time() + timeouts.total_s
        stats = self._stats
        stats.requests += 1
        resent = False
        while True:
            connection = lane.take()
            if connection is None:
                connection = await self._connection(lane, timeouts, total_deadline)
            reused = connection.exchanges > 0
            response = connection.send(
                request, head_only=method == "HEAD", timeouts=timeouts, total_deadline=total_deadline
            )
            stats.reused += reused
            await response.head()
            if response.status:
                return response
            error = response.error
            assert error is not None
            # A request that may have arrived must not go out twice, unless it promises to change nothing.
            if resent or not (
                reused and connection.silent and method in SAFE_METHODS and error.code == "upstream_closed"
            ):
                raise error
            resent = True
            stats.resent += 1

    def stats(self) -> PoolStats:
        """The counters, brought up to date."""
        stats = self._stats
        lanes = self._lanes.values()
        stats.open = sum(lane.open for lane in lanes)
        stats.idle = sum(len(lane.idle) for lane in lanes)
        stats.waiting = sum(len(lane.waiters) for lane in lanes)
        return stats

    async def aclose(self, grace_s: float = 0.0) -> None:
        """Take no more requests, let exchanges under way end within `grace_s`, then close every connection."""
        self._closed = True
        for lane in self._lanes.values():
            lane.closing = True
            for waiter in lane.waiters:
                if not waiter.done():
                    waiter.set_exception(_closed())
            lane.waiters.clear()
            for connection in tuple(lane.idle):
                connection.close()
        if self._loop is None:
            return
        await self._empty(grace_s)
        for connection in tuple(self._connections):
            connection.shut()
        await self._empty(CLOSING_S)
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None

    async def _empty(self, seconds: float) -> None:
        """Until the last socket is closed, but no longer than this."""
        if self._connections:
            assert self._loop is not None
            self._emptied = self._loop.create_future()
            await asyncio.wait((self._emptied,), timeout=seconds)

    # -- connections

    def _lane(self, target: Target) -> Lane:
        if len(self._lanes) >= TARGETS_MAX:
            for known, lane in tuple(self._lanes.items()):
                if not lane.open and not lane.waiters:
                    del self._lanes[known]
        lane = self._lanes[target] = Lane(target, self.limits, self._stats, self._lost)
        return lane

    def _lost(self, connection: Connection) -> None:
        self._connections.discard(connection)
        if not self._connections and self._emptied is not None and not self._emptied.done():
            self._emptied.set_result(None)

    def _start(self) -> asyncio.AbstractEventLoop:
        self._loop = asyncio.get_running_loop()
        return self._loop

    async def _connection(self, lane: Lane, timeouts: Timeouts, total_deadline: float) -> Connection:
        """A connection that is ready for `send`: a new one, or one that another request has done with."""
        while True:
            if self._closed:
                raise _closed()
            if lane.open < self.limits.connections_max:
                lane.open += 1
                return await self._dial(lane, timeouts, total_deadline)
            granted = await self._wait(lane, timeouts, total_deadline)
            if granted is None:
                return await self._dial(lane, timeouts, total_deadline)
            if granted.usable():
                return granted
            self._stats.refused_idle += 1
            granted.close()

    async def _wait(self, lane: Lane, timeouts: Timeouts, total_deadline: float) -> Connection | None:
        """Queue for a connection, or (None) for the place of one."""
        if len(lane.waiters) >= self.limits.waiting_max:
            raise _pool_failure("too many requests wait for a connection to the upstream; try again")
        assert self._loop is not None
        waiter: asyncio.Future[Connection | None] = self._loop.create_future()
        lane.waiters.append(waiter)
        arrived = False
        try:
            async with asyncio.timeout(_finite(min(timeouts.pool_s, total_deadline - self._loop.time()))):
                granted = await waiter
            arrived = True
            return granted
        except TimeoutError:
            raise _pool_failure("no connection to the upstream became free in time; try again") from None
        finally:
            if not arrived:
                if waiter in lane.waiters:
                    lane.waiters.remove(waiter)
                if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                    lane.give_back(waiter.result())  # granted and given up in the same turn of the loop

    async def _dial(self, lane: Lane, timeouts: Timeouts, total_deadline: float) -> Connection:
        """Open a connection in a place that was already counted; gives the place back when that fails."""
        assert self._loop is not None
        opened = False
        try:
            limit_s = min(timeouts.connect_s, total_deadline - self._loop.time())
            connection = await self._open(lane, self._loop.time() + limit_s)
            opened = connection.adopt()
        except TimeoutError:
            raise UpstreamFailure(
                "upstream_timeout", "the upstream could not be reached in time", phase=Phase.CONNECT, dispatched=False
            ) from None
        except ssl.SSLError:
            raise _connect_failure("the upstream's TLS certificate or handshake is not acceptable") from None
        except (OSError, UnicodeError):
            raise _connect_failure("the upstream cannot be reached") from None
        finally:
            if not opened:
                lane.release()
        if not opened:
            raise _connect_failure("the upstream hung up before it was asked anything")
        self._stats.dialled += 1
        self._connections.add(connection)
        if self._closed:
            connection.shut()
            raise _closed()
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(TICK_S, self._sweep)
        return connection

    async def _open(self, lane: Lane, deadline: float) -> Connection:
        """Try the target's addresses in turn, each with its share of the time that is left."""
        loop = self._loop
        assert loop is not None
        target = lane.target
        context = self._context() if target.tls else None
        async with asyncio.timeout_at(_finite(deadline)):
            found = await loop.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))[:ADDRESSES_MAX]
        if self._allow_address is not None:
            addresses = [address for address in addresses if self._allow_address(_plain(address))]
            if not addresses:
                raise _connect_failure("the upstream's address is not allowed")
        for left in range(len(addresses), 0, -1):
            share_s = (deadline - loop.time()) / left
            try:
                async with asyncio.timeout(_finite(share_s)):
                    _, connection = await loop.create_connection(
                        lambda: Connection(loop, lane),
                        addresses[-left],
                        target.port,
                        ssl=context,
                        server_hostname=target.host if context else None,
                        ssl_shutdown_timeout=1.0 if context else None,
                    )
                return connection
            except ssl.SSLError:
                raise
            except OSError:  # TimeoutError is one
                if left == 1:
                    raise
        raise OSError("the name has no address")

    def _context(self) -> ssl.SSLContext:
        if self._ssl_context is None:
            self._ssl_context = ssl.create_default_context()
            self._ssl_context.set_alpn_protocols(["http/1.1"])
        return self._ssl_context

    def _sweep(self) -> None:
        assert self._loop is not None
        now = self._loop.time()
        for connection in [each for each in self._connections if each.deadline <= now]:
            connection.expire(now)
        self._sweeper = self._loop.call_later(TICK_S, self._sweep) if self._connections else None


def _finite(seconds: float) -> float | None:
    """As asyncio wants it: None where there is no limit."""
    return None if seconds == inf else seconds


def _plain(address: str) -> Address:
    """The address without its scope, and an IPv4 address that is dressed as IPv6 as what it is."""
    plain = ipaddress.ip_address(address.partition("%")[0])
    return (plain.ipv4_mapped or plain) if isinstance(plain, ipaddress.IPv6Address) else plain


def _connect_failure(message: str) -> UpstreamFailure:
    return UpstreamFailure("upstream_connect", message, phase=Phase.CONNECT, dispatched=False)


def _pool_failure(message: str) -> UpstreamFailure:
    return UpstreamFailure("upstream_pool", message, phase=Phase.POOL, dispatched=False)


def _closed() -> UpstreamFailure:
    return _pool_failure("the gateway is stopping")
