"""Whole Responses answers: what is read in them, and what stands where a call was taken away."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.core.errors import UpstreamError
from gateway.wire.calls import CallKind, CallVerdict
from gateway.wire.openai_responses import decode_response, replace_calls, rewrite_response
from tests.responses_support import answer, custom_call, function_call, message, part, read_answer
from tests.wire_support import dumps


def decode(*output: dict[str, Any], **more: Any) -> Any:
    return decode_response(dumps(answer(*output, **more)), provider_runs=True)


def texts(*output: dict[str, Any], **more: Any) -> list[str]:
    return [text for _, text, _ in decode(*output, **more).parts]


DENIED = CallVerdict(False, "NOT EXECUTED: pay")
ALLOWED = CallVerdict(True)


def test_texts_calls_and_usage_are_read() -> None:
    found = decode(message("hi"), function_call("pay", {"a": 1}, "c1"), custom_call("run", "ls", "c2"))
    assert [text for _, text, _ in found.parts] == ["hi"]
    assert [(call.index, call.id, call.name, call.arguments, call.kind) for call in found.calls] == [
        (1, "c1", "pay", {"a": 1}, CallKind.FUNCTION),
        (2, "c2", "run", {"input": "ls"}, CallKind.CUSTOM),
    ]
    usage = found.usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens, usage.reasoning_tokens) == (36, 87, 4, 5)
    assert found.finish_reasons == {0: "completed"}


def test_every_place_of_a_models_words_is_a_part() -> None:
    url = {"type": "url_citation", "url": "https://a b", "title": "title", "start_index": 0, "end_index": 1}
    assert texts(
        {**message("m"), "content": [{**part("t"), "annotations": [url]}, {"type": "refusal", "refusal": "no"}]},
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "s"}],
         "content": [{"type": "reasoning_text", "text": "r"}], "encrypted_content": "gAAA"},
        {"type": "code_interpreter_call", "id": "ci_1", "code": "print()", "outputs": [{"type": "logs", "logs": "l"}],
         "container_id": "cn_1", "status": "completed"},
        {"type": "image_generation_call", "id": "ig_1", "result": "iVBORw0KGgo=", "revised_prompt": "a cat"},
        {"type": "program_output", "id": "po_1", "call_id": "c", "result": "4012888888881881", "status": "completed"},
    ) == ["https://a b", "title", "t", "no", "s", "r", "print()", "l", "a cat", "4012888888881881"]  # fmt: skip


def test_the_repeated_request_is_looked_at() -> None:
    tool = {"type": "function", "name": "pay", "description": "d", "parameters": {"type": "object"}}
    assert texts(instructions="i", tools=[tool], metadata={"k": "v"}) == ["i", "pay", "d", "v"]


def test_probabilities_that_spell_the_text_go_with_it() -> None:
    tokens = [{"token": "hi ", "logprob": -1, "bytes": [], "top_logprobs": []}, {"token": "you", "logprob": -1}]
    found = decode({**message("x"), "content": [{**part("hi you"), "logprobs": tokens}]})
    assert [text for _, text, _ in found.parts] == ["hi you"]
    body = json.loads(rewrite_response(found, {found.parts[0].path: "X"}))
    assert body["output"][0]["content"][0] == {**part("X"), "logprobs": []}
    odd = decode({**message("x"), "content": [{**part("other"), "logprobs": tokens}]})
    assert [text for _, text, _ in odd.parts] == ["hi ", "you", "other"] or len(odd.parts) == 3


def test_untouched_answer_keeps_its_bytes() -> None:
    found = decode(message("hi"), function_call("pay", {}))
    assert replace_calls(found, [ALLOWED]) is found.body
    assert rewrite_response(found, {}) is found.body


def test_message_stands_where_a_call_was() -> None:
    found = decode(message("hi"), function_call("pay", {}, "c1"), function_call("read", {}, "c2"))
    sdk = read_answer(replace_calls(found, [DENIED, ALLOWED], {("output", 0, "content", 0, "text"): "X"}))
    assert [item.type for item in sdk.output] == ["message", "message", "function_call"]
    assert sdk.output_text == "XNOT EXECUTED: pay" and sdk.status == "completed"
    ids = [item.id for item in sdk.output]
    assert len(set(ids)) == 3


def test_convenience_text_gets_the_verdict_too() -> None:
    found = decode(function_call("pay", {}), output_text="hi")
    assert json.loads(replace_calls(found, [DENIED]))["output_text"] == "hi\n\nNOT EXECUTED: pay"
    assert b"NOT EXECUTED" in replace_calls(found, [CallVerdict(False)])


@pytest.mark.parametrize("arguments", ["{", "[]", '{"a":1,"a":2}', "null"])
def test_arguments_without_one_reading_cannot_be_allowed(arguments: str) -> None:
    found = decode(function_call("pay", arguments))
    assert found.calls[0].arguments is None
    with pytest.raises(ValueError, match="cannot be allowed"):
        replace_calls(found, [ALLOWED])


@pytest.mark.parametrize(
    "item",
    [
        {"type": "local_shell_call", "id": "i", "call_id": "c", "action": {"command": ["rm"]}, "status": "completed"},
        {"type": "apply_patch_call", "id": "i", "call_id": "c", "operation": {"type": "delete_file", "path": "x"}},
        {"type": "computer_call", "id": "i", "call_id": "c", "action": {"type": "click"}},
        {"type": "mcp_approval_request", "id": "i", "name": "n", "arguments": "{}", "server_label": "s"},
        {"type": "tool_search_call", "id": "i", "call_id": "c", "execution": "client", "arguments": {}},
        {"type": "of_the_future", "id": "i", "x": "rm"},
    ],
)
def test_whatever_makes_the_agent_act_is_a_call(item: dict[str, Any]) -> None:
    found = decode(item)
    call = found.calls[0]
    assert call.name == item["type"].removesuffix("_call") and call.arguments is not None
    assert not call.arguments.keys() & {"id", "type", "call_id", "status"}
    assert found.parts == ()
    assert b"rm" not in replace_calls(found, [DENIED]).replace(b"format", b"")


def test_function_in_a_namespace_is_judged_by_its_full_name() -> None:
    assert decode({**function_call("pay", {}), "namespace": "bank"}).calls[0].name == "bank__pay"


def test_search_that_the_provider_ran_is_no_call() -> None:
    assert decode({"type": "tool_search_call", "id": "i", "execution": "server", "arguments": {}}).calls == ()


@pytest.mark.parametrize("kind", ["web_search_call", "mcp_call", "code_interpreter_call", "tool_search_call"])
def test_trace_of_a_tool_that_the_provider_may_not_run_is_refused(kind: str) -> None:
    with pytest.raises(UpstreamError):
        decode_response(dumps(answer({"type": kind, "id": "i", "execution": "server"})))


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b'{"output":{}}',
        b'{"output":["x"]}',
        b'{"output":[{}]}',
        b'{"output":[{"type":7}]}',
        b'{"output":[{"type":"function_call","name":"n"}]}',
        b'{"output":[{"type":"function_call","name":"n","arguments":{}}]}',
        b'{"output":[{"type":"function_call","name":"n","arguments":"{}","call_id":5}]}',
        b'{"output":[{"type":"message","content":[{"type":"function_call","name":"n","arguments":"{}"}]}]}',
        b'{"output":[{"type":"message","tool_calls":[{"id":"x"}]}]}',
        b'{"output":[],"choices":[{"message":{"tool_calls":[]}}]}',
        b'{"output":[],"more":[{"type":"custom_tool_call"}]}',
        b'{"output":[],"Output":[{"type":"function_call"}]}',
        b'{"output":[{"type":"message","Type":"function_call"}]}',
    ],
)
def test_answers_that_may_hide_something_are_refused(body: bytes) -> None:
    with pytest.raises(UpstreamError) as refused:
        decode_response(body)
    assert refused.value.code == "upstream_protocol"


@pytest.mark.parametrize(("code", "kept"), [("server_error", False), ("invalid_prompt", True)])
def test_failures_tell_of_the_request_and_not_of_the_upstream(code: str, kept: bool) -> None:
    found = decode(status="failed", error={"code": code, "message": "db-7 is down"})
    assert (b"db-7" in replace_calls(found, ())) is kept
    assert found.finish_reasons == {0: "failed"}
