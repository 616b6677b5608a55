"""Messages answers: calls and what stands in their place, sealed blocks, refusal of what has no clear reading."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.core.errors import UpstreamError
from gateway.wire.anthropic import decode_response, error, error_event, replace_calls
from gateway.wire.calls import CallVerdict
from tests.anthropic_support import SIGNATURE, accumulate, answer, client, opening, tool_use
from tests.wire_support import dumps

ALLOW, DENY = CallVerdict(True), CallVerdict(False, "no")
CALLS = answer("Look:", tool_use("a", {"n": 1}), tool_use("b", {}, "toolu_2"))


def replaced(body: dict[str, Any], *verdicts: CallVerdict, **edits: str) -> dict[str, Any]:
    response = decode_response(dumps(body))
    paths = {part.path: edits[part.text] for part in response.parts if part.text in edits}
    found: dict[str, Any] = json.loads(replace_calls(response, verdicts, paths))
    return found


def test_dropped_call_is_replaced_in_its_place() -> None:
    found = replaced(CALLS, DENY, ALLOW)
    assert [block.get("text", block.get("name")) for block in found["content"]] == ["Look:", "no", "b"]
    assert found["stop_reason"] == "tool_use"
    found = replaced(CALLS, DENY, CallVerdict(False))
    assert [block["type"] for block in found["content"]] == ["text", "text"] and found["stop_reason"] == "end_turn"


def test_sealed_block_is_left_out_rather_than_edited() -> None:
    body = answer({"type": "thinking", "thinking": "hm", "signature": SIGNATURE}, "a", tool_use("t", {}))
    assert replaced(body, ALLOW, a="b")["content"][0] == body["content"][0]
    assert [block["type"] for block in replaced(body, ALLOW, hm="x")["content"]] == ["text", "tool_use"]
    found = replaced(body, DENY, hm="x", a="b")
    assert [block["text"] for block in found["content"]] == ["b", "no"]


@pytest.mark.parametrize(
    "change",
    [
        {"content": None},
        {"content": ["x"]},
        {"content": [{"type": "text", "text": "x"}], "type": "completion"},
        {"content": [{"type": "other", "text": "x"}]},
        {"content": [{"type": ["tool_use"]}]},
        {"content": [{"type": "tool_use", "id": "x", "input": {}}]},
        {"content": [{"type": "tool_use", "name": "x", "id": 5, "input": {}}]},
        {"content": [{"type": "tool_use", "name": "x", "Name": "y", "id": "5", "input": {}}]},
        {"content": [{"type": "text", "text": "x", "more": [tool_use("hidden", {})]}]},
        {"content": [{"type": "text", "text": "x", "more": [{"Type": "tool_use"}]}]},
        {"Content": [tool_use("hidden", {})]},
        {"other": {"content": [tool_use("hidden", {})]}},
        {"content": [{"type": "server_tool_use", "id": "x", "name": "web_search", "input": {}}]},
    ],
)
def test_what_has_no_clear_reading_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(UpstreamError) as refused:
        decode_response(dumps({**answer("x"), **change}))
    assert refused.value.code == "upstream_protocol" and "hidden" not in refused.value.message


def test_arguments_that_are_no_object_cannot_be_allowed() -> None:
    body = answer({**tool_use("a", {}), "input": "rm -rf"})
    response = decode_response(dumps(body))
    assert response.calls[0].arguments is None
    with pytest.raises(ValueError, match="no single reading"):
        replace_calls(response, [ALLOW])


def test_errors_are_typed_for_the_sdk() -> None:
    import anthropic

    for status, kind, name in (
        (400, anthropic.BadRequestError, "invalid_request_error"),
        (401, anthropic.AuthenticationError, "authentication_error"),
        (403, anthropic.PermissionDeniedError, "permission_error"),
        (404, anthropic.NotFoundError, "not_found_error"),
        (413, anthropic.ContentTooLargeError, "request_too_large"),
        (429, anthropic.RateLimitError, "rate_limit_error"),
        (502, anthropic.InternalServerError, "api_error"),
        (504, anthropic.GatewayTimeoutError, "timeout_error"),
    ):
        with client(error("some_code", "what to do", status), status=status) as sdk:
            with pytest.raises(kind) as raised:
                sdk.messages.create(model="m", max_tokens=9, messages=[{"role": "user", "content": "q"}])
        found = raised.value
        assert (found.type, found.error_code, found.api_message) == (name, "some_code", "what to do")
    with pytest.raises(anthropic.APIStatusError) as ended:
        accumulate(opening() + error_event("some_code", "what to do"))
    assert ended.value.error_code == "some_code"
