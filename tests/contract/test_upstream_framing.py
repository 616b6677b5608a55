"""Answers whose end is in doubt are refused; requests that could be split are never sent."""

from __future__ import annotations

import asyncio

import pytest

from gateway.core.errors import ClientError
from gateway.proxy.pool import Pool, Target, UpstreamFailure
from tests.contract.conftest import Run
from tests.contract.pooled import PARTIAL, QUICK, ask, fetch
from tests.contract.raw_upstream import Peer, answering, ok, upstream

# -- framing and limits of answers
SMUGGLED = {
    "length, then chunked": b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked, then length": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n",
    "same length twice": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 2\r\n\r\nok",
    "list of lengths": b"HTTP/1.1 200 OK\r\ncontent-length: 2, 2\r\n\r\nok",
    "signed length": b"HTTP/1.1 200 OK\r\ncontent-length: +2\r\n\r\nok",
    "two codings": b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked twice": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks in HTTP/1.0": b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "folded header": b"HTTP/1.1 200 OK\r\nx: a\r\n b\r\ncontent-length: 2\r\n\r\nok",
    "bare line feeds": b"HTTP/1.1 200 OK\ncontent-length: 2\n\nok",
    "bare carriage return": b"HTTP/1.1 200 OK\r\nx: a\rb\r\ncontent-length: 2\r\n\r\nok",
    "switch of protocols": b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
    "status below 100": b"HTTP/1.1 099 OK\r\n\r\n",
    "too many interim answers": b"HTTP/1.1 100 Continue\r\n\r\n" * 17 + ok(),
    "too many headers": b"HTTP/1.1 200 OK\r\n" + b"x: 1\r\n" * 129 + b"\r\n",
    "head in one piece": b"HTTP/1.1 200 OK\r\nx: " + b"a" * 70_000 + b"\r\ncontent-length: 2\r\n\r\nok",
}


@pytest.mark.parametrize("answer", SMUGGLED.values(), ids=SMUGGLED.keys())
def test_doubtful_head_is_refused_in_words_of_our_own(run: Run, answer: bytes) -> None:
    async def main() -> None:
        pool = Pool()
        async with upstream(answering(answer)) as server:
            with pytest.raises(UpstreamFailure) as caught:
                await fetch(pool, server)
            assert (caught.value.code, caught.value.status) == ("upstream_protocol", 502)
            assert caught.value.__context__ is None  # nothing of the parser's, which may quote the upstream
            assert pool.stats().open == 0
            await pool.aclose()

    run(main())


