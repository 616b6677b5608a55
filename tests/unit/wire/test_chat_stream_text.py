"""The stream guard and texts: settled before release, masked across events, blocked with a valid end, never cut short
in silence."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from gateway.core.errors import FilterError
from gateway.wire.openai_chat import Blocked, ChatStreamGuard, Failed, Release, StreamLimits, Usage
from tests.wire_support import (
    DENY,
    DONE,
    HEAD,
    WordGuard,
    accumulate,
    call,
    drive,
    dumps,
    event,
    opening,
    read_stream,
    refuse,
    snapshot,
    text,
    word_guards,
)

LONG = "a harmless text that is longer than the guard holds back"


def answer(*pieces: str) -> list[bytes]:
    return [opening(), *(text(piece) for piece in pieces), event({}, "stop"), DONE]


def masked(*pieces: str) -> tuple[bytes, str | None]:
    sent, told = drive(ChatStreamGuard(word_guards()), answer(*pieces))
    assert told == []
    return sent, accumulate(sent).choices[0].message.content


def test_unguarded_texts_leave_at_once_and_as_they_came() -> None:
    guard = ChatStreamGuard(None)
    stream = answer("My card is SECRET", " FORBIDDEN")
    assert guard.feed(stream[0]) == []
    for number, chunk in enumerate(stream[1:]):
        expected = stream[0] + chunk if number == 0 else chunk
        assert guard.feed(chunk) == [Release(expected)]
    assert guard.finish() == []
    assert guard.texts == {0: "My card is SECRET FORBIDDEN"}
    assert guard.finish_reasons == {0: "stop"}


def test_events_of_one_feed_leave_as_one_release() -> None:
    stream = b"".join(answer("a", "b", "c"))
    assert ChatStreamGuard(None).feed(stream) == [Release(stream)]


def test_guarded_stream_without_findings_is_the_upstreams_bytes() -> None:
    stream = answer("one", " two", LONG, "")
    sent, _ = drive(ChatStreamGuard(word_guards()), stream)
    assert sent == b"".join(stream)


def test_text_waits_until_it_is_settled() -> None:
    guard = ChatStreamGuard(word_guards())
    first = opening() + text("it is SEC")
    assert guard.feed(first) == []
    assert guard.feed(text("OND")) == []
    assert guard.feed(text(LONG)) == [Release(first + text("OND"))]


def test_match_across_events_is_masked_where_it_begins() -> None:
    sent, content = masked("it is S", "EC", "RET, you see")
    assert content == "it is <WORD>, you see"
    assert [chunk.choices[0].delta.content for chunk in read_stream(sent)] == [
        "", "it is <WORD>", "", ", you see", None,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        (("SECRET",), "<WORD>"),
        (tuple("SECRET"), "<WORD>"),
        (("SECRETSECRET",), "<WORD><WORD>"),
        (("SECRETSEC", "RETxSECRET"), "<WORD><WORD>x<WORD>"),
        (("é SEC", "RET 😀"), "é <WORD> 😀"),
        (("SECRE",), "SECRE"),
    ],
)
def test_masks_are_independent_of_where_the_events_were_cut(pieces: tuple[str, ...], expected: str) -> None:
    assert masked(*pieces)[1] == expected


def test_untouched_events_of_a_masked_stream_keep_their_bytes() -> None:
    stream = answer(LONG, "SECRET", LONG)
    sent, _ = drive(ChatStreamGuard(word_guards()), stream)
    assert sent == b"".join(stream).replace(b"SECRET", b"<WORD>")


def test_every_field_and_choice_has_a_guard_of_its_own() -> None:
    made: list[tuple[int, str]] = []

    def make(choice: int, field: str) -> WordGuard:
        made.append((choice, field))
        return WordGuard()

    details = [{"index": 3, "type": "reasoning.text", "text": "SECRET"}]
    stream = [
        event({"role": "assistant", "content": "SEC"}),
        event({"content": "SEC"}, index=1),
        event({"refusal": "RET"}),
        event({"reasoning_content": "SECRET", "reasoning_details": details}),
        event({"audio": {"id": "audio_1", "data": "UklG", "transcript": "SECRET"}}),
        event({"annotations": [{"type": "url_citation", "url_citation": {"title": "SECRET", "start_index": 0}}]}),
        event({"content": "RET"}, index=1),
        event({}, "stop"),
        event({}, "stop", index=1),
        b"data: " + dumps({**HEAD, "choices": [], "citations": ["SECRET"]}) + b"\n\n",
        DONE,
    ]
    sent, _ = drive(ChatStreamGuard(make), stream)
    assert b"SECRET" not in sent
    assert sent.count(b"<WORD>") == 6
    assert [choice.message.content for choice in accumulate(sent).choices] == ["SEC", "<WORD>"]
    assert made == [
        (0, "content"),
        (1, "content"),
        (0, "refusal"),
        (0, "reasoning_content"),
        (0, "reasoning_details.3.text"),
        (0, "audio.transcript"),
        (0, "choices[0].delta.annotations[0].url_citation.title"),
        (-1, "citations[0]"),
    ]


def test_token_probabilities_do_not_spell_what_was_masked() -> None:
    def token(content: str, spelled: str) -> bytes:
        entry = {"token": spelled, "logprob": -0.1, "bytes": list(spelled.encode()), "top_logprobs": []}
        choice = {"index": 0, "delta": {"content": content}, "logprobs": {"content": [entry], "refusal": None}}
        return b"data: " + dumps({**HEAD, "choices": [{**choice, "finish_reason": None}]}) + b"\n\n"

    stream = [opening(), token("x", "x"), token("SEC", "SEC"), token("RET", "RET"), event({}, "stop"), DONE]
    chunks = read_stream(drive(ChatStreamGuard(word_guards()), stream)[0])
    assert [chunk.choices[0].delta.content for chunk in chunks[1:4]] == ["x", "<WORD>", ""]
    assert [chunk.choices[0].logprobs is None for chunk in chunks[1:4]] == [False, True, True]
    late = [opening(), token("", "SEC"), token("", "RET"), event({}, "stop"), DONE]
    assert b"RET" not in drive(ChatStreamGuard(word_guards()), late)[0]


def test_forbidden_text_ends_the_stream_as_the_dialect_does() -> None:
    guard = ChatStreamGuard(word_guards())
    sent, told = drive(guard, [opening(), opening(1), text(LONG), text(" and so FORBID"), text("DEN and more"), DONE])
    assert [output.rule for output in told if isinstance(output, Blocked)] == [DENY]
    assert b"FORBID" not in sent
    completion = snapshot(sent)
    assert completion.choices[0].message.content == (
        f"{LONG}\n\n[The rest of this answer is withheld by a policy of the gateway.]"
    )
    assert [choice.finish_reason for choice in completion.choices] == ["content_filter", "content_filter"]
    assert guard.finish_reasons == {0: "content_filter", 1: "content_filter"}
    assert guard.ended
    assert guard.feed(text("more")) == []


def test_stream_that_is_forbidden_from_its_first_word_is_a_whole_message() -> None:
    guard = ChatStreamGuard(word_guards(), blocked_text="no")
    sent, told = drive(guard, answer("FORBIDDEN"))
    assert [type(output) for output in told] == [Blocked]
    assert not guard.started
    message = snapshot(sent).choices[0].message
    assert (message.role, message.content) == ("assistant", "no")
    with pytest.raises(openai.ContentFilterFinishReasonError):
        accumulate(sent)


def test_forbidden_text_takes_withheld_calls_with_it() -> None:
    stream = [opening(), *call(0, "pay", "{}"), text("FORBIDDEN"), event({}, "tool_calls"), DONE]
    sent, told = drive(ChatStreamGuard(word_guards()), stream)
    assert [type(output) for output in told] == [Blocked]
    assert b"pay" not in sent


def test_masks_and_dropped_calls_meet_in_one_event() -> None:
    piece = {"index": 0, "id": "a", "type": "function", "function": {"name": "pay", "arguments": "{}"}}
    stream = [opening(), event({"content": "SECRET", "tool_calls": [piece]}), event({}, "tool_calls"), DONE]
    sent, _ = drive(ChatStreamGuard(word_guards()), stream, refuse("pay"))
    choice = accumulate(sent).choices[0]
    assert (choice.message.content, choice.finish_reason) == ("<WORD>\n\nNOT EXECUTED: pay", "stop")


def test_text_after_the_end_of_its_choice_fails() -> None:
    _, told = drive(ChatStreamGuard(word_guards()), [opening(), event({}, "stop"), text("late"), DONE])
    assert [output.code for output in told if isinstance(output, Failed)] == ["upstream_protocol"]


def test_filter_that_fails_ends_the_stream() -> None:
    class Broken(WordGuard):
        def feed(self, piece: str) -> None:
            raise FilterError("filter_timeout", "too slow")

    sent, told = drive(ChatStreamGuard(lambda choice, field: Broken()), answer("hello"))
    assert [output.code for output in told if isinstance(output, Failed)] == ["filter_timeout"]
    assert b"hello" not in sent


@pytest.mark.parametrize("guarded", [False, True])
@pytest.mark.parametrize("cut", range(4))
def test_stream_that_is_cut_off_raises_in_the_sdk(cut: int, guarded: bool) -> None:
    sent, told = drive(ChatStreamGuard(word_guards() if guarded else None), answer("a", "b")[:cut])
    assert [output.code for output in told if isinstance(output, Failed)] == ["upstream_truncated"]
    with pytest.raises(openai.APIError) as caught:
        read_stream(sent)
    assert caught.value.code == "upstream_truncated"


def test_stream_that_is_cut_within_an_event_is_truncated() -> None:
    guard = ChatStreamGuard(None)
    sent, told = drive(guard, [opening(), text("a"), text("b")[:-1]])
    assert [type(output) for output in told] == [Failed]
    assert sent.startswith(opening() + text("a") + b'data: {"error"')


@pytest.mark.parametrize(
    "end", [b"data: [DONE]", b"data: [DONE]\n", b"data:[DONE]\r\n\r\n", b"data: [DONE]\n\n\n: bye\n\n"]
)
def test_end_is_known_however_it_is_written(end: bytes) -> None:
    stream = b"".join(answer("a")[:-1]) + end
    sent, told = drive(ChatStreamGuard(None), [stream])
    assert (sent, told) == (stream, [])


def test_what_follows_the_end_is_dropped() -> None:
    sent, _ = drive(ChatStreamGuard(None), [*answer("a"), *answer("b"), text("c")])
    assert sent == b"".join(answer("a"))


@pytest.mark.parametrize(
    "chunk",
    [
        b"data: {\n\n",
        b"data: [DONE]x\n\n",
        b"data: []\n\n",
        b'data: {"choices":{}}\n\n',
        b'data: {"choices":["x"]}\n\n',
        b'data: {"choices":[{"index":-1}]}\n\n',
        b'data: {"choices":[{"index":0,"delta":"x"}]}\n\n',
        b'data: {"choices":[{"index":0,"finish_reason":5}]}\n\n',
        b'data: {"choices":[{"index":0,"logprobs":"x"}]}\n\n',
        b'data: {"choices":[{"index":0,"delta":{}},{"index":0,"delta":{}}]}\n\n',
        b'data: {"choices":[],"choices":[]}\n\n',
        b'data: {"choices":[{"index":0,"delta":{"content":"a","content":"b"}}]}\n\n',
        b'data: {"choices":[{"index":0,"delta":{"content":"\xff"}}]}\n\n',
        b"data\n\n",
    ],
)
def test_event_without_one_reading_ends_the_stream(chunk: bytes) -> None:
    sent, told = drive(ChatStreamGuard(None), [opening(), text("ok"), chunk, text("after"), DONE])
    assert [output.code for output in told if isinstance(output, Failed)] == ["upstream_protocol"]
    assert sent.startswith(opening() + text("ok") + b'data: {"error"')
    assert b"after" not in sent


@pytest.mark.parametrize(
    "chunk",
    [
        b'data: {"error":{"message":"internal host 10.0.0.7","type":"server_error","code":null}}\n\n',
        b'event: error\ndata: {"message":"internal host 10.0.0.7"}\n\n',
        b'data: {"choices":[{"index":0,"delta":{},"error":{"message":"internal host 10.0.0.7"}}]}\n\n',
    ],
)
def test_error_of_the_upstream_is_told_without_its_details(chunk: bytes) -> None:
    sent, told = drive(ChatStreamGuard(None), [opening(), text("ok"), chunk])
    assert [output.code for output in told if isinstance(output, Failed)] == ["upstream_error"]
    assert b"10.0.0.7" not in sent
    with pytest.raises(openai.APIError):
        read_stream(sent)


def test_opening_events_are_kept_back_until_something_is_said() -> None:
    guard = ChatStreamGuard(None)
    filters = b'data: {"choices":[],"prompt_filter_results":[{"prompt_index":0}]}\n\n'
    assert guard.feed(b": waiting\n\n" + filters + opening()) == []
    assert not guard.started
    assert guard.feed(text("a")) == [Release(b": waiting\n\n" + filters + opening() + text("a"))]
    assert guard.started


def test_usage_is_read_and_passed_on() -> None:
    usage = {"prompt_tokens": 19, "completion_tokens": 10, "total_tokens": 29}
    last = b"data: " + dumps({**HEAD, "choices": [], "usage": usage}) + b"\n\n"
    stream = [*answer("a")[:-1], last, DONE]
    guard = ChatStreamGuard(word_guards())
    assert drive(guard, stream)[0] == b"".join(stream)
    assert guard.usage == Usage(19, 10, 0, 0)


def test_unknown_fields_of_a_rewritten_event_are_kept() -> None:
    body = b'{"future":{"n":[1,2.5]},"choices":[{"index":0,"delta":{"content":"SECRET"}}]}'
    chunk = b": note\r\nevent: x\r\nid: 4\r\ndata: " + body + b"\r\n\r\n"
    sent, _ = drive(ChatStreamGuard(word_guards()), [chunk, DONE])
    assert sent == chunk.replace(b"SECRET", b"<WORD>") + DONE


def test_traced_text_is_bounded() -> None:
    guard = ChatStreamGuard(None, limits=StreamLimits(released_chars_max=5))
    drive(guard, answer("abc", "def", "ghi"))
    assert guard.texts == {0: "abcde"}


@pytest.mark.parametrize(
    ("limits", "stream"),
    [
        (StreamLimits(choices_max=2), [opening(index) for index in range(3)]),
        (StreamLimits(fields_max=2), [event({f"field_{number}": "x"}) for number in range(3)]),
        (StreamLimits(withheld_bytes_max=3000), [b":\n\n"] * 20),
        (StreamLimits(withheld_bytes_max=3000), [text("F")] * 20),
        (StreamLimits(event_bytes_max=200), [text("x" * 200)]),
        (StreamLimits(event_bytes_max=200), [b"data: " + b"x" * 300]),
    ],
)
def test_streams_beyond_a_limit_fail(limits: StreamLimits, stream: list[bytes]) -> None:
    class Silent(WordGuard):
        def _judge(self, sure: int) -> None:
            pass

    _, told = drive(ChatStreamGuard(lambda choice, field: Silent(), limits=limits), stream)
    assert [output.code for output in told if isinstance(output, Failed)] == ["stream_limit"]


def test_reasons_that_are_not_text_do_not_reach_a_guard() -> None:
    def never(choice: int, field: str) -> Any:
        raise AssertionError(field)

    chunk = {
        **HEAD,
        "service_tier": "default",
        "system_fingerprint": "fp_1",
        "obfuscation": "xY7",
        "x_groq": {"id": "req_1"},
        "choices": [
            {"index": 0, "delta": {"role": "assistant"}, "content_filter_results": {"hate": {"severity": "safe"}}}
        ],
    }
    drive(ChatStreamGuard(never), [b"data: " + dumps(chunk) + b"\n\n", event({}, "stop"), DONE])
