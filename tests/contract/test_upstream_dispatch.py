"""At most one dispatch: what may be sent again, and whose answer a request can get."""

from __future__ import annotations

import pytest

from gateway.proxy.pool import Pool, UpstreamFailure
from tests.contract.conftest import Run
from tests.contract.pooled import ask, fetch
from tests.contract.raw_upstream import Peer, answering, ok, upstream


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_unsafe_request_is_never_sent_twice(run: Run, method: str) -> None:
    taken = 0

    async def script(peer: Peer) -> None:
        nonlocal taken
        await peer.request()
        await peer.send(ok())
        await peer.request()
        taken += 1

    async def main() -> None:
        pool = Pool()
        async with upstream(script) as server:
            await fetch(pool, server)
            with pytest.raises(UpstreamFailure) as caught:
                await ask(pool, server, method)
            assert (caught.value.code, caught.value.dispatched) == ("upstream_closed", True)
            assert taken == 1
            assert pool.stats().resent == 0
            await pool.aclose()

    run(main())


def test_safe_request_is_sent_again_once_when_its_idle_connection_dies(run: Run) -> None:
    taken = 0

    async def script(peer: Peer) -> None:
        nonlocal taken
        if peer.number == 0:
            await peer.request()
            await peer.send(ok())
        await peer.request()
        taken += 1  # ... and hangs up, on the new connection too

    async def main() -> None:
        pool = Pool()
        async with upstream(script) as server:
            await fetch(pool, server)
            with pytest.raises(UpstreamFailure):
                await ask(pool, server, "GET", b"")
            assert taken == 2
            assert pool.stats().resent == 1
            await pool.aclose()

    run(main())


def test_safe_request_is_not_sent_again_once_a_byte_came_back(run: Run) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(ok())
        await peer.request()
        await peer.send(b"H")

    async def main() -> None:
        pool = Pool()
        async with upstream(script) as server:
            await fetch(pool, server)
            with pytest.raises(UpstreamFailure):
                await ask(pool, server, "GET", b"")
            assert len(server.peers) == 1
            await pool.aclose()

    run(main())


@pytest.mark.parametrize("parting", [b"", ok(b"forged"), b"\r\n", b"HTTP/1.1 408 Request Timeout\r\n\r\n"])
def test_idle_connection_on_which_something_came_is_not_used(run: Run, parting: bytes) -> None:
    """End of file or bytes that wait in the kernel, where the event loop has not looked yet."""

    async def main() -> None:
        pool = Pool()
        async with upstream(answering(ok())) as server:
            await fetch(pool, server)
            if parting:
                server.peers[0].send_now(parting)
            else:
                server.peers[0].half_close()
            assert await fetch(pool, server) == b"ok"  # no turn of the loop before this
            assert len(server.peers) == 2
            assert pool.stats().refused_idle == 1
            await pool.aclose()

    run(main())


def test_surplus_answer_does_not_reach_the_next_request(run: Run) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(ok(b"mine") + ok(b"forged"))
        await peer.hung_up()

    async def main() -> None:
        pool = Pool()
        async with upstream(script) as server:
            for _ in range(3):
                assert await fetch(pool, server) == b"mine"
            assert len(server.peers) == 3
            await pool.aclose()

    run(main())


def test_body_after_the_answer_to_head_does_not_reach_the_next_request(run: Run) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(ok(b"forged")) + ok(b"forged"))
        await peer.hung_up()

    async def main() -> None:
        pool = Pool()
        async with upstream(script) as server:
            for _ in range(2):
                response = await ask(pool, server, "HEAD", b"")
                assert (response.status, await response.read(10)) == (200, b"")
            assert len(server.peers) == 2
            await pool.aclose()

    run(main())
