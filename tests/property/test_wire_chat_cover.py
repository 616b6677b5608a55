"""No string of a chat body escapes inspection, and what is rewritten is what was meant."""

from __future__ import annotations

import copy
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import ClientError, UpstreamError
from gateway.core.exchange import Path
from gateway.wire.openai_chat import (
    CallVerdict,
    decode_request,
    decode_response,
    replace_calls,
    rewrite,
    rewrite_response,
)
from gateway.wire.openai_chat_fields import TOP_SKIPPED
from tests.wire_support import dumps

# The sign is in no word of the protocol, in no identifier and in no encoding: such a string always needs a part.
MARKED = st.text(max_size=8).filter(lambda text: text.isprintable()).map(lambda text: f"§{text}")
KEYS = st.sampled_from(
    ["id", "type", "role", "name", "text", "content", "data", "url", "file_id", "file_data", "image_url", "input_audio",
     "arguments", "input", "tool_call_id", "description", "x"]
)  # fmt: skip
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-5, 5), MARKED)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=8
)
OBJECTS = st.dictionaries(KEYS, VALUES, max_size=4)


def extended(fixed: dict[str, st.SearchStrategy[Any]], **optional: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Objects with these fields, some of the optional ones, and some that nobody knows."""
    known = st.fixed_dictionaries(fixed, optional=optional)
    return st.builds(lambda more, base: {**more, **base}, OBJECTS, known)


FUNCTIONS = extended({"name": MARKED, "arguments": MARKED | st.just("{}")})
CALLS = extended({"type": st.just("function"), "function": FUNCTIONS, "id": MARKED}) | extended(
    {"type": st.just("custom"), "custom": extended({"name": MARKED, "input": MARKED}), "id": MARKED}
)
CONTENTS = st.none() | MARKED | st.lists(OBJECTS, max_size=3)
MESSAGES = extended(
    {"role": st.sampled_from(["system", "developer", "user", "assistant", "tool", "function"]) | MARKED},
    content=CONTENTS,
    tool_calls=st.lists(CALLS, max_size=2),
    function_call=FUNCTIONS,
)
TOOLS = extended({"type": st.just("function"), "function": extended({"name": MARKED}, parameters=OBJECTS)})
REQUESTS = extended(
    {"model": st.just("m"), "messages": st.lists(MESSAGES, min_size=1, max_size=3)},
    tools=st.lists(TOOLS, max_size=2),
    functions=st.lists(extended({"name": MARKED}), max_size=2),
    tool_choice=VALUES,
    metadata=OBJECTS,
    user=MARKED,
    stop=VALUES,
    prediction=VALUES,
    response_format=VALUES,
    web_search_options=VALUES,
)

CHOICES = extended(
    {"message": extended({}, content=CONTENTS, refusal=MARKED, audio=VALUES, tool_calls=st.lists(CALLS, max_size=2))},
    finish_reason=st.sampled_from(["stop", "tool_calls"]),
)
RESPONSES = extended({"choices": st.lists(CHOICES, max_size=3)})


def strings(value: Any, path: Path = ()) -> dict[Path, str]:
    """Every string and its path, found in the plainest way."""
    if isinstance(value, str):
        return {path: value}
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return {at: text for key, inner in items for at, text in strings(inner, (*path, key)).items()}


def edited(value: Any, edits: dict[Path, str]) -> Any:
    result = copy.deepcopy(value)
    for path, text in edits.items():
        inner = result
        for step in path[:-1]:
            inner = inner[step]
        inner[path[-1]] = text
    return result


@given(REQUESTS)
def test_every_string_of_a_request_is_a_part_or_excluded_by_name(raw: dict[str, Any]) -> None:
    try:
        request = decode_request(dumps(raw))
    except ClientError as error:
        assert error.code == "invalid_request"
        return
    parts = {part.path: part.text for part in request.parts}
    marked = {path: text for path, text in strings(raw).items() if "§" in text}
    assert {path: parts.get(path) for path in marked} == marked
    assert len(parts) == len(request.parts)


@given(REQUESTS)
def test_rewriting_changes_what_was_named_and_nothing_else(raw: dict[str, Any]) -> None:
    try:
        request = decode_request(dumps(raw))
    except ClientError:
        return
    edits = {part.path: "masked" for part in request.parts[::2]}
    assert json.loads(rewrite(request.raw, edits)) == edited(raw, edits)
    assert request.raw == raw
    assert request.body == dumps(raw)


@given(RESPONSES)
def test_every_string_of_a_response_is_a_part_or_belongs_to_a_call(raw: dict[str, Any]) -> None:
    try:
        response = decode_response(dumps(raw))
    except UpstreamError:
        return
    parts = {part.path: part.text for part in response.parts}
    for path, text in strings(raw).items():
        if "§" in text and path not in parts and path[0] not in TOP_SKIPPED:
            assert path[2:4] == ("message", "tool_calls")
            assert path[5:] in (("id",), ("type",), ("function", "name"), ("custom", "name"))
    assert [call.choice for call in response.calls] == sorted(call.choice for call in response.calls)
    edits = dict.fromkeys(parts, "masked")
    assert json.loads(rewrite_response(response, edits)) == edited(raw, edits)


@given(RESPONSES, st.randoms())
def test_dropped_calls_are_gone_and_allowed_ones_are_kept(raw: dict[str, Any], random: Any) -> None:
    try:
        response = decode_response(dumps(raw))
    except UpstreamError:
        return
    verdicts = [CallVerdict(call.arguments is not None and random.random() < 0.5, "no") for call in response.calls]
    body = replace_calls(response, verdicts)
    kept = [call for call, verdict in zip(response.calls, verdicts, strict=True) if verdict.allow]
    again = decode_response(body)
    assert [(call.choice, call.name, call.arguments_text) for call in again.calls] == [
        (call.choice, call.name, call.arguments_text) for call in kept
    ]
    if len(kept) == len(response.calls):
        assert body is response.body
