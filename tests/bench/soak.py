"""`python -m tests.bench.soak`: 200,000 requests and 2,000 streams through one gateway; its memory over time.

Judges nothing by itself, because the machine decides the figures: it prints the memory after each slice and the slope
of its second half, in megabytes per 100,000 requests. A flat line is what to look for.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence

from tests.bench import measure
from tests.bench.contenders import Ours, Serving
from tests.bench.ground import ROOT, BenchError, Cores, own_rss_bytes, rss_bytes
from tests.bench.upstreams import upstreams

CONNECTIONS, STREAMS_AT_ONCE = 64, 64
SLICE_S = 3.0
TIME_MAX_S = 1800.0


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Least squares through the later half of the points, in y per x."""
    later = points[len(points) // 2 :]
    if len(later) < 2:
        return 0.0
    mean_x = sum(x for x, _ in later) / len(later)
    mean_y = sum(y for _, y in later) / len(later)
    spread = sum((x - mean_x) ** 2 for x, _ in later)
    return sum((x - mean_x) * (y - mean_y) for x, y in later) / spread if spread else 0.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.soak", description=__doc__)
    parser.add_argument("--requests", type=int, default=200_000)
    parser.add_argument("--streams", type=int, default=2_000)
    parser.add_argument("--agent", choices=("plain", "guarded"), default="guarded", help="without or with filters")
    options = parser.parse_args()
    work = ROOT / ".gateway" / "bench"
    folder = work / "run" / "soak"
    folder.mkdir(parents=True, exist_ok=True)
    cores = Cores.of_this_machine()
    gateway = Ours("soak", options.agent)
    try:
        gateway.install(work / "tools")
        with (
            upstreams(folder, cores, events=20, gap_ms=5) as behind,
            gateway.serve(folder, cores, behind) as serving,
        ):
            measure.probe(serving)
            found = _soak(serving, cores, options.requests, options.streams)
    except BenchError as error:
        print(f"soak: {error}", file=sys.stderr)
        return 1
    (work / "soak.json").write_text(json.dumps(found, indent=1) + "\n")
    return 0


def _soak(serving: Serving, cores: Cores, requests: int, streams: int) -> dict[str, object]:
    pid = serving.process.pid
    begin = time.monotonic()
    points: list[tuple[float, float]] = []
    done = failed = 0
    print("| requests | streams | gateway MB | with its store MB |\n| ---: | ---: | ---: | ---: |")

    def note(count: int, streamed: int) -> float:
        megabytes = own_rss_bytes(pid) / 1e6
        print(f"| {count:,} | {streamed:,} | {megabytes:.1f} | {rss_bytes(pid) / 1e6:.1f} |", flush=True)
        return megabytes

    note(0, 0)
    while done < requests and time.monotonic() - begin < TIME_MAX_S:
        found = measure.requests(serving, cores, CONNECTIONS, SLICE_S, slices=1)
        if not found.requests:
            raise BenchError("it answers no more")
        done += found.requests
        failed += found.failed
        points.append((done / 100_000, note(done, 0)))
    streamed = 0
    stream_points: list[tuple[float, float]] = []
    while streamed < streams and time.monotonic() - begin < TIME_MAX_S:
        some = measure.raw_streams(
            serving.stream_port, dict(serving.stream_headers), cores, STREAMS_AT_ONCE, 60, min(250, streams - streamed)
        )
        if not some["streams"]:
            raise BenchError("it streams no more")
        streamed += int(some["streams"])
        failed += int(some["failed"])
        stream_points.append((streamed / 1000, note(done, streamed)))
    per_requests, per_streams = slope(points), slope(stream_points)
    print(f"\n{done:,} requests and {streamed:,} streams in {time.monotonic() - begin:.0f} s, {failed} failed")
    print(
        f"slope of the second half: {per_requests:+.2f} MB per 100,000 requests, {per_streams:+.2f} per 1,000 streams"
    )
    return {
        "requests": done,
        "streams": streamed,
        "failed": failed,
        "rss_mb": points,
        "stream_rss_mb": stream_points,
        "mb_per_100k_requests": per_requests,
        "mb_per_1k_streams": per_streams,
    }


if __name__ == "__main__":
    sys.exit(main())
