"""Upstreams that misbehave by the byte: each accepted connection runs a script over a plain socket."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

Script = Callable[["Peer"], Awaitable[None]]


class Peer:
    """The upstream's end of one connection."""

    def __init__(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.number = number  # counts connections from 0
        self._reader = reader
        self._writer = writer

    async def request(self) -> tuple[bytes, bytes]:
        """The next request: its head, and its body by content-length."""
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = 0
        for line in head.split(b"\r\n"):
            if line.lower().startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        return head, await self._reader.readexactly(length)

    async def head(self) -> bytes:
        """The head alone; the body is left unread."""
        return await self._reader.readuntil(b"\r\n\r\n")

    async def send(self, *pieces: bytes) -> None:
        """Write each piece by itself, as far as the kernel lets a piece go by itself."""
        for piece in pieces:
            self._writer.write(piece)
            await self._writer.drain()

    async def hung_up(self) -> bytes:
        """Until the gateway closes its side; what it sent before that."""
        try:
            return await self._reader.read()
        except ConnectionResetError:
            return b""

    def half_close(self) -> None:
        """FIN at once, without a turn of the loop, so that it waits in the gateway's kernel buffer."""
        with self._socket() as sock:
            sock.shutdown(socket.SHUT_WR)

    def send_now(self, data: bytes) -> None:
        """As `half_close`, for bytes."""
        with self._socket() as sock:
            sock.send(data)

    def reset(self) -> None:
        """RST instead of FIN."""
        with self._socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    def cut(self) -> None:
        """FIN of TCP without the goodbye of TLS: what an attacker on the way can do."""
        with self._socket() as sock:
            sock.shutdown(socket.SHUT_RDWR)

    def _socket(self) -> socket.socket:
        return socket.socket(fileno=os.dup(self._writer.get_extra_info("socket").fileno()))


class Upstream:
    """A listening server. `requests` counts what scripts took in; `peers` are the connections in order."""

    def __init__(self) -> None:
        self.port = 0
        self.peers: list[Peer] = []
        self.errors: list[BaseException] = []


@asynccontextmanager
async def upstream(script: Script, context: ssl.SSLContext | None = None) -> AsyncIterator[Upstream]:
    """Serve `script` on loopback. What a script raises, except the loss of its connection, fails the test."""
    state = Upstream()
    tasks: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        peer = Peer(len(state.peers), reader, writer)
        state.peers.append(peer)
        try:
            await script(peer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the gateway hung up first, or the test is over: what was asked for is asserted elsewhere
        except Exception as error:
            state.errors.append(error)
        finally:
            writer.close()
            tasks.discard(task)

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context)
    state.port = server.sockets[0].getsockname()[1]
    try:
        yield state
    finally:
        server.close()
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert not state.errors, state.errors


def answering(*pieces: bytes) -> Script:
    """Answers every request of a connection with the same bytes."""

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(*pieces)

    return script


def once(*pieces: bytes) -> Script:
    """Answers the first request of a connection, then closes it."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(*pieces)

    return script


def ok(body: bytes = b"ok") -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body
