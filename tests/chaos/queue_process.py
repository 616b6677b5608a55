"""Processes for the chaos tests of the queue: run as `python -m tests.chaos.queue_process ROLE ...`.

Each prints one line per thing that was acknowledged to it, so that a test that kills it knows what must still be there.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from gateway.approvals.embedded import EmbeddedRedis
from gateway.approvals.link import connect
from gateway.approvals.queue import Queue
from gateway.approvals.queue_limits import QueueLimits
from gateway.core.errors import StoreError
from tests.held_actions import proposal

NOW = 1_800_000_000.0
LEASE_S = 30.0


def say(*words: object) -> None:
    print(*words, flush=True)


async def go() -> None:
    """Says `ready` and waits for the test's word, so that racers start together."""
    say("ready")
    await asyncio.to_thread(sys.stdin.readline)


async def gateway(state_dir: str, first: str) -> None:
    """Starts and supervises the embedded server, and proposes until it is killed."""
    server = EmbeddedRedis(Path(state_dir))
    queue = Queue(connect(server.start()), limits=QueueLimits(pending_per_agent_max=10**6))
    supervisor = asyncio.create_task(server.supervise())
    say("server", server.pid)

    async def propose(begin: int) -> None:
        number = begin
        while True:
            try:
                action, _ = await queue.propose(proposal({"n": number}), now=NOW)
            except StoreError as error:
                say("failed", error.code)
                continue
            say("held", action.id)
            number += 16

    await asyncio.gather(supervisor, *(propose(int(first) + lane) for lane in range(16)))


async def claimers(url: str, name: str, count: str, *action_ids: str) -> None:
    """Claims every action `count` times at once; says which it won."""
    queue = Queue(connect(url, timeout_s=30))
    await go()

    async def one(worker: str, action_id: str) -> None:
        claim = await queue.claim(action_id, worker=worker, lease_s=LEASE_S, now=NOW)
        if claim is not None:
            say("won", action_id, worker)

    for action_id in action_ids:
        await asyncio.gather(*(one(f"{name}-{n}", action_id) for n in range(int(count))))
    say("done")


async def voters(url: str, digest: str, count: str, action_id: str, *people: str) -> None:
    """Each person approves `count` times at once."""
    queue = Queue(connect(url))
    await go()
    await asyncio.gather(
        *(
            queue.approve(action_id, person, ("approvers",), digest=digest, now=NOW)
            for person in people
            for _ in range(int(count))
        )
    )
    say("done")


async def worker(url: str, action_id: str) -> None:
    """Claims, and never completes."""
    queue = Queue(connect(url))
    claim = await queue.claim(action_id, worker="doomed", lease_s=LEASE_S, now=NOW)
    say("won" if claim else "lost", action_id)
    await asyncio.Event().wait()


ROLES: dict[str, Callable[..., Awaitable[None]]] = {
    "gateway": gateway,
    "claimers": claimers,
    "voters": voters,
    "worker": worker,
}

if __name__ == "__main__":
    asyncio.run(ROLES[sys.argv[1]](*sys.argv[2:]))  # type: ignore[arg-type]
