"""Deadlines, bounds, the queue, back-pressure, addresses and the orderly end of the pool."""

from __future__ import annotations

import asyncio
import ipaddress
import socket

import pytest

from gateway.proxy.pool import Address, Phase, Pool, PoolLimits, Target, Timeouts, UpstreamFailure
from tests.contract.conftest import Run
from tests.contract.pooled import PARTIAL, QUICK, ask, fetch
from tests.contract.raw_upstream import Peer, answering, ok, upstream


# -- deadlines
def test_upstream_that_takes_no_bytes_is_a_write_timeout(run: Run) -> None:
    async def main() -> None:
        pool = Pool()
        async with upstream(lambda peer: asyncio.Event().wait()) as server:  # type: ignore[arg-type,return-value]
            with pytest.raises(UpstreamFailure) as caught:
                await ask(pool, server, body=bytes(16_000_000), timeouts=Timeouts(write_s=0.2))
            failure = caught.value
            assert (failure.code, failure.phase, failure.status) == ("upstream_timeout", Phase.WRITE, 504)
            assert failure.dispatched
            await pool.aclose()

    run(main())


async def drip(peer: Peer, piece: bytes) -> None:
    """A byte stream that never ends and never pauses for long. The pace is the attack, not a synchronisation."""
    while True:
        await peer.send(piece)
        await asyncio.sleep(0.02)


def test_head_that_drips_is_bounded_by_one_read_timeout(run: Run) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nx: ")
        await drip(peer, b"a")

    async def main() -> None:
        pool = Pool()
        async with upstream(script) as server:
            with pytest.raises(UpstreamFailure) as caught:
                await ask(pool, server, timeouts=Timeouts(read_s=0.3))
            assert (caught.value.code, caught.value.phase) == ("upstream_timeout", Phase.READ)
            await pool.aclose()

    run(main())


def test_body_that_drips_lives_as_long_as_the_total_deadline(run: Run) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\n")
        await drip(peer, b"a")

    async def main() -> None:
        pool = Pool()
        async with upstream(script) as server:
            started = asyncio.get_running_loop().time()
            response = await ask(pool, server, timeouts=Timeouts(read_s=0.2, total_s=0.6))
            with pytest.raises(UpstreamFailure) as caught:
                await response.read(1000)
            assert caught.value.code == "upstream_timeout"
            assert asyncio.get_running_loop().time() - started > 0.5  # the silence bound of 0.2 s never fired
            await pool.aclose()

    run(main())


def test_name_that_leads_nowhere_is_a_connect_error_that_dispatched_nothing(run: Run) -> None:
    async def main() -> None:
        pool = Pool()
        with pytest.raises(UpstreamFailure) as caught:
            await pool.request(Target(False, "no-such-host.invalid", 80), "GET", b"/", [], b"", timeouts=QUICK)
        assert (caught.value.code, caught.value.dispatched) == ("upstream_connect", False)
        assert pool.stats().open == 0
        await pool.aclose()

    run(main())


def test_listener_that_accepts_nothing_is_a_connect_timeout(run: Run) -> None:
    async def main() -> None:
        pool = Pool()
        with socket.socket() as full:
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            port = full.getsockname()[1]
            blocked = [socket.socket() for _ in range(4)]  # fill the backlog: the next SYN gets no answer
            for each in blocked:
                each.setblocking(False)
                each.connect_ex(("127.0.0.1", port))
            with pytest.raises(UpstreamFailure) as caught:
                await pool.request(
                    Target(False, "127.0.0.1", port), "POST", b"/", [], b"", timeouts=Timeouts(connect_s=0.3)
                )
            for each in blocked:
                each.close()
        failure = caught.value
        assert (failure.code, failure.phase, failure.dispatched) == ("upstream_timeout", Phase.CONNECT, False)
        assert pool.stats().open == 0
        await pool.aclose()

    run(main())


# -- bounds and the queue
def test_connections_are_bounded_and_everybody_is_served(run: Run) -> None:
    async def main() -> None:
        pool = Pool(PoolLimits(connections_max=3))
        async with upstream(answering(ok())) as server:
            assert await asyncio.gather(*(fetch(pool, server) for _ in range(50))) == [b"ok"] * 50
            assert len(server.peers) <= 3
            assert pool.stats().idle == len(server.peers)
            await pool.aclose()

    run(main())


