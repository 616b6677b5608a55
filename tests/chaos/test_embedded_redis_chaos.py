"""The embedded server: settings, locks, adoption, restarts, stop. Real servers, killed and stopped by pid."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.approvals import embedded
from gateway.approvals.embedded import EmbeddedRedis
from gateway.approvals.server_folder import SOCKET_PATH_BYTES_MAX
from gateway.core.errors import StoreError
from tests.servers import DEBIAN_REDIS, ask, throwaway

NEEDS_DEBIAN = pytest.mark.skipif(DEBIAN_REDIS is None, reason="no redis-server on this machine")


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="gw-") as name:
        yield Path(name)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("binary", [None, pytest.param(DEBIAN_REDIS, marks=NEEDS_DEBIAN)])
def test_the_server_is_durable_private_and_off_the_network(binary: str | None) -> None:
    with throwaway(binary) as server:
        for name, value in {
            "appendonly": "yes",
            "appendfsync": "always",
            "aof-use-rdb-preamble": "no",
            "maxmemory-policy": "noeviction",
            "port": "0",
            "save": "",
            "unixsocketperm": "700",
        }.items():
            assert ask(server.url, "CONFIG", "GET", name) == [name.encode(), value.encode()], name
        at = server.state_dir / "redis"
        assert (at.stat().st_mode & 0o777, (at / "redis.sock").stat().st_mode & 0o077) == (0o700, 0)


def test_keys_of_the_environment_do_not_reach_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-not-for-redis")
    with throwaway() as server:
        assert b"sk-not-for-redis" not in Path(f"/proc/{server.pid}/environ").read_bytes()


def test_a_clean_stop_leaves_no_process_no_socket_and_all_data(folder: Path) -> None:
    server = EmbeddedRedis(folder)
    url = server.start()
    ask(url, "SET", "a", "1")
    pid = server.pid
    assert pid is not None
    server.stop()
    server.stop()
    assert not alive(pid)
    assert not (folder / "redis" / "redis.sock").exists()
    again = EmbeddedRedis(folder)
    assert ask(again.start(), "GET", "a") == b"1"
    again.stop()


def test_a_second_gateway_is_refused_while_the_first_runs(folder: Path) -> None:
    first = EmbeddedRedis(folder)
    url = first.start()
    with pytest.raises(StoreError) as caught:
        EmbeddedRedis(folder).start()
    assert caught.value.code == "store_in_use"
    assert ask(url, "PING") == b"PONG"
    first.stop()
    second = EmbeddedRedis(folder)
    second.start()
    second.stop()


def test_a_long_state_folder_works_and_is_found_again(folder: Path) -> None:
    deep = folder / ("x" * SOCKET_PATH_BYTES_MAX)
    first = EmbeddedRedis(deep)
    url = first.start()
    ask(url, "SET", "a", "1")
    first.stop()
    second = EmbeddedRedis(deep)
    again = second.start()
    assert ask(again, "GET", "a") == b"1"
    second.stop()
    assert not list((deep / "redis").glob("socket-folder"))


def test_a_relative_state_folder_gives_an_absolute_socket(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    server = EmbeddedRedis(Path("state"))
    assert server.start() == f"unix://{folder.resolve()}/state/redis/redis.sock?db=0"
    server.stop()


def test_no_second_server_is_started_beside_one_that_hangs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "START_TIMEOUT_S", 0.3)
    server = EmbeddedRedis(folder)
    server.start()
    pid = server.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(StoreError) as caught:
            server.revive()
        assert caught.value.code == "store_start_failed"
    finally:
        os.kill(pid, signal.SIGCONT)
    server.revive()
    assert server.pid == pid
    server.stop()


def test_a_server_that_cannot_start_says_so(folder: Path) -> None:
    binary = folder / "broken"
    binary.write_text("#!/bin/sh\n[ \"$1\" = --version ] && echo 'Redis server v=7.2.0 sha=0' && exit 0\nexit 1\n")
    binary.chmod(0o700)
    server = EmbeddedRedis(folder / "state", binary=str(binary))
    for _ in range(2):  # the second time shows that the folder was let go
        with pytest.raises(StoreError) as caught:
            server.start()
        assert caught.value.code == "store_start_failed"


def test_supervision_restarts_again_and_again_and_ends_with_stop(folder: Path) -> None:
    async def main() -> None:
        server = EmbeddedRedis(folder)
        url = await asyncio.to_thread(server.start)
        supervisor = asyncio.create_task(server.supervise())
        pids = set()
        for _ in range(3):
            assert server.pid is not None
            pids.add(server.pid)
            await asyncio.sleep(0)
            os.kill(server.pid, signal.SIGKILL)
            async with asyncio.timeout(10):
                while server.pid in pids:
                    await asyncio.sleep(0.005)
            assert await asyncio.to_thread(ask, url, "PING") == b"PONG"
        await asyncio.to_thread(server.stop)
        async with asyncio.timeout(10):
            await supervisor

    asyncio.run(main())


def test_a_client_that_is_cut_off_does_not_restart_the_server(folder: Path) -> None:
    async def main() -> None:
        server = EmbeddedRedis(folder)
        url = await asyncio.to_thread(server.start)
        pid = server.pid
        supervisor = asyncio.create_task(server.supervise())
        for _ in range(3):
            await asyncio.to_thread(ask, url, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            await asyncio.to_thread(server.revive)
        assert server.pid == pid
        supervisor.cancel()
        await asyncio.gather(supervisor, return_exceptions=True)
        await asyncio.to_thread(server.stop)

    asyncio.run(main())


@NEEDS_DEBIAN
def test_what_the_wheels_server_wrote_is_read_by_debians(folder: Path) -> None:
    first = EmbeddedRedis(folder)
    url = first.start()
    ask(url, "HSET", "a", "f", "1")
    ask(url, "XADD", "s", "*", "f", "1")
    ask(url, "ZADD", "z", "1.5", "m")
    ask(url, "BGREWRITEAOF")
    first.stop()
    second = EmbeddedRedis(folder, binary=DEBIAN_REDIS)
    url = second.start()
    assert (ask(url, "HGET", "a", "f"), ask(url, "XLEN", "s"), ask(url, "ZSCORE", "z", "m")) == (b"1", 1, b"1.5")
    second.stop()
