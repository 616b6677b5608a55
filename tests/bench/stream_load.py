"""Streams through a proxy, so many at a time: time to the first word, events, failures. Prints one line of JSON.

Run as a process of its own (`python -m tests.bench.stream_load '{...}'`), so that it can be pinned beside the upstream.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from collections.abc import Iterator
from typing import Any, cast

import uvloop
from httptools import HttpParserError, HttpResponseParser

from tests.bench import wire

_WORD = re.compile(rb'"content": ?"[^"]')  # of a delta; the role alone is no token
STREAM_S_MAX = 60.0
"""After this long a stream counts as failed: a proxy that lost its end must not hold the measurement up."""


class Client(asyncio.Protocol):
    """One kept-alive connection that asks for one stream after the other."""

    def __init__(self) -> None:
        self.done: asyncio.Future[bool] | None = None
        self.first_s = 0.0
        self.body = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.parser = HttpResponseParser(self)

    def ask(self, request: bytes) -> asyncio.Future[bool]:
        self.body.clear()
        self.first_s = 0.0
        self.done = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self.done

    def data_received(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except HttpParserError:
            self._end(False)

    def on_body(self, body: bytes) -> None:
        self.body += body
        if not self.first_s and _WORD.search(self.body):
            self.first_s = time.perf_counter()

    def on_message_complete(self) -> None:
        self._end(self.parser.get_status_code() == 200)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(False)

    def _end(self, whole: bool) -> None:
        if self.done is not None and not self.done.done():
            self.done.set_result(whole and b"[DONE]" in self.body)


class Load:
    def __init__(self, port: int, head: bytes, bodies: Iterator[bytes]) -> None:
        self._port = port
        self._head = head
        self._bodies = bodies
        self.firsts_us: list[float] = []
        self.streams = self.events = self.failed = 0

    async def worker(self, wait_s: float, until: float, streams_max: int) -> None:
        """Streams one after the other until it is time or there were enough; the last one is read to its end."""
        await asyncio.sleep(wait_s)
        loop = asyncio.get_running_loop()
        client: Client | None = None
        while time.perf_counter() < until and self.streams + self.failed < streams_max:
            if client is None or client.transport.is_closing():
                _, client = await loop.create_connection(Client, "127.0.0.1", self._port)
            body = next(self._bodies)
            begin = time.perf_counter()
            done = client.ask(self._head + b"content-length: %d\r\n\r\n" % len(body) + body)
            try:
                whole = await asyncio.wait_for(done, STREAM_S_MAX)
            except TimeoutError:
                whole = False
            if whole:
                self.streams += 1
                self.events += client.body.count(b"data:")
                self.firsts_us.append((client.first_s - begin) * 1e6)
            else:
                self.failed += 1
                client.transport.abort()
        if client is not None:
            client.transport.close()


async def run(plan: dict[str, Any]) -> dict[str, float]:
    lines = [f"POST {plan['path']} HTTP/1.1", f"Host: 127.0.0.1:{plan['port']}", "Content-Type: application/json"]
    lines += [f"{name}: {value}" for name, value in plan["headers"].items()]
    head = ("\r\n".join(lines) + "\r\n").encode()
    load = Load(plan["port"], head, wire.unseen_bodies(wire.STREAM_MODEL, stream=True, seed=time.time_ns()))
    until = time.perf_counter() + plan["seconds"]
    concurrent: int = plan["concurrent"]
    # Spread over the length of a stream: in step, all begin at once, and a burst is measured instead of a first token.
    waits = [plan["spread_s"] * number / concurrent for number in range(concurrent)]
    await asyncio.gather(*(load.worker(wait, until, plan["streams_max"]) for wait in waits))
    firsts = sorted(load.firsts_us) or [0.0]
    return {
        "streams": load.streams,
        "events": load.events,
        "failed": load.failed,
        "first_p50_us": firsts[len(firsts) // 2],
        "first_p99_us": firsts[min(int(len(firsts) * 0.99), len(firsts) - 1)],
    }


if __name__ == "__main__":
    print(json.dumps(uvloop.run(run(json.loads(sys.argv[1])))))
