"""Server-sent events: framing, fields, bounds."""

from __future__ import annotations

import pytest

from gateway.wire import sse


def parse(*chunks: bytes) -> list[sse.Event]:
    parser = sse.Parser()
    events = [event for chunk in chunks for event in parser.feed(chunk)]
    rest = parser.finish()
    return [*events, rest] if rest is not None else events


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_every_line_end_separates_lines_and_events(end: bytes) -> None:
    raw = end.join([b"event: add", b"id: 7", b"data: one", b"data:two", b"", b""])
    assert parse(raw + raw)[0] == sse.Event(raw, b"one\ntwo", "add", "7")
    assert [event.raw for event in parse(raw + raw)] == [raw, raw]


def test_crlf_split_between_its_characters_is_one_line_end() -> None:
    assert parse(b"data: a\r", b"\n\r", b"\ndata: b\r\n\r\n") == [
        sse.Event(b"data: a\r\n\r\n", b"a"),
        sse.Event(b"data: b\r\n\r\n", b"b"),
    ]


def test_event_after_a_lone_cr_waits_for_the_byte_that_shows_where_it_ends() -> None:
    parser = sse.Parser()
    assert parser.feed(b"data: a\r\r") == []
    assert [event.raw for event in parser.feed(b"\n")] == [b"data: a\r\r\n"]


def test_comments_and_blank_lines_have_no_data_but_keep_their_bytes() -> None:
    events = parse(b": keep-alive\n\n\n\ndata: x\n\n")
    assert [event.data for event in events] == [None, None, b"x"]
    assert b"".join(event.raw for event in events) == b": keep-alive\n\n\n\ndata: x\n\n"


@pytest.mark.parametrize(
    ("raw", "data"),
    [
        (b"data\n\n", b""),
        (b"data:\n\n", b""),
        (b"data:  two spaces\n\n", b" two spaces"),
        (b"datax: no\n\n", None),
        (b"Data: no\n\n", None),
        (b"\xef\xbb\xbfdata: after a byte order mark\n\n", b"after a byte order mark"),
        (b"data: a:b\n\n", b"a:b"),
        ("data: \u2028 is no line end\n\n".encode(), "\u2028 is no line end".encode()),
    ],
)
def test_fields_are_read_as_the_standard_says(raw: bytes, data: bytes | None) -> None:
    assert [event.data for event in parse(raw)] == [data]


def test_byte_order_mark_counts_only_at_the_start_of_the_stream() -> None:
    assert [event.data for event in parse(b"data: a\n\n\xef\xbb\xbfdata: b\n\n")] == [b"a", None]


def test_identifier_with_a_nul_is_ignored() -> None:
    assert parse(b"id: a\0b\ndata: x\n\n")[0].id is None


def test_unfinished_event_is_the_rest() -> None:
    parser = sse.Parser()
    assert parser.feed(b"data: x\n") == []
    assert parser.rest == b"data: x\n"
    assert parser.finish() == sse.Event(b"data: x\n", b"x")
    assert parser.finish() is None


@pytest.mark.parametrize("cut", [1, 7, 1000])
def test_event_over_the_limit_stops_the_parser_after_the_events_before_it(cut: int) -> None:
    stream = b"data: ok\n\n" + b"data: " + b"x" * 100 + b"\n\n" + b"data: after\n\n"
    parser = sse.Parser(50)
    events = [event for at in range(0, len(stream), cut) for event in parser.feed(stream[at : at + cut])]
    assert [event.data for event in events] == [b"ok"]
    assert parser.overflow
    assert parser.feed(b"data: more\n\n") == []


def test_event_at_the_limit_passes() -> None:
    raw = b"data: 45678\n\n"
    assert [event.raw for event in sse.Parser(len(raw)).feed(raw)] == [raw]


def test_new_data_keeps_the_other_fields_and_the_kind_of_line_end() -> None:
    event = parse(b": note\r\nevent: add\r\ndata: old\r\ndata: more\r\nid: 3\r\n\r\n")[0]
    assert sse.with_data(event, b"new") == b": note\r\nevent: add\r\nid: 3\r\ndata: new\r\n\r\n"
    assert sse.with_data(parse(b"data: old\n\n")[0], b"new") == sse.encode(b"new") == b"data: new\n\n"
