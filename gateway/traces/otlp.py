"""Sends spans to a collector when the standard OTEL_* variables name one, from a thread of its own.

A collector that is slow or gone costs spans, which are counted, and nothing else: the queue is bounded, and a stop
waits two seconds at most. Speaks OTLP over HTTP with protobuf.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from gateway import __version__
from gateway.traces.rows import Row

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace.export import SpanExporter

logger = logging.getLogger(__name__)

QUEUE_MAX: Final = 8_192  # exchanges; about 20 MB, and a minute of outage at 130 exchanges a second
BATCH_MAX: Final = 128  # exchanges, some 500 spans: 50 ms of work and under 1 MB on the wire
_LIBRARY_LOGGER: Final = "opentelemetry.exporter.otlp.proto.http.trace_exporter"


class ExportCounts(NamedTuple):
    exported: int  # exchanges
    queued: int
    dropped: int  # queue full, refused by the collector, or left at the end
    failing: bool


class OtlpExporter:
    """An `Exporter` of the recorder's over any OpenTelemetry span exporter."""

    def __init__(self, exporter: SpanExporter, resource: Resource, *, queue_max: int = QUEUE_MAX) -> None:
        self._exporter = exporter
        self._resource = resource
        self._queue_max = queue_max
        self._queue: list[Row] = []
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._in_hand = self._exported = self._dropped = 0
        self._failing = self._shut = False
        self._thread = threading.Thread(target=self._work, name="gateway-otlp", daemon=True)
        self._thread.start()

    def offer(self, rows: Sequence[Row]) -> None:
        """Queue what fits; count the rest as dropped."""
        with self._lock:
            room = self._queue_max - len(self._queue)
            self._queue.extend(row._replace(columns=(), request=None, response=None) for row in rows[:room])
            self._dropped += max(0, len(rows) - room)
        self._wake.set()

    def counts(self) -> ExportCounts:
        with self._lock:
            return ExportCounts(self._exported, len(self._queue) + self._in_hand, self._dropped, self._failing)

    def close(self, timeout_s: float) -> None:
        """Send what is queued, but do not wait longer than `timeout_s`, whatever the collector does."""
        ends_s = time.monotonic() + timeout_s
        self._closing.set()
        self._wake.set()
        self._thread.join(timeout_s * 0.75)
        if self._thread.is_alive():
            self._shut_down()  # ends the pause between two tries
            self._thread.join(max(0.0, ends_s - time.monotonic()))
        with self._lock:
            self._dropped += len(self._queue)
            self._queue.clear()

    def _work(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            while batch := self._take():
                self._send(batch)
            if self._closing.is_set():
                break
        self._shut_down()

    def _shut_down(self) -> None:
        with self._lock:
            first, self._shut = not self._shut, True
        if first:
            self._exporter.shutdown()

    def _take(self) -> list[Row]:
        with self._lock:
            batch = self._queue[:BATCH_MAX]
            del self._queue[: len(batch)]
            self._in_hand = len(batch)
        return batch

    def _send(self, batch: Sequence[Row]) -> None:
        from opentelemetry.sdk.trace.export import SpanExportResult

        from gateway.traces.spans import spans

        made = [span for row in batch for span in spans(row.record, row.cost, self._resource)]
        sent = self._exporter.export(made) is SpanExportResult.SUCCESS
        with self._lock:
            self._in_hand = 0
            self._exported += len(batch) if sent else 0
            self._dropped += 0 if sent else len(batch)
            changed, self._failing = self._failing == sent, not sent
        if changed:
            # The library logs every lost batch; its first word, which has the reason, is enough.
            logging.getLogger(_LIBRARY_LOGGER).disabled = not sent
            logger.warning("the collector %s spans", "takes" if sent else "does not take")


def otlp_exporter(environment: Mapping[str, str]) -> OtlpExporter | None:
    """An exporter as the standard variables say, or None where they name no collector. OpenTelemetry is imported only
    then: 10 MB."""
    if not _wanted(environment):
        return None
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource

    resource = Resource.create({"service.version": __version__, "service.instance.id": str(uuid.uuid4())})
    if str(resource.attributes.get(SERVICE_NAME, "unknown_service")).startswith("unknown_service"):
        resource = resource.merge(Resource({SERVICE_NAME: "agent-gateway"}))
    return OtlpExporter(OTLPSpanExporter(), resource)


def _wanted(environment: Mapping[str, str]) -> bool:
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    chosen = [name.strip() for name in environment.get("OTEL_TRACES_EXPORTER", "").split(",") if name.strip()]
    endpoint = any(environment.get(f"OTEL_EXPORTER_OTLP_{which}ENDPOINT", "").strip() for which in ("", "TRACES_"))
    if "otlp" not in chosen and (chosen or not endpoint):
        return False
    protocol = environment.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or environment.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    if protocol and protocol.strip() != "http/protobuf":
        logger.error("spans are not exported: the protocol must be `http/protobuf`; unset OTEL_EXPORTER_OTLP_PROTOCOL")
        return False
    return True
