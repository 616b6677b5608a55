"""Figures to a table that a person reads, the ratios against the bars of the project, and the same as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bench.measure import Requests, Streams, as_json

PLAIN, FILTERED = "ours, no content filters", "ours, with filters"
BAR_CONNECTIONS = 16
COLLAPSE_CONNECTIONS = 256


@dataclass(slots=True)
class Row:
    """All that was found about one contender; `problem` says why there is less."""

    name: str
    version: str = ""
    problem: str = ""
    ready_s: float | None = None
    rss_bytes: int | None = None
    requests: dict[int, Requests] = field(default_factory=dict)
    streams: Streams | None = None


@dataclass(frozen=True, slots=True)
class Bar:
    """One line of the speed bar: a figure and its limit. `figure` is None where it was not measured."""

    text: str
    figure: float | None
    limit: float
    at_least: bool = False
    unit: str = "x"

    @property
    def verdict(self) -> str:
        if self.figure is None:
            return "not measured"
        met = self.figure >= self.limit if self.at_least else self.figure <= self.limit
        return "met" if met else "MISSED"

    def line(self) -> str:
        found = "-" if self.figure is None else f"{self.figure:.2f}{self.unit}"
        return f"{self.text}: {found}, bar {'>=' if self.at_least else '<='} {self.limit:g}{self.unit}: {self.verdict}"


def bars(rows: Mapping[str, Row]) -> list[Bar]:
    """The speed bar, word by word from the issue that set it."""

    def cpu(name: str, connections: int = BAR_CONNECTIONS) -> float | None:
        row = rows.get(name)
        found = row.requests.get(connections) if row else None
        return found.cpu_us if found and found.requests else None

    def stream(name: str) -> Streams | None:
        row = rows.get(name)
        return row.streams if row and row.streams and row.streams.events else None

    def ratio(above: float | None, below: float | None) -> float | None:
        return above / below if above is not None and below else None

    found: list[Bar] = []
    for name, over_nginx, under_litellm in ((PLAIN, 8.0, 60.0), (FILTERED, 14.0, 30.0)):
        found.append(Bar(f"CPU per request at 16: {name} / nginx", ratio(cpu(name), cpu("nginx")), over_nginx))
        if name == PLAIN:
            found.append(Bar(f"CPU per request at 16: {name} / Envoy", ratio(cpu(name), cpu("envoy")), 2.5))
        found.append(
            Bar(f"CPU per request at 16: LiteLLM / {name}", ratio(cpu("litellm"), cpu(name)), under_litellm, True)
        )
    for name in (PLAIN, FILTERED):
        found.append(Bar(f"CPU per request, {name}: 256 / 16", ratio(cpu(name, COLLAPSE_CONNECTIONS), cpu(name)), 1.5))
    nginx = stream("nginx")
    for name in (PLAIN, FILTERED):
        ours = stream(name)
        found.append(
            Bar(
                f"stream, {name}: added to first token, p50",
                ours.added_p50_us / 1000 if ours else None,
                2.0,
                unit=" ms",
            )
        )
        found.append(
            Bar(
                f"stream, CPU per event: {name} / nginx",
                ratio(ours.cpu_us_per_event if ours else None, nginx.cpu_us_per_event if nginx else None),
                4.0,
            )
        )
    return found


def markdown(rows: Sequence[Row], conditions: Mapping[str, Any]) -> str:
    lines = ["# Benchmark", ""]
    lines += [f"- {name}: {value}" for name, value in conditions.items()]
    lines += ["", "## Requests", ""]
    lines += ["| contender | connections | requests/s | CPU µs per request | p50 ms | p99 ms | requests | failed |"]
    lines += ["| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"]
    for row in rows:
        title = f"{row.name} {row.version}".strip()
        if row.problem:
            lines.append(f"| {title} | | | | | | | {row.problem.replace('|', '/')} |")
        for found in row.requests.values():
            if not found.requests:
                lines.append(
                    f"| {title} | {found.connections} | no request was answered in time | | | | 0 | {found.failed} |"
                )
                continue
            lines.append(
                f"| {title} | {found.connections} | {found.per_s:,.0f} | {found.cpu_us:,.1f} "
                f"| {found.p50_us / 1000:.2f} | {found.p99_us / 1000:.2f} | {found.requests:,} | {found.failed} |"
            )
    lines += ["", "## Streams", ""]
    lines += ["| contender | concurrent | first token p50 ms | added ms | CPU µs per event | streams | failed |"]
    lines += ["| --- | ---: | ---: | ---: | ---: | ---: | ---: |"]
    for row in rows:
        if row.streams:
            each = row.streams
            lines.append(
                f"| {row.name} | {each.concurrent} | {each.first_p50_us / 1000:.2f} | {each.added_p50_us / 1000:.2f} "
                f"| {each.cpu_us_per_event:.1f} | {each.streams} | {each.failed} |"
            )
    lines += ["", "## Start", "", "| contender | ready after s | memory after the run MB |", "| --- | ---: | ---: |"]
    for row in rows:
        if row.ready_s is not None and row.rss_bytes is not None:
            lines.append(f"| {row.name} | {row.ready_s:.2f} | {row.rss_bytes / 1e6:.0f} |")
    lines += ["", "## Bars", ""]
    lines += [f"- {bar.line()}" for bar in bars({row.name: row for row in rows})]
    return "\n".join(lines) + "\n"


def write(folder: Path, rows: Sequence[Row], conditions: Mapping[str, Any]) -> str:
    """Write `report.md` and `report.json`; returns the table."""
    text = markdown(rows, conditions)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.md").write_text(text)
    (folder / "report.json").write_text(
        json.dumps(
            {
                "conditions": dict(conditions),
                "contenders": [
                    {
                        "name": row.name,
                        "version": row.version,
                        "problem": row.problem,
                        "ready_s": row.ready_s,
                        "rss_bytes": row.rss_bytes,
                        "requests": [as_json(found) for found in row.requests.values()],
                        "streams": as_json(row.streams) if row.streams else None,
                    }
                    for row in rows
                ],
                "bars": [
                    {"text": bar.text, "figure": bar.figure, "limit": bar.limit, "verdict": bar.verdict}
                    for bar in bars({row.name: row for row in rows})
                ],
            },
            indent=1,
        )
        + "\n"
    )
    return text
