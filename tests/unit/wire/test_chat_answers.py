"""Bodies that the gateway writes by itself, read by the official SDK."""

from __future__ import annotations

import openai
import pytest

from gateway.wire.openai_chat import Head, assistant_message, assistant_stream, error, error_event, models_list
from tests.wire_support import accumulate, client, read_answer, read_stream

HEAD = Head(id="chatcmpl-gateway-1", model="gpt-4.1", created=1741569952)


@pytest.mark.parametrize(
    ("status", "kind", "exception"),
    [
        (400, "invalid_request_error", openai.BadRequestError),
        (401, "authentication_error", openai.AuthenticationError),
        (403, "permission_error", openai.PermissionDeniedError),
        (404, "not_found_error", openai.NotFoundError),
        (409, "conflict_error", openai.ConflictError),
        (413, "invalid_request_error", openai.APIStatusError),
        (415, "invalid_request_error", openai.APIStatusError),
        (422, "invalid_request_error", openai.UnprocessableEntityError),
        (429, "rate_limit_error", openai.RateLimitError),
        (500, "server_error", openai.InternalServerError),
        (503, "server_error", openai.InternalServerError),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_error_body_becomes_the_sdks_own_error(
    status: int, kind: str, exception: type[openai.APIStatusError], stream: bool
) -> None:
    with client(error("some_code", "try `x`", status, param="model"), status=status) as sdk:
        with pytest.raises(exception) as caught:
            sdk.chat.completions.create(model="m", messages=[{"role": "user", "content": "q"}], stream=stream)
    assert (caught.value.code, caught.value.type, caught.value.param) == ("some_code", kind, "model")
    assert caught.value.status_code == status
    assert caught.value.body == {"message": "try `x`", "type": kind, "param": "model", "code": "some_code"}


def test_error_event_in_a_stream_is_raised_by_the_sdk() -> None:
    with pytest.raises(openai.APIError) as caught:
        read_stream(error_event("upstream_truncated", "the upstream ended early"))
    assert (caught.value.code, caught.value.message) == ("upstream_truncated", "the upstream ended early")


def test_held_answer_is_a_complete_message_without_calls() -> None:
    completion = read_answer(assistant_message(HEAD, 'waiting for "approval" — é'))
    message = completion.choices[0].message
    assert (message.role, message.content, message.tool_calls) == ("assistant", 'waiting for "approval" — é', None)
    assert completion.choices[0].finish_reason == "stop"
    assert completion.usage is not None
    assert completion.usage.total_tokens == 0


def test_denied_answer_may_end_as_content_filter() -> None:
    completion = read_answer(assistant_message(HEAD, "no", finish_reason="content_filter"))
    assert completion.choices[0].finish_reason == "content_filter"


@pytest.mark.parametrize("include_usage", [False, True])
def test_held_answer_as_a_stream_says_the_same(include_usage: bool) -> None:
    body = assistant_stream(HEAD, "line one\nline two", include_usage=include_usage)
    completion = accumulate(body)
    assert completion.id == HEAD.id
    assert completion.model == HEAD.model
    assert completion.choices[0].message.content == "line one\nline two"
    assert completion.choices[0].finish_reason == "stop"
    assert (completion.usage is not None) is include_usage
    assert body.endswith(b"\n\ndata: [DONE]\n\n")


def test_models_are_listed() -> None:
    with client(models_list(["gpt-4.1", "local"])) as sdk:
        assert [model.id for model in sdk.models.list()] == ["gpt-4.1", "local"]
    with client(models_list([])) as sdk:
        assert list(sdk.models.list()) == []
