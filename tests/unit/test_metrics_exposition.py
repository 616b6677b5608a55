"""What a scrape reads of the parts of the process, each time anew."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from gateway.core.errors import StoreError
from gateway.core.held import State
from gateway.exposition import Observed, exposition
from gateway.filters.scanner import ScanCounts
from gateway.proxy.lane import PoolStats
from gateway.traces import Metrics, RecorderCounts


class Store:
    """A queue that only counts."""

    def __init__(self) -> None:
        self.away = False

    async def counts(self) -> dict[State, int]:
        if self.away:
            raise StoreError
        return {State.PENDING: 3, State.UNKNOWN: 1}


def parts(store: Store, **more: Any) -> Observed:
    given: dict[str, Any] = {
        "queue": store,
        "recorder": SimpleNamespace(counts=lambda: RecorderCounts(9, 5, 1, 3, 2, 4, 7, "disk full")),
        "scanner": SimpleNamespace(counts=ScanCounts(10, 2000, 4, 1)),
        "pool": SimpleNamespace(stats=lambda: PoolStats(8, 5, 3, 1, 2, 6, 4, 7)),
        "watcher": SimpleNamespace(status=SimpleNamespace(stale=True)),
    }
    return Observed(**{**given, **more})


def test_parts_are_read_at_each_scrape_and_old_counts_of_the_store_are_not_shown() -> None:
    store = Store()
    read = exposition(Metrics(), parts(store))
    text = asyncio.run(read()).decode()
    for line in (
        'gateway_held_actions{state="PENDING"} 3',
        'gateway_held_actions{state="UNKNOWN"} 1',
        "gateway_store_up 1",
        "gateway_bundle_reload_failed 1",
        "gateway_traces_store_failing 1",
        "gateway_traces_store_failures_total 7",
        'gateway_traces_records_total{outcome="dropped"} 3',
        'gateway_filter_texts_total{outcome="from_cache"} 4',
        "gateway_filter_characters_total 2000",
        'gateway_upstream_connections{state="busy"} 2',
        'gateway_upstream_connections{state="idle"} 4',
        "gateway_upstream_waiting 7",
        "gateway_upstream_requests_total 8",
        'gateway_upstream_connection_events_total{event="dead_when_idle"} 2',
    ):
        assert f"\n{line}\n" in text, line
    assert "disk full" not in text
    store.away = True
    text = asyncio.run(read()).decode()
    assert "\ngateway_store_up 0\n" in text and "gateway_held_actions{" not in text
