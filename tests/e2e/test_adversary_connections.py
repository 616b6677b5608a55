"""What anybody who reaches the port might try, with or without a key: heads without end, silence, drips."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway import listener
from tests.gateways import Running, running_gateway

PIECE = b"a" * 32_768
ENOUGH = 100_000_000


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Running]:
    with running_gateway(tmp_path) as running:
        yield running


def dial(url: str) -> socket.socket:
    host, _, port = url.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)), timeout=10)


def until_closed(connection: socket.socket) -> bytes:
    received = b""
    try:
        while piece := connection.recv(65_536):
            received += piece
    except ConnectionResetError:
        pass
    return received


def flood(connection: socket.socket) -> int:
    """Send pieces until the other side has had enough; returns how many bytes it took."""
    sent = 0
    try:
        while sent < ENOUGH:
            connection.sendall(PIECE)
            sent += len(PIECE)
    except OSError:
        pass
    return sent


@pytest.mark.parametrize("console", [False, True])
@pytest.mark.parametrize(
    "start",
    [
        b"GET /",
        b"GET /healthz HTTP/1.1\r\nx: ",
        b"POST /v1/models HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\ntrailer: ",
        b"POST /v1/models HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n1;",
    ],
)
def test_head_or_trailer_without_end_ends_the_connection(gateway: Running, start: bytes, console: bool) -> None:
    with dial(gateway.console if console else gateway.url) as connection:
        connection.sendall(start)
        assert flood(connection) < ENOUGH


def test_silence_and_drips_end_and_answers_under_way_do_not(gateway: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "ARRIVAL_S", 0.3)
    key = gateway.keys["tester"].encode()
    for start in (
        b"",
        b"GET /healthz HT",
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        b"authorization: Bearer " + key + b"\r\ncontent-length: 100\r\n\r\n{",
    ):
        with dial(gateway.url) as connection:
            connection.sendall(start)
            assert until_closed(connection) == b""
    with dial(gateway.url) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\nGET /healthz HTTP/1.1\r\nhost: x\r\n\r\nGET ")
        assert until_closed(connection).count(b'{"status":"ok"}') == 2
