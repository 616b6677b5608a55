"""Reading many held actions at once: the inbox, what was decided, what is due. Changes nothing."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping

from gateway.approvals import codec
from gateway.approvals.held_action import HeldAction, Page
from gateway.approvals.keys import ID, Keys
from gateway.approvals.link import RedisLink
from gateway.approvals.queue_limits import QueueLimits
from gateway.core.errors import ClientError
from gateway.core.held import State

PAGE_MAX = 200
"""Actions on a page: arguments come with them, and nobody reads 200 at once."""


async def pending(link: RedisLink, keys: Keys, limit: int, cursor: str | None) -> Page:
    """One page by (expiry, id). The cursor is the last one shown, which may have left the queue since."""
    limit = _bounded(limit)
    after = _read_cursor(cursor)
    start = 0
    if after is not None:
        # By its rank while it is still there; else by its expiry, passing over those that were shown.
        rank = await link.command("ZRANK", keys.pending, after[1], idempotent=True)
        start = rank if rank is not None else await link.command("ZCOUNT", keys.pending, "-inf", f"({after[0]!r}")
    found: list[tuple[float, str]] = []
    while len(found) <= limit:
        stop = start + limit  # one more than a page, to know whether there is a next one
        flat = await link.command("ZRANGE", keys.pending, start, stop, "WITHSCORES", idempotent=True)
        places = [(float(score), each.decode()) for each, score in zip(flat[::2], flat[1::2], strict=True)]
        found.extend(place for place in places if after is None or place > after)
        if len(places) <= limit:
            break
        start = stop + 1
    shown = found[:limit]
    actions = await _read(link, keys, [each for _, each in shown])
    more = f"{shown[-1][0]!r}_{shown[-1][1]}" if len(found) > limit else None
    return Page(actions=tuple(held for held in actions if held.state is State.PENDING), next=more)


async def recent(link: RedisLink, keys: Keys, limit: int) -> tuple[HeldAction, ...]:
    ids = await link.command("ZRANGE", keys.recent, 0, _bounded(limit) - 1, "REV", idempotent=True)
    return await _read(link, keys, [each.decode() for each in ids])


async def unknown(link: RedisLink, keys: Keys, limit: int) -> tuple[HeldAction, ...]:
    ids = await link.command("ZRANGE", keys.unknown, 0, _bounded(limit) - 1, idempotent=True)
    return await _read(link, keys, [each.decode() for each in ids])


async def counts(link: RedisLink, keys: Keys) -> Mapping[State, int]:
    flat = await link.command("HGETALL", keys.counts, idempotent=True)
    stored = dict(zip(flat[::2], flat[1::2], strict=True))
    return {state: int(stored.get(state.encode(), 0)) for state in State}


async def due(link: RedisLink, keys: Keys, limits: QueueLimits, now: float, batch: int) -> dict[str, int]:
    """Ids for which time has made something due, each with the retention to apply."""
    deadlines = (
        (keys.pending, now),
        (keys.approved, now),
        (keys.leases, now),
        (keys.results, now - limits.result_ttl_s),
        (keys.closed, now - limits.retention_s),
    )
    closed, *found = await asyncio.gather(
        link.command("ZCARD", keys.closed, idempotent=True),
        *(
            link.command("ZRANGE", key, "-inf", repr(until), "BYSCORE", "LIMIT", 0, batch, idempotent=True)
            for key, until in deadlines
        ),
    )
    ids = {each.decode(): limits.retention_s for batch_ids in found for each in batch_ids}
    over = min(closed - limits.closed_max, batch)
    if over > 0:
        oldest = await link.command("ZRANGE", keys.closed, 0, over - 1, idempotent=True)
        ids.update((each.decode(), 0) for each in oldest)
    return ids


async def _read(link: RedisLink, keys: Keys, ids: list[str]) -> tuple[HeldAction, ...]:
    # One write, one read: the link sends the commands of one turn of the loop together.
    replies = await asyncio.gather(*(link.command("HGETALL", keys.action(each), idempotent=True) for each in ids))
    return tuple(codec.from_fields(flat) for flat in replies if flat)


def _read_cursor(cursor: str | None) -> tuple[float, str] | None:
    if cursor is None:
        return None
    score, _, action_id = cursor.partition("_")
    try:
        expires_s = float(score)
    except ValueError:
        expires_s = float("nan")
    if not math.isfinite(expires_s) or not ID.fullmatch(action_id):
        raise ClientError("invalid_cursor", "the cursor is not one that this list gave; start at the first page")
    return expires_s, action_id


def _bounded(limit: int) -> int:
    return max(1, min(limit, PAGE_MAX))
