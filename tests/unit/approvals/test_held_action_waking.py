"""Waiters and subscribers: who is woken, what is missed, what is bounded."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from gateway.approvals import waking
from gateway.approvals.link import connect
from gateway.approvals.waking import BACKLOG_MAX, MISSED, Change, Waker
from gateway.core.errors import StoreError
from gateway.core.held import State

STREAM = "gw:{t}:changes"


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


async def emit(url: str, number: int, action_id: str, state: State) -> None:
    link = connect(url)
    await link.command("XADD", STREAM, "*", "n", number, "id", action_id, "state", state)
    await link.aclose()


def test_only_waiters_for_that_action_and_state_are_woken(redis_url: str) -> None:
    async def main() -> None:
        waker = Waker(connect(redis_url), STREAM)
        await waker.ready()
        with (
            waker.waiter("a", {State.APPROVED}) as mine,
            waker.waiter("a", {State.DENIED}) as other_state,
            waker.waiter("b", {State.APPROVED}) as other_action,
        ):
            await emit(redis_url, 1, "a", State.APPROVED)
            await asyncio.wait_for(mine, 10)
            assert not other_state.done()
            assert not other_action.done()
        assert waker._waiters == {}
        await waker.aclose()

    asyncio.run(main())


def test_what_happened_before_is_not_told_and_what_happens_after_is(redis_url: str) -> None:
    async def main() -> None:
        await emit(redis_url, 1, "old", State.PENDING)
        waker = Waker(connect(redis_url), STREAM)
        await waker.ready()
        with waker.subscribe() as changes:
            await emit(redis_url, 2, "new", State.PENDING)
            assert await anext(changes) == Change("new", State.PENDING)
        await waker.aclose()

    asyncio.run(main())


def test_a_hole_in_the_numbers_makes_everybody_look_again(redis_url: str) -> None:
    async def main() -> None:
        waker = Waker(connect(redis_url), STREAM)
        await waker.ready()
        with waker.waiter("a", {State.APPROVED}) as woken, waker.subscribe() as changes:
            await emit(redis_url, 1, "b", State.PENDING)
            await emit(redis_url, 3, "c", State.PENDING)
            await asyncio.wait_for(woken, 10)
            assert [await anext(changes) for _ in range(3)] == [
                Change("b", State.PENDING),
                MISSED,
                Change("c", State.PENDING),
            ]
        await waker.aclose()

    asyncio.run(main())


def test_a_subscriber_that_falls_behind_is_told_to_read_again(redis_url: str) -> None:
    async def main() -> None:
        waker = Waker(connect(redis_url), STREAM)
        await waker.ready()
        with waker.subscribe() as slow:
            for number in range(BACKLOG_MAX):
                waker._publish(Change(str(number), State.PENDING))
            waker._publish(Change("one too many", State.PENDING))
            waker._publish(Change("last", State.PENDING))
            assert [await anext(slow), await anext(slow)] == [MISSED, Change("last", State.PENDING)]
        await waker.aclose()

    asyncio.run(main())


def test_waiters_and_subscribers_are_bounded(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waking, "WAITERS_MAX", 1)
    monkeypatch.setattr(waking, "SUBSCRIBERS_MAX", 1)

    async def main() -> None:
        waker = Waker(connect(redis_url), STREAM)
        await waker.ready()
        with waker.waiter("a", {State.APPROVED}), waker.subscribe():
            with pytest.raises(StoreError), waker.waiter("b", {State.APPROVED}):
                pass
            with pytest.raises(StoreError):
                waker.subscribe()
        waker.subscribe().close()
        await waker.aclose()

    asyncio.run(main())


def test_closing_ends_subscribers(redis_url: str) -> None:
    async def main() -> None:
        waker = Waker(connect(redis_url), STREAM)
        await waker.ready()
        changes = waker.subscribe()
        reading = asyncio.create_task(anext(changes, None))
        await asyncio.sleep(0)
        await waker.aclose()
        assert await reading is None

    asyncio.run(main())
