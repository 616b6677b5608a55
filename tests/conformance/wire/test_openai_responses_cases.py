"""The golden files of the Responses dialect: bodies and streams in the shapes that OpenAI publishes, each with what the
gateway must read in it. A new case is two files beside the others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from openai.types.responses import Response, response_create_params
from pydantic import TypeAdapter

from gateway.wire.calls import CallVerdict
from gateway.wire.openai_responses import (
    ResponsesStreamGuard,
    decode_request,
    decode_response,
    replace_calls,
    rewrite,
    rewrite_response,
)
from gateway.wire.outputs import Decide
from tests.responses_support import data_of, read_events
from tests.wire_support import drive, refuse, word_guards

CASES = Path(__file__).parent / "openai_responses"


def cases(kind: str, suffix: str) -> list[Any]:
    found = sorted(path for path in (CASES / kind).glob(f"*{suffix}") if not path.name.endswith(".expect.json"))
    return [pytest.param(path, id=path.stem) for path in found]


def expected(path: Path) -> dict[str, Any]:
    expect: dict[str, Any] = json.loads(path.with_suffix(".expect.json").read_bytes())
    return expect


def facts(kind: str, body: bytes, *, guarded: bool = False) -> dict[str, Any]:
    """What the gateway reads, in the form of the files."""
    if kind == "requests":
        request = decode_request(body)
        return {
            "stream": request.stream,
            "tools": list(request.tools),
            "provider_tools": list(request.provider_tools),
            "unseen": list(request.unseen),
            "opaque": request.opaque,
            "parts": [[part.origin.value, part.text] for part in request.parts],
        }
    guard = ResponsesStreamGuard(word_guards() if guarded else None, provider_runs=True)
    if kind == "responses":
        found: Any = decode_response(body, provider_runs=True)
        calls = found.calls
        said: dict[str, Any] = {"parts": [[part.origin.value, part.text] for part in found.parts]}
    else:
        _, told = drive(guard, [body])
        found = guard
        calls = tuple(call for output in told if isinstance(output, Decide) for call in output.calls)
        said = {"texts": {str(index): text for index, text in guard.texts.items()}}
    usage = found.usage
    return {
        **said,
        "calls": [[call.index, call.id, call.name, call.arguments] for call in calls],
        "usage": usage and [usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens, usage.reasoning_tokens],
        "finish_reason": found.finish_reasons.get(0),
    }


@pytest.mark.parametrize("path", cases("requests", ".json"))
def test_request_is_read_as_expected(path: Path) -> None:
    body = path.read_bytes()
    assert facts("requests", body) == expected(path)
    request = decode_request(body)
    assert request.body is body and json.loads(rewrite(request.raw, {})) == json.loads(body)


@pytest.mark.parametrize("path", cases("requests", ".json"))
def test_request_has_the_shape_of_the_sdk(path: Path) -> None:
    TypeAdapter(response_create_params.ResponseCreateParams).validate_python(json.loads(path.read_bytes()))


@pytest.mark.parametrize("path", cases("responses", ".json"))
def test_response_is_read_as_expected(path: Path) -> None:
    body = path.read_bytes()
    assert facts("responses", body) == expected(path)
    response = decode_response(body, provider_runs=True)
    assert replace_calls(response, [CallVerdict(True)] * len(response.calls)) is body


@pytest.mark.parametrize("path", cases("responses", ".json"))
def test_response_has_the_shape_of_the_sdk_before_and_after(path: Path) -> None:
    response = decode_response(path.read_bytes(), provider_runs=True)
    Response.model_validate_json(response.body)
    Response.model_validate_json(rewrite_response(response, {part.path: "<X>" for part in response.parts}))
    without = replace_calls(response, [CallVerdict(False, "NOT EXECUTED")] * len(response.calls))
    assert not any(item.type.endswith("tool_call") for item in Response.model_validate_json(without).output)


@pytest.mark.parametrize("guarded", [False, True])
@pytest.mark.parametrize("path", cases("streams", ".sse"))
def test_stream_is_read_as_expected_and_passes_unchanged(path: Path, guarded: bool) -> None:
    stream = path.read_bytes()
    assert facts("streams", stream, guarded=guarded) == expected(path)
    assert drive(ResponsesStreamGuard(word_guards() if guarded else None, provider_runs=True), [stream])[0] == stream


@pytest.mark.parametrize("path", cases("streams", ".sse"))
def test_stream_without_its_calls_is_one_that_the_sdk_reads(path: Path) -> None:
    names = [call[2] for call in expected(path)["calls"]]
    sent, _ = drive(ResponsesStreamGuard(word_guards(), provider_runs=True), [path.read_bytes()], refuse(*names))
    assert all(f'"{name}"'.encode() not in sent for name in names)
    found = read_events(sent)
    assert len(found) == len(data_of(sent))
    assert not any(item.type.endswith("_call") and hasattr(item, "name") for item in found[-1].response.output)