def test_queue_is_bounded(run: Run) -> None:
    async def main() -> None:
        pool = Pool(PoolLimits(connections_max=1, waiting_max=1))
        async with upstream(answering(PARTIAL)) as server:
            held = await ask(pool, server)
            waiting = asyncio.create_task(ask(pool, server))
            await asyncio.sleep(0)
            with pytest.raises(UpstreamFailure) as caught:
                await ask(pool, server)
            failure = caught.value
            assert (failure.code, failure.status, failure.dispatched) == ("upstream_pool", 503, False)
            await held.aclose()
            await (await waiting).aclose()
            await pool.aclose()

    run(main())


@pytest.mark.parametrize("completed", [True, False], ids=["connection", "place"])
def test_cancelled_waiter_passes_on_what_it_was_granted(run: Run, completed: bool) -> None:
    async def main() -> None:
        go = asyncio.Event()

        async def script(peer: Peer) -> None:
            while True:
                await peer.request()
                await peer.send(PARTIAL)
                await go.wait()
                await peer.send(b"lo worl")

        pool = Pool(PoolLimits(connections_max=1))
        async with upstream(script) as server:
            held = await ask(pool, server)
            first, second = (asyncio.create_task(fetch(pool, server)) for _ in range(2))
            await asyncio.sleep(0)
            assert pool.stats().waiting == 2
            go.set()
            if completed:
                assert await held.read(100) == b"hello worl"
            else:
                await held.aclose()
            assert pool.stats().waiting == 1  # granted to the first, whose turn has not come
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            assert await second == b"hello worl"
            assert (pool.stats().waiting, pool.stats().open) == (0, 1)
            await pool.aclose()

    run(main())


def test_failed_dial_lets_the_next_one_try(run: Run) -> None:
    async def main() -> None:
        async with upstream(answering(ok())) as server:
            pass
        pool = Pool(PoolLimits(connections_max=1))
        results = await asyncio.gather(*(ask(pool, server) for _ in range(5)), return_exceptions=True)
        assert [getattr(result, "code", "") for result in results] == ["upstream_connect"] * 5
        assert pool.stats().open == 0
        await pool.aclose()

    run(main())


def test_slow_reader_makes_the_upstream_wait(run: Run) -> None:
    size = 20_000_000

    async def main() -> None:
        pool = Pool(PoolLimits(buffer_bytes_max=65_536))
        async with upstream(answering(ok(bytes(size)))) as server:
            response = await ask(pool, server)
            while not response._source._reading_paused:  # type: ignore[attr-defined]
                assert not response.ended
                await asyncio.sleep(0)
            assert response._buffered < 1_000_000  # the bound and at most one read beyond
            read = 0
            async for chunk in response.chunks():
                read += len(chunk)
                assert len(chunk) < 1_000_000
            assert read == size
            assert await (await ask(pool, server)).read(size) == bytes(size)
            assert len(server.peers) == 1
            await pool.aclose()

    run(main())


def test_answer_that_nobody_reads_does_not_hold_its_connection_for_ever(run: Run) -> None:
    async def main() -> None:
        gone = asyncio.Event()

        async def script(peer: Peer) -> None:
            await peer.request()
            await peer.send(b"HTTP/1.1 200 OK\r\n\r\n")
            try:
                while True:
                    await peer.send(bytes(65_536))
            except ConnectionError:
                gone.set()

        pool = Pool()
        async with upstream(script) as server:
            response = await ask(pool, server, timeouts=Timeouts(read_s=5, unread_s=0.2))
            await gone.wait()
            with pytest.raises(UpstreamFailure) as caught:
                await response.read(10**9)
            assert caught.value.code == "upstream_closed"
            assert pool.stats().open == 0
            await pool.aclose()

    run(main())


def test_idle_connection_expires(run: Run) -> None:
    async def main() -> None:
        gone = asyncio.Event()

        async def script(peer: Peer) -> None:
            await peer.request()
            await peer.send(ok())
            await peer.hung_up()
            gone.set()

        pool = Pool(PoolLimits(idle_s=0.1))
        async with upstream(script) as server:
            await fetch(pool, server)
            await gone.wait()
            assert pool.stats().open == 0
            await pool.aclose()

    run(main())


