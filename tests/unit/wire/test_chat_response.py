"""Chat responses: parts, proposed calls, usage, dropping calls."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.core.errors import UpstreamError
from gateway.core.exchange import Origin
from gateway.wire.openai_chat import CallKind, CallVerdict, Usage, decode_response, replace_calls, rewrite_response
from tests.wire_support import dumps, read_answer

ALLOW = CallVerdict(True)


def function(number: int, name: str = "pay", arguments: str = "{}") -> dict[str, Any]:
    return {"id": f"call_{number}", "type": "function", "function": {"name": name, "arguments": arguments}}


def choice(index: int = 0, finish: str = "stop", **message: Any) -> dict[str, Any]:
    return {
        "index": index,
        "message": {"role": "assistant", "content": None, "refusal": None, **message},
        "logprobs": None,
        "finish_reason": finish,
    }


def answer(*choices: dict[str, Any], **fields: Any) -> bytes:
    return dumps(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": "gpt-4.1",
            "choices": list(choices),
            **fields,
        }
    )


def test_texts_of_every_choice_and_every_field_are_parts() -> None:
    response = decode_response(
        answer(
            choice(content="a", reasoning_content="b"),
            choice(1, refusal="c", reasoning_details=[{"type": "reasoning.text", "text": "d"}]),
            choice(
                2, content=[{"type": "text", "text": "e"}], audio={"id": "audio_1", "data": "UklG", "transcript": "f"}
            ),
            citations=["https://g.example"],
        )
    )
    assert [part.text for part in response.parts] == ["a", "b", "c", "d", "e", "f", "https://g.example"]
    assert {part.origin for part in response.parts} == {Origin.ASSISTANT}


def test_calls_of_every_choice_and_kind_are_proposed() -> None:
    custom = {"id": "call_9", "type": "custom", "custom": {"name": "sql", "input": "select 1"}}
    response = decode_response(
        answer(
            choice(0, "tool_calls", tool_calls=[function(1, arguments='{"to":"bob"}'), custom]),
            choice(1, "function_call", function_call={"name": "old", "arguments": ""}),
        )
    )
    seen = [(call.choice, call.index, call.id, call.name, call.kind, call.arguments) for call in response.calls]
    assert seen == [
        (0, 0, "call_1", "pay", CallKind.FUNCTION, {"to": "bob"}),
        (0, 1, "call_9", "sql", CallKind.CUSTOM, {"input": "select 1"}),
        (1, -1, "", "old", CallKind.LEGACY, {}),
    ]
    assert [(part.origin, part.text) for part in response.parts] == [
        (Origin.TOOL_ARGS, '{"to":"bob"}'),
        (Origin.TOOL_ARGS, "select 1"),
        (Origin.TOOL_ARGS, ""),
    ]
    assert response.finish_reasons == {0: "tool_calls", 1: "function_call"}


@pytest.mark.parametrize("arguments", ['{"a":1', '{"a":1,"a":2}', "[1]", '"x"', "{} {}", '{"a":NaN}', "null"])
def test_arguments_without_one_reading_as_an_object_are_marked(arguments: str) -> None:
    call = decode_response(answer(choice(tool_calls=[function(1, arguments=arguments)]))).calls[0]
    assert call.arguments is None
    assert call.arguments_text == arguments


def test_usage_is_read_and_unknown_is_not_zero() -> None:
    usage = {
        "prompt_tokens": 2006,
        "completion_tokens": 300,
        "total_tokens": 2306,
        "prompt_tokens_details": {"cached_tokens": 1920},
        "completion_tokens_details": {"reasoning_tokens": 64},
    }
    assert decode_response(answer(choice(), usage=usage)).usage == Usage(2006, 300, 1920, 64)
    assert decode_response(answer(choice())).usage is None
    assert decode_response(answer(choice(), usage={"prompt_tokens": -1, "completion_tokens": True})).usage == Usage()


def test_all_allowed_and_nothing_edited_gives_the_bytes_of_the_upstream() -> None:
    body = answer(choice(tool_calls=[function(1)])).replace(b",", b", ")
    response = decode_response(body)
    assert replace_calls(response, [ALLOW]) is body
    assert rewrite_response(response, {}) is body


def test_dropped_call_leaves_its_text_and_the_other_calls() -> None:
    body = answer(choice(0, "tool_calls", content="I will.", tool_calls=[function(1), function(2, "read")]))
    message = read_answer(replace_calls(decode_response(body), [CallVerdict(False, "NOT EXECUTED"), ALLOW])).choices[0]
    assert message.message.content == "I will.\n\nNOT EXECUTED"
    assert [call.id for call in message.message.tool_calls or []] == ["call_2"]
    assert message.finish_reason == "tool_calls"


def test_choice_without_calls_left_has_stopped() -> None:
    body = answer(choice(0, "tool_calls", tool_calls=[function(1), function(2)]), choice(1, content="other"))
    verdicts = [CallVerdict(False, "one"), CallVerdict(False, "two")]
    completion = read_answer(replace_calls(decode_response(body), verdicts))
    assert completion.choices[0].message.content == "one\n\ntwo"
    assert completion.choices[0].message.tool_calls is None
    assert completion.choices[0].finish_reason == "stop"
    assert completion.choices[1].message.content == "other"


def test_legacy_call_is_dropped_alone() -> None:
    legacy = {"name": "old", "arguments": "{}"}
    body = answer(choice(0, "function_call", function_call=legacy, content=[{"type": "text", "text": "x"}]))
    changed = decode_response(replace_calls(decode_response(body), [CallVerdict(False, "no")]))
    assert changed.raw["choices"] == [
        choice(0, "stop", content=[{"type": "text", "text": "x"}, {"type": "text", "text": "no"}])
    ]


def test_finish_reason_that_does_not_speak_of_calls_stays() -> None:
    body = answer(choice(0, "length", tool_calls=[function(1, arguments='{"a')]))
    assert read_answer(replace_calls(decode_response(body), [CallVerdict(False)])).choices[0].finish_reason == "length"


def test_edited_choice_loses_the_tokens_that_spell_the_original() -> None:
    logprobs = {"content": [{"token": "SECRET", "logprob": -0.1, "bytes": [83], "top_logprobs": []}], "refusal": None}
    response = decode_response(
        answer({**choice(content="SECRET"), "logprobs": logprobs}, {**choice(1, content="x"), "logprobs": logprobs})
    )
    assert [part.text for part in response.parts] == ["SECRET", "x"]
    changed = decode_response(rewrite_response(response, {("choices", 0, "message", "content"): "<WORD>"}))
    assert changed.raw["choices"][0]["logprobs"] is None  # type: ignore[index,call-overload]
    assert changed.raw["choices"][1]["logprobs"] == logprobs  # type: ignore[index,call-overload]


def test_edits_and_verdicts_are_applied_together() -> None:
    body = answer(
        choice(0, "tool_calls", content="SECRET", tool_calls=[function(1), function(2, arguments='{"k":"SECRET"}')])
    )
    edits = {
        ("choices", 0, "message", "content"): "<WORD>",
        ("choices", 0, "message", "tool_calls", 1, "function", "arguments"): '{"k":"<WORD>"}',
    }
    message = (
        read_answer(replace_calls(decode_response(body), [CallVerdict(False, "no"), ALLOW], edits)).choices[0].message
    )
    assert message.content == "<WORD>\n\nno"
    assert [call.model_dump()["function"]["arguments"] for call in message.tool_calls or []] == ['{"k":"<WORD>"}']


def test_verdicts_must_match_the_calls() -> None:
    response = decode_response(answer(choice(tool_calls=[function(1), function(2)])))
    with pytest.raises(ValueError, match="one verdict per call"):
        replace_calls(response, [ALLOW])


def test_call_that_nobody_could_judge_cannot_be_allowed() -> None:
    response = decode_response(answer(choice(tool_calls=[function(1, arguments="{")])))
    with pytest.raises(ValueError, match="cannot be allowed"):
        replace_calls(response, [ALLOW])


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"choices":[],"choices":[]}',
        b'{"error":{"message":"secret of the upstream"}}',
        dumps({"choices": {}}),
        dumps({"choices": ["x"]}),
        dumps({"choices": [{"message": "x"}]}),
        dumps({"choices": [{"message": {"tool_calls": {}}}]}),
        dumps({"choices": [{"message": {"tool_calls": ["x"]}}]}),
        dumps({"choices": [{"message": {"tool_calls": [{"id": "1", "type": "new_kind", "new_kind": {}}]}}]}),
        dumps({"choices": [{"message": {"tool_calls": [{"id": 1, "function": {"name": "a", "arguments": "b"}}]}}]}),
        dumps({"choices": [{"message": {"tool_calls": [{"function": {"name": "a", "arguments": {}}}]}}]}),
        dumps({"choices": [{"message": {"function_call": "x"}}]}),
        dumps({"choices": [{"message": {"content": [{"tool_calls": [{}]}]}}]}),
        dumps({"choices": [{"delta": {"tool_calls": [{}]}}]}),
        dumps({"choices": [], "extra": {"function_call": {"name": "x"}}}),
        dumps({"choices": [], "tool_calls": [{}]}),
    ],
)
def test_answer_in_which_a_call_could_hide_is_refused_without_quoting_it(body: bytes) -> None:
    with pytest.raises(UpstreamError) as caught:
        decode_response(body)
    assert caught.value.code == "upstream_protocol"
    assert "secret" not in caught.value.message
