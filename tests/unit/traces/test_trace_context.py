"""traceparent as the specification has it, and run ids."""

from __future__ import annotations

import subprocess
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from gateway.traces import context

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize(
    ("value", "sampled"),
    [
        (f"00-{TRACE}-{SPAN}-01", True),
        (f"00-{TRACE}-{SPAN}-00", False),
        (f"00-{TRACE}-{SPAN}-03", True),
        (f"cc-{TRACE}-{SPAN}-01", True),
        (f"cc-{TRACE}-{SPAN}-01-what-the-future-holds", True),
    ],
)
def test_valid_traceparent_is_read(value: str, sampled: bool) -> None:
    assert context.parse_traceparent(value) == (TRACE, SPAN, sampled)
    assert context.parse_traceparent(value.encode()) == (TRACE, SPAN, sampled)


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-0g",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}-01-",
        f"ff-{TRACE}-{SPAN}-01",
        f"0-{TRACE}-{SPAN}-01",
        f"cc-{TRACE}-{SPAN}-01.what",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        f" 00-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01\n",
        f"00-{TRACE}-{SPAN}-01, 00-{TRACE}-{SPAN}-01",
        f"cc-{TRACE}-{SPAN}-01-" + "x" * 1_000,
        "\u0660\u0660-" + TRACE + "-" + SPAN + "-01",
    ],
)
def test_invalid_traceparent_is_none(value: str | None) -> None:
    assert context.parse_traceparent(value) is None


def test_header_with_undecodable_bytes_is_none() -> None:
    assert context.parse_traceparent(b"\xff\xfe" + TRACE.encode()) is None


def test_what_is_formatted_parses_and_is_sampled() -> None:
    assert context.parse_traceparent(context.format_traceparent(TRACE, SPAN)) == (TRACE, SPAN, True)


def test_trace_ids_and_uuids_keep_their_digits() -> None:
    run = uuid.uuid4()
    assert context.normalise_run(TRACE) == TRACE
    assert context.normalise_run(str(run).upper()) == run.hex


@pytest.mark.parametrize("name", ["run-1", "0" * 32, TRACE.upper(), "00000000-0000-0000-0000-000000000000", ""])
def test_any_other_name_is_hashed_within_its_agent(name: str) -> None:
    first, again = context.normalise_run(name, scope="a"), context.normalise_run(name, scope="a")
    assert first == again != context.normalise_run(name, scope="b")
    assert context.normalise_run(first) == first
    assert first != "0" * 32


def test_scope_and_name_cannot_be_shifted_into_each_other() -> None:
    assert context.normalise_run("bc", scope="a") != context.normalise_run("c", scope="ab")


def test_exchange_ids_sort_by_time(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter([1_000_000_000_000_000_000, 1_000_000_000_001_000_000])
    monkeypatch.setattr(context.time, "time_ns", lambda: next(moments))
    first, second = context.exchange_id(), context.exchange_id()
    assert first < second
    assert len(first) == 32


def test_zero_is_never_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = iter([b"\1" * 8 + bytes(8), b"\2" * 16])
    monkeypatch.setattr(context, "_drawn", [])
    monkeypatch.setattr(context.os, "urandom", lambda size: next(drawn))
    assert context.span_id() == "01" * 8
    assert context.trace_id() == "02" * 16


def test_ids_are_not_shared_between_a_process_and_its_child() -> None:
    script = (
        "import os; from gateway.traces import context; context.span_id(); child = os.fork(); "
        "os.write(1, context.span_id().encode()); child and os.waitpid(child, 0)"
    )
    drawn = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout
    assert len(drawn) == 32 and drawn[:16] != drawn[16:]


def test_ids_drawn_by_several_threads_differ() -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: context.span_id(), range(5000)))
    assert len(set(found)) == len(found)
