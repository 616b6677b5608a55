"""Takes records from the hot path and, in a thread of its own, masks, stores and exports them.

`put` never blocks and never raises: what cannot be kept is dropped, counted and visible in `counts()`. Order in the
thread: mask, then store, then export; an export or a store that fails takes nothing else down.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from gateway.core.errors import StoreError
from gateway.core.filtering import Masked
from gateway.traces.preparing import Attachments, Preparation
from gateway.traces.record import ExchangeRecord
from gateway.traces.retention import Retention
from gateway.traces.rows import Row
from gateway.traces.store import TraceStore

logger = logging.getLogger(__name__)

EXPORT_CLOSE_S_MAX: Final = 2.0  # a dead collector must not hold a stop up
RETRY_S_MAX: Final = 5.0  # a full disk is looked at again this often
HOUSEKEEPING_S: Final = 60.0
PRUNE_BATCHES_MAX: Final = 20  # of 500 rows each round: forgetting keeps up with 160 exchanges/s, and yields to writing


@dataclass(frozen=True, slots=True, kw_only=True)
class RecorderLimits:
    """Bounds of the queue and of a batch."""

    records_max: int = 20_000  # three seconds of the fastest gateway, 40 MB without bodies
    bytes_max: int = 64 * 1024 * 1024  # bodies in the queue; beyond it records go on without them
    batch_rows_max: int = 1_000
    batch_wait_s: float = 0.1  # the last 100 ms are what a SIGKILL can take
    body_bytes_max: int = 262_144
    content_ratio: float = 1.0


class RecorderCounts(NamedTuple):
    """What became of the records. `failing` says why the store does not take them at the moment."""

    put: int
    stored: int
    queued: int
    dropped: int  # records that were lost: queue full, unreadable, or the store still failing at the end
    content_dropped: int  # bodies left out because the queue was full
    masking_failures: int  # bodies and names left out because they could not be masked
    store_failures: int
    failing: str | None


class Recorder:
    """The one door to the trace store. Make it, `start` it, `put` from any thread, `close` it."""

    def __init__(
        self,
        store: TraceStore,
        masker: Callable[[bytes], Masked],
        *,
        limits: RecorderLimits | None = None,
        retention: Retention | None = None,
        attachments: Attachments | None = None,
    ) -> None:
        self._limits = limits or RecorderLimits()
        self._retention = retention or Retention()
        self._store = store
        attachments = attachments or Attachments()
        self._exporter = attachments.exporter
        self._preparation = Preparation(
            masker,
            attachments,
            body_bytes_max=self._limits.body_bytes_max,
            content_ratio=self._limits.content_ratio,
        )
        self._lock = threading.Lock()
        self._queue: list[ExchangeRecord] = []
        self._queued_bytes = 0
        self._in_hand = 0  # records and bytes that the thread took but has not stored
        self._in_hand_bytes = 0
        self._put = self._stored = self._dropped = self._content_dropped = self._store_failures = 0
        self._failing: str | None = None
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="gateway-traces", daemon=True)
        self._settled = threading.Condition(self._lock)
        self._hurry = self._closed = self._abandoned = False

    def start(self) -> None:
        """Open the store and start the thread. Raises StoreError for a store of another version; a store that cannot be
        opened for another reason is tried again while records wait."""
        try:
            self._store.open()
        except (sqlite3.Error, OSError) as error:
            self._fail(error)
        self._thread.start()

    def put(self, record: ExchangeRecord) -> None:
        """Take a record; it belongs to the recorder from here on. Some microseconds, never blocks, never raises."""
        size = (len(record.request) if record.request is not None else 0) + (
            len(record.response) if record.response is not None else 0
        )
        limits = self._limits
        with self._lock:
            self._put += 1
            queued = len(self._queue)
            if self._closed or queued + self._in_hand >= limits.records_max:
                self._dropped += 1
                return
            if size and self._queued_bytes + self._in_hand_bytes + size > limits.bytes_max:
                record.request = record.response = None
                record.content_note = "queue_full"
                self._content_dropped += 1
                size = 0
            self._queue.append(record)
            self._queued_bytes += size
        if queued == 0 or queued + 1 == limits.batch_rows_max:
            self._wake.set()

    def counts(self) -> RecorderCounts:
        with self._lock:
            return RecorderCounts(
                self._put,
                self._stored,
                len(self._queue) + self._in_hand,
                self._dropped,
                self._content_dropped,
                self._preparation.failures,
                self._store_failures,
                self._failing,
            )

    def flush(self, timeout_s: float = 5.0) -> bool:
        """Wait until everything that was put is stored or dropped. False when time runs out."""
        with self._settled:
            self._hurry = True
            self._wake.set()
            return self._settled.wait_for(lambda: not self._queue and not self._in_hand, timeout_s)

    def close(self, timeout_s: float = 5.0) -> RecorderCounts:
        """Store what is queued, within `timeout_s`; then give the exporter two seconds at most. What remains counts as
        dropped. Returns the last counts."""
        with self._lock:
            first, self._closed = not self._closed, True
        if not first:
            return self.counts()
        self._closing.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        if self._exporter is not None:
            self._exporter.close(EXPORT_CLOSE_S_MAX)
        with self._lock:
            self._abandoned = True
            self._dropped += len(self._queue)
            self._queue.clear()
            self._queued_bytes = 0
        return self.counts()

    # The thread.

    def _work(self) -> None:
        prune_at_s = time.monotonic() + HOUSEKEEPING_S
        while True:
            self._wait()
            batch = self._take()
            if batch:
                rows = self._preparation.rows(batch, self._store.salt)
                with self._lock:
                    self._dropped += len(batch) - len(rows)
                self._keep(rows)
                self._settle()
            elif self._closing.is_set():
                break
            if time.monotonic() >= prune_at_s and not self._closing.is_set():
                self._prune()
                prune_at_s = time.monotonic() + HOUSEKEEPING_S
        self._store.close()

    def _wait(self) -> None:
        """Until there is a batch: full, or as old as `batch_wait_s`. Hardly ever wakes while nothing happens."""
        if self._closing.is_set():
            return
        self._wake.wait(HOUSEKEEPING_S)
        self._wake.clear()  # before looking at the queue: a put after this line sets it again
        if self._queue and len(self._queue) < self._limits.batch_rows_max and not self._closed and not self._hurry:
            self._wake.wait(self._limits.batch_wait_s)
            self._wake.clear()

    def _take(self) -> list[ExchangeRecord]:
        with self._lock:
            if self._abandoned:
                return []
            batch = self._queue[: self._limits.batch_rows_max]
            del self._queue[: len(batch)]
            self._in_hand = len(batch)
            if self._queue:
                self._in_hand_bytes = sum(len(one.request or b"") + len(one.response or b"") for one in batch)
                self._wake.set()
            else:
                self._in_hand_bytes = self._queued_bytes
            self._queued_bytes -= self._in_hand_bytes
        return batch

    def _settle(self) -> None:
        with self._settled:
            self._in_hand = self._in_hand_bytes = 0
            if not self._queue:
                self._hurry = False
                self._settled.notify_all()

    def _keep(self, rows: list[Row]) -> None:
        """Store the rows, trying again while the store fails; meanwhile the queue fills up to its bound. Exported once,
        whether the store works or not."""
        wait_s, offered = 0.1, False
        while True:
            stored = self._write(rows)
            if not offered and self._exporter is not None:
                self._exporter.offer(rows)
            offered = True
            if stored or self._closing.wait(wait_s):
                break
            wait_s = min(wait_s * 2, RETRY_S_MAX)
        if not stored and not self._write(rows):
            with self._lock:
                self._dropped += len(rows)

    def _write(self, rows: Sequence[Row]) -> bool:
        """Whether the rows are dealt with. A row that the store will never take is dropped alone."""
        if not rows:
            return True
        try:
            self._store.write(rows)
        except _UNACCEPTABLE as error:
            if len(rows) == 1:
                logger.error("the trace store refused an exchange (%s)", type(error).__name__)
                with self._lock:
                    self._dropped += 1
                return True
            middle = len(rows) // 2
            return self._write(rows[:middle]) and self._write(rows[middle:])
        except (sqlite3.Error, OSError, StoreError) as error:
            self._fail(error)
            return False
        with self._lock:
            self._stored += len(rows)
            recovered, self._failing = self._failing, None
        if recovered is not None:
            logger.warning("the trace store takes records again")
        return True

    def _prune(self) -> None:
        try:
            for _ in range(PRUNE_BATCHES_MAX):
                if self._queue or not self._store.prune(self._retention, now=time.time()):
                    break
        except (sqlite3.Error, OSError, StoreError) as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        """Count a failure of the store, say it once, and begin with a new connection next time."""
        self._store.close()
        why = error.message if isinstance(error, StoreError) else f"{type(error).__name__}: {error}"
        with self._lock:
            self._store_failures += 1
            changed, self._failing = self._failing != why, why
        if changed:
            logger.warning("the trace store does not take records (%s); they wait in memory, within bounds", why)


_UNACCEPTABLE: Final = (
    sqlite3.IntegrityError,
    sqlite3.DataError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
    OverflowError,
    UnicodeEncodeError,
)
"""What SQLite raises because of a row's values: trying again would not help."""
