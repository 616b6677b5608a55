"""What the approval queue costs: `python -m tests.bench.approval_queue`. Takes about 40 seconds; starts its own server.

CPU is this process's alone; the server's is not in it. One machine, one run: trust ratios.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from statistics import median, quantiles
from typing import TypeVar

import redis.asyncio
import uvloop

from gateway.approvals.link import connect
from gateway.approvals.queue import Queue
from gateway.approvals.queue_limits import QueueLimits
from tests.held_actions import proposal
from tests.servers import Throwaway, ask, throwaway

T = TypeVar("T")
STAFF = ("approvers",)
WAITERS = 10_000
PENDING = 100_000
LIMITS = QueueLimits(pending_per_agent_max=10**9)


async def timed(name: str, calls: Sequence[Callable[[], Awaitable[T]]], concurrent: int) -> list[T]:
    """Run the calls, so many at a time, and print what one costs."""
    slots = asyncio.Semaphore(concurrent)
    took: list[float] = []

    async def one(call: Callable[[], Awaitable[T]]) -> T:
        async with slots:
            begun = time.perf_counter()
            answer = await call()
            took.append(time.perf_counter() - begun)
            return answer

    wall, cpu = time.perf_counter(), time.process_time()
    answers = await asyncio.gather(*(one(call) for call in calls))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    p99 = quantiles(took, n=100)[98]
    print(
        f"{name:<28} c={concurrent:<3} {wall / len(calls) * 1e6:7.0f} us wall {cpu / len(calls) * 1e6:6.0f} us cpu"
        f"   p50 {median(took) * 1e3:6.2f} ms  p99 {p99 * 1e3:6.2f} ms"
    )
    return answers


async def commands(url: str) -> None:
    link, client = connect(url), redis.asyncio.Redis.from_url(url)
    await link.command("SET", "a", 1)
    for concurrent in (1, 64):
        await timed("GET by link", [lambda: link.command("GET", "a")] * 5_000, concurrent)
        await timed("GET by redis-py", [lambda: client.get("a")] * 5_000, concurrent)
    await client.aclose()
    await link.aclose()


async def life(url: str) -> None:
    link = connect(url)
    queue = Queue(link, limits=LIMITS)
    for concurrent, first, count in ((1, 0, 500), (64, 1_000, 3_000)):
        proposals = [proposal({"n": n}) for n in range(first, first + count)]
        held = await timed("propose", [lambda p=p: queue.propose(p, now=1.0) for p in proposals], concurrent)
        actions = [action for action, _ in held]
        await timed(
            "approve",
            [lambda a=a: queue.approve(a.id, "ann", STAFF, digest=a.digest, now=2.0) for a in actions],
            concurrent,
        )
        claims = await timed(
            "claim",
            [lambda a=a: queue.claim(a.id, worker="w", lease_s=30, now=3.0) for a in actions],
            concurrent,
        )
        await timed(
            "complete",
            [lambda c=c: queue.complete(c, ok=True, result=b"{}", now=4.0) for c in claims if c],
            concurrent,
        )
        await timed("get", [lambda a=a: queue.get(a.id) for a in actions], concurrent)
    await queue.aclose()
    await link.aclose()


async def waiters(url: str) -> None:
    link = connect(url, timeout_s=30)
    queue = Queue(link, limits=LIMITS)
    slots = asyncio.Semaphore(500)

    async def hold(number: int) -> tuple[str, str]:
        async with slots:
            action, _ = await queue.propose(proposal({"w": number}), now=1.0)
            return action.id, action.digest

    actions = await asyncio.gather(*(hold(number) for number in range(WAITERS)))
    decided: dict[str, float] = {}
    woken: list[float] = []

    async def wait(action_id: str) -> None:
        await queue.wait(action_id, timeout_s=120)
        woken.append(time.perf_counter() - decided[action_id])

    async def decide(action_id: str, digest: str) -> None:
        async with slots:
            decided[action_id] = time.perf_counter()
            await queue.approve(action_id, "ann", STAFF, digest=digest, now=2.0)

    waiting = [asyncio.create_task(wait(action_id)) for action_id, _ in actions]
    while queue.waiting < WAITERS:
        await asyncio.sleep(0.01)
    for action_id, digest in actions[:500]:
        await decide(action_id, digest)
    await asyncio.gather(*waiting[:500])
    print(f"woken, one decision at a time, {WAITERS} waiting: p50 {median(woken) * 1e3:.2f} ms", end="")
    print(f", p99 {quantiles(woken, n=100)[98] * 1e3:.2f} ms, from before the decision was sent")
    begun = time.perf_counter()
    await asyncio.gather(*(decide(*action) for action in actions[500:]), *waiting)
    print(f"all of {WAITERS - 500} decided and woken in {time.perf_counter() - begun:.2f} s")
    await queue.aclose()
    await link.aclose()


async def crowd(url: str) -> None:
    link = connect(url, timeout_s=60)
    queue = Queue(link, limits=LIMITS)
    newest = []
    for first in range(0, PENDING, 1_000):
        batch = (proposal({"n": n}, agent=f"agent-{n % 50}") for n in range(first, first + 1_000))
        newest = await asyncio.gather(*(queue.propose(of, now=1.0 + first / 1_000) for of in batch))
    print(f"{PENDING} pending:")
    await timed("first page of 50", [lambda: queue.pending(50)] * 100, 1)
    await timed("counts", [queue.counts] * 100, 1)
    await timed(
        "approve",
        [lambda a=a: queue.approve(a.id, "ann", STAFF, digest=a.digest, now=2.0) for a, _ in newest],
        1,
    )
    await queue.aclose()
    await link.aclose()


def used_memory(server: Throwaway) -> int:
    report = ask(server.url, "INFO", "memory")
    assert isinstance(report, bytes)
    return int(next(line for line in report.splitlines() if line.startswith(b"used_memory:"))[12:])


def main() -> None:
    with throwaway() as server:
        uvloop.run(commands(server.url))
        uvloop.run(life(server.url))
        uvloop.run(waiters(server.url))
        server.flush()
        before = used_memory(server)
        uvloop.run(crowd(server.url))
        print(f"{(used_memory(server) - before) / PENDING:.0f} bytes of the server's memory per action")
        server.kill()
        begun = time.perf_counter()
        server.restart()
        print(f"back after SIGKILL in {time.perf_counter() - begun:.2f} s")


if __name__ == "__main__":
    main()
