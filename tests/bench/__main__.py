"""`python -m tests.bench`: ours beside nginx, Envoy, Portkey and LiteLLM, in one run on one machine.

Trust the ratios of one run; the figures themselves depend on the machine and on what else it does. Exits 0 when the run
was made, whatever the bars say: a shared machine must not fail a build. `--strict` exits 1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path

from tests.bench import measure, report
from tests.bench.contenders import CONTENDERS, Contender
from tests.bench.ground import ROOT, BenchError, Cores, rss_bytes, stolen, ticks
from tests.bench.upstreams import Upstreams, upstreams

SECONDS_MAX = 120.0


def main() -> int:
    options = _options()
    cores = Cores.of_this_machine()
    work = ROOT / ".gateway" / "bench"
    chosen = [each for each in CONTENDERS if not options.only or any(word in each.name for word in options.only)]
    rows: list[report.Row] = []
    conditions: dict[str, object] = {
        "when": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}",
        "cores": "proxy on one, load and upstream on another" if cores.load is not None else "NOT pinned: one core",
        "load average at start": f"{os.getloadavg()[0]:.1f}",
        "seconds per point": f"{options.seconds:g}, in {measure.SLICES} slices, of which the median counts",
        "text": "a fresh kilobyte in every request",
        "streams": f"{measure.STREAM_EVENTS} events, one every {measure.STREAM_GAP_MS:g} ms, begun evenly",
    }
    before = ticks()
    try:
        with upstreams(work, cores, events=measure.STREAM_EVENTS, gap_ms=measure.STREAM_GAP_MS) as behind:
            direct = measure.raw_streams(behind.stream_port, {}, cores, options.streams, options.seconds)
            conditions["first token without a proxy, p50 ms"] = f"{direct['first_p50_us'] / 1000:.2f}"
            for contender in chosen:
                rows.append(_measure(contender, behind, cores, work, direct["first_p50_us"], options))
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    conditions["time that the hypervisor gave to others"] = f"{stolen(before, ticks()):.1%}"
    conditions["load average at end"] = f"{os.getloadavg()[0]:.1f}"
    print(report.write(work, rows, conditions))
    print(f"also in {(work / 'report.md').relative_to(ROOT)} and report.json", file=sys.stderr)
    missed = [bar for bar in report.bars({row.name: row for row in rows}) if bar.verdict == "MISSED"]
    return 1 if options.strict and missed else 0


def _measure(
    contender: Contender, behind: Upstreams, cores: Cores, work: Path, direct_us: float, options: argparse.Namespace
) -> report.Row:
    row = report.Row(contender.name)
    folder = work / "run" / contender.name.replace(",", "").replace(" ", "-")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        _say(f"{contender.name}: making it available")
        row.version = contender.install(work / "tools")
        with contender.serve(folder, cores, behind) as serving:
            measure.probe(serving)
            row.ready_s = serving.ready_s
            measure.warm(serving, cores, 4 if contender.slow else 1)
            for connections in options.connections:
                seconds = options.seconds * (3 if contender.slow and connections >= 64 else 1)
                slices = 1 if contender.slow else measure.SLICES  # a slice must be long beside one of its requests
                row.requests[connections] = found = measure.requests(serving, cores, connections, seconds, slices)
                _say(f"{contender.name}: {connections} connections, {found.per_s:,.0f}/s, {found.cpu_us:,.1f} µs CPU")
            if options.streams:
                row.streams = measure.streams(serving, cores, options.streams, options.seconds * 2, direct_us)
                _say(f"{contender.name}: streams, {row.streams.cpu_us_per_event:.1f} µs CPU per event")
            row.rss_bytes = rss_bytes(serving.process.pid)
    except BenchError as error:
        row.problem = str(error)
        _say(f"{contender.name}: {error}")
    return row


def _say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--only", action="append", metavar="WORD", help="contenders whose name holds WORD; repeatable")
    parser.add_argument("--seconds", type=float, default=6.0, help="per measurement (default 6)")
    parser.add_argument(
        "--connections", type=_numbers, default=[1, 16, 64, 256], metavar="N,N", help="default 1,16,64,256"
    )
    parser.add_argument("--streams", type=int, default=16, help="concurrent streams; 0 leaves them out (default 16)")
    parser.add_argument("--quick", action="store_true", help="3 seconds at 16 and 256 connections")
    parser.add_argument("--strict", action="store_true", help="exit 1 when a bar is missed")
    options = parser.parse_args()
    if options.quick:
        options.seconds, options.connections = 3.0, [16, 256]
    options.seconds = min(max(options.seconds, float(measure.SLICES)), SECONDS_MAX)
    return options


def _numbers(text: str) -> list[int]:
    found = [int(word) for word in text.split(",")]
    if not all(0 < number <= 1024 for number in found):
        raise argparse.ArgumentTypeError("from 1 to 1024")
    return found


if __name__ == "__main__":
    sys.exit(main())
