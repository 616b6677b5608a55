"""The golden files of the Messages dialect: bodies and streams in the shapes that Anthropic publishes, each with what
the gateway must read in it. A new case is two files beside the others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from anthropic.types import Message, message_create_params
from pydantic import TypeAdapter

from gateway.wire.anthropic import (
    AnthropicStreamGuard,
    Usage,
    decode_request,
    decode_response,
    replace_calls,
    rewrite,
)
from gateway.wire.calls import CallVerdict, ProposedCall
from gateway.wire.outputs import Decide
from tests.anthropic_support import accumulate, drive, refuse_all
from tests.wire_support import word_guards

CASES = Path(__file__).parent / "anthropic"


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
    cached = [usage.cache_read_tokens, usage.cache_creation_tokens]
    return [usage.input_tokens, usage.output_tokens, *cached, usage.thinking_tokens]


def request_facts(body: bytes) -> dict[str, Any]:
    request = decode_request(body)
    return {
        "stream": request.stream,
        "tools": list(request.tools),
        "provider_tools": list(request.provider_tools),
        "opaque": request.opaque,
        "parts": [[part.origin.value, part.text] for part in request.parts],
    }


def response_facts(body: bytes) -> dict[str, Any]:
    response = decode_response(body, provider_runs=True)
    return {
        "parts": [[part.origin.value, part.text] for part in response.parts],
        "calls": spelled(response.calls),
        "usage": counts(response.usage),
        "finish_reasons": {str(choice): reason for choice, reason in response.finish_reasons.items()},
    }


def stream_facts(stream: bytes, guarded: bool) -> tuple[dict[str, Any], bytes]:
    guard = AnthropicStreamGuard(word_guards() if guarded else None, provider_runs=True)
    sent, told = drive(guard, [stream])
    return {
        "text": guard.texts[0],
        "calls": spelled(tuple(call for output in told if isinstance(output, Decide) for call in output.calls)),
        "usage": counts(guard.usage),
        "finish_reasons": {str(choice): reason for choice, reason in guard.finish_reasons.items()},
    }, sent


@pytest.mark.parametrize("path", cases("requests", ".json"))
def test_request_is_read_as_expected(path: Path) -> None:
    body = path.read_bytes()
    assert request_facts(body) == expected(path)
    request = decode_request(body)
    assert request.body is body
    assert json.loads(rewrite(request.raw, {})) == json.loads(body)


@pytest.mark.parametrize("path", cases("requests", ".json"))
def test_request_has_the_shape_of_the_sdk(path: Path) -> None:
    TypeAdapter(message_create_params.MessageCreateParams).validate_python(json.loads(path.read_bytes()))


@pytest.mark.parametrize("path", cases("responses", ".json"))
def test_response_is_read_as_expected(path: Path) -> None:
    body = path.read_bytes()
    assert response_facts(body) == expected(path)
    response = decode_response(body, provider_runs=True)
    assert replace_calls(response, [CallVerdict(True)] * len(response.calls)) is body


@pytest.mark.parametrize("path", cases("responses", ".json"))
def test_response_has_the_shape_of_the_sdk_before_and_after(path: Path) -> None:
    response = decode_response(path.read_bytes(), provider_runs=True)
    Message.model_validate_json(response.body)
    without = replace_calls(
        response,
        [CallVerdict(False, "NOT EXECUTED")] * len(response.calls),
        {part.path: "<X>" for part in response.parts if part.path[-1] in ("text", "thinking")},
    )
    message = Message.model_validate_json(without)
    assert not any(block.type in ("tool_use", "thinking") for block in message.content)


@pytest.mark.parametrize("guarded", [False, True])
@pytest.mark.parametrize("path", cases("streams", ".sse"))
def test_stream_is_read_as_expected_and_passes_unchanged(path: Path, guarded: bool) -> None:
    stream = path.read_bytes()
    facts, sent = stream_facts(stream, guarded)
    assert facts == expected(path)
    assert sent == stream


@pytest.mark.parametrize("path", cases("streams", ".sse"))
def test_stream_without_its_calls_is_one_that_the_sdk_reads(path: Path) -> None:
    stream = path.read_bytes()
    whole = accumulate(stream)
    calls = expected(path)["calls"]
    assert [block.id for block in whole.content if block.type == "tool_use"] == [call[2] for call in calls]
    sent, _ = drive(AnthropicStreamGuard(word_guards(), provider_runs=True), [stream], refuse_all)
    message = accumulate(sent)
    assert len(message.content) == len(whole.content)
    assert not any(block.type == "tool_use" for block in message.content)
    assert message.stop_reason == "end_turn"
