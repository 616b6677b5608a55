"""What a scrape shows: the counters of exchanges, and how the parts of this process and its store are now.

Numbers are read when they are asked for; nothing here runs in between. Label values are the operator's names and words
of the code, never what an agent or an upstream wrote.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.core.errors import StoreError

if TYPE_CHECKING:
    from gateway.approvals import Queue
    from gateway.filters import Scanner
    from gateway.policy import BundleWatcher
    from gateway.proxy.pool import Pool
    from gateway.traces import Metrics, Recorder
    from gateway.traces.metrics import Labels


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """The parts that are asked."""

    queue: Queue
    recorder: Recorder
    scanner: Scanner
    pool: Pool
    watcher: BundleWatcher


def exposition(metrics: Metrics, parts: Observed) -> Callable[[], Awaitable[bytes]]:
    """Join the parts to `metrics`; returns what answers a scrape with the Prometheus text.

    While the store is away there are no counts of held actions, rather than old ones, and `gateway_store_up` is 0."""
    held: dict[Labels, float] = {}
    metrics.gauge("gateway_held_actions", lambda: held)
    metrics.gauge("gateway_store_up", lambda: {(): float(bool(held))})
    metrics.gauge("gateway_bundle_reload_failed", lambda: {(): float(parts.watcher.status.stale)})
    metrics.watch(parts.recorder.counts)
    _filters(metrics, parts.scanner)
    _pool(metrics, parts.pool)

    async def text() -> bytes:
        try:
            counts = await parts.queue.counts()
        except StoreError:
            counts = {}
        held.clear()
        held.update({(state.value,): number for state, number in counts.items()})
        return metrics.render()

    return text


def _filters(metrics: Metrics, scanner: Scanner) -> None:
    def texts() -> dict[Labels, float]:
        counts = scanner.counts
        return {
            ("inspected",): counts.scanned,
            ("from_cache",): counts.from_cache,
            ("failed",): counts.failed,
        }

    metrics.gauge("gateway_filter_texts_total", texts)
    metrics.gauge("gateway_filter_characters_total", lambda: {(): scanner.counts.scanned_characters})


def _pool(metrics: Metrics, pool: Pool) -> None:
    def connections() -> dict[Labels, float]:
        stats = pool.stats()
        return {("busy",): stats.open - stats.idle, ("idle",): stats.idle}

    def events() -> dict[Labels, float]:
        stats = pool.stats()
        return {
            ("dialled",): stats.dialled,
            ("reused",): stats.reused,
            ("dead_when_idle",): stats.refused_idle,
            ("resent",): stats.resent,
        }

    metrics.gauge("gateway_upstream_connections", connections)
    metrics.gauge("gateway_upstream_connection_events_total", events)
    metrics.gauge("gateway_upstream_requests_total", lambda: {(): pool.stats().requests})
    metrics.gauge("gateway_upstream_waiting", lambda: {(): pool.stats().waiting})