ENDLESS = {
    "head": (b"HTTP/1.1 200 OK\r\nx: ", b"a" * 8192),
    "headers": (b"HTTP/1.1 200 OK\r\n", b"x: 1\r\n" * 1000),
    "chunk extension": (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5;", b"a" * 8192),
    "trailers": (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n", b"x: 1\r\n" * 1000),
    "one trailer": (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx: ", b"a" * 8192),
}


@pytest.mark.parametrize(("beginning", "more"), ENDLESS.values(), ids=ENDLESS.keys())
def test_endless_framing_is_cut_off(run: Run, beginning: bytes, more: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(beginning)
        while True:
            await peer.send(more)

    async def main() -> None:
        pool = Pool()
        async with upstream(script) as server:
            with pytest.raises(UpstreamFailure) as caught:
                await fetch(pool, server)
            assert caught.value.code == "upstream_protocol"
            await pool.aclose()

    run(main())


def test_body_beyond_the_callers_bound_is_refused_and_the_connection_closed(run: Run) -> None:
    async def main() -> None:
        pool = Pool()
        async with upstream(answering(ok(b"a" * 100_000))) as server:
            assert len(await (await ask(pool, server)).read(100_000)) == 100_000
            with pytest.raises(UpstreamFailure) as caught:
                await (await ask(pool, server)).read(99_999)
            assert caught.value.code == "upstream_too_large"
            await pool.aclose()

    run(main())


def test_part_that_arrived_is_read_before_the_failure(run: Run) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(PARTIAL)
        peer.reset()

    async def main() -> None:
        pool = Pool()
        async with upstream(script) as server:
            read: list[bytes] = []
            with pytest.raises(UpstreamFailure) as caught:
                async for chunk in (await ask(pool, server)).chunks():
                    read.append(chunk)
            assert caught.value.code == "upstream_closed"
            assert b"hel".startswith(b"".join(read))  # a reset may overtake data in the kernel
            await pool.aclose()

    run(main())


def test_reset_ends_no_body(run: Run) -> None:
    """A body without a length ends with an orderly close; a reset is a loss."""

    async def main() -> None:
        go = asyncio.Event()

        async def script(peer: Peer) -> None:
            await peer.request()
            await peer.send(b"HTTP/1.1 200 OK\r\n\r\nhel")
            await go.wait()
            peer.reset()

        pool = Pool()
        async with upstream(script) as server:
            response = await ask(pool, server)
            go.set()
            with pytest.raises(UpstreamFailure) as caught:
                await response.read(100)
            assert caught.value.code == "upstream_closed"
            await pool.aclose()

    run(main())


# -- requests
SPLITTING = [
    ("POST", b"/", [(b"x", b"a\r\nb: c")]),
    ("POST", b"/", [(b"x", b"a\nb: c")]),
    ("POST", b"/", [(b"x", b"a\rb")]),
    ("POST", b"/", [(b"x", b"a\0b")]),
    ("POST", b"/", [(b"x y", b"a")]),
    ("POST", b"/", [(b"x:", b"a")]),
    ("POST", b"/", [(b"", b"a")]),
    ("POST", b"/", [(b"x\r\ny", b"a")]),
    ("POST", b"/a b", []),
    ("POST", b"/a\r\nb", []),
    ("POST", b"/a#b", []),
    ("POST", b"/\xc3\xa4", []),
    ("POST", b"http://elsewhere/", []),
    ("POST", b"", []),
    ("POST / HTTP/1.1\r\n", b"/", []),
    ("CONNECT", b"/", []),
    ("TRACE", b"/", []),
]


@pytest.mark.parametrize(("method", "path", "headers"), SPLITTING)
def test_request_that_could_be_split_is_refused_unsent(
    run: Run, method: str, path: bytes, headers: list[tuple[bytes, bytes]]
) -> None:
    async def main() -> None:
        pool = Pool()
        async with upstream(answering(ok())) as server:
            target = Target(False, "127.0.0.1", server.port)
            with pytest.raises(ClientError):
                await pool.request(target, method, path, headers, b"", timeouts=QUICK)
            assert not server.peers
            await pool.aclose()

    run(main())


@pytest.mark.parametrize("target", [("a b", 80), ("a\r\nb", 80), ("", 80), ("a/b", 80), ("a@b", 80), ("a", 0)])
def test_target_that_is_no_host_and_port_is_refused(run: Run, target: tuple[str, int]) -> None:
    async def main() -> None:
        pool = Pool()
        with pytest.raises(ClientError):
            await pool.request(Target(False, *target), "GET", b"/", [], b"", timeouts=QUICK)
        await pool.aclose()

    run(main())


def test_framing_headers_are_the_pools_own(run: Run) -> None:
    heads: list[bytes] = []

    async def script(peer: Peer) -> None:
        heads.append((await peer.request())[0])
        await peer.send(ok())

    async def main() -> None:
        pool = Pool()
        names = (
            b"Host Content-Length Transfer-Encoding Connection Keep-Alive TE Trailer Upgrade Expect Proxy-Connection"
        )
        async with upstream(script) as server:
            target = Target(False, "127.0.0.1", server.port)
            headers = [(name, b"99") for name in names.split()] + [(b"x-kept", b"1")]
            await (await pool.request(target, "POST", b"/", headers, b"body", timeouts=QUICK)).read(10)
            assert heads == [
                b"POST / HTTP/1.1\r\nhost: 127.0.0.1:%d\r\nx-kept: 1\r\ncontent-length: 4\r\n\r\n" % server.port
            ]
            await pool.aclose()

    run(main())


def test_answer_before_the_request_is_out_is_delivered_and_ends_the_connection(run: Run) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 2\r\n\r\nno")
        await asyncio.Event().wait()  # never reads the rest

    async def main() -> None:
        pool = Pool()
        async with upstream(script) as server:
            for _ in range(2):
                response = await ask(pool, server, body=bytes(16_000_000))
                assert (response.status, await response.read(10)) == (413, b"no")
            assert len(server.peers) == 2
            await pool.aclose()

    run(main())
