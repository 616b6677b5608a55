"""One contender under load: requests per second, latency and CPU per request; streams: first token, CPU per event."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import ProxyHandler, Request, build_opener

from tests.bench import wire
from tests.bench.contenders import Serving
from tests.bench.ground import PYTHON, ROOT, BenchError, Cores, cpu_between, cpu_s, pinned

SCRIPT = Path(__file__).with_name("unseen.lua")
_open = build_opener(ProxyHandler({})).open


@dataclass(frozen=True, slots=True, kw_only=True)
class Requests:
    connections: int
    requests: int
    failed: int
    per_s: float
    cpu_us: float  # of the whole process tree, per request
    p50_us: float
    p99_us: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Streams:
    concurrent: int
    streams: int
    failed: int
    first_p50_us: float
    added_p50_us: float  # over the same measurement without a proxy
    cpu_us_per_event: float
    events: int


def probe(serving: Serving) -> None:
    """One request and one stream, read with care: a contender that answers wrongly must not win by it."""
    for port, headers, stream in (
        (serving.json_port, serving.json_headers, False),
        (serving.stream_port, serving.stream_headers, True),
    ):
        model = wire.STREAM_MODEL if stream else wire.JSON_MODEL
        body = next(wire.unseen_bodies(model, stream=stream, seed=time.time_ns()))
        request = Request(f"http://127.0.0.1:{port}{wire.PATH}", body, {**headers, "Content-Type": "application/json"})
        answer = _patiently(request)
        if stream:
            if answer.count(b"data:") < 3 or b"[DONE]" not in answer:
                raise BenchError("its stream is not the stream of the upstream")
        elif _content(answer) != _content(wire.COMPLETION):
            raise BenchError("its answer is not the answer of the upstream")


def _content(completion: bytes) -> object:
    return json.loads(completion)["choices"][0]["message"]["content"]


def _patiently(request: Request) -> bytes:
    """Some listen before they are ready to serve."""
    last = ""
    for _ in range(40):
        try:
            with _open(request, timeout=30) as response:
                return bytes(response.read())
        except HTTPError as error:
            last = f"HTTP {error.code}"
            if error.code < 500:
                break
        except (URLError, OSError) as error:
            last = type(error).__name__
        time.sleep(0.25)
    raise BenchError(f"it answers with {last}")


STREAM_EVENTS, STREAM_GAP_MS = 50, 20.0
"""A stream of one second. At 16 at once that is 800 events/s, which the slowest contender can still carry on a core."""
SLICES = 3
"""A point is measured so many times in a row; the slice with the median cost stands for it. A neighbour's burst on a
shared machine spoils one slice, not the point."""


def requests(serving: Serving, cores: Cores, connections: int, seconds: float, slices: int = SLICES) -> Requests:
    """The median slice of one point: so many connections, `seconds` in all."""
    found = [_slice(serving, cores, connections, seconds / slices) for _ in range(slices)]
    return sorted(found, key=lambda each: each.cpu_us)[slices // 2]


def warm(serving: Serving, cores: Cores, seconds: float) -> None:
    """Byte code, JIT, connections, caches of the allocator: for requests and for streams."""
    _slice(serving, cores, 16, seconds)
    raw_streams(serving.stream_port, dict(serving.stream_headers), cores, 4, seconds)


def _slice(serving: Serving, cores: Cores, connections: int, seconds: float) -> Requests:
    """wrk from the other core, every request with text of its own."""
    wrk = shutil.which("wrk")
    if wrk is None:
        raise BenchError("wrk is not installed")
    arguments = [wire.JSON_MODEL, str(int.from_bytes(os.urandom(4), "big"))]
    for name, value in serving.json_headers.items():
        arguments += [name, value]
    url = f"http://127.0.0.1:{serving.json_port}{wire.PATH}"
    command = [wrk, "-t1", f"-c{connections}", f"-d{max(round(seconds), 1)}s", "--timeout", "60s", "-s", str(SCRIPT)]
    before = cpu_s(serving.process.pid)
    done = subprocess.run(
        pinned(cores.load, [*command, url, "--", *arguments]), capture_output=True, timeout=seconds + 90, check=False
    )
    cpu = cpu_between(before, cpu_s(serving.process.pid))
    found = _result(done.stdout.decode(errors="replace").rpartition("RESULT ")[2])
    count = max(int(found["requests"]), 1)
    return Requests(
        connections=connections,
        requests=int(found["requests"]),
        failed=int(found["failed"]),
        per_s=found["requests"] / found["seconds"],
        cpu_us=cpu / count * 1e6,
        p50_us=found["p50_us"],
        p99_us=found["p99_us"],
    )


def raw_streams(
    port: int, headers: dict[str, str], cores: Cores, concurrent: int, seconds: float, streams_max: int = 1_000_000
) -> dict[str, float]:
    """What `stream_load` found at a port."""
    plan = {
        "port": port,
        "path": wire.PATH,
        "headers": headers,
        "concurrent": concurrent,
        "seconds": seconds,
        "streams_max": streams_max,
        "spread_s": min(STREAM_EVENTS * STREAM_GAP_MS / 1000, seconds / 2),
    }
    command = [str(PYTHON), "-m", "tests.bench.stream_load", json.dumps(plan)]
    done = subprocess.run(
        pinned(cores.load, command), capture_output=True, cwd=ROOT, timeout=seconds + 180, check=False
    )
    return _result(done.stdout.decode(errors="replace"))


def streams(serving: Serving, cores: Cores, concurrent: int, seconds: float, direct_p50_us: float) -> Streams:
    before = cpu_s(serving.process.pid)
    found = raw_streams(serving.stream_port, dict(serving.stream_headers), cores, concurrent, seconds)
    cpu = cpu_between(before, cpu_s(serving.process.pid))
    return Streams(
        concurrent=concurrent,
        streams=int(found["streams"]),
        failed=int(found["failed"]),
        first_p50_us=found["first_p50_us"],
        added_p50_us=found["first_p50_us"] - direct_p50_us,
        cpu_us_per_event=cpu / max(found["events"], 1) * 1e6,
        events=int(found["events"]),
    )


def as_json(found: Requests | Streams) -> dict[str, Any]:
    return asdict(found)


def _result(text: str) -> dict[str, float]:
    try:
        found: dict[str, float] = json.loads(text.strip().splitlines()[-1])
    except (ValueError, IndexError):
        raise BenchError("the load generator gave no result") from None
    return found
