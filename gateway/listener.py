"""The gateway's listeners: uvicorn, with a bound on how much and how long a client may send before it says something.

Anybody who reaches the port could otherwise fill memory with a head or trailers that never end, or hold connections by
saying nothing. Owns no limit on bodies: those are counted where they are read.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.core.errors import StoreError

HEAD_BYTES_MAX = 65_536  # of a head, of trailers, of chunk framing; the next read may add as much again
ARRIVAL_S = 120.0  # from its first byte, or from the connection, to the end of a request: 10 MB at 1 Mbit/s
_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class BoundedProtocol(HttpToolsProtocol):
    """One connection. A request that arrived in one read costs no timer."""

    _silent_bytes = 0  # since something was understood
    _in_head = True
    _arriving = True
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._silent_bytes += len(data)
        super().data_received(data)
        if self._silent_bytes > HEAD_BYTES_MAX and not self.transport.is_closing():
            if self._idle():
                self.transport.write(_TOO_LARGE)
            self.transport.close()
        elif self._arriving and self._deadline is None:
            self._arm()

    def on_message_begin(self) -> None:
        self._silent_bytes, self._in_head, self._arriving = 0, True, True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._silent_bytes, self._in_head = 0, False
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._silent_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._silent_bytes, self._arriving = 0, False
        self._disarm()
        super().on_message_complete()

    def _idle(self) -> bool:
        """Whether no answer is under way."""
        return self.cycle is None or self.cycle.response_complete

    def _arm(self) -> None:
        self._deadline = self.loop.call_later(ARRIVAL_S, self._late)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _late(self) -> None:
        self._deadline = None
        if self.pipeline or (self._in_head and not self._idle()):
            self._arm()  # the answer to an earlier request is under way, and reading may be paused for it
        else:
            self.transport.close()


def bind(host: str, port: int, setting: str) -> socket.socket:
    """A listening socket. Raises StoreError `address_in_use`, which names the setting to change."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise StoreError(
            "address_in_use", f"cannot listen on {host}:{port} ({error.strerror}); set {setting} to another port"
        ) from None


def authority(listener: socket.socket) -> str:
    """`host:port` as somebody on this machine reaches it."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - shown, not bound
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # the gateway has two servers and handles the signals once for both


@asynccontextmanager
async def listening(
    app: Any, listener: socket.socket, shutdown_s: int, *, before_stop: Callable[[], None] | None = None
) -> AsyncIterator[None]:
    """Serve an application on a socket until the block ends; then what is in flight has `shutdown_s` to end."""
    config = uvicorn.Config(
        app,
        http=BoundedProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=shutdown_s,
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started:
        await asyncio.sleep(0.001)
        if task.done():
            await task
    try:
        yield
    finally:
        if before_stop is not None:
            before_stop()  # open event streams would keep the server waiting
        server.should_exit = True
        await task
