"""Limits per agent on a real Redis: exact at the edge, shared by processes, closed when the store is away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import pytest

from gateway.approvals import connect
from gateway.core.errors import ClientError, StoreError
from gateway.policy import Limits
from gateway.proxy.limits import LEASE_S, Limiter

NOON = 1_800_000_000.0  # the beginning of a minute


@dataclass(frozen=True, eq=False)
class Agent:
    limits: Limits
    name: str = "tester"


def run(redis_url: str, work: Callable[[Callable[[], Limiter]], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        links = []

        def limiter() -> Limiter:
            links.append(connect(redis_url))
            return Limiter(links[-1])

        try:
            await work(limiter)
        finally:
            for link in links:
                await link.aclose()

    asyncio.run(main())


async def admitted(limiter: Limiter, agent: Any, times: int, now: float) -> int:
    count = 0
    for _ in range(times):
        try:
            await limiter.admit(agent, now=now)
            count += 1
        except ClientError as error:
            assert error.status == 429 and error.code == "requests_limit" and (error.retry_after_s or 0) >= 1
    return count


@pytest.mark.parametrize("limit", [1, 2, 9, 10, 57, 300])
def test_exactly_the_limit_is_admitted_in_a_minute(redis_url: str, limit: int) -> None:
    async def work(make: Callable[[], Limiter]) -> None:
        agent = Agent(Limits(requests_per_minute=limit))
        limiter = make()
        assert await admitted(limiter, agent, limit + 20, NOON) == limit
        assert await admitted(limiter, agent, 3, NOON + 59) == 0
        assert await admitted(limiter, agent, limit + 20, NOON + 121) == limit

    run(redis_url, work)


def test_several_processes_share_one_limit_and_never_exceed_it(redis_url: str) -> None:
    async def work(make: Callable[[], Limiter]) -> None:
        agent = Agent(Limits(requests_per_minute=200))
        processes = [make() for _ in range(4)]
        counts = await asyncio.gather(*(admitted(limiter, agent, 100, NOON) for limiter in processes))
        assert 200 - 4 * 20 < sum(counts) <= 200  # at most a tenth may lie unused in each other's leases
        later = await asyncio.gather(*(admitted(limiter, agent, 100, NOON + LEASE_S + 1) for limiter in processes))
        assert sum(counts) + sum(later) <= 200

    run(redis_url, work)


def test_a_burst_at_the_edge_of_a_minute_does_not_double_the_limit(redis_url: str) -> None:
    async def work(make: Callable[[], Limiter]) -> None:
        agent = Agent(Limits(requests_per_minute=60))
        limiter = make()
        assert await admitted(limiter, agent, 60, NOON + 59) == 60
        assert await admitted(limiter, agent, 60, NOON + 61) <= 1
        assert 25 <= await admitted(limiter, agent, 60, NOON + 90) <= 31

    run(redis_url, work)


def test_concurrent_requests_are_admitted_once_each(redis_url: str) -> None:
    async def work(make: Callable[[], Limiter]) -> None:
        agent = Agent(Limits(requests_per_minute=50))
        limiter = make()
        results = await asyncio.gather(
            *(limiter.admit(agent, now=NOON) for _ in range(120)),  # type: ignore[arg-type]
            return_exceptions=True,
        )
        assert sum(result is None for result in results) == 50
        assert all(isinstance(result, ClientError) for result in results if result is not None)

    run(redis_url, work)


@pytest.mark.parametrize(
    "limits", [Limits(tokens_per_minute=1000), Limits(tokens_per_day=1000, requests_per_minute=99)]
)
def test_spent_tokens_close_the_door_also_for_another_process(redis_url: str, limits: Limits) -> None:
    async def work(make: Callable[[], Limiter]) -> None:
        agent: Any = Agent(limits)
        first, second = make(), make()
        await first.admit(agent, now=NOON)
        first.charge(agent, 1000, now=NOON)
        await first.aclose()
        for limiter in (first, second):
            with pytest.raises(ClientError) as refused:
                await limiter.admit(agent, now=NOON + LEASE_S + 1)
            assert refused.value.code == "tokens_limit" and refused.value.status == 429
        window = 60 if limits.tokens_per_minute else 86_400
        await second.admit(agent, now=NOON + 2 * window + 1)

    run(redis_url, work)


def test_an_agent_without_limits_needs_no_store() -> None:
    async def main() -> None:
        limiter = Limiter(connect("unix:///nowhere/at/all.sock"))
        agent: Any = Agent(Limits())
        await limiter.admit(agent, now=NOON)
        limiter.charge(agent, 10, now=NOON)
        await limiter.aclose()

    asyncio.run(main())


def test_a_limit_without_its_store_is_closed_and_forgets_no_tokens(redis_url: str) -> None:
    async def main() -> None:
        away = connect("unix:///nowhere/at/all.sock", timeout_s=0.2)
        limiter = Limiter(away)
        agent: Any = Agent(Limits(requests_per_minute=5, tokens_per_minute=100))
        limiter.charge(agent, 100, now=NOON)
        with pytest.raises(StoreError):
            await limiter.admit(agent, now=NOON)
        limiter._link = connect(redis_url)
        with pytest.raises(ClientError) as refused:
            await limiter.admit(agent, now=NOON)
        assert refused.value.code == "tokens_limit"
        await limiter.aclose()
        await limiter._link.aclose()
        await away.aclose()

    asyncio.run(main())
