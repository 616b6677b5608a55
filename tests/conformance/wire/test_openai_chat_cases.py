"""The golden files of the dialect: bodies and streams in the shapes that OpenAI publishes (and some that compatible
upstreams send), each with what the gateway must read in it. A new case is two files beside the others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from openai.types.chat import ChatCompletion, completion_create_params
from pydantic import TypeAdapter

from gateway.wire.openai_chat import (
    CallVerdict,
    ChatStreamGuard,
    Decide,
    ProposedCall,
    Usage,
    decode_request,
    decode_response,
    replace_calls,
    rewrite,
    rewrite_response,
)
from tests.wire_support import accumulate, drive, read_stream, refuse, word_guards

CASES = Path(__file__).parent / "openai_chat"


def cases(kind: str, suffix: str) -> list[Any]:
    found = sorted(path for path in (CASES / kind).glob(f"*{suffix}") if not path.name.endswith(".expect.json"))
    assert found
    return [pytest.param(path, id=path.stem) for path in found]


def expected(path: Path) -> dict[str, Any]:
    expect: dict[str, Any] = json.loads(path.with_suffix(".expect.json").read_bytes())
    return expect


def spelled(calls: tuple[ProposedCall, ...]) -> list[list[Any]]:
    return [[call.choice, call.index, call.id, call.name, call.arguments] for call in calls]


def counts(usage: Usage | None) -> list[int] | None:
    if usage is None:
        return None
    return [usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens, usage.reasoning_tokens]


@pytest.mark.parametrize("path", cases("requests", ".json"))
def test_request_is_read_as_expected(path: Path) -> None:
    body = path.read_bytes()
    request = decode_request(body)
    assert {
        "stream": request.stream,
        "tools": list(request.tools),
        "provider_tools": list(request.provider_tools),
        "opaque": request.opaque,
        "parts": [[part.origin.value, part.text] for part in request.parts],
    } == expected(path)
    assert request.body is body
    assert json.loads(rewrite(request.raw, {})) == json.loads(body)


@pytest.mark.parametrize("path", cases("requests", ".json"))
def test_request_has_the_shape_of_the_sdk(path: Path) -> None:
    TypeAdapter(completion_create_params.CompletionCreateParams).validate_python(json.loads(path.read_bytes()))


@pytest.mark.parametrize("path", cases("responses", ".json"))
def test_response_is_read_as_expected(path: Path) -> None:
    body = path.read_bytes()
    response = decode_response(body)
    assert {
        "parts": [[part.origin.value, part.text] for part in response.parts],
        "calls": spelled(response.calls),
        "usage": counts(response.usage),
        "finish_reasons": {str(position): reason for position, reason in response.finish_reasons.items()},
    } == expected(path)
    assert replace_calls(response, [CallVerdict(True)] * len(response.calls)) is body


@pytest.mark.parametrize("path", cases("responses", ".json"))
def test_response_has_the_shape_of_the_sdk_before_and_after(path: Path) -> None:
    response = decode_response(path.read_bytes())
    ChatCompletion.model_validate_json(response.body)
    ChatCompletion.model_validate_json(rewrite_response(response, {part.path: "<X>" for part in response.parts}))
    without = replace_calls(response, [CallVerdict(False, "NOT EXECUTED")] * len(response.calls))
    assert not any(choice.message.tool_calls for choice in ChatCompletion.model_validate_json(without).choices)


@pytest.mark.parametrize("guarded", [False, True])
@pytest.mark.parametrize("path", cases("streams", ".sse"))
def test_stream_is_read_as_expected_and_passes_unchanged(path: Path, guarded: bool) -> None:
    stream = path.read_bytes()
    guard = ChatStreamGuard(word_guards() if guarded else None)
    sent, told = drive(guard, [stream])
    assert {
        "texts": {str(choice): text for choice, text in guard.texts.items()},
        "calls": spelled(tuple(call for output in told if isinstance(output, Decide) for call in output.calls)),
        "usage": counts(guard.usage),
        "finish_reasons": {str(choice): reason for choice, reason in guard.finish_reasons.items()},
    } == expected(path)
    assert sent == stream


@pytest.mark.parametrize("path", cases("streams", ".sse"))
def test_stream_without_its_calls_is_one_that_the_sdk_reads(path: Path) -> None:
    names = [call[3] for call in expected(path)["calls"]]
    sent, _ = drive(ChatStreamGuard(word_guards()), [path.read_bytes()], refuse(*names))
    assert all(name.encode() not in sent.replace(b"NOT EXECUTED: " + name.encode(), b"") for name in names)
    assert len(read_stream(path.read_bytes())) > 0
    for choice in accumulate(sent).choices:
        assert not choice.message.tool_calls
        assert choice.finish_reason in ("stop", "length")
