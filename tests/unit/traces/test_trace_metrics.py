"""Counters, distributions, and their text."""

from __future__ import annotations

import math
import random
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gateway.traces import Metrics, RecorderCounts, metrics
from gateway.traces.metrics import Histogram
from tests.trace_records import chat, exchange, held_payment

SAMPLE = re.compile(r'^[a-z_]+(\{([a-z]+="(\\.|[^"\\\n])*",?)*\})? [0-9.e+-]+$')


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_quantiles_are_within_one_percent(share: float) -> None:
    drawn = random.Random(7)
    values = sorted(drawn.lognormvariate(-2, 1) for _ in range(20_000))
    histogram = Histogram(0.000_625)
    for value in values:
        histogram.add(value)
    found = histogram.quantile(share)
    assert found is not None
    assert found == pytest.approx(values[math.ceil(share * len(values)) - 1], rel=0.0105)


def test_neighbouring_buckets_are_two_percent_apart() -> None:
    assert pytest.approx(1.02, abs=0.0001) == 2 ** (1 / metrics.PER_DOUBLING)


def test_boundaries_hold_exactly() -> None:
    histogram = Histogram(0.01)
    for value in (0.0, 0.01, 0.010001, 0.02, 0.020001, 0.16):
        histogram.add(value)
    assert histogram.up_to(4) == [2, 4, 5, 5, 6, 6]
    assert histogram.up_to(1) == [2, 4, 6]
    assert Histogram(0.01).quantile(0.5) is None


def test_exchanges_are_counted() -> None:
    counters = Metrics()
    counters.observe(chat(), 0.01)
    counters.observe(chat(), None)
    counters.observe(held_payment(error="upstream_timeout"), None)
    text = counters.render().decode()
    assert 'gateway_exchanges_total{surface="model",operation="chat",effect="allow"} 2' in text
    assert 'gateway_exchanges_total{surface="mcp",operation="tools/call",effect="hold"} 1' in text
    assert 'gateway_errors_total{surface="mcp",code="upstream_timeout"} 1' in text
    assert 'gateway_decisions_total{surface="mcp",effect="hold"} 1' in text
    assert 'gateway_findings_total{kind="pii.iban"} 1' in text
    assert 'gateway_tokens_total{agent="billing",direction="input"} 2000' in text
    assert 'gateway_cost_dollars_total{agent="billing"} 0.01' in text
    assert 'gateway_unpriced_total{agent="billing"} 1' in text
    assert 'gateway_exchange_duration_seconds_bucket{surface="model",operation="chat",le="0.16"} 0' in text
    assert 'gateway_exchange_duration_seconds_bucket{surface="model",operation="chat",le="0.32"} 2' in text
    assert 'gateway_exchange_duration_seconds_bucket{surface="model",operation="chat",le="+Inf"} 2' in text
    assert 'gateway_exchange_duration_seconds_count{surface="model",operation="chat"} 2' in text
    assert 'gateway_upstream_first_byte_seconds_count{upstream="bank"} 1' in text


def test_exposition_is_well_formed_whatever_the_labels_hold() -> None:
    counters = Metrics()
    counters.observe(held_payment(surface="http", operation='a"b\\c\nd', agent="ä€"), None)
    counters.gauge("gateway_held_actions", lambda: {("PENDING",): 3})
    text = counters.render().decode()
    assert 'gateway_held_actions{state="PENDING"} 3' in text
    for line in text.splitlines():
        assert line.startswith(("# HELP ", "# TYPE ")) or SAMPLE.match(line), line


def test_losses_of_the_recorder_are_visible() -> None:
    counters = Metrics()
    counters.watch(lambda: RecorderCounts(9, 5, 1, 3, 2, 4, 7, "full"))
    text = counters.render().decode()
    assert 'gateway_traces_records_total{outcome="stored"} 5' in text
    assert 'gateway_traces_records_total{outcome="dropped"} 3' in text
    assert 'gateway_traces_records_total{outcome="masking_failed"} 4' in text
    assert "\ngateway_traces_queued 1" in text


def test_series_are_bounded() -> None:
    counters = Metrics()
    for i in range(metrics.SERIES_MAX + 50):
        counters.observe(exchange(surface="http", operation=f"GET /{i}"), None)
    text = counters.render().decode()
    assert 'gateway_exchanges_total{surface="(other)",operation="(other)",effect="(other)"} 50' in text
    assert text.count("gateway_exchanges_total{") == metrics.SERIES_MAX + 1


def test_methods_that_an_agent_makes_up_are_counted_without_their_names() -> None:
    counters = Metrics()
    for method in ("tools/list", "notifications/4111111111111111", "x" * 64):
        counters.observe(exchange(surface="mcp", operation=method), None)
    text = counters.render().decode()
    assert 'gateway_exchanges_total{surface="mcp",operation="tools/list",effect="allow"} 1' in text
    assert 'gateway_exchanges_total{surface="mcp",operation="(other)",effect="allow"} 2' in text
    assert "4111" not in text and "xxx" not in text


def test_every_metric_is_documented() -> None:
    text = (Path(__file__).parents[3] / "docs" / "traces.md").read_text(encoding="utf-8")
    for name, (_, labels, _) in metrics.NAMES.items():
        (line,) = [line for line in text.splitlines() if f"`{name}`" in line]
        assert all(f"`{label}`" in line for label in labels), name


def test_rendering_meanwhile_does_not_fail() -> None:
    counters = Metrics()

    def observe() -> None:
        for i in range(1_000):
            counters.observe(chat(surface="http", operation=f"op{i}", duration_ns=i * 100_000), 0.1)

    with ThreadPoolExecutor(2) as pool:
        writing = pool.submit(observe)
        while not writing.done():
            assert counters.render()
        writing.result()
