"""What a real OTLP/HTTP collector receives, and what a bad one costs."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from gateway.traces import Attachments, RunStore, attachments, context, flatten, otlp
from gateway.traces.otlp import OtlpExporter, otlp_exporter
from tests.contract.otlp_collector import Collector, collecting
from tests.trace_records import SECRET, STARTED_S, chat, held_payment, recording


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as running:
        yield running


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)


def exporter(monkeypatch: pytest.MonkeyPatch, **variables: str) -> OtlpExporter:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    made = otlp_exporter(variables)
    assert made is not None
    return made


def test_run_arrives_as_one_tree(tmp_path: Path, collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
    run = context.trace_id()
    first = chat(trace_id=run, model=f"gpt-4o {SECRET}", request=SECRET.encode())
    second = held_payment(trace_id=run, parent_span=first.span, started_s=STARTED_S + 1)
    with recording(tmp_path / "traces.db", attachments=attachments()) as recorder:
        for record in (first, second):
            recorder.put(record)

    assert {span.trace_id.hex() for span in collector.spans} == {run}
    by_id = {span.span_id: span for span in collector.spans}
    assert len(by_id) == len(collector.spans) == 7
    roots = [span for span in collector.spans if not span.parent_span_id]
    assert [span.name for span in roots] == ["chat gpt-4o <SECRET>"]
    assert all(span.parent_span_id in by_id for span in collector.spans if span not in roots)
    assert chain(collector, "hold bank.transfer", by_id) == [
        "hold bank.transfer",
        "decide bank.transfer",
        "tools/call bank.transfer",
        "chat gpt-4o <SECRET>",
    ]
    kinds = sorted(Span.SpanKind.Name(span.kind) for span in collector.spans)
    assert kinds.count("SPAN_KIND_SERVER") == 2
    assert kinds.count("SPAN_KIND_CLIENT") == 2
    assert SECRET not in str(collector.spans)
    assert collector.headers[0]["content-encoding"] == "gzip"
    # The console draws the very same tree.
    tree = RunStore(tmp_path / "traces.db").run(run)
    assert tree is not None
    assert {node.step.span for _, node in flatten(tree.roots)} == {span.span_id.hex() for span in collector.spans}


def chain(collector: Collector, name: str, by_id: dict[bytes, Span]) -> list[str]:
    """The names from a span up to its root."""
    span = collector.by_name()[name]
    names = [span.name]
    while span.parent_span_id:
        span = by_id[span.parent_span_id]
        names.append(span.name)
    return names


def test_resource_names_the_service(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    send(exporter(monkeypatch, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url))
    assert collector.resources[-1]["service.name"] == "agent-gateway"
    assert collector.resources[-1]["service.version"]
    assert collector.resources[-1]["service.instance.id"]
    send(
        exporter(
            monkeypatch,
            OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=collector.url + "/v1/traces",
            OTEL_SERVICE_NAME="payments-gateway",
            OTEL_RESOURCE_ATTRIBUTES="deployment.environment.name=test",
        )
    )
    assert collector.resources[-1]["service.name"] == "payments-gateway"
    assert collector.resources[-1]["deployment.environment.name"] == "test"


def send(made: OtlpExporter) -> None:
    from gateway.traces.rows import encode

    made.offer([encode(chat(), 0.1, None, None)])
    made.close(10)
    assert made.counts().dropped == 0


def test_headers_of_the_operator_are_sent(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    send(
        exporter(
            monkeypatch,
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
            OTEL_EXPORTER_OTLP_HEADERS="authorization=Bearer%20abc",
        )
    )
    assert collector.headers[0]["authorization"] == "Bearer abc"


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "true"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_TRACES_EXPORTER": "none"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_TRACES_EXPORTER": "console"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
    ],
)
def test_nothing_is_exported_unless_asked_for(variables: dict[str, str]) -> None:
    assert otlp_exporter(variables) is None


def test_exporter_by_name_uses_the_default_endpoint() -> None:
    made = otlp_exporter({"OTEL_TRACES_EXPORTER": "otlp"})
    assert made is not None
    made.close(2)


def test_silent_collector_neither_delays_records_nor_a_stop(
    tmp_path: Path, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Accepts the connection and never answers."""
    collector.gate.clear()
    made = exporter(monkeypatch, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url)
    with recording(tmp_path / "traces.db", attachments=Attachments(exporter=made)) as recorder:
        recorder.put(chat())
        assert collector.asked.wait(30)
        for _ in range(50):
            recorder.put(chat())
        assert recorder.flush(2)
        began = time.monotonic()
        recorder.close()
        assert time.monotonic() - began < 3
    assert recorder.counts().stored == 51
    assert made.counts().dropped >= 50
    assert len(RunStore(tmp_path / "traces.db").runs(limit=100)) == 51


def test_absent_collector_costs_spans_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    made = exporter(monkeypatch, OTEL_EXPORTER_OTLP_ENDPOINT=url, OTEL_EXPORTER_OTLP_TIMEOUT="1")
    with recording(tmp_path / "traces.db", attachments=Attachments(exporter=made)) as recorder:
        recorder.put(chat())
        assert recorder.flush(2)
    counts = made.counts()
    assert (counts.exported, counts.dropped, counts.failing) == (0, 1, True)
    assert "does not take spans" in caplog.text


def test_collector_that_refuses_and_recovers_is_used_again(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from gateway.traces.rows import encode

    made = exporter(monkeypatch, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url)
    monkeypatch.setattr(otlp, "BATCH_MAX", 1)
    collector.refusals = [400]
    made.offer([encode(chat(), None, None, None), encode(chat(), None, None, None)])
    made.close(10)
    counts = made.counts()
    assert (counts.exported, counts.dropped, counts.failing) == (1, 1, False)
    assert len(collector.spans) == 2
    assert "the collector takes spans" in caplog.text


def test_queue_is_bounded_and_what_does_not_fit_is_counted(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gateway.traces.rows import encode

    monkeypatch.setattr(otlp, "BATCH_MAX", 1)
    collector.gate.clear()
    made = exporter(monkeypatch, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url)
    made._queue_max = 10
    rows = [encode(chat(), None, None, None) for _ in range(30)]
    made.offer(rows[:1])
    assert collector.asked.wait(30)
    made.offer(rows[1:])
    assert made.counts().queued == 11
    assert made.counts().dropped == 19
    collector.gate.set()
    made.close(10)
    assert made.counts().exported == 11


def test_caller_that_is_not_sampled_is_recorded_and_exported(
    tmp_path: Path, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = context.parse_traceparent(f"00-{'ab' * 16}-{'cd' * 8}-00")
    assert parent is not None and not parent.sampled
    made = exporter(monkeypatch, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url)
    with recording(tmp_path / "traces.db", attachments=Attachments(exporter=made)) as recorder:
        recorder.put(chat(trace_id=parent.trace_id, parent_span=parent.span))
    assert collector.spans[0].parent_span_id.hex() == "cd" * 8
    assert RunStore(tmp_path / "traces.db").run(parent.trace_id) is not None
