"""What any transport must do: the pool behind httpx2's interface and httpx2's own pass the same tests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import httpx2
import pytest

from gateway.proxy.pool import Pool, PoolLimits
from gateway.proxy.transport import PooledTransport
from tests.contract.conftest import Run
from tests.contract.raw_upstream import Peer, Upstream, answering, ok, once, upstream

Make = Callable[..., httpx2.AsyncBaseTransport]
TIMEOUT = {"connect": 5.0, "read": 5.0, "write": 5.0, "pool": 5.0}


def pooled(connections_max: int = 100) -> httpx2.AsyncBaseTransport:
    return PooledTransport(Pool(PoolLimits(connections_max=connections_max)))


def stock(connections_max: int = 100) -> httpx2.AsyncBaseTransport:
    return httpx2.AsyncHTTPTransport(limits=httpx2.Limits(max_connections=connections_max))


@pytest.fixture(params=[pooled, stock], ids=["pooled", "stock"])
def make(request: pytest.FixtureRequest) -> Make:
    return request.param


def build(
    server: Upstream,
    method: str = "GET",
    content: bytes | None = None,
    headers: dict[str, str] | None = None,
    path: str = "/",
    **timeouts: float,
) -> httpx2.Request:
    return httpx2.Request(
        method,
        f"http://127.0.0.1:{server.port}{path}",
        content=content,
        headers=headers,
        extensions={"timeout": TIMEOUT | timeouts},
    )


async def fetch(transport: httpx2.AsyncBaseTransport, request: httpx2.Request) -> tuple[int, bytes]:
    response = await transport.handle_async_request(request)
    try:
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        return response.status_code, b"".join([chunk async for chunk in response.stream])
    finally:
        await response.aclose()


BODIES = {
    "content length": [ok(b"hello world")],
    "content length, in pieces": [b"HTTP/1.1 200 OK\r\ncontent-le", b"ngth: 11\r\n\r\nhello", b" world"],
    "chunked": [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"],
    "chunked with extension and trailer": [
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5;a=b\r\nhel",
        b"lo\r\n6\r\n world\r\n0\r\nx-sum: 1\r\n\r\n",
    ],
    "until close": [b"HTTP/1.1 200 OK\r\n\r\nhello", b" world"],
    "HTTP/1.0": [b"HTTP/1.0 200 OK\r\n\r\nhello world"],
    "after 100 and 103": [
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" + ok(b"hello world"),
    ],
}


@pytest.mark.parametrize("pieces", BODIES.values(), ids=BODIES.keys())
def test_body_arrives_whole_however_it_is_framed(run: Run, make: Make, pieces: list[bytes]) -> None:
    async def main() -> None:
        async with upstream(once(*pieces)) as server, make() as transport:
            assert await fetch(transport, build(server)) == (200, b"hello world")

    run(main())


@pytest.mark.parametrize(
    ("method", "answer", "status"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\n", 200),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n", 204),
        ("GET", b"HTTP/1.1 304 Not Modified\r\ncontent-length: 50\r\n\r\n", 304),
        ("POST", b"HTTP/1.1 201 Created\r\ncontent-length: 0\r\n\r\n", 201),
    ],
)
def test_answers_without_a_body_end_at_the_head_and_keep_the_connection(
    run: Run, make: Make, method: str, answer: bytes, status: int
) -> None:
    async def main() -> None:
        async with upstream(answering(answer)) as server, make() as transport:
            for _ in range(3):
                assert await fetch(transport, build(server, method)) == (status, b"")
            assert len(server.peers) == 1

    run(main())


def test_request_arrives_as_it_was_given(run: Run, make: Make) -> None:
    seen: list[tuple[bytes, bytes]] = []

    async def script(peer: Peer) -> None:
        seen.append(await peer.request())
        await peer.send(ok())

    async def main() -> None:
        async with upstream(script) as server, make() as transport:
            await fetch(transport, build(server, "POST", b'{"a":1}', {"X-One": "1"}, "/v1/x%20y?q=%2F&r="))
            head, body = seen[0]
            lines = head.lower().split(b"\r\n")
            assert head.startswith(b"POST /v1/x%20y?q=%2F&r= HTTP/1.1\r\n")
            assert body == b'{"a":1}'
            assert lines.count(b"host: 127.0.0.1:%d" % server.port) == 1
            assert lines.count(b"content-length: 7") == 1
            assert b"x-one: 1" in lines

    run(main())


def test_repeated_response_headers_keep_their_order(run: Run, make: Make) -> None:
    async def main() -> None:
        answer = b"HTTP/1.1 200 OK\r\nSet-Cookie: a\r\nX: 1\r\nset-cookie: b\r\ncontent-length: 0\r\n\r\n"
        async with upstream(once(answer)) as server, make() as transport:
            response = await transport.handle_async_request(build(server))
            await response.aread()
            assert response.headers.get_list("set-cookie") == ["a", "b"]

    run(main())


def test_redirect_is_an_answer_like_any_other(run: Run, make: Make) -> None:
    async def main() -> None:
        answer = b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:9/\r\ncontent-length: 0\r\n\r\n"
        async with upstream(answering(answer)) as server, make() as transport:
            assert await fetch(transport, build(server)) == (302, b"")

    run(main())


def test_connection_is_kept_unless_the_upstream_says_close(run: Run, make: Make) -> None:
    async def main() -> None:
        async with upstream(answering(ok())) as server, make() as transport:
            for _ in range(3):
                assert await fetch(transport, build(server, "POST", b"x")) == (200, b"ok")
            assert len(server.peers) == 1
        closing = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok"
        async with upstream(answering(closing)) as server, make() as transport:
            for _ in range(2):
                assert await fetch(transport, build(server)) == (200, b"ok")
            assert len(server.peers) == 2

    run(main())


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_hang_up_while_idle_goes_unnoticed_by_the_next_request(run: Run, make: Make, method: str) -> None:
    async def main() -> None:
        async with upstream(answering(ok())) as server, make() as transport:
            await fetch(transport, build(server, method))
            server.peers[0].half_close()
            assert await fetch(transport, build(server, method)) == (200, b"ok")
            assert len(server.peers) == 2

    run(main())


CUT_SHORT = {
    "content length": b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhel",
    "chunked": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhel",
    "chunked without its end": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nhel\r\n",
}


@pytest.mark.parametrize("answer", CUT_SHORT.values(), ids=CUT_SHORT.keys())
def test_truncated_body_is_an_error_not_an_end(run: Run, make: Make, answer: bytes) -> None:
    async def main() -> None:
        async with upstream(once(answer)) as server, make() as transport:
            with pytest.raises(httpx2.RemoteProtocolError):
                await fetch(transport, build(server))

    run(main())


REFUSED = {
    "garbage": b"\x16\x03\x01 this is no HTTP\r\n\r\n",
    "another protocol": b"220 mail.example ESMTP\r\n",
    "status": b"HTTP/1.1 2OO OK\r\n\r\n",
    "space before colon": b"HTTP/1.1 200 OK\r\nx : 1\r\ncontent-length: 0\r\n\r\n",
    "NUL in value": b"HTTP/1.1 200 OK\r\nx: a\0b\r\ncontent-length: 0\r\n\r\n",
    "negative length": b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
    "lengths that differ": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok!",
    "unknown coding": b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nok",
    "chunk size": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    "nothing at all": b"",
    "oversized head": b"HTTP/1.1 200 OK\r\nx: " + b"a" * 300_000,
}


@pytest.mark.parametrize("answer", REFUSED.values(), ids=REFUSED.keys())
def test_what_is_not_http_is_refused(run: Run, make: Make, answer: bytes) -> None:
    async def main() -> None:
        async with upstream(once(answer)) as server, make() as transport:
            with pytest.raises(httpx2.RemoteProtocolError):
                await fetch(transport, build(server, "POST", b"x"))

    run(main())


def test_nobody_listens(run: Run, make: Make) -> None:
    async def main() -> None:
        async with upstream(answering(ok())) as server:
            pass
        async with make() as transport:
            with pytest.raises(httpx2.ConnectError):
                await fetch(transport, build(server))

    run(main())


@pytest.mark.parametrize("beginning", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhel"], ids=["head", "body"])
def test_silence_is_a_read_timeout_and_the_connection_is_not_used_again(run: Run, make: Make, beginning: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        if peer.number == 0:
            await peer.send(beginning)
            await peer.hung_up()
        await peer.send(ok())

    async def main() -> None:
        async with upstream(script) as server, make() as transport:
            with pytest.raises(httpx2.ReadTimeout):
                await fetch(transport, build(server, read=0.2))
            assert await fetch(transport, build(server)) == (200, b"ok")
            assert len(server.peers) == 2

    run(main())


def test_no_free_connection_is_a_pool_timeout(run: Run, make: Make) -> None:
    async def main() -> None:
        async with upstream(answering(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n")) as server:
            async with make(connections_max=1) as transport:
                held = await transport.handle_async_request(build(server))
                with pytest.raises(httpx2.PoolTimeout):
                    await fetch(transport, build(server, pool=0.2))
                await held.aclose()

    run(main())


def test_abandoned_answer_closes_its_connection_and_frees_its_place(run: Run, make: Make) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhel" if peer.number == 0 else ok())
        await peer.hung_up()

    async def main() -> None:
        async with upstream(script) as server, make(connections_max=1) as transport:
            response = await transport.handle_async_request(build(server))
            await response.aclose()
            assert await fetch(transport, build(server)) == (200, b"ok")
            assert len(server.peers) == 2

    run(main())


@pytest.mark.parametrize("beginning", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhel"], ids=["head", "body"])
def test_cancelled_request_closes_its_connection_and_frees_its_place(run: Run, make: Make, beginning: bytes) -> None:
    async def main() -> None:
        asked = asyncio.Event()

        async def script(peer: Peer) -> None:
            await peer.request()
            if peer.number == 0:
                await peer.send(beginning)
                asked.set()
                await peer.hung_up()
            await peer.send(ok())

        async with upstream(script) as server, make(connections_max=1) as transport:
            task = asyncio.create_task(fetch(transport, build(server, "POST", b"x")))
            await asked.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await fetch(transport, build(server)) == (200, b"ok")
            assert len(server.peers) == 2

    run(main())


def test_post_that_was_taken_and_not_answered_is_not_sent_again(run: Run, make: Make) -> None:
    taken: list[bytes] = []

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(ok())
        taken.append((await peer.request())[1])

    async def main() -> None:
        async with upstream(script) as server, make() as transport:
            await fetch(transport, build(server))
            with pytest.raises(httpx2.RemoteProtocolError):
                await fetch(transport, build(server, "POST", b"pay"))
            assert taken == [b"pay"]
            assert len(server.peers) == 1

    run(main())


@pytest.mark.parametrize("value", ["a\r\nx-evil: 1", "a\nb", "a\rb", "a\0b"])
def test_header_value_cannot_split_the_request(run: Run, make: Make, value: str) -> None:
    async def main() -> None:
        async with upstream(answering(ok())) as server, make() as transport:
            with pytest.raises(httpx2.LocalProtocolError):
                await fetch(transport, build(server, headers={"x-name": value}))

    run(main())
