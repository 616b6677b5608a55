"""Real processes and SIGKILL: nothing acknowledged is lost, nothing is claimed twice."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.approvals.embedded import EmbeddedRedis
from gateway.approvals.held_action import HeldAction
from gateway.approvals.link import connect
from gateway.approvals.queue import Queue
from gateway.approvals.queue_limits import QueueLimits
from gateway.core.decision import ApprovalTerms
from gateway.core.held import State
from tests.chaos.queue_process import LEASE_S, NOW
from tests.held_actions import proposal
from tests.servers import Throwaway, throwaway

ROOT = Path(__file__).parents[2]


class Process:
    """One role of `queue_process`, read line by line."""

    def __init__(self, *words: object) -> None:
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.queue_process", *map(str, words)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def line(self) -> list[str]:
        assert self.popen.stdout is not None
        words = self.popen.stdout.readline().split()
        assert words, "the process ended"
        return words

    def lines(self, first: str, count: int) -> list[str]:
        """The second words of the next `count` lines that begin so."""
        found: list[str] = []
        while len(found) < count:
            words = self.line()
            if words[0] == first:
                found.append(words[1])
        return found

    def go(self) -> None:
        assert self.popen.stdin is not None
        self.popen.stdin.write("\n")
        self.popen.stdin.flush()

    def rest(self) -> list[list[str]]:
        """Everything it still says, until it ends."""
        assert self.popen.stdout is not None
        # A line that SIGKILL cut has no end and was acknowledged to nobody.
        return [line.split() for line in self.popen.stdout if line.endswith("\n")]

    def kill(self) -> None:
        self.popen.kill()


@contextmanager
def process(*words: object) -> Iterator[Process]:
    running = Process(*words)
    try:
        yield running
    finally:
        running.kill()
        running.popen.communicate()


@pytest.fixture
def state_dir() -> Iterator[Path]:
    """A folder whose server, if one is left, is stopped at the end."""
    with tempfile.TemporaryDirectory(prefix="gw-chaos-") as folder:
        path = Path(folder)
        yield path
        server = EmbeddedRedis(path)
        server.start()
        server.stop()


def play(url: str, scenario: Callable[[Queue], Coroutine[Any, Any, Any]]) -> Any:
    async def main() -> Any:
        link = connect(url)
        queue = Queue(link, limits=QueueLimits(pending_per_agent_max=10**6))
        try:
            async with asyncio.timeout(60):
                return await scenario(queue)
        finally:
            await queue.aclose()
            await link.aclose()

    return asyncio.run(main())


def missing(url: str, acknowledged: list[str]) -> list[str]:
    async def scenario(queue: Queue) -> list[str]:
        actions = await asyncio.gather(*(queue.get(action_id) for action_id in acknowledged))
        return [action_id for action_id, action in zip(acknowledged, actions, strict=True) if action is None]

    found: list[str] = play(url, scenario)
    return found


def approved(url: str, count: int) -> list[HeldAction]:
    async def scenario(queue: Queue) -> list[HeldAction]:
        actions = []
        for n in range(count):
            action, _ = await queue.propose(proposal({"n": n}), now=NOW)
            actions.append(await queue.approve(action.id, "ann", ("approvers",), digest=action.digest, now=NOW))
        return actions

    found: list[HeldAction] = play(url, scenario)
    return found


def held_of(lines: list[list[str]]) -> list[str]:
    return [words[1] for words in lines if words[0] == "held"]


def test_a_gateway_that_is_killed_leaves_its_server_to_the_next(state_dir: Path) -> None:
    with process("gateway", state_dir, 0) as gateway:
        (server_pid,) = gateway.lines("server", 1)
        acknowledged = gateway.lines("held", 300)
        gateway.kill()
        acknowledged += held_of(gateway.rest())
    server = EmbeddedRedis(state_dir)
    url = server.start()
    try:
        assert server.pid == int(server_pid)
        assert missing(url, acknowledged) == []
    finally:
        server.stop()


def test_a_server_that_is_killed_comes_back_with_everything(state_dir: Path) -> None:
    with process("gateway", state_dir, 0) as gateway:
        (server_pid,) = gateway.lines("server", 1)
        acknowledged = gateway.lines("held", 300)
        os.kill(int(server_pid), signal.SIGKILL)
        acknowledged += gateway.lines("held", 5_000)  # more than the pipe may have held: the gateway goes on by itself
        gateway.kill()
        acknowledged += held_of(gateway.rest())
    server = EmbeddedRedis(state_dir)
    url = server.start()
    try:
        assert server.pid != int(server_pid)
        assert missing(url, acknowledged) == []
    finally:
        server.stop()


def test_both_are_killed_again_and_again_and_nothing_acknowledged_is_lost(state_dir: Path) -> None:
    acknowledged: list[str] = []
    for turn in range(3):
        with process("gateway", state_dir, turn * 1_000_000) as gateway:
            (server_pid,) = gateway.lines("server", 1)
            acknowledged += gateway.lines("held", 200)
            os.kill(int(server_pid), signal.SIGKILL)
            gateway.kill()
            acknowledged += held_of(gateway.rest())
    server = EmbeddedRedis(state_dir)
    url = server.start()
    try:
        assert missing(url, acknowledged) == []
        assert len(set(acknowledged)) == len(acknowledged) >= 600
    finally:
        server.stop()


def race(url: str, actions: list[HeldAction], during: Callable[[], None] = lambda: None) -> Counter[str]:
    """How often each action was won by 64 claimers in 4 processes."""
    ids = [action.id for action in actions]
    with ExitStack() as stack:
        racers = [stack.enter_context(process("claimers", url, f"p{n}", 16, *ids)) for n in range(4)]
        for racer in racers:
            assert racer.line() == ["ready"]
        for racer in racers:
            racer.go()
        during()
        lines = [words for racer in racers for words in racer.rest()]
    assert sum(words == ["done"] for words in lines) == 4
    return Counter(words[1] for words in lines if words[0] == "won")


def test_of_64_racing_claimers_exactly_one_wins(redis_url: str) -> None:
    actions = approved(redis_url, 10)
    assert race(redis_url, actions) == {action.id: 1 for action in actions}


def test_a_server_that_is_killed_during_the_race_hands_out_no_second_claim() -> None:
    def kill_and_restart(server: Throwaway) -> None:
        for _ in range(3):
            server.kill()
            server.restart()

    with throwaway() as server:
        actions = approved(server.url, 100)
        won = race(server.url, actions, lambda: kill_and_restart(server))
        assert won == {action.id: 1 for action in actions}


@pytest.mark.parametrize(("people", "expected"), [(("ann",), State.PENDING), (("ann", "bob"), State.APPROVED)])
def test_a_person_who_approves_in_many_places_counts_once(
    redis_url: str, people: tuple[str, ...], expected: State
) -> None:
    async def propose(queue: Queue) -> HeldAction:
        return (await queue.propose(proposal(terms=ApprovalTerms(quorum=2)), now=NOW))[0]

    action: HeldAction = play(redis_url, propose)
    with ExitStack() as stack:
        racers = [
            stack.enter_context(process("voters", redis_url, action.digest, 16, action.id, *people)) for _ in range(4)
        ]
        for racer in racers:
            assert racer.line() == ["ready"]
        for racer in racers:
            racer.go()
        for racer in racers:
            assert racer.rest() == [["done"]]
    after: HeldAction = play(redis_url, lambda queue: queue.get(action.id))
    assert (after.state, after.approvals) == (expected, len(people))
    assert len(play(redis_url, lambda queue: queue.events(action.id))) == 1 + len(people)


def test_a_worker_killed_after_its_claim_gives_unknown_and_never_a_second_run(redis_url: str) -> None:
    (action,) = approved(redis_url, 1)
    with process("worker", redis_url, action.id) as worker:
        assert worker.line() == ["won", action.id]
        worker.kill()

    async def scenario(queue: Queue) -> None:
        assert await queue.claim(action.id, worker="other", lease_s=1, now=NOW + 1) is None
        assert await queue.sweep(now=NOW + LEASE_S - 0.1) == 0
        assert await queue.sweep(now=NOW + LEASE_S) == 1
        after = await queue.get(action.id)
        assert after is not None
        assert after.state is State.UNKNOWN
        assert await queue.claim(action.id, worker="other", lease_s=1, now=NOW + LEASE_S) is None
        assert await queue.approved() == ()

    play(redis_url, scenario)


def test_waiters_outlive_a_restart_of_the_server() -> None:
    with throwaway() as server:

        async def scenario(queue: Queue) -> None:
            actions = [(await queue.propose(proposal({"n": n}), now=NOW))[0] for n in range(20)]
            waiters = [asyncio.create_task(queue.wait(action.id, timeout_s=30)) for action in actions]
            changes = await queue.changes()
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.restart)
            for action in actions:
                await queue.deny(action.id, "ann", ("approvers",), digest=action.digest, now=NOW)
            assert {action.state for action in await asyncio.gather(*waiters)} == {State.DENIED}
            assert [(await anext(changes)).id for _ in actions] == [action.id for action in actions]

        play(server.url, scenario)
