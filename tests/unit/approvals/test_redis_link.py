"""The link: order, batching, what is sent again and what is not, bounds, time-outs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest
import uvloop

from gateway.approvals.link import RedisLink, Script, connect
from gateway.core.errors import StoreError
from tests.servers import Throwaway, throwaway
from tests.unit.approvals.scripted_redis import scripted

Runner = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Runner:
    runner: Runner = request.param
    return runner


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0)


async def code_of(awaitable: Awaitable[object]) -> str:
    with pytest.raises(StoreError) as caught:
        await awaitable
    return caught.value.code


def test_answers_come_to_their_own_callers(run: Runner, redis_url: str) -> None:
    async def main() -> None:
        link = connect(redis_url)
        await asyncio.gather(*(link.command("SET", f"k{i}", i) for i in range(500)))
        assert await asyncio.gather(*(link.command("GET", f"k{i}") for i in range(500))) == [
            str(i).encode() for i in range(500)
        ]
        await link.aclose()

    run(main())


def test_commands_of_one_turn_share_a_connection_and_keep_their_order(run: Runner) -> None:
    async def main() -> None:
        async with scripted(lambda words: b"+OK\r\n") as server:
            link = connect(server.url)
            await asyncio.gather(*(link.command("SET", i, "x") for i in range(100)))
            assert server.connections == 1
            assert [words[1] for words in server.seen if words[0] == b"SET"] == [str(i).encode() for i in range(100)]
            await link.aclose()

    run(main())


def test_a_command_in_flight_when_the_connection_dies_is_not_sent_again(run: Runner) -> None:
    async def main() -> None:
        async with scripted(lambda words: b"+OK\r\n" if words[0] == b"SET" else None) as server:
            link = connect(server.url)
            assert await code_of(link.command("INCR", "a")) == "store_lost"
            assert await link.command("SET", "a", 1) == b"OK"  # it reconnected
            assert server.count(b"INCR") == 1
            await link.aclose()

    run(main())


def test_an_idempotent_command_is_sent_again_in_its_place(run: Runner) -> None:
    async def main() -> None:
        hang_ups = 2

        def answer(words: list[bytes]) -> bytes | None:
            nonlocal hang_ups
            hang_ups -= 1
            return None if hang_ups >= 0 else b"$1\r\n" + words[1] + b"\r\n"

        async with scripted(answer) as server:
            link = connect(server.url)
            replies = await asyncio.gather(*(link.command("GET", i, idempotent=True) for i in range(5)))
            assert replies == [b"0", b"1", b"2", b"3", b"4"]
            assert server.connections == 3
            await link.aclose()

    run(main())


def test_a_silent_server_is_a_timeout_and_a_new_connection(run: Runner) -> None:
    async def main() -> None:
        async with scripted(lambda words: b"" if words[0] == b"GET" else b"+OK\r\n") as server:
            link = connect(server.url, timeout_s=0.2)
            assert await code_of(link.command("GET", "a")) == "store_timeout"
            assert await link.command("SET", "a", 1) == b"OK"
            assert server.connections == 2
            await link.aclose()

    run(main())


def test_no_server_is_an_error_in_time_and_at_once_when_known(run: Runner) -> None:
    async def main() -> None:
        link = connect("unix:///nonexistent/r.sock", timeout_s=0.2)
        loop = asyncio.get_running_loop()
        begun = loop.time()
        assert await code_of(link.command("GET", "a", idempotent=True)) == "store_unavailable"
        assert loop.time() - begun < 2
        begun = loop.time()
        assert await code_of(link.command("GET", "a")) == "store_unavailable"
        assert loop.time() - begun < 0.1
        await link.aclose()

    run(main())


def test_a_command_that_was_cancelled_before_it_left_is_never_sent(run: Runner) -> None:
    async def main() -> None:
        async with scripted(lambda words: b"+OK\r\n") as server:
            link = connect(server.url)
            task = asyncio.create_task(link.command("INCR", "a"))
            await asyncio.sleep(0)  # it waits for the connection now
            task.cancel()
            assert await link.command("SET", "a", 1) == b"OK"
            assert server.count(b"INCR") == 0
            await link.aclose()

    run(main())


def test_a_caller_that_goes_away_does_not_shift_the_answers(run: Runner) -> None:
    async def main() -> None:
        async with scripted(lambda words: b"$1\r\n" + words[1] + b"\r\n") as server:
            link = connect(server.url)
            await link.command("GET", 0)
            first, second = (asyncio.create_task(link.command("GET", i)) for i in (1, 2))
            await asyncio.sleep(0)
            first.cancel()
            assert await second == b"2"
            await link.aclose()

    run(main())


def test_calls_and_bytes_are_bounded(run: Runner) -> None:
    async def main() -> None:
        async with scripted(lambda words: b"" if words[0] == b"GET" else b"+OK\r\n") as server:
            link = connect(server.url, calls_max=3, bytes_max=1_000)
            await link.command("SET", "a", 1)
            waiting = [asyncio.create_task(link.command("GET", "a")) for _ in range(3)]
            await asyncio.sleep(0)
            assert await code_of(link.command("GET", "a")) == "store_overloaded"
            for task in waiting:
                task.cancel()
            server.hang_up()
            await until(lambda: server.connections == 2)
            assert await code_of(link.command("SET", "a", b"x" * 1_000)) == "store_overloaded"
            assert await link.command("SET", "a", b"x" * 100) == b"OK"  # the bounds count what waits, not what was
            await link.aclose()

    run(main())


@pytest.mark.parametrize("garbage", [b"HTTP/1.1 400 Bad Request\r\n", b"+OK\r\n+OK\r\n+OK\r\n"])
def test_what_is_not_an_answer_ends_the_connection(run: Runner, garbage: bytes) -> None:
    async def main() -> None:
        async with scripted(lambda words: garbage if words[0] == b"GET" else b"+OK\r\n") as server:
            link = connect(server.url)
            first, second = await asyncio.gather(
                link.command("GET", "a"), link.command("SET", "a", 1), return_exceptions=True
            )
            assert isinstance(second, StoreError) or second == b"OK"
            assert isinstance(first, StoreError) or first == b"OK"
            await until(lambda: server.connections == 2)
            assert await link.command("SET", "a", 1) == b"OK"
            await link.aclose()

    run(main())


def test_a_refusal_names_its_code_and_quotes_nothing(run: Runner) -> None:
    async def main() -> None:
        async with scripted(lambda words: b"-ERR unknown command 'GET', with args: 's3cret'\r\n") as server:
            link = connect(server.url)
            with pytest.raises(StoreError) as caught:
                await link.command("GET", "s3cret")
            assert caught.value.code == "store_refused"
            assert "s3cret" not in caught.value.message
            await link.aclose()

    run(main())


def test_it_logs_in_and_selects_before_anything_else(run: Runner) -> None:
    async def main() -> None:
        async with scripted(lambda words: b"+OK\r\n") as server:
            link = connect(server.url.replace("unix://", "unix://ann:pw@") + "?db=3")
            await link.command("SET", "a", 1)
            assert server.seen == [[b"AUTH", b"ann", b"pw"], [b"SELECT", b"3"], [b"PING"], [b"SET", b"a", b"1"]]
            await link.aclose()

    run(main())


def test_a_wrong_password_is_never_logged(run: Runner, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with scripted(lambda words: b"-WRONGPASS invalid hunter2\r\n") as server:
            link = connect(server.url.replace("unix://", "unix://:hunter2@"), timeout_s=0.2)
            with caplog.at_level(logging.DEBUG):
                assert await code_of(link.command("SET", "a", 1)) == "store_unavailable"
            await link.aclose()

    run(main())
    assert "WRONGPASS" in caplog.text
    assert "hunter2" not in caplog.text


def test_a_script_that_the_server_does_not_know_is_sent_whole(run: Runner, redis_server: Throwaway) -> None:
    script = Script("add", "return tonumber(ARGV[1]) + 1 -- " + redis_server.url)

    async def main() -> None:
        link = connect(redis_server.url)
        await link.command("SCRIPT", "FLUSH")
        assert [await link.script(script, [], [i]) for i in range(3)] == [1, 2, 3]
        assert await link.command("SCRIPT", "EXISTS", script.sha) == [1]
        await link.aclose()

    run(main())


def test_closing_ends_what_waits(run: Runner) -> None:
    async def main() -> None:
        async with scripted(lambda words: b"") as server:
            link = connect(server.url)
            task = asyncio.create_task(link.command("GET", "a"))
            await until(lambda: server.count(b"GET") == 1)
            await link.aclose()
            assert await code_of(task) == "store_closed"
            assert await code_of(link.command("GET", "a")) == "store_closed"

    run(main())


def test_it_finds_a_server_that_was_killed_and_started_again(run: Runner) -> None:
    async def main(server: Throwaway) -> None:
        link = connect(server.url)
        await link.command("SET", "a", 1)
        await asyncio.to_thread(server.kill)
        await until(lambda: not link.connected)
        read = asyncio.create_task(link.command("GET", "a", idempotent=True))
        await asyncio.to_thread(server.restart)
        assert await read == b"1"
        await link.aclose()

    with throwaway() as server:
        run(main(server))


def test_the_link_connects_with_its_first_command() -> None:
    link = connect("redis://127.0.0.1:1")
    assert isinstance(link, RedisLink)
    assert not link.connected