def test_keep_alive_hint_of_the_upstream_shortens_idleness(run: Run) -> None:
    async def main() -> None:
        gone = asyncio.Event()

        async def script(peer: Peer) -> None:
            await peer.request()
            await peer.send(b"HTTP/1.1 200 OK\r\nkeep-alive: timeout=1, max=5\r\ncontent-length: 0\r\n\r\n")
            await peer.hung_up()
            gone.set()

        pool = Pool(PoolLimits(idle_s=1000))
        async with upstream(script) as server:
            await fetch(pool, server)
            await gone.wait()
            await pool.aclose()

    run(main())


def test_half_closed_upstream_still_answers_and_is_not_used_again(run: Run) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(ok())
        peer.half_close()
        await peer.hung_up()

    async def main() -> None:
        pool = Pool()
        async with upstream(script) as server:
            for _ in range(3):
                assert await fetch(pool, server) == b"ok"
            assert len(server.peers) == 3
            await pool.aclose()

    run(main())


def test_upstream_that_hangs_up_at_once(run: Run) -> None:
    async def script(peer: Peer) -> None:
        peer.reset()

    async def main() -> None:
        pool = Pool(PoolLimits(connections_max=1))
        async with upstream(script) as server:
            for _ in range(3):
                with pytest.raises(UpstreamFailure):
                    await ask(pool, server)
            assert pool.stats().open == 0
            await pool.aclose()

    run(main())


# -- addresses
def test_address_is_checked_after_resolution_and_before_the_dial(run: Run) -> None:
    asked: list[Address] = []

    def refuse(address: Address) -> bool:
        asked.append(address)
        return not address.is_loopback

    async def main() -> None:
        pool = Pool(allow_address=refuse)
        async with upstream(answering(ok())) as server:
            for host in ("127.0.0.1", "localhost", "::ffff:127.0.0.1", "0x7f.1"):
                with pytest.raises(UpstreamFailure) as caught:
                    await pool.request(Target(False, host, server.port), "GET", b"/", [], b"", timeouts=QUICK)
                assert (caught.value.code, caught.value.dispatched) == ("upstream_connect", False)
            assert not server.peers
            assert all(address.is_loopback for address in asked)
            assert asked.count(ipaddress.IPv4Address("127.0.0.1")) >= 3
            await pool.aclose()

    run(main())


# -- the end
def test_closing_lets_exchanges_end_within_the_grace_and_takes_no_more(run: Run) -> None:
    async def main() -> None:
        asked, go = asyncio.Event(), asyncio.Event()

        async def script(peer: Peer) -> None:
            await peer.request()
            asked.set()
            await go.wait()
            await peer.send(ok())
            await peer.hung_up()

        pool = Pool(PoolLimits(connections_max=1))
        async with upstream(script) as server:
            running = asyncio.create_task(fetch(pool, server))
            await asked.wait()
            waiting = asyncio.create_task(fetch(pool, server))
            await asyncio.sleep(0)
            closing = asyncio.create_task(pool.aclose(grace_s=10))
            with pytest.raises(UpstreamFailure) as caught:
                await waiting
            assert caught.value.code == "upstream_pool"
            with pytest.raises(UpstreamFailure):
                await ask(pool, server)
            go.set()
            assert await running == b"ok"
            await closing
            assert pool.stats().open == 0

    run(main())


def test_closing_without_grace_fails_what_is_under_way(run: Run) -> None:
    async def main() -> None:
        pool = Pool()
        async with upstream(answering(PARTIAL)) as server:
            response = await ask(pool, server)
            await pool.aclose()
            with pytest.raises(UpstreamFailure) as caught:
                await response.read(100)
            assert caught.value.code == "upstream_closed"
            assert pool.stats().open == 0

    run(main())


def test_counts_for_metrics(run: Run) -> None:
    async def main() -> None:
        pool = Pool()
        async with upstream(answering(ok())) as server:
            for _ in range(3):
                await fetch(pool, server)
            stats = pool.stats()
            assert (stats.requests, stats.dialled, stats.reused, stats.open, stats.idle) == (3, 1, 2, 1, 1)
            await pool.aclose()

    run(main())
