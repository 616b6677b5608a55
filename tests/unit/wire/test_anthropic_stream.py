"""The stream guard of the Messages dialect: what is withheld, what is taken out, what fails."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.wire.anthropic import AnthropicStreamGuard
from gateway.wire.calls import CallVerdict
from gateway.wire.openai_chat_choice import StreamLimits
from gateway.wire.outputs import Blocked, Decide, Failed, Release
from tests.anthropic_support import (
    END,
    PING,
    SIGNATURE,
    accumulate,
    call,
    delta,
    drive,
    ending,
    event,
    opening,
    refuse_all,
    start,
    stop,
    text,
    thinking,
    tool_use,
    whole,
)
from tests.wire_support import refuse, word_guards

TWO_CALLS = whole(call(0, "pay", '{"to":', '"bob"}'), call(1, "read"), reason="tool_use")


def test_nothing_of_a_call_leaves_before_the_message_has_ended() -> None:
    guard = AnthropicStreamGuard(None)
    assert [guard.feed(chunk) for chunk in TWO_CALLS[:-1]] == [[]] * (len(TWO_CALLS) - 1)
    assert not guard.started
    asked = guard.feed(TWO_CALLS[-1])
    assert [type(output) for output in asked] == [Decide]
    assert isinstance(asked[0], Decide)
    assert [(each.index, each.id, each.name, each.arguments) for each in asked[0].calls] == [
        (0, "toolu_0", "pay", {"to": "bob"}),
        (1, "toolu_1", "read", {}),
    ]
    assert guard.resolve(0, [CallVerdict(True)] * 2) == [Release(b"".join(TWO_CALLS))]
    assert guard.finish() == [] and guard.finish_reasons == {0: "tool_use"}


def test_text_before_a_call_flows_and_text_after_it_waits() -> None:
    guard = AnthropicStreamGuard(None)
    said = [opening(), *text(0, "let me see")]
    assert guard.feed(b"".join(said)) == [Release(b"".join(said))]
    assert guard.feed(b"".join([*call(1, "pay"), *text(2, "later")])) == []


def test_dropped_call_is_replaced_in_its_place() -> None:
    sent, _ = drive(AnthropicStreamGuard(None), TWO_CALLS, refuse("pay"))
    message = accumulate(sent)
    assert [block.type for block in message.content] == ["text", "tool_use"] and message.stop_reason == "tool_use"
    assert b"bob" not in sent
    sent, _ = drive(AnthropicStreamGuard(None), TWO_CALLS, refuse_all)
    assert accumulate(sent).stop_reason == "end_turn"


def test_a_call_that_is_dropped_without_words_leaves_no_gap() -> None:
    stream = whole(call(0, "pay"), call(1, "read"), text(2, "x"), reason="tool_use")
    guard = AnthropicStreamGuard(None)
    sent, _ = drive(guard, stream, lambda decide: [CallVerdict(False), CallVerdict(True)])
    assert [block.type for block in accumulate(sent).content] == ["tool_use", "text"]


def test_masked_text_keeps_its_block_and_its_neighbours() -> None:
    stream = whole(text(0, "a SEC", "RET b"), thinking(1, "plain"), text(2, "SECRET"))
    guard = AnthropicStreamGuard(word_guards())
    message = accumulate(drive(guard, stream)[0])
    assert [getattr(block, "text", block.type) for block in message.content] == ["a <WORD> b", "thinking", "<WORD>"]
    assert message.content[1].signature == SIGNATURE  # type: ignore[union-attr]
    assert guard.texts == {0: "a <WORD> b<WORD>"}


def test_thinking_leaves_whole_or_not_at_all() -> None:
    guard = AnthropicStreamGuard(word_guards())
    pieces = [opening(), *thinking(0, "a long ", "thought, ", "SEC", "RET")]
    assert [guard.feed(piece) for piece in pieces[:-1]] == [[]] * (len(pieces) - 1)
    stream = [*pieces, *text(1, "x"), ending()]
    sent, told = drive(AnthropicStreamGuard(word_guards()), stream)
    assert told == [] and b"thought" not in sent
    assert [block.type for block in accumulate(sent).content] == ["text"]
    free, _ = drive(AnthropicStreamGuard(None), stream)
    assert free == b"".join(stream)


def test_thinking_without_guards_is_not_withheld() -> None:
    guard = AnthropicStreamGuard(None)
    pieces = [opening(), *thinking(0, "a long ", "thought")]
    assert b"".join(out.data for piece in pieces for out in guard.feed(piece) if isinstance(out, Release)) == b"".join(
        pieces
    )


@pytest.mark.parametrize("before", [[], text(0, "all fine so far, and on it goes")])
@pytest.mark.parametrize("kind", [text, thinking])
def test_forbidden_text_ends_the_stream_as_a_refusal(before: list[bytes], kind: Any) -> None:
    at = 1 if before else 0
    stream = whole(before, kind(at, "FORBID", "DEN words"), call(at + 1, "pay"))
    guard = AnthropicStreamGuard(word_guards())
    sent, told = drive(guard, stream)
    assert [type(output) for output in told] == [Blocked] and b"FORBIDDEN" not in sent and b"pay" not in sent
    message = accumulate(sent)
    assert message.stop_reason == "refusal" and "withheld" in message.content[-1].text  # type: ignore[union-attr]
    assert guard.finish_reasons == {0: "refusal"} and guard.ended


def test_words_of_citations_and_of_provider_tools_are_judged() -> None:
    quote = delta(0, "citations_delta", "citation", {"type": "page_location", "cited_text": "the SECRET"})
    ran = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}}
    pieces = [delta(1, "input_json_delta", "partial_json", piece) for piece in ('{"q": "SEC', 'RET"}')]
    found = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": [{"title": "SECRET"}]}
    stream = [opening(), start(0, {"type": "text", "text": ""}), quote, stop(0), start(1, ran), *pieces, stop(1),
              start(2, found), stop(2), ending()]  # fmt: skip
    sent, told = drive(AnthropicStreamGuard(word_guards(), provider_runs=True), stream)
    assert told == [] and b"SECRET" not in sent and sent.count(b"<WORD>") == 3


BLOCK = [opening(), start(0, {"type": "text", "text": ""})]
CALLING = [opening(), start(0, tool_use("pay", {}))]


@pytest.mark.parametrize(
    "stream",
    [
        [PING, *text(0, "x")],
        [opening(), opening()],
        [opening(content=[tool_use("pay", {})])],
        [opening(), event({"type": "brand_new_event"})],
        [opening(), start(0, {"type": "brand_new_block"})],
        [opening(), start(0, {"type": "server_tool_use", "id": "x", "name": "web_search", "input": {}})],
        [opening(), start(1, {"type": "text", "text": ""})],
        [*BLOCK, start(1, {"type": "text", "text": ""})],
        [*BLOCK, delta(1, "text_delta", "text", "x")],
        [*BLOCK, delta(0, "input_json_delta", "partial_json", "{}")],
        [*BLOCK, delta(0, "brand_new_delta", "text", "x")],
        [*BLOCK, delta(0, "text_delta", "text", ["x"])],
        [*BLOCK, delta(0, "text_delta", "Text", "x")],
        [*BLOCK, END],
        [*BLOCK, event({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {}})],
        [opening(), event({"type": "message_delta", "delta": {}}), start(0, {"type": "text", "text": ""})],
        [*CALLING, delta(0, "text_delta", "text", "x")],
        [opening(), start(0, {**tool_use("pay", {}), "name": None})],
        [opening(), start(0, {**tool_use("pay", {}), "Input": {"a": 1}})],
        [opening(), start(0, {"type": "text", "text": "", "also": tool_use("pay", {})})],
        [opening(), start(0, tool_use("pay", {})).replace(b"event: content_block_start", b"event: ping")],
        [opening(), b"data: {\n\n"],
        [opening(), b"data: []\n\n"],
    ],
)
def test_what_cannot_be_read_fails(stream: list[bytes]) -> None:
    sent, told = drive(AnthropicStreamGuard(None), stream)
    assert [output.code for output in told if isinstance(output, Failed)] == ["upstream_protocol"]
    assert b'"name":"pay"' not in sent


@pytest.mark.parametrize("cut", range(1, len(TWO_CALLS)))
def test_truncated_stream_fails_and_its_calls_stay(cut: int) -> None:
    sent, told = drive(AnthropicStreamGuard(None), TWO_CALLS[:cut])
    assert [output.code for output in told if isinstance(output, Failed)] == ["upstream_truncated"]
    assert b"tool_use" not in sent


def test_error_of_the_upstream_is_not_quoted() -> None:
    error = event({"type": "error", "error": {"type": "overloaded_error", "message": "host db-7"}})
    sent, told = drive(AnthropicStreamGuard(None), [opening(), *text(0, "x"), error])
    assert isinstance(told[-1], Failed) and told[-1].code == "upstream_error" and b"db-7" not in sent


def test_events_after_the_end_do_not_leave() -> None:
    stream = whole(text(0, "x"))
    sent, told = drive(AnthropicStreamGuard(None), [*stream, *call(1, "pay")])
    assert (sent, told) == (b"".join(stream), [])


@pytest.mark.parametrize(
    ("initial", "pieces", "arguments"),
    [
        ({}, ["{}"], {}),
        ({}, [], {}),
        ({"a": 1}, [], {"a": 1}),
        ({"a": 1}, ['{"a": 2}'], None),
        ({}, ['{"a": 1', ', "a": 2}'], None),
        ({}, ["[1]"], None),
        ({}, ['{"a"'], None),
        ("x", [], None),
    ],
)
def test_arguments_have_one_reading_or_none(initial: Any, pieces: list[str], arguments: Any) -> None:
    deltas = [delta(0, "input_json_delta", "partial_json", piece) for piece in pieces]
    stream = [opening(), start(0, {**tool_use("pay", {}), "input": initial}), *deltas, stop(0), ending("tool_use")]
    guard = AnthropicStreamGuard(None)
    asked = next(output for chunk in stream for output in guard.feed(chunk))
    assert isinstance(asked, Decide) and asked.calls[0].arguments == arguments
    if arguments is None:
        with pytest.raises(ValueError, match="no single reading"):
            guard.resolve(0, [CallVerdict(True)])


@pytest.mark.parametrize(
    ("limits", "stream"),
    [
        (StreamLimits(event_bytes_max=900), whole(text(0, "x" * 900))),
        (StreamLimits(withheld_bytes_max=4000), whole(call(0, "pay", *("x" * 9 for _ in range(30))))),
        (StreamLimits(calls_max=1), TWO_CALLS),
        (StreamLimits(fields_max=1), TWO_CALLS),
        (StreamLimits(name_chars_max=2), TWO_CALLS),
        (StreamLimits(arguments_chars_max=3), TWO_CALLS),
    ],
)
def test_limits_end_the_stream(limits: StreamLimits, stream: list[bytes]) -> None:
    _, told = drive(AnthropicStreamGuard(None, limits=limits), stream)
    assert [output.code for output in told if isinstance(output, Failed)] == ["stream_limit"]


def test_a_call_is_resolved_once_and_when_asked() -> None:
    guard = AnthropicStreamGuard(None)
    with pytest.raises(ValueError, match="resolved once"):
        guard.resolve(0, [])
    asked = [output for chunk in TWO_CALLS for output in guard.feed(chunk)]
    assert isinstance(asked[0], Decide)
    guard.resolve(0, [CallVerdict(True)] * 2)
    with pytest.raises(ValueError, match="resolved once"):
        guard.resolve(0, [CallVerdict(True)] * 2)
