"""The stream guard and tool calls: withheld until complete, released as they came, or taken out."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.wire.openai_chat import (
    CallKind,
    CallVerdict,
    ChatStreamGuard,
    Decide,
    Failed,
    Release,
    StreamLimits,
)
from tests.wire_support import DONE, HEAD, accumulate, call, drive, dumps, event, opening, refuse, text

TWO_CALLS = [opening(), *call(0, "pay", '{"to":', '"bob"}'), *call(1, "read", "{}"), event({}, "tool_calls"), DONE]


def decide(guard: ChatStreamGuard, chunks: list[bytes]) -> Decide:
    outputs = [output for chunk in chunks for output in guard.feed(chunk)]
    assert [type(output) for output in outputs] == [Decide], outputs
    assert isinstance(outputs[0], Decide)
    return outputs[0]


def test_nothing_of_a_call_leaves_before_its_verdict() -> None:
    guard = ChatStreamGuard(None)
    assert [guard.feed(chunk) for chunk in TWO_CALLS[:-2]] == [[]] * (len(TWO_CALLS) - 2)
    assert not guard.started
    asked = guard.feed(TWO_CALLS[-2])
    assert [type(output) for output in asked] == [Decide]
    assert guard.feed(DONE) == []
    assert guard.resolve(0, [CallVerdict(True)] * 2) == [Release(b"".join(TWO_CALLS))]
    assert guard.finish() == []
    assert guard.finish_reasons == {0: "tool_calls"}


def test_complete_calls_are_proposed_in_order() -> None:
    calls = decide(ChatStreamGuard(None), TWO_CALLS).calls
    assert [(each.index, each.id, each.name, each.arguments_text, each.arguments) for each in calls] == [
        (0, "call_0", "pay", '{"to":"bob"}', {"to": "bob"}),
        (1, "call_1", "read", "{}", {}),
    ]


def test_text_before_a_call_flows_and_text_after_it_waits() -> None:
    guard = ChatStreamGuard(None)
    said = [opening(), text("let me see")]
    assert guard.feed(b"".join(said)) == [Release(b"".join(said))]
    assert guard.feed(b"".join(call(0, "pay", "{}")) + text("later")) == []


def test_dropped_call_is_gone_and_the_others_are_renumbered() -> None:
    sent, _ = drive(ChatStreamGuard(None), TWO_CALLS, refuse("pay"))
    choice = accumulate(sent).choices[0]
    assert choice.message.content == "NOT EXECUTED: pay"
    calls = choice.message.tool_calls or []
    assert [(each.id, each.model_dump()["function"]["name"]) for each in calls] == [("call_1", "read")]
    assert choice.finish_reason == "tool_calls"
    assert b"bob" not in sent


def test_choice_without_calls_left_has_stopped() -> None:
    guard = ChatStreamGuard(None)
    sent, _ = drive(guard, [text("first", 0), *TWO_CALLS], refuse("pay", "read"))
    choice = accumulate(sent).choices[0]
    assert choice.message.content == "first\n\nNOT EXECUTED: pay\n\nNOT EXECUTED: read"
    assert not choice.message.tool_calls
    assert choice.finish_reason == "stop"
    assert guard.finish_reasons == {0: "stop"}
    assert guard.texts == {0: choice.message.content}
    assert b"tool_calls" not in sent


def test_dropped_call_without_a_text_leaves_an_empty_answer() -> None:
    guard = ChatStreamGuard(None)
    sent, _ = drive(guard, TWO_CALLS, lambda asked: [CallVerdict(False)] * 2)
    assert accumulate(sent).choices[0].finish_reason == "stop"


def test_custom_and_legacy_calls_are_withheld_too() -> None:
    custom = {"index": 0, "id": "call_c", "type": "custom", "custom": {"name": "sql", "input": "select "}}
    stream = [
        event({"role": "assistant", "tool_calls": [custom]}),
        event({"tool_calls": [{"index": 0, "custom": {"input": "1"}}]}),
        event({}, "tool_calls"),
        event({"role": "assistant", "function_call": {"name": "old", "arguments": ""}}, index=1),
        event({"function_call": {"arguments": '{"x":1}'}}, index=1),
        event({}, "function_call", index=1),
        DONE,
    ]
    sent, told = drive(ChatStreamGuard(None), stream, refuse("sql", "old"))
    calls = [each for output in told if isinstance(output, Decide) for each in output.calls]
    assert [(each.choice, each.index, each.kind, each.name, each.arguments) for each in calls] == [
        (0, 0, CallKind.CUSTOM, "sql", {"input": "select 1"}),
        (1, -1, CallKind.LEGACY, "old", {"x": 1}),
    ]
    completion = accumulate(sent)
    assert [choice.message.content for choice in completion.choices] == ["NOT EXECUTED: sql", "NOT EXECUTED: old"]
    assert [choice.finish_reason for choice in completion.choices] == ["stop", "stop"]
    assert b"select" not in sent
    assert drive(ChatStreamGuard(None), stream)[0] == b"".join(stream)


def test_choices_are_decided_one_by_one_and_order_is_kept() -> None:
    first = [*call(0, "pay", "{}"), event({}, "tool_calls")]
    second = [*call(0, "read", "{}", index=1), event({}, "tool_calls", index=1)]
    mixed = [piece for pair in zip(first, second, strict=True) for piece in pair]
    guard = ChatStreamGuard(None)
    assert [type(output) for output in guard.feed(b"".join([*mixed, DONE]))] == [Decide]
    released, asked = guard.resolve(0, [CallVerdict(True)])
    assert isinstance(released, Release)
    assert isinstance(asked, Decide)
    assert (released.data, asked.choice) == (mixed[0], 1)
    assert guard.resolve(1, [CallVerdict(True)]) == [Release(b"".join([*mixed[1:], DONE]))]


def test_whole_answer_in_one_event_is_taken_apart() -> None:
    delta = {
        "role": "assistant",
        "content": "I pay.",
        "tool_calls": [
            {"index": 0, "id": "a", "type": "function", "function": {"name": "pay", "arguments": "{}"}},
            {"index": 1, "id": "b", "type": "function", "function": {"name": "read", "arguments": "{}"}},
        ],
    }
    sent, _ = drive(ChatStreamGuard(None), [event(delta, "tool_calls"), DONE], refuse("pay"))
    choice = accumulate(sent).choices[0]
    assert [each.id for each in choice.message.tool_calls or []] == ["b"]
    assert choice.message.content == "I pay.\n\nNOT EXECUTED: pay"


def test_calls_without_a_finish_reason_are_decided_at_the_end() -> None:
    stream = [opening(), *call(0, "pay", "{}"), DONE]
    sent, told = drive(ChatStreamGuard(None), stream)
    assert [type(output) for output in told] == [Decide]
    assert sent == b"".join(stream)
    sent, _ = drive(ChatStreamGuard(None), stream, refuse("pay"))
    choice = accumulate(sent).choices[0]
    assert (choice.message.content, choice.finish_reason) == ("NOT EXECUTED: pay", "stop")


def test_calls_that_come_after_the_finish_reason_are_decided_all_the_same() -> None:
    stream = [opening(), text("x"), event({}, "stop"), *call(0, "pay", "{}"), DONE]
    sent, _ = drive(ChatStreamGuard(None), stream, refuse("pay"))
    assert b'"pay"' not in sent
    assert accumulate(sent).choices[0].message.content == "x\n\nNOT EXECUTED: pay"
    sent, _ = drive(ChatStreamGuard(None), stream)
    assert sent == b"".join(stream)


def test_call_after_the_verdict_is_refused() -> None:
    sent, told = drive(ChatStreamGuard(None), [*TWO_CALLS[:-1], *call(2, "sneak", "{}"), DONE])
    assert [type(output) for output in told] == [Decide, Failed]
    assert b"sneak" not in sent


def test_stream_that_ends_within_a_call_fails_and_releases_nothing_of_it() -> None:
    for cut in range(2, len(TWO_CALLS) - 1):
        guard = ChatStreamGuard(None)
        sent, told = drive(guard, TWO_CALLS[:cut])
        assert [output.code for output in told if isinstance(output, Failed)] == ["upstream_truncated"]
        assert b'"pay"' not in sent
        assert guard.ended


@pytest.mark.parametrize(
    "pieces",
    [
        [{"index": 0, "id": "a", "function": {"name": "pa"}}, {"index": 0, "function": {"name": "y"}}],
        [{"index": 0, "id": "a", "function": {"name": "pay"}}, {"index": 0, "function": {"name": "pay"}}],
        [{"index": 0, "id": "a", "function": {"name": "pay"}}, {"index": 0, "custom": {"input": "x"}}],
        [{"index": 0, "id": "a", "function": {"name": "pay"}}, {"index": 0, "id": "b", "function": {}}],
        [{"index": 0, "id": "a", "function": {"name": "pay", "arguments": '{"a":1,"a":2}'}}],
    ],
)
def test_call_that_clients_read_differently_has_no_arguments(pieces: list[dict[str, Any]]) -> None:
    stream = [event({"tool_calls": [piece]}) for piece in pieces] + [event({}, "tool_calls")]
    assert decide(ChatStreamGuard(None), stream).calls[0].arguments is None


@pytest.mark.parametrize(
    "delta",
    [
        {"tool_calls": {"index": 0}},
        {"tool_calls": "pay"},
        {"tool_calls": ["pay"]},
        {"tool_calls": [{"id": "a", "function": {"name": "pay"}}]},
        {"tool_calls": [{"index": True, "function": {"name": "pay"}}]},
        {"tool_calls": [{"index": -1, "function": {"name": "pay"}}]},
        {"tool_calls": [{"index": 0, "function": "pay"}]},
        {"tool_calls": [{"index": 0, "function": {"name": 5}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": {"a": 1}}}]},
        {"tool_calls": [{"index": 0, "function": {"name": "a"}, "custom": {"name": "b"}}]},
        {"function_call": "pay"},
        {"extra": {"tool_calls": [{"name": "pay"}]}},
        {"extra": [{"function_call": {"name": "pay"}}]},
    ],
)
def test_call_in_a_shape_that_cannot_be_read_fails_the_stream(delta: dict[str, Any]) -> None:
    sent, told = drive(ChatStreamGuard(None), [opening(), text("x"), event(delta), DONE])
    assert [output.code for output in told if isinstance(output, Failed)] == ["upstream_protocol"]
    assert b"pay" not in sent


@pytest.mark.parametrize("key", ["message", "tool_calls", "function_call"])
def test_call_beside_the_delta_fails_the_stream(key: str) -> None:
    hidden: Any = {"tool_calls": [{"id": "a"}]} if key == "message" else [{"id": "a"}]
    chunk = b"data: " + dumps({**HEAD, "choices": [{"index": 0, "delta": {}, key: hidden}]}) + b"\n\n"
    _, told = drive(ChatStreamGuard(None), [opening(), chunk, DONE])
    assert [type(output) for output in told] == [Failed]


@pytest.mark.parametrize(
    "limits",
    [
        StreamLimits(calls_max=1),
        StreamLimits(name_chars_max=2),
        StreamLimits(arguments_chars_max=5),
        StreamLimits(withheld_bytes_max=1000),
        StreamLimits(event_bytes_max=100),
    ],
)
def test_calls_beyond_a_limit_fail_the_stream(limits: StreamLimits) -> None:
    _, told = drive(ChatStreamGuard(None, limits=limits), TWO_CALLS)
    assert [output.code for output in told if isinstance(output, Failed)] == ["stream_limit"]


def test_verdicts_must_match_the_calls_and_come_once() -> None:
    guard = ChatStreamGuard(None)
    decide(guard, TWO_CALLS)
    with pytest.raises(ValueError, match="one verdict per call"):
        guard.resolve(0, [CallVerdict(True)])
    guard.resolve(0, [CallVerdict(True)] * 2)
    with pytest.raises(ValueError, match="resolved once"):
        guard.resolve(0, [CallVerdict(True)] * 2)


def test_nothing_that_comes_later_overtakes_a_verdict() -> None:
    guard = ChatStreamGuard(None)
    decide(guard, TWO_CALLS[:-1])
    assert guard.feed(b"data: {\n\n") == []
    assert guard.finish() == []
    released, failed = guard.resolve(0, [CallVerdict(True)] * 2)
    assert released == Release(b"".join(TWO_CALLS[:-1]))
    assert isinstance(failed, Failed)
    assert failed.code == "upstream_protocol"


def test_what_is_kept_while_a_verdict_is_awaited_is_bounded() -> None:
    guard = ChatStreamGuard(None, limits=StreamLimits(withheld_bytes_max=5000))
    decide(guard, TWO_CALLS[:-1])
    outputs = [output for _ in range(20) for output in guard.feed(event({}, None))]
    assert [output.code for output in outputs if isinstance(output, Failed)] == ["stream_limit"]
    assert guard.resolve(0, [CallVerdict(True)] * 2) == []
    assert guard.finish() == []
