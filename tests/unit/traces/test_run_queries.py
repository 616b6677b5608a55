"""Lists of runs, trees, exchanges: as the console asks for them."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from gateway.core.errors import ClientError, StoreError
from gateway.traces import RunStore, StepKind, context, flatten, query
from tests.trace_records import STARTED_S, chat, exchange, held_payment, recording


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "traces.db"


def test_nothing_recorded_yet_is_an_empty_list(path: Path) -> None:
    store = RunStore(path)
    assert store.runs() == []
    assert store.run("ab" * 16) is None
    assert store.exchange("ab" * 16) is None
    assert not path.exists()


@pytest.mark.parametrize("name", ["", "zz" * 16, "ab" * 15, "AB" * 16, "' OR 1=1 --", "ab" * 16 + "\n"])
def test_what_is_no_id_is_not_found(path: Path, name: str) -> None:
    with recording(path) as recorder:
        recorder.put(exchange(trace_id="ab" * 16))
    assert RunStore(path).run(name) is None
    assert RunStore(path).exchange(name) is None


def test_pages_go_on_where_they_ended_though_new_runs_arrive(path: Path) -> None:
    records = [exchange() for _ in range(7)]
    with recording(path) as recorder:
        for record in records[:5]:
            recorder.put(record)
        assert recorder.flush()
        first = RunStore(path).runs(limit=2)
        for record in records[5:]:
            recorder.put(record)
        assert recorder.flush()
        second = RunStore(path).runs(limit=2, before=first[-1].cursor)
        third = RunStore(path).runs(limit=2, before=second[-1].cursor)
    found = [summary.trace_id for summary in first + second + third]
    assert found == [record.trace_id for record in reversed(records[:5])]


def test_filters_select(path: Path) -> None:
    plain, other = exchange(), exchange(agent="support")
    failed = exchange(error="upstream_timeout", status=504)
    denied = exchange(effect="deny")
    both = exchange(effect="deny")
    both_too = held_payment(trace_id=both.trace_id)
    open_ = exchange(effect="allowed_failed_open")
    with recording(path) as recorder:
        for record in (plain, other, failed, denied, both, both_too, open_):
            recorder.put(record)
    store = RunStore(path)

    def ids(**filters: object) -> set[str]:
        return {summary.trace_id for summary in store.runs(**filters)}  # type: ignore[arg-type]

    assert ids(agent="support") == {other.trace_id}
    assert ids(effect="deny") == {denied.trace_id, both.trace_id}
    assert ids(effect="hold") == {both.trace_id}
    assert ids(effect="allowed_failed_open") == {open_.trace_id}
    assert ids(effect="allow") == {plain.trace_id, other.trace_id, failed.trace_id}
    assert ids(has_error=True) == {failed.trace_id}
    assert failed.trace_id not in ids(has_error=False)
    assert ids(effect="hold", agent="billing", has_error=False) == {both.trace_id}
    assert ids(effect="hold", agent="support") == set()


def test_wrong_filters_say_what_is_right(path: Path) -> None:
    with pytest.raises(ClientError, match="use one of allow, allowed_failed_open, hold, deny"):
        RunStore(path).runs(effect="permit")
    for cursor in ("-1", "x", "1" * 19, "²"):
        with pytest.raises(ClientError, match="cursor"):
            RunStore(path).runs(before=cursor)


def test_limit_is_bounded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(query, "RUNS_MAX", 3)
    with recording(path) as recorder:
        for _ in range(5):
            recorder.put(exchange())
    assert len(RunStore(path).runs(limit=1_000_000)) == 3
    assert len(RunStore(path).runs(limit=-1)) == 1


def test_summary_tells_the_run(path: Path) -> None:
    run = context.trace_id()
    with recording(path) as recorder:
        recorder.put(chat(trace_id=run, run="march bills"))
        recorder.put(held_payment(trace_id=run, started_s=STARTED_S + 10))
        recorder.put(held_payment(trace_id=run, started_s=STARTED_S + 20, agent="other"))
    (summary,) = RunStore(path).runs()
    assert (summary.trace_id, summary.name, summary.agent, summary.exchanges) == (run, "march bills", "billing", 3)
    assert summary.started_s == STARTED_S
    assert summary.duration_s == pytest.approx(20.25)
    assert (summary.effect, summary.held, summary.errors) == ("hold", ("act-1",), 0)
    assert (summary.input_tokens, summary.output_tokens, summary.cost, summary.unpriced) == (1_000, 100, None, 1)


def test_tree_hangs_together_by_spans(path: Path) -> None:
    run = context.trace_id()
    first = chat(trace_id=run, parent_span=context.span_id())  # the caller's own span: nobody recorded it
    second = held_payment(trace_id=run, parent_span=first.span, started_s=STARTED_S + 1)
    third = exchange(
        trace_id=run, parent_span=second.attempts[0].span, started_s=STARTED_S + 2
    )  # gateway behind gateway
    with recording(path) as recorder:
        for record in (third, second, first):  # as they end, not as they begin
            recorder.put(record)
    tree = RunStore(path).run(run)
    assert tree is not None and not tree.truncated
    shape = [(depth, node.step.kind, node.step.name) for depth, node in flatten(tree.roots)]
    assert shape == [
        (0, StepKind.EXCHANGE, "chat gpt-4o"),
        (1, StepKind.ATTEMPT, "attempt openai"),
        (1, StepKind.EXCHANGE, "tools/call bank.transfer"),
        (2, StepKind.FILTER, "filter request"),
        (2, StepKind.DECISION, "decide bank.transfer"),
        (3, StepKind.HOLD, "hold bank.transfer"),
        (2, StepKind.ATTEMPT, "attempt bank"),
        (3, StepKind.EXCHANGE, "chat gpt-4o"),
    ]
    hold = next(node for _, node in flatten(tree.roots) if node.step.kind is StepKind.HOLD)
    assert hold.started_s == pytest.approx(STARTED_S + 1 + 0.012)
    assert hold.step.duration_ns == 140_000_000


def test_long_run_is_cut_and_says_so(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(query, "EXCHANGES_MAX", 3)
    run = context.trace_id()
    with recording(path) as recorder:
        for _ in range(5):
            recorder.put(exchange(trace_id=run))
    tree = RunStore(path).run(run)
    assert tree is not None and tree.truncated
    assert len(tree.roots) == 3
    assert tree.summary.exchanges == 5


def test_content_that_was_forgotten_says_so(path: Path) -> None:
    record = exchange(request=b"text", effect="deny")
    with recording(path) as recorder:
        recorder.put(record)
    writer = sqlite3.connect(path)
    writer.execute("DELETE FROM payloads")
    writer.commit()
    writer.close()
    view = RunStore(path).exchange(record.id)
    assert view is not None and view.request is not None and view.response is None
    assert (view.request.data, view.request.note, view.request.size) == (None, "forgotten", 4)


def test_content_that_was_damaged_says_so(path: Path) -> None:
    record = exchange(request=b"text", effect="deny")
    with recording(path) as recorder:
        recorder.put(record)
    writer = sqlite3.connect(path)
    writer.execute("UPDATE payloads SET request = x'00'")
    writer.commit()
    writer.close()
    view = RunStore(path).exchange(record.id)
    assert view is not None and view.request is not None
    assert (view.request.data, view.request.note) == (None, "unreadable")


def test_broken_store_is_a_store_error_without_its_path(path: Path) -> None:
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(StoreError) as raised:
        RunStore(path).runs()
    assert raised.value.code == "trace_store_unavailable"
    assert str(path.parent) not in raised.value.message


def test_readers_do_not_write(path: Path) -> None:
    with recording(path) as recorder:
        recorder.put(exchange())
        assert recorder.flush()
        store = RunStore(path)
        with store._connection() as connection:
            assert connection is not None
            with pytest.raises(sqlite3.OperationalError, match="readonly"):
                connection.execute("DELETE FROM runs")
