"""A process that records until it is killed, or until its disk is full. Prints what the test asks it for.

Arguments: the store's path, the number of records to put first, and the bytes a file may have (0: any).
"""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

from gateway.core.errors import StoreError
from gateway.traces import AuditLog, RecorderLimits
from tests.trace_records import exchange, recording


def main() -> None:
    path, first, bytes_max = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    if bytes_max:
        resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_max, bytes_max))
    body = b'{"messages":[{"role":"user","content":"' + b"text that compresses badly " * 3 + b'"}]}'
    with recording(path, limits=RecorderLimits(records_max=5_000)) as recorder:
        for _ in range(first):
            recorder.put(exchange(effect="deny", request=body))
        flushed = recorder.flush(2 if bytes_max else 30)
        print(f"flushed {flushed} {recorder.counts().stored}", flush=True)
        if bytes_max:
            report_full_disk(path, recorder.counts().dropped, first)
            return
        while True:
            recorder.put(exchange(effect="deny", request=body))
            if recorder.counts().queued > 500:
                recorder.flush(30)
                print("flushed more", flush=True)


def report_full_disk(path: Path, dropped: int, first: int) -> None:
    """What still works, and what says so, when nothing more can be written."""
    with recording(path, limits=RecorderLimits(records_max=10)) as recorder:
        for _ in range(100):
            recorder.put(exchange(effect="deny", request=os.urandom(100_000)))
        recorder.flush(0.5)
        counts = recorder.counts()
        print(f"counts {counts.put} {counts.dropped} {counts.store_failures > 0} {counts.failing}", flush=True)
    print(f"closed {recorder.counts().queued}", flush=True)
    log = AuditLog(path.with_name("audit.jsonl"))
    try:
        for _ in range(10_000_000):
            log.write({"event": "decision", "text": "x" * 1_000})
    except StoreError as error:
        print(f"audit {error.code}", flush=True)


if __name__ == "__main__":
    main()
