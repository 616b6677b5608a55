"""In a cluster a script that touches another slot fails: a node in cluster mode shows that none of the queue does."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import tempfile
from collections.abc import Iterator

import pytest

from gateway.approvals.link import RedisLink, connect
from gateway.approvals.queue import Queue
from gateway.approvals.queue_limits import QueueLimits
from gateway.core.held import State
from tests.held_actions import proposal
from tests.servers import DEBIAN_REDIS

pytestmark = pytest.mark.skipif(DEBIAN_REDIS is None, reason="no redis-server on this machine")
NOW = 1_800_000_000.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def cluster_url() -> Iterator[str]:
    """A cluster of one node that serves every slot, on free ports of loopback."""
    port = free_port()
    settings = {"port": port, "cluster-port": free_port(), "bind": "127.0.0.1", "cluster-enabled": "yes", "save": ""}
    assert DEBIAN_REDIS is not None
    with tempfile.TemporaryDirectory(prefix="gw-cluster-") as folder:
        process = subprocess.Popen(
            [DEBIAN_REDIS, *(word for key, value in settings.items() for word in (f"--{key}", str(value)))],
            cwd=folder,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None
            assert any("Ready to accept connections" in line for line in process.stdout)
            yield f"redis://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.communicate()


async def serve_all_slots(link: RedisLink) -> None:
    await link.command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
    async with asyncio.timeout(20):
        while b"cluster_state:ok" not in await link.command("CLUSTER", "INFO"):
            await asyncio.sleep(0.01)


def test_a_whole_life_stays_in_one_slot(cluster_url: str) -> None:
    async def main() -> None:
        link = connect(cluster_url)
        await serve_all_slots(link)
        queue = Queue(link, limits=QueueLimits(result_ttl_s=10, retention_s=100))
        old, _ = await queue.propose(proposal(), now=NOW)
        await queue.cancel(old.id, "clerk", now=NOW)
        action, created = await queue.propose(proposal(), now=NOW)  # the other action's keys are declared too
        assert created
        waiter = asyncio.create_task(queue.wait(action.id, timeout_s=20))
        await queue.approve(action.id, "ann", ("approvers",), digest=action.digest, now=NOW)
        assert (await waiter).state is State.APPROVED
        claim = await queue.claim(action.id, worker="w", lease_s=30, now=NOW)
        assert claim is not None
        assert await queue.renew(claim, now=NOW)
        assert await queue.complete(claim, ok=True, result=b"{}", now=NOW)
        assert len((await queue.pending()).actions) == 0
        assert len(await queue.recent()) == 2
        assert await queue.sweep(now=NOW + 100) == 2
        await queue.aclose()
        await link.aclose()

    asyncio.run(main())
