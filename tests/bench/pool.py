"""`python -m tests.bench.pool`: what one upstream exchange costs us, by the pool and by httpx2's own transport.

A POST of 1 KB and an answer of 1 KB from nginx on the other core; CPU of this process alone, in one run.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable
from itertools import cycle, islice

import httpx2
import uvloop

from gateway.proxy.pool import Pool, Target, Timeouts
from gateway.proxy.transport import PooledTransport
from tests.bench import wire
from tests.bench.ground import ROOT, BenchError, Cores
from tests.bench.upstreams import upstreams

HEADERS = [
    (b"content-type", b"application/json"),
    (b"accept", b"application/json"),
    (b"authorization", b"Bearer sk-upstream"),
    (b"user-agent", b"bench/1"),
]
ANSWER_BYTES_MAX = 1_000_000
Ask = Callable[[], Awaitable[None]]


async def _measure(name: str, ask: Ask, concurrent: int, count: int) -> None:
    left = iter(range(count))

    async def worker() -> None:
        for _ in left:
            await ask()

    await asyncio.gather(*(ask() for _ in range(concurrent)))  # open the connections
    begin, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(worker() for _ in range(concurrent)))
    cpu, begin = time.process_time() - cpu, time.perf_counter() - begin
    print(f"| {name} | {concurrent} | {cpu / count * 1e6:,.1f} | {count / begin:,.0f} |", flush=True)


async def _run(port: int) -> None:
    bodies = cycle(list(islice(wire.unseen_bodies("bench", stream=False, seed=1), 1000)))
    target, timeouts = Target(False, "127.0.0.1", port), Timeouts()
    url = httpx2.URL(f"http://127.0.0.1:{port}{wire.PATH}")
    pool = Pool()

    async def direct() -> None:
        response = await pool.request(target, "POST", wire.PATH.encode(), HEADERS, next(bodies), timeouts=timeouts)
        assert response.status == 200
        assert await response.read(ANSWER_BYTES_MAX) == wire.COMPLETION

    def through(transport: httpx2.AsyncBaseTransport) -> Ask:
        async def ask() -> None:
            request = httpx2.Request("POST", url, headers=HEADERS, content=next(bodies))
            response = await transport.handle_async_request(request)
            assert await response.aread() == wire.COMPLETION

        return ask

    stock = httpx2.AsyncHTTPTransport(limits=httpx2.Limits(max_connections=512, max_keepalive_connections=512))
    print("| upstream client | concurrent | CPU µs per exchange | exchanges/s |\n| --- | ---: | ---: | ---: |")
    for concurrent in (1, 16, 64, 256):
        await _measure("Pool", direct, concurrent, 20_000)
    for concurrent in (16, 256):
        await _measure("PooledTransport", through(PooledTransport(pool)), concurrent, 8_000)
    for concurrent in (16, 256):
        await _measure("httpx2.AsyncHTTPTransport", through(stock), concurrent, 2_000)
    await pool.aclose()
    await stock.aclose()


def main() -> int:
    cores = Cores.of_this_machine()
    if cores.proxy is not None:
        os.sched_setaffinity(0, {cores.proxy})
    try:
        with upstreams(ROOT / ".gateway" / "bench" / "run" / "pool", cores, events=20, gap_ms=5) as behind:
            uvloop.run(_run(behind.json_port))
    except BenchError as error:
        print(f"pool: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
