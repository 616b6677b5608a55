"""Durations as people say them; bodies as conversations; trees on an axis."""

from __future__ import annotations

import orjson
import pytest

from gateway.console.chat import conversation, pretty
from gateway.console.durations import fine_span, iso, moment, span


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-5, "0 s"), (0, "0 s"), (59.9, "59 s"), (60, "1 min"), (3599, "59 min"), (3600, "1 h"), (11_100, "3 h 5 min"),
     (86_400, "1 day"), (2 * 86_400 + 7200, "2 days 2 h"), (40 * 86_400, "40 days"), (36_000 + 300, "10 h")],
)  # fmt: skip
def test_spans(seconds: float, words: str) -> None:
    assert span(seconds) == words


@pytest.mark.parametrize(
    ("nanoseconds", "words"),
    [
        (0, "0.0 ms"),
        (20_000, "<0.1 ms"),
        (400_000, "0.4 ms"),
        (12_345_678, "12 ms"),
        (1_250_000_000, "1.25 s"),
        (3 * 10**11, "5 min"),
    ],
)
def test_fine_spans(nanoseconds: int, words: str) -> None:
    assert fine_span(nanoseconds) == words


def test_moments() -> None:
    assert moment(1_795_414_805) == "2026-11-23 06:20:05 UTC" and iso(1_795_414_805.5) == "2026-11-23T06:20:05.500Z"


def turns(request: object, response: object) -> list[tuple[str, list[tuple[str, str, str]]]]:
    packed = [value if isinstance(value, bytes) else orjson.dumps(value) for value in (request, response)]
    return [(turn.role, [(b.kind, b.title, b.text) for b in turn.blocks]) for turn in conversation(*packed)]


def test_a_chat_completion_is_a_conversation() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "bank__pay", "arguments": '{"a":1}'}}
    request = {
        "messages": [
            {"role": "system", "content": "S"},
            {
                "role": "user",
                "content": [{"type": "text", "text": "U"}, {"type": "image_url", "image_url": {"url": "x"}}],
            },
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "1", "content": "R"},
        ]
    }
    found = turns(request, {"choices": [{"message": {"role": "assistant", "content": "A"}}]})
    assert [role for role, _ in found] == ["system", "user", "assistant", "tool", "assistant"]
    assert found[1][1][1][:2] == ("other", "image_url")
    assert found[2][1] == [("call", "bank__pay", '{"a":1}')]
    assert found[3][1] == [("result", "", "R")] and found[4][1] == [("text", "", "A")]


def test_a_stream_is_joined_to_what_it_said() -> None:
    events = [
        {"choices": [{"index": 0, "delta": {"role": "assistant", "content": "Hel"}}]},
        {"choices": [{"index": 0, "delta": {"content": "lo"}}]},
        {
            "choices": [
                {"index": 0, "delta": {"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": '{"a"'}}]}}
            ]
        },
        {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "function": {"arguments": ":1}"}}]}}]},
    ]
    stream = b"".join(b"data: " + orjson.dumps(event) + b"\n\n" for event in events) + b"data: [DONE]\n\n"
    assert turns({}, stream) == [("assistant", [("text", "", "Hello"), ("call", "f", '{"a":1}')])]


def test_an_mcp_call_is_a_conversation() -> None:
    request = {"method": "tools/call", "params": {"name": "transfer", "arguments": {"amount": 1}}}
    answer = {"jsonrpc": "2.0", "result": {"content": [{"type": "text", "text": "booked"}]}}
    for response in (answer, b"data: " + orjson.dumps(answer) + b"\n\n"):
        found = turns(request, response)
        assert found[0][0] == "assistant" and found[0][1][0][:2] == ("call", "transfer")
        assert found[1] == ("tool", [("text", "", "booked")])


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\x00",
        b"not json",
        [],
        5,
        {"messages": 5},
        {"messages": [None, 5, {"role": {"a": 1}}]},
        {"choices": [None]},
        {"choices": [{"message": 7}]},
        {"messages": [{"role": "user", "content": {"a": 1}, "tool_calls": [1, {"function": 3}]}]},
        {"result": {"content": 4}},
        {"error": "x"},
        {"output": [1]},
        {"input": [{"type": "x"}]},
        b'data: {"choices":[{"delta":{"tool_calls":[null,{"index":null,"function":{"name":5}}]}}]}\n\n',
    ],
)
def test_what_is_no_conversation_does_no_harm(body: object) -> None:
    turns(body, body)


def test_pretty_leaves_text_alone() -> None:
    assert pretty(b'{"a":1}') == '{\n  "a": 1\n}' and pretty(b"plain \xff") == "plain \ufffd"
