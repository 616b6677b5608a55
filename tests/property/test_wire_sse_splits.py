"""Server-sent events: however a stream is cut, the events and their bytes are the same, and they are the standard's."""

from __future__ import annotations

import itertools
import re

from hypothesis import given
from hypothesis import strategies as st

from gateway.wire import sse

PIECES = [
    b"\n",
    b"\r",
    b"\r\n",
    b"\n\n",
    b"data: ",
    b"data:",
    b"data",
    b":",
    b" ",
    b"x",
    b"event: e",
    b"id: 1",
    b"\xc3\xa9",
]
STREAMS = st.lists(st.sampled_from(PIECES), max_size=40).map(b"".join)
CUTS = st.lists(st.integers(0, 200), max_size=12)


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    return [stream[start:end] for start, end in itertools.pairwise(edges)]


def run(chunks: list[bytes], bytes_max: int = 10_000) -> tuple[list[sse.Event], bytes, bool]:
    parser = sse.Parser(bytes_max)
    events = [event for chunk in chunks for event in parser.feed(chunk)]
    return events, parser.rest, parser.overflow


def standard(stream: bytes) -> list[bytes]:
    """The data of the dispatched events, line by line as WHATWG HTML 9.2.6 says."""
    found: list[bytes] = []
    data: list[bytes] = []
    for line in re.split(rb"\r\n|\n|\r", stream)[:-1]:
        field, _, value = line.partition(b":")
        if not line:
            if data:
                found.append(b"\n".join(data))
            data = []
        elif field == b"data":
            data.append(value.removeprefix(b" "))
    return found


@given(STREAMS, CUTS)
def test_any_cut_gives_the_same_events_and_loses_no_byte(stream: bytes, places: list[int]) -> None:
    whole = run([stream])
    assert run(cut(stream, places)) == whole
    assert run([bytes([byte]) for byte in stream]) == whole
    assert b"".join(event.raw for event in whole[0]) + whole[1] == stream


@given(STREAMS)
def test_events_are_those_of_the_standard(stream: bytes) -> None:
    stream += b"\n\n"
    events, _, _ = run([stream])
    assert [event.data for event in events if event.data is not None] == standard(stream)


@given(STREAMS, CUTS, st.integers(1, 30))
def test_limit_strikes_at_the_same_event(stream: bytes, places: list[int], bytes_max: int) -> None:
    whole = run([stream], bytes_max)
    pieces = run(cut(stream, places), bytes_max)
    assert (pieces[0], pieces[2]) == (whole[0], whole[2])
    assert all(len(event.raw) <= bytes_max for event in whole[0])
