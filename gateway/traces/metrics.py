"""Counters and distributions in the process, and their Prometheus text. No client library: an increment is a dict
access, and the recorder's thread makes most of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from itertools import accumulate
from typing import Final, TypeAlias

from gateway.traces.record import ExchangeRecord
from gateway.traces.recorder import RecorderCounts

Labels: TypeAlias = tuple[str, ...]

PER_DOUBLING: Final = 35
"""Buckets to a factor of two: a ratio of 1.02 between neighbours, so a percentile is off by 1% at most, and every
power of two times the base is a boundary, so that the coarse buckets of an exposition are exact."""

SERIES_MAX: Final = 2_000  # label values are the operator's names; this bound holds should one ever not be
OVERFLOW: Final = "(other)"

OPERATIONS: Final = frozenset(
    [
        *("admit", "chat", "passthrough", "mcp", "batch", "response", "execute_tool", "GET", "DELETE"),
        *("initialize", "server/discover", "ping", "tools/list", "tools/call", "completion/complete"),
        *("prompts/list", "prompts/get", "resources/list", "resources/read", "resources/templates/list"),
        *("resources/subscribe", "resources/unsubscribe", "subscriptions/listen", "logging/setLevel"),
        *("tasks/get", "tasks/list", "tasks/result", "tasks/cancel", "tasks/update"),
        *("notifications/initialized", "notifications/cancelled", "notifications/progress"),
        *("notifications/roots/list_changed", "notifications/tasks/status"),
    ]
)
"""Operations that are shown by name. An agent chooses its MCP methods, so any other is `(other)`; those of HTTP tools
stand in the bundle."""


class Histogram:
    """Counts in logarithmic buckets above `base`. Two histograms of one base merge by adding."""

    __slots__ = ("base", "buckets", "count", "total")

    def __init__(self, base: float) -> None:
        self.base = base
        self.buckets: dict[int, int] = {}
        self.count = 0
        self.total = 0.0

    def add(self, value: float) -> None:
        index = 0 if value <= self.base else math.ceil(math.log2(value / self.base) * PER_DOUBLING - 1e-9)
        self.buckets[index] = self.buckets.get(index, 0) + 1
        self.count += 1
        self.total += value

    def quantile(self, share: float) -> float | None:
        """The value below which `share` of the values lie; None without values."""
        wanted, seen = share * self.count, 0
        for index in sorted(self.buckets):
            seen += self.buckets[index]
            if seen >= wanted:
                return self.base * 2.0 ** ((index - 0.5) / PER_DOUBLING) if index else self.base
        return None

    def up_to(self, doublings: int) -> list[int]:
        """How many values are at most base * 2**n, for every n from 0 to `doublings`, and how many there are at all.
        One pass: an exposition is made on the event loop."""
        steps = [0] * (doublings + 2)
        for index, count in tuple(self.buckets.items()):
            steps[min(-(-index // PER_DOUBLING), doublings + 1)] += count
        return list(accumulate(steps))


class Metrics:
    """All counters of one process. `observe` takes a masked record; `render` gives the Prometheus text.

    Increments come from the recorder's thread; `count` may be called from any other for counters of its own.
    """

    def __init__(self) -> None:
        self._counters: dict[str, dict[Labels, float]] = {name: {} for name in NAMES}
        self._histograms: dict[str, dict[Labels, Histogram]] = {name: {} for name in _BASE}
        self._gauges: dict[str, Callable[[], Mapping[Labels, float]]] = {}

    def count(self, name: str, labels: Labels = (), by: float = 1) -> None:
        """Add to a counter that `NAMES` describes."""
        series = self._counters[name]
        if labels not in series:
            labels = _bounded(series, labels)
        series[labels] = series.get(labels, 0) + by

    def time(self, name: str, labels: Labels, value: float) -> None:
        """Add to a distribution that `NAMES` describes."""
        series = self._histograms[name]
        histogram = series.get(labels)
        if histogram is None:
            histogram = series.setdefault(_bounded(series, labels), Histogram(_BASE[name][0]))
        histogram.add(value)

    def gauge(self, name: str, read: Callable[[], Mapping[Labels, float]]) -> None:
        """Ask `read` for a gauge or a counter that is kept elsewhere, when the text is made."""
        self._gauges[name] = read

    def watch(self, counts: Callable[[], RecorderCounts]) -> None:
        """Show what became of the records, losses included."""

        def outcomes() -> dict[Labels, float]:
            now = counts()
            return {
                ("stored",): now.stored,
                ("dropped",): now.dropped,
                ("content_dropped",): now.content_dropped,
                ("masking_failed",): now.masking_failures,
            }

        self.gauge("gateway_traces_records_total", outcomes)
        self.gauge("gateway_traces_queued", lambda: {(): counts().queued})
        self.gauge("gateway_traces_store_failures_total", lambda: {(): counts().store_failures})
        self.gauge("gateway_traces_store_failing", lambda: {(): float(counts().failing is not None)})

    def histogram(self, name: str, labels: Labels) -> Histogram | None:
        return self._histograms[name].get(labels)

    def observe(self, record: ExchangeRecord, cost: float | None) -> None:
        """Count one exchange."""
        named = record.surface == "http" or record.operation in OPERATIONS
        kind = (record.surface, record.operation if named else OVERFLOW)
        self.count("gateway_exchanges_total", (*kind, record.effect))
        self.time("gateway_exchange_duration_seconds", kind, record.duration_ns / 1e9)
        if record.error is not None:
            self.count("gateway_errors_total", (record.surface, record.error))
        for decision in record.decisions:
            self.count("gateway_decisions_total", (record.surface, decision.effect))
        if record.findings:
            for found, times in record.findings.items():
                self.count("gateway_findings_total", (found,), times)
        for attempt in record.attempts:
            self.time("gateway_upstream_duration_seconds", (attempt.upstream,), attempt.duration_ns / 1e9)
            if attempt.first_byte_ns is not None:
                self.time("gateway_upstream_first_byte_seconds", (attempt.upstream,), attempt.first_byte_ns / 1e9)
        if record.usage is not None:
            self.count("gateway_tokens_total", (record.agent, "input"), record.usage.input)
            self.count("gateway_tokens_total", (record.agent, "output"), record.usage.output)
            if cost is None:
                self.count("gateway_unpriced_total", (record.agent,))
            else:
                self.count("gateway_cost_dollars_total", (record.agent,), cost)

    def render(self) -> bytes:
        """The text exposition, format 0.0.4."""
        lines: list[str] = []
        for name, (kind, names, description) in NAMES.items():
            lines += (f"# HELP {name} {description}", f"# TYPE {name} {kind}")
            if kind == "histogram":
                for labels, histogram in tuple(self._histograms[name].items()):
                    lines += _distribution(name, names, labels, histogram)
                continue
            read = self._gauges.get(name)
            series = read() if read is not None else self._counters[name]
            lines += (f"{name}{_label_text(names, labels)} {value:.12g}" for labels, value in tuple(series.items()))
        return ("\n".join(lines) + "\n").encode()


def _bounded(series: Mapping[Labels, object], labels: Labels) -> Labels:
    return labels if len(series) < SERIES_MAX else (OVERFLOW,) * len(labels)


def _distribution(name: str, names: Labels, labels: Labels, histogram: Histogram) -> Iterable[str]:
    base, doublings = _BASE[name]
    total = histogram.total
    *counts, count = histogram.up_to(doublings)
    for step, up_to in enumerate(counts):
        le = (*labels, f"{base * 2**step:.6g}")
        yield f"{name}_bucket{_label_text((*names, 'le'), le)} {up_to}"
    yield f"{name}_bucket{_label_text((*names, 'le'), (*labels, '+Inf'))} {count}"
    yield f"{name}_sum{_label_text(names, labels)} {total:.12g}"
    yield f"{name}_count{_label_text(names, labels)} {count}"


def _label_text(names: Labels, labels: Labels) -> str:
    if not names:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in zip(names, labels, strict=True)) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


NAMES: Final[Mapping[str, tuple[str, Labels, str]]] = {
    "gateway_exchanges_total": ("counter", ("surface", "operation", "effect"), "Requests answered."),
    "gateway_exchange_duration_seconds": ("histogram", ("surface", "operation"), "Time from request to response."),
    "gateway_errors_total": ("counter", ("surface", "code"), "Errors that agents saw."),
    "gateway_decisions_total": ("counter", ("surface", "effect"), "Decisions on actions."),
    "gateway_findings_total": ("counter", ("kind",), "What the filters found."),
    "gateway_upstream_duration_seconds": ("histogram", ("upstream",), "Time of one attempt at an upstream."),
    "gateway_upstream_first_byte_seconds": ("histogram", ("upstream",), "Time to the first byte of an upstream."),
    "gateway_tokens_total": ("counter", ("agent", "direction"), "Tokens as upstreams counted them."),
    "gateway_cost_dollars_total": ("counter", ("agent",), "Cost of priced exchanges in US dollars."),
    "gateway_unpriced_total": ("counter", ("agent",), "Exchanges with usage whose model has no known price."),
    "gateway_held_actions": ("gauge", ("state",), "Held actions by state, of all gateways that share the store."),
    "gateway_store_up": ("gauge", (), "1 if the store answered this scrape."),
    "gateway_bundle_reload_failed": ("gauge", (), "1 while the files of the bundle have a mistake and do not count."),
    "gateway_traces_records_total": ("counter", ("outcome",), "What became of the records of exchanges."),
    "gateway_traces_queued": ("gauge", (), "Records that wait to be stored."),
    "gateway_traces_store_failures_total": ("counter", (), "Times that the trace store did not take records."),
    "gateway_traces_store_failing": ("gauge", (), "1 while the trace store does not take records."),
    "gateway_filter_texts_total": ("counter", ("outcome",), "Texts inspected or known; failed ones are among these."),
    "gateway_filter_characters_total": ("counter", (), "Characters of the texts that were inspected."),
    "gateway_upstream_requests_total": ("counter", (), "Requests to upstreams, those of the gateway itself included."),
    "gateway_upstream_connections": ("gauge", ("state",), "Connections to upstreams."),
    "gateway_upstream_waiting": ("gauge", (), "Requests that wait for a connection."),
    "gateway_upstream_connection_events_total": ("counter", ("event",), "What became of connections to upstreams."),
}
"""Every metric: its type, its labels, and what it says."""

_BASE: Final[Mapping[str, tuple[float, int]]] = {
    "gateway_exchange_duration_seconds": (0.000_625, 18),
    "gateway_upstream_duration_seconds": (0.000_625, 18),
    "gateway_upstream_first_byte_seconds": (0.000_625, 18),
}
"""Lowest boundary in seconds and the doublings above it: 0.625 ms, which is a sixteenth of OpenTelemetry's 10 ms, up to
164 s, so that every one of OpenTelemetry's GenAI boundaries is among them."""
