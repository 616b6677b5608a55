"""A model that streams: every answer is EVENTS events, one every GAP_MS, each in a packet of its own.

Run as `python -m tests.bench.sse_upstream PORT EVENTS GAP_MS`. What it costs is the same for every proxy before it.
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import uvloop
from httptools import HttpRequestParser

from tests.bench import wire

HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)


class Model(asyncio.Protocol):
    def __init__(self, pieces: list[bytes], gap_s: float) -> None:
        self._pieces = pieces
        self._gap_s = gap_s
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._parser = HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        self._transport.write(HEAD + self._pieces[0])
        self._timer = self._loop.call_later(self._gap_s, self._next, 1)

    def _next(self, number: int) -> None:
        self._transport.write(self._pieces[number])
        if number + 1 < len(self._pieces):
            self._timer = self._loop.call_later(self._gap_s, self._next, number + 1)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()


async def serve(port: int, count: int, gap_s: float) -> None:
    pieces = [b"%x\r\n%b\r\n" % (len(event), event) for event in wire.events(count)]
    pieces[-1] += b"0\r\n\r\n"
    server = await asyncio.get_running_loop().create_server(
        lambda: Model(pieces, gap_s), "127.0.0.1", port, backlog=1024
    )
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]) / 1000))
