"""`python -m tests.bench.startup`: from the start of the process to the first answered request, and memory when idle.

The bars: ready within 4 s once installed, idle under 200 MB with the pattern filters.
"""

from __future__ import annotations

import json
import sys
import time
from urllib.error import HTTPError, URLError
from urllib.request import ProxyHandler, build_opener

from tests.bench import measure
from tests.bench.contenders import Ours
from tests.bench.ground import ROOT, BenchError, Cores, cpu_s, own_rss_bytes, rss_bytes
from tests.bench.upstreams import Upstreams, upstreams

STARTS = 3
IDLE_S = 3.0
READY_S_MAX = 60.0


def main() -> int:
    work = ROOT / ".gateway" / "bench"
    folder = work / "run" / "startup"
    folder.mkdir(parents=True, exist_ok=True)
    cores = Cores.of_this_machine()
    starts: list[dict[str, float]] = []
    try:
        with upstreams(folder, cores, events=20, gap_ms=5) as behind:
            for _ in range(STARTS):
                starts.append(_once(behind, cores))
    except BenchError as error:
        print(f"startup: {error}", file=sys.stderr)
        return 1
    ready_s = sorted(each["ready_s"] for each in starts)[STARTS // 2]
    idle = max(each["idle_bytes"] for each in starts) / 1e6
    print(
        f"ready after {ready_s:.2f} s (median of {STARTS} starts, each on an empty state folder), bar <= 4 s: ", end=""
    )
    print("met" if ready_s <= 4 else "MISSED")
    print(f"idle memory with its store {idle:.0f} MB, bar <= 200 MB: {'met' if idle <= 200 else 'MISSED'}")
    print(f"idle memory of the gateway alone {max(each['own_bytes'] for each in starts) / 1e6:.0f} MB")
    print(f"idle CPU {max(each['idle_cpu'] for each in starts):.2%} of a core")
    (work / "startup.json").write_text(json.dumps(starts, indent=1) + "\n")
    return 0


def _once(behind: Upstreams, cores: Cores) -> dict[str, float]:
    folder = ROOT / ".gateway" / "bench" / "run" / "startup"
    with Ours("startup", "guarded").serve(folder, cores, behind) as serving:
        waited = _await_ready(serving.json_port)
        measure.probe(serving)  # what is loaded at the first use counts as memory, not as readiness
        pid = serving.process.pid
        before = sum(cpu_s(pid).values())
        time.sleep(IDLE_S)
        return {
            "ready_s": serving.ready_s + waited,
            "idle_bytes": rss_bytes(pid),
            "own_bytes": own_rss_bytes(pid),
            "idle_cpu": (sum(cpu_s(pid).values()) - before) / IDLE_S,
        }


def _await_ready(port: int) -> float:
    """Until /readyz says so; returns how long that took."""
    begin = time.monotonic()
    opener = build_opener(ProxyHandler({}))
    while time.monotonic() - begin < READY_S_MAX:
        try:
            with opener.open(f"http://127.0.0.1:{port}/readyz", timeout=5) as response:
                if response.status == 200:
                    return time.monotonic() - begin
        except (HTTPError, URLError, OSError):
            time.sleep(0.02)
    raise BenchError("it listens and does not become ready")


if __name__ == "__main__":
    sys.exit(main())
