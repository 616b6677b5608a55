"""The recorder: bounded, masked, and never in the way."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from gateway.core.errors import StoreError
from gateway.core.filtering import Masked
from gateway.traces import Attachments, ExchangeRecord, Recorder, RecorderLimits, RunStore, TraceStore, schema
from gateway.traces.rows import Row
from tests.trace_records import SECRET, cannot_mask, chat, exchange, held_payment, mask, recording


def on_disk(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.iterdir())


class Stuck:
    """A masker that waits until it is told to go on."""

    def __init__(self) -> None:
        self.entered, self.go = threading.Event(), threading.Event()

    def __call__(self, data: bytes) -> Masked:
        self.entered.set()
        assert self.go.wait(30)
        return mask(data)


def test_record_comes_back_as_it_was_put(tmp_path: Path) -> None:
    record = held_payment(run="march", request=b'{"iban":"x"}', response=b"done", request_type="application/json")
    copy = {name: getattr(record, name) for name in ExchangeRecord.__slots__}
    with recording(tmp_path / "traces.db") as recorder:
        recorder.put(record)
        assert recorder.flush()
        view = RunStore(tmp_path / "traces.db").exchange(record.id)
    assert view is not None
    assert view.request is not None and view.request.data == b'{"iban":"x"}'
    assert view.response is not None and view.response.data == b"done"
    assert view.request.content_type == "application/json"
    for name, value in copy.items():
        if name not in {"request", "response"}:
            assert getattr(view.record, name) == value, name


def test_secret_in_bodies_and_names_never_reaches_the_disk(tmp_path: Path) -> None:
    with recording(tmp_path / "traces.db") as recorder:
        for effect in ("allow", "deny"):
            record = held_payment(
                effect=effect,
                name=f"bank.{SECRET}",
                run=f"run {SECRET}",
                model=SECRET,
                model_responded=SECRET,
                response_id=SECRET,
                operation=SECRET,
                finish_reasons=(SECRET,),
                facts={"label": SECRET},
                attributes={"mcp.session.id": SECRET},
                request=f'{{"key":"{SECRET}"}}'.encode(),
                response=SECRET.encode() * 50,
                request_type=SECRET,
            )
            record.decisions = (record.decisions[0]._replace(action=SECRET),)
            recorder.put(record)
        assert recorder.flush()
        assert SECRET.encode() not in on_disk(tmp_path)
        view = RunStore(tmp_path / "traces.db").exchange(record.id)
    assert view is not None and view.request is not None
    assert view.request.data == b'{"key":"<SECRET>"}'
    assert view.record.name == "bank.<SECRET>"


def test_what_cannot_be_masked_is_dropped_and_the_rest_is_kept(tmp_path: Path) -> None:
    record = chat(effect="deny", request=SECRET.encode(), response=b"x")
    with recording(tmp_path / "traces.db", cannot_mask) as recorder:
        recorder.put(record)
        assert recorder.flush()
        view = RunStore(tmp_path / "traces.db").exchange(record.id)
        counts = recorder.counts()
        assert SECRET.encode() not in on_disk(tmp_path)
    assert view is not None and view.request is not None and view.response is not None
    assert (view.request.data, view.request.note, view.request.size) == (None, "masking_failed", len(SECRET))
    assert view.record.effect == "deny"
    assert view.record.model == "(masking failed)"
    assert view.record.usage is not None
    assert counts.stored == 1
    assert counts.masking_failures >= 2


def test_masker_that_breaks_in_an_unforeseen_way_drops_the_body_too(tmp_path: Path) -> None:
    def broken(data: bytes) -> Masked:
        raise ZeroDivisionError

    record = exchange(effect="deny", request=b"text")
    with recording(tmp_path / "traces.db", broken) as recorder:
        recorder.put(record)
        assert recorder.flush()
        view = RunStore(tmp_path / "traces.db").exchange(record.id)
    assert view is not None and view.request is not None and view.request.note == "masking_failed"


def test_long_body_is_masked_whole_and_then_cut(tmp_path: Path) -> None:
    # The cut would fall into the secret; its first half must not stay behind.
    body = b"a" * 95 + SECRET.encode() + b"b" * 100
    record = exchange(effect="deny", request=body, response=b"c" * 401)
    limits = RecorderLimits(body_bytes_max=100)
    with recording(tmp_path / "traces.db", limits=limits) as recorder:
        recorder.put(record)
        assert recorder.flush()
        view = RunStore(tmp_path / "traces.db").exchange(record.id)
    assert view is not None and view.request is not None and view.response is not None
    assert view.request.data == b"a" * 95 + b"<SECR"
    assert (view.request.note, view.request.size) == ("truncated", len(body))
    assert (view.response.data, view.response.note) == (None, "too_large")


def test_sample_keeps_whole_runs_and_everything_notable(tmp_path: Path) -> None:
    limits = RecorderLimits(content_ratio=0.5)
    plain = [exchange(request=b"text") for _ in range(200)]
    twins = [exchange(trace_id=record.trace_id, request=b"text") for record in plain]
    notable = [
        exchange(effect="deny", request=b"text"),
        exchange(effect="hold", request=b"text"),
        exchange(effect="allowed_failed_open", request=b"text"),
        exchange(error="upstream_timeout", request=b"text"),
        exchange(status=502, request=b"text"),
        held_payment(effect="allow", request=b"text", held=None),
        chat(request=b"text", attempts=(chat().attempts[0]._replace(error="upstream_closed"),)),
    ]
    with recording(tmp_path / "traces.db", limits=limits) as recorder:
        for record in plain + twins + notable:
            recorder.put(record)
        assert recorder.flush()
        store = RunStore(tmp_path / "traces.db")

        def kept(record: ExchangeRecord) -> bool:
            view = store.exchange(record.id)
            assert view is not None and view.request is not None
            assert (view.request.data is None) == (view.request.note == "not_sampled")
            return view.request.data is not None

        of_plain, of_twins = [kept(record) for record in plain], [kept(record) for record in twins]
        assert of_plain == of_twins
        assert 50 < sum(of_plain) < 150
        assert all(kept(record) for record in notable)


def test_zero_ratio_keeps_no_ordinary_content_but_every_row(tmp_path: Path) -> None:
    with recording(tmp_path / "traces.db", limits=RecorderLimits(content_ratio=0.0)) as recorder:
        for _ in range(50):
            recorder.put(exchange(request=b"ordinary text"))
        assert recorder.flush()
        runs = RunStore(tmp_path / "traces.db").runs()
        views = [RunStore(tmp_path / "traces.db").run(run.trace_id) for run in runs]
    assert len(runs) == 50
    assert all(view is not None for view in views)
    assert b"ordinary text" not in on_disk(tmp_path)


def test_full_queue_drops_bodies_first_and_then_records_and_counts_both(tmp_path: Path) -> None:
    stuck = Stuck()
    limits = RecorderLimits(records_max=4, bytes_max=10, batch_wait_s=0.0)
    with recording(tmp_path / "traces.db", stuck, limits=limits) as recorder:
        recorder.put(exchange(request=b"1"))
        assert stuck.entered.wait(30)  # the thread has this one in hand
        kept = exchange(effect="deny", request=b"2" * 9)
        without = exchange(effect="deny", request=b"3" * 9)
        for record in (kept, without, exchange(), exchange(), exchange()):
            recorder.put(record)
        counts = recorder.counts()
        assert (counts.put, counts.queued, counts.dropped, counts.content_dropped) == (6, 4, 2, 1)
        stuck.go.set()
        assert recorder.flush()
        store = RunStore(tmp_path / "traces.db")
        first, second = store.exchange(kept.id), store.exchange(without.id)
    assert first is not None and first.request is not None and first.request.data == b"2" * 9
    assert second is not None and second.request is not None
    assert (second.request.data, second.request.note) == (None, "queue_full")
    assert recorder.counts().stored == 4


def test_close_stores_what_is_queued_and_later_records_count_as_dropped(tmp_path: Path) -> None:
    with recording(tmp_path / "traces.db", limits=RecorderLimits(batch_wait_s=60)) as recorder:
        for _ in range(2_500):
            recorder.put(exchange())
    recorder.put(exchange())
    counts = recorder.counts()
    assert (counts.stored, counts.dropped, counts.queued) == (2_500, 1, 0)


def test_close_gives_up_at_its_deadline_and_counts_what_remains(tmp_path: Path) -> None:
    stuck = Stuck()
    recorder = Recorder(TraceStore(tmp_path / "traces.db"), stuck, limits=RecorderLimits(batch_rows_max=1))
    recorder.start()
    for _ in range(5):
        recorder.put(exchange())
    assert stuck.entered.wait(30)
    counts = recorder.close(timeout_s=0.05)
    assert counts.stored == 0
    assert counts.dropped == 4
    stuck.go.set()


def test_store_of_another_version_refuses_to_start(tmp_path: Path) -> None:
    path = tmp_path / "traces.db"
    connection = schema.open_writer(path)
    connection.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    connection.close()
    recorder = Recorder(TraceStore(path), mask)
    with pytest.raises(StoreError, match=f"version {schema.VERSION + 1} and this gateway knows version") as raised:
        recorder.start()
    assert raised.value.code == "trace_store_version"
    with pytest.raises(StoreError, match="move the file away"):
        RunStore(path).runs()


def test_unreadable_record_costs_itself_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    good = exchange()
    with recording(tmp_path / "traces.db") as recorder:
        recorder.put(exchange(id="not hexadecimal"))
        recorder.put(exchange(duration_ns=2**70))
        recorder.put(exchange(id=good.id))
        recorder.put(good)  # one id twice
        recorder.put(exchange(agent="\ud800"))
        other = exchange()
        recorder.put(other)
        assert recorder.flush()
        counts = recorder.counts()
        assert RunStore(tmp_path / "traces.db").exchange(other.id) is not None
    assert (counts.put, counts.stored, counts.dropped) == (6, 2, 4)
    assert "could not be recorded" in caplog.text


def test_details_without_json_form_cost_the_details_only(tmp_path: Path) -> None:
    record = exchange(facts={"count": 2**80})
    with recording(tmp_path / "traces.db") as recorder:
        recorder.put(record)
        assert recorder.flush()
        view = RunStore(tmp_path / "traces.db").exchange(record.id)
    assert view is not None
    assert view.record.facts is None
    assert view.record.effect == "allow"
    assert "unreadable" in view.record.reason


def test_attachments_see_masked_records_without_bodies(tmp_path: Path) -> None:
    seen: list[tuple[ExchangeRecord, float | None]] = []

    class Keep:
        rows: list[Row] = []
        closed = False

        def offer(self, rows: list[Row]) -> None:
            self.rows.extend(rows)

        def close(self, timeout_s: float) -> None:
            assert timeout_s <= 2
            self.closed = True

    keep = Keep()
    attached = Attachments(price=lambda record: 0.25, observe=lambda *one: seen.append(one), exporter=keep)  # type: ignore[arg-type]
    with recording(tmp_path / "traces.db", attachments=attached) as recorder:
        recorder.put(chat(model=SECRET, request=SECRET.encode()))
    (record, cost), (row,) = seen[0], keep.rows
    assert (record.model, record.request, cost, row.cost) == ("<SECRET>", None, 0.25, 0.25)
    assert keep.closed


def test_record_that_cannot_be_counted_does_not_end_the_thread(tmp_path: Path) -> None:
    def observe(record: ExchangeRecord, cost: float | None) -> None:
        if record.model == "bad":
            raise RuntimeError

    with recording(tmp_path / "traces.db", attachments=Attachments(observe=observe)) as recorder:
        recorder.put(exchange(model="bad"))
        recorder.put(exchange())
        assert recorder.flush()
        assert (recorder.counts().stored, recorder.counts().dropped) == (1, 1)
