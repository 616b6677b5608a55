"""One request through a pool, as the tests of the pool write it."""

from __future__ import annotations

from gateway.proxy.pool import Pool, Response, Target, Timeouts
from tests.contract.raw_upstream import Upstream

QUICK = Timeouts(connect_s=5, write_s=5, read_s=5, pool_s=5)
PARTIAL = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhel"


async def ask(
    pool: Pool, server: Upstream, method: str = "POST", body: bytes = b"x", timeouts: Timeouts = QUICK
) -> Response:
    return await pool.request(Target(False, "127.0.0.1", server.port), method, b"/", [], body, timeouts=timeouts)


async def fetch(pool: Pool, server: Upstream, method: str = "POST", body: bytes = b"x") -> bytes:
    return await (await ask(pool, server, method, body)).read(1_000_000)
