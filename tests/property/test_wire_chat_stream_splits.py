"""Chat streams: verdicts and bytes do not depend on how the stream was cut, and what nobody touched is unchanged."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.wire.openai_chat import ChatStreamGuard, Decide, Failed, Release
from tests.property.test_wire_sse_splits import CUTS, cut
from tests.wire_support import DONE, accumulate, call, drive, event, opening, read_stream, refuse, text, word_guards

WORDS = st.sampled_from(["SEC", "RET", "SECRET", "S", "ECRET", "é", "😀 ", " plain text ", ""])
FORBIDDEN = st.sampled_from(["FORBID", "DEN"])
INDEXES = st.sampled_from([0, 0, 0, 1])
TEXTS = st.builds(text, WORDS, INDEXES)
FIELDS = st.builds(
    lambda key, word, index: event({key: word}, index=index), st.sampled_from(["refusal", "reasoning"]), WORDS, INDEXES
)
CALLS = st.builds(
    lambda name, number, pieces, index: b"".join(call(number, name, *pieces, index=index)),
    st.sampled_from(["pay", "read"]),
    st.integers(0, 2),
    st.sampled_from([("{}",), ('{"a":', "1}"), ('{"a',)]),
    INDEXES,
)
ENDS = st.builds(lambda index: event({}, "tool_calls", index=index), INDEXES)
NOISE = st.sampled_from(
    [b": keep-alive\n\n", b'data: {"choices":[],"usage":{"prompt_tokens":1}}\n\n', b"\n\n", b": crlf\r\n\r\n"]
)
BROKEN = st.sampled_from([b"data: {\n\n", b'data: {"error":{"message":"x"}}\n\n', b"data: x"])
ORDINARY = TEXTS | FIELDS | CALLS | NOISE
STREAMS = st.builds(
    lambda events, end: b"".join([opening(), *events, end]),
    st.lists(ORDINARY | ENDS | st.builds(text, FORBIDDEN, INDEXES) | BROKEN | st.just(DONE), max_size=12),
    st.sampled_from([DONE, b"", event({}, "stop") + DONE]),
)
SOUND = st.builds(
    lambda events: b"".join(
        [opening(), opening(1), *events, event({}, "tool_calls"), event({}, "stop", index=1), DONE]
    ),
    st.lists(ORDINARY, max_size=12),
)


def outcome(chunks: list[bytes], guarded: bool) -> Any:
    guard = ChatStreamGuard(word_guards() if guarded else None)
    sent, told = drive(guard, chunks, refuse("pay"))
    assert guard.ended or not any(isinstance(output, Failed) for output in told)
    return sent, told, guard.texts, guard.finish_reasons, guard.usage


@given(STREAMS, CUTS, st.booleans())
def test_any_cut_gives_the_same_verdicts_and_the_same_bytes(stream: bytes, places: list[int], guarded: bool) -> None:
    whole = outcome([stream], guarded)
    assert outcome(cut(stream, [place * 37 for place in places]), guarded) == whole
    assert outcome([stream[at : at + 7] for at in range(0, len(stream), 7)], guarded) == whole


@given(SOUND, CUTS)
def test_stream_in_which_nothing_is_touched_is_the_upstreams_bytes(stream: bytes, places: list[int]) -> None:
    sent, told = drive(ChatStreamGuard(None), cut(stream, [place * 37 for place in places]))
    assert all(isinstance(output, Decide) for output in told)
    if all(each.arguments is not None for output in told if isinstance(output, Decide) for each in output.calls):
        assert sent == stream


@given(st.lists(st.sampled_from([" plain", "é", "SECRE", " T", ""]), max_size=12), CUTS)
def test_guarded_stream_without_findings_is_the_upstreams_bytes(words: list[str], places: list[int]) -> None:
    stream = b"".join([opening(), *(text(word) for word in words), event({}, "stop"), DONE])
    sent, told = drive(ChatStreamGuard(word_guards()), cut(stream, [place * 37 for place in places]))
    assert (sent, told) == (stream, [])


@given(st.lists(st.tuples(WORDS, INDEXES), max_size=15))
def test_masked_text_is_the_mask_of_the_whole_text(pieces: list[tuple[str, int]]) -> None:
    ends = [event({}, "stop"), event({}, "stop", index=1)]
    stream = [opening(), opening(1), *(text(word, index) for word, index in pieces), *ends, DONE]
    guard = ChatStreamGuard(word_guards())
    sent, _ = drive(guard, stream)
    choices = accumulate(sent).choices
    for index in (0, 1):
        whole = "".join(word for word, at in pieces if at == index)
        assert (choices[index].message.content or "") == whole.replace("SECRET", "<WORD>") == guard.texts[index]


@given(SOUND)
def test_refused_call_never_leaves(stream: bytes) -> None:
    sent, told = drive(ChatStreamGuard(None), [stream], refuse("pay"))
    assert b'"pay"' not in sent
    if not any(isinstance(output, Failed) for output in told):
        assert read_stream(sent)


@given(STREAMS)
def test_nothing_of_a_call_leaves_before_it_is_asked_about(stream: bytes) -> None:
    guard = ChatStreamGuard(None)
    for output in [output for byte in cut(stream, list(range(0, len(stream), 50))) for output in guard.feed(byte)]:
        if isinstance(output, Decide):
            return
        assert not isinstance(output, Release) or b'tool_calls":[{' not in output.data
