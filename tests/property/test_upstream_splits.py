"""However the bytes of an answer are cut on the wire, a connection reads the same answer, or the same refusal."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from itertools import pairwise
from math import inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.proxy.connection import Connection
from gateway.proxy.response import Response
from gateway.proxy.upstream import PoolLimits, Timeouts

ANSWERS = [
    b"HTTP/1.1 200 OK\r\ncontent-length: 11\r\nx: 1\r\nx: 2\r\n\r\nhello world",
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5;e=1\r\nhello\r\n6\r\n world\r\n0\r\nx-sum: 1\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nlink: a\r\n\r\nHTTP/1.1 404 No\r\ncontent-length: 2\r\n\r\nno",
    b"HTTP/1.1 200 OK\r\n\r\nuntil the end of file",
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged",
    b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhelloX0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nx: a\r\n b\r\ncontent-length: 2\r\n\r\nok",
]


class Wire:
    """A transport that swallows, over a real socket for what asks its number."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.closed = False

    def get_extra_info(self, name: str) -> Any:
        return self._sock if name == "socket" else None

    def write(self, data: bytes) -> None:
        assert not self.closed

    def close(self) -> None:
        self.closed = True

    abort = close

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        raise AssertionError("these answers are small")


class Lane:
    limits = PoolLimits()

    def __init__(self) -> None:
        self.freed = 0

    def free(self, connection: Connection) -> None:
        self.freed += 1

    def gone(self, connection: Connection) -> None: ...
    def lost(self, connection: Connection) -> None: ...


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    with asyncio.Runner() as runner:
        yield runner.get_loop()


@pytest.fixture(scope="module")
def sock() -> Iterator[socket.socket]:
    one, other = socket.socketpair()
    with one, other:
        yield one


def play(loop: asyncio.AbstractEventLoop, sock: socket.socket, pieces: list[bytes]) -> tuple[Any, ...]:
    """What a reader would see, and whether the connection would carry another request."""
    lane, wire = Lane(), Wire(sock)
    connection = Connection(loop, lane)
    connection.connection_made(wire)  # type: ignore[arg-type]
    connection.adopt()
    response: Response = connection.send(b"", head_only=False, timeouts=Timeouts(), total_deadline=inf)
    for piece in pieces:
        if not wire.closed:
            connection.data_received(piece)
    if not wire.closed:
        connection.eof_received()
    assert connection.closed and wire.closed
    error = response.error
    return response.status, response.headers, b"".join(response._chunks), error and error.code


@given(answer=st.sampled_from(ANSWERS), cuts=st.lists(st.integers(1, 120), max_size=12))
def test_cuts_do_not_change_the_answer(
    loop: asyncio.AbstractEventLoop, sock: socket.socket, answer: bytes, cuts: list[int]
) -> None:
    edges = [0, *sorted({cut for cut in cuts if cut < len(answer)}), len(answer)]
    pieces = [answer[start:end] for start, end in pairwise(edges)]
    assert play(loop, sock, pieces) == play(loop, sock, [answer])


@given(st.lists(st.binary(min_size=1, max_size=200), max_size=5))
def test_any_bytes_end_in_an_answer_or_a_failure(
    loop: asyncio.AbstractEventLoop, sock: socket.socket, pieces: list[bytes]
) -> None:
    status, _, _, code = play(loop, sock, pieces)
    assert status == 0 or 200 <= status <= 999
    assert status or code in ("upstream_protocol", "upstream_closed")
