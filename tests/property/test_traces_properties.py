"""What must hold for all records: nothing lost, trees whole, secrets gone, sums true."""

from __future__ import annotations

import sqlite3
import tempfile
from collections import Counter
from pathlib import Path

import orjson
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.traces import ExchangeRecord, RecorderLimits, RunStore, Usage, context, flatten
from gateway.traces.record import EFFECT_RANK
from gateway.traces.rows import COLUMNS, decode, encode
from gateway.traces.tree import grow
from tests.trace_records import SECRET, STARTED_S, chat, exchange, held_payment, recording

SPANS = [f"{n:016x}" for n in range(1, 9)]
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@QUICK
@given(st.lists(st.tuples(st.sampled_from(SPANS), st.none() | st.sampled_from(SPANS)), max_size=12))
def test_every_exchange_is_in_the_tree_exactly_once(links: list[tuple[str, str | None]]) -> None:
    """Whatever parents callers forge: cycles, themselves, spans that are used twice."""
    records = [held_payment(span=span, parent_span=parent, trace_id="ab" * 16) for span, parent in links]
    shown = [id(node.record) for _, node in flatten(grow(records)) if node.step.source is node.record]
    assert Counter(shown) == Counter(id(record) for record in records)


def test_deep_chain_is_not_a_recursion() -> None:
    spans = [context.span_id() for _ in range(2_000)]
    records = [exchange(span=span, parent_span=parent) for span, parent in zip(spans[1:], spans, strict=False)]
    depths = [depth for depth, _ in flatten(grow(records))]
    assert depths == list(range(1_999))


TEXT = st.text(max_size=40)
FACTS = st.dictionaries(TEXT, TEXT | st.integers(-(2**62), 2**62) | st.booleans() | st.none(), max_size=4)


@QUICK
@given(
    rule=TEXT, reason=TEXT, facts=FACTS, counts=st.lists(st.integers(0, 2**53), min_size=5, max_size=5),
    status=st.integers(0, 999), started_s=st.floats(0, 4e9, allow_nan=False),
)  # fmt: skip
def test_row_reads_back_as_the_record(
    rule: str, reason: str, facts: dict[str, object], counts: list[int], status: int, started_s: float
) -> None:
    record = held_payment(
        rule=rule, reason=reason, facts=facts or None, usage=Usage(*counts), status=status, started_s=started_s
    )
    row = encode(record, 1.5, None, None)
    connection = sqlite3.connect(":memory:")
    connection.row_factory = sqlite3.Row
    marks = ", ".join(f"? AS {name}" for name in COLUMNS)
    stored = decode(connection.execute(f"SELECT {marks}", (1, 1, *row.columns)).fetchone(), record.trace_id)
    connection.close()
    for name in ExchangeRecord.__slots__:
        assert getattr(stored.record, name) == getattr(record, name), name
    assert stored.cost == 1.5


JSONS = st.recursive(
    st.text(max_size=30) | st.integers() | st.just(SECRET),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    bodies=st.lists(st.tuples(JSONS, st.binary(max_size=40), st.sampled_from(sorted(EFFECT_RANK))), max_size=6),
    cap=st.integers(1, 60),
    name=st.text(max_size=10),
)
def test_secret_never_reaches_the_disk(bodies: list[tuple[object, bytes, str]], cap: int, name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "traces.db"
        with recording(path, limits=RecorderLimits(body_bytes_max=cap)) as recorder:
            for document, raw, effect in bodies:
                recorder.put(
                    exchange(
                        effect=effect,
                        name=name + SECRET,
                        request=_json(document),
                        response=raw + SECRET.encode() + raw,
                    )
                )
            assert recorder.flush()
            secret = SECRET.encode()
            stored = b"".join(file.read_bytes() for file in Path(folder).iterdir())
            views = [RunStore(path).run(run.trace_id) for run in RunStore(path).runs()]
            for view in views:
                assert view is not None
                for _, node in flatten(view.roots):
                    found = RunStore(path).exchange(node.record.id)
                    assert found is not None
                    for body in (found.request, found.response):
                        assert body is None or body.data is None or SECRET[:12].encode() not in body.data
        assert secret not in stored
        assert recorder.counts().stored == len(bodies)


def _json(document: object) -> bytes:
    return orjson.dumps(document) if _fits(document) else b"{}"


def _fits(document: object) -> bool:
    if isinstance(document, int):
        return abs(document) < 2**63
    if isinstance(document, list):
        return all(map(_fits, document))
    if isinstance(document, dict):
        return all(map(_fits, document.values()))
    return True


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    exchanges=st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from(sorted(EFFECT_RANK)), st.booleans(), st.integers(0, 50)),
        max_size=60,
    ),
    rows_max=st.integers(1, 20),
)
def test_sums_of_runs_do_not_depend_on_how_batches_fell(
    exchanges: list[tuple[int, str, bool, int]], rows_max: int
) -> None:
    runs = [f"{n:032x}" for n in range(1, 5)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "traces.db"
        with recording(path, limits=RecorderLimits(batch_rows_max=rows_max, batch_wait_s=0.0)) as recorder:
            for run, effect, failed, second in exchanges:
                recorder.put(
                    chat(
                        trace_id=runs[run],
                        effect=effect,
                        error="denied" if failed else None,
                        started_s=STARTED_S + second,
                        usage=Usage(second, 1),
                    )
                )
        found = {summary.trace_id: summary for summary in RunStore(path).runs()}
        assert set(found) == {runs[run] for run, *_ in exchanges}
        for number, run in enumerate(runs):
            mine = [one for one in exchanges if one[0] == number]
            if mine:
                summary = found[run]
                assert summary.exchanges == len(mine)
                assert summary.errors == sum(failed for _, _, failed, _ in mine)
                assert summary.effect == max((effect for _, effect, _, _ in mine), key=EFFECT_RANK.__getitem__)
                assert summary.started_s == STARTED_S + min(second for *_, second in mine)
                assert summary.input_tokens == sum(second for *_, second in mine)


@given(st.text(max_size=80) | st.from_regex(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", fullmatch=True))
def test_whatever_parses_is_usable_as_ids(value: str) -> None:
    parsed = context.parse_traceparent(value)
    if parsed is not None:
        assert context.parse_traceparent(context.format_traceparent(parsed.trace_id, parsed.span)) is not None
        assert int(parsed.trace_id, 16) and int(parsed.span, 16)


@given(st.text(max_size=200), st.text(max_size=20))
def test_every_run_name_becomes_a_trace_id(name: str, scope: str) -> None:
    run = context.normalise_run(name, scope=scope)
    assert context.parse_traceparent(context.format_traceparent(run, "1" * 16)) is not None
