"""Chat requests: shapes, parts, what needs no inspection, rewriting."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.core.errors import ClientError
from gateway.core.exchange import Origin, Part
from gateway.wire.openai_chat import decode_request, rewrite
from tests.wire_support import dumps


def body(*messages: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"model": "gpt-4.1", "messages": list(messages) or [{"role": "user", "content": "hi"}], **fields}


def parts(*messages: dict[str, Any], **fields: Any) -> list[tuple[Origin, str]]:
    return [(part.origin, part.text) for part in decode_request(dumps(body(*messages, **fields))).parts]


@pytest.mark.parametrize(
    ("role", "origin"),
    [
        ("system", Origin.SYSTEM),
        ("developer", Origin.SYSTEM),
        ("user", Origin.USER),
        ("assistant", Origin.ASSISTANT),
        ("tool", Origin.TOOL_RESULT),
        ("function", Origin.TOOL_RESULT),
    ],
)
def test_message_of_every_role_is_a_part_with_its_origin(role: str, origin: Origin) -> None:
    assert parts({"role": role, "content": "text"}) == [(origin, "text")]


def test_role_that_nobody_knows_is_a_part_itself() -> None:
    assert parts({"role": "my secret", "content": "text"}) == [(Origin.USER, "my secret"), (Origin.USER, "text")]


def test_content_that_is_a_word_of_the_protocol_is_still_a_part() -> None:
    assert parts({"role": "user", "content": "auto"}) == [(Origin.USER, "auto")]
    assert parts({"role": "user", "content": [{"type": "text", "text": "auto"}]}) == [(Origin.USER, "auto")]


def test_unknown_block_does_not_hide_its_text() -> None:
    block = {"type": "document", "source": {"lines": ["one", {"deep": "two"}]}, "score": 1}
    assert [text for _, text in parts({"role": "user", "content": [block]})] == ["document", "one", "two"]


def test_calls_and_their_results_have_the_origins_of_tools() -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "pay", "arguments": '{"to":"bob"}'}}
    custom = {"id": "call_2", "type": "custom", "custom": {"name": "sql", "input": "select 1"}}
    assert parts(
        {"role": "assistant", "content": None, "tool_calls": [call, custom]},
        {"role": "tool", "tool_call_id": "call_1", "content": "paid"},
        {"role": "assistant", "function_call": {"name": "old", "arguments": "{}"}},
        {"role": "function", "name": "old", "content": "done"},
    ) == [
        (Origin.TOOL_ARGS, "pay"),
        (Origin.TOOL_ARGS, '{"to":"bob"}'),
        (Origin.TOOL_ARGS, "sql"),
        (Origin.TOOL_ARGS, "select 1"),
        (Origin.TOOL_RESULT, "paid"),
        (Origin.TOOL_ARGS, "old"),
        (Origin.TOOL_ARGS, "{}"),
        (Origin.TOOL_RESULT, "old"),
        (Origin.TOOL_RESULT, "done"),
    ]


def test_definitions_of_tools_are_the_systems_text() -> None:
    schema = {"type": "object", "properties": {"to": {"type": "string", "description": "whom", "enum": ["bob"]}}}
    tools = [{"type": "function", "function": {"name": "pay", "description": "pays", "parameters": schema}}]
    assert parts(tools=tools)[1:] == [(Origin.SYSTEM, text) for text in ("pay", "pays", "whom", "bob")]


def test_fields_beside_the_messages_are_parts_too() -> None:
    found = parts(
        user="u-1",
        metadata={"id": "m-1", "note": "m-2"},
        stop=["s-1"],
        prediction={"type": "content", "content": "p-1"},
        response_format={"type": "json_schema", "json_schema": {"name": "r-1", "schema": {"description": "r-2"}}},
        web_search_options={"user_location": {"type": "approximate", "approximate": {"city": "w-1"}}},
        something_new={"x": ["n-1"]},
    )
    assert [text for _, text in found[1:]] == ["u-1", "m-1", "m-2", "s-1", "p-1", "r-1", "r-2", "w-1", "n-1"]


def test_encoded_content_is_counted_and_not_inspected() -> None:
    request = decode_request(
        dumps(
            body(
                {
                    "role": "user",
                    "content": [
                        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}},
                        {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
                        {
                            "type": "file",
                            "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBE"},
                        },
                        {"type": "file", "file": {"file_id": "file-6F2ksmvXxt4VdoqmHRw6kL"}},
                    ],
                }
            )
        )
    )
    assert request.opaque == 3
    assert [part.text for part in request.parts] == ["a.pdf"]


@pytest.mark.parametrize(
    "block",
    [
        {"type": "image_url", "image_url": {"url": "https://example.com/?q=my+secret"}},
        {"type": "image_url", "image_url": {"url": "data:text/plain,my secret"}},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,my secret"}},
        {"type": "input_audio", "input_audio": {"data": "my secret"}},
        {"type": "file", "file": {"file_data": "my secret"}},
        {"type": "file", "file": {"file_id": "my secret"}},
    ],
)
def test_text_that_claims_to_be_encoded_is_inspected(block: dict[str, Any]) -> None:
    found = parts({"role": "user", "content": [block]})
    assert any("secret" in text for _, text in found)


def test_identifier_that_does_not_look_like_one_is_inspected() -> None:
    assert (Origin.TOOL_RESULT, "call 1") in parts({"role": "tool", "tool_call_id": "call 1", "content": "x"})


def test_paths_lead_to_the_texts() -> None:
    raw = body({"role": "user", "content": [{"type": "text", "text": "a"}]}, metadata={"k": "b"})
    request = decode_request(dumps(raw))
    assert request.parts == (
        Part(Origin.USER, "a", ("messages", 0, "content", 0, "text")),
        Part(Origin.USER, "b", ("metadata", "k")),
    )
    assert rewrite(request.raw, {part.path: part.text.upper() for part in request.parts}) == dumps(
        body({"role": "user", "content": [{"type": "text", "text": "A"}]}, metadata={"k": "B"})
    )
    assert request.raw == raw
    assert request.body == dumps(raw)


def test_what_the_request_asks_for_is_read() -> None:
    request = decode_request(
        dumps(body(stream=True, stream_options={"include_usage": True}, models=["gpt-4.1", "other"]))
    )
    assert (request.model, request.stream, request.include_usage) == ("gpt-4.1", True, True)
    assert request.fallback_models == ("gpt-4.1", "other")
    plain = decode_request(dumps(body(stream=None)))
    assert (plain.stream, plain.include_usage, plain.fallback_models) == (False, False, ())


def test_tools_that_the_provider_runs_are_named() -> None:
    tools = [
        {"type": "function", "function": {"name": "pay"}},
        {"type": "custom", "custom": {"name": "sql"}},
        {"type": "web_search"},
        {"type": "mcp", "server_label": "x", "server_url": "https://x.example"},
    ]
    request = decode_request(dumps(body(tools=tools, functions=[{"name": "old"}], web_search_options={}, plugins=None)))
    assert request.tools == ("pay", "sql", "old")
    assert request.provider_tools == ("web_search", "mcp")


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        ([], "the body"),
        ({"messages": [{"role": "user"}]}, "model"),
        ({"model": "", "messages": [{"role": "user"}]}, "model"),
        ({"model": "m"}, "messages"),
        ({"model": "m", "messages": []}, "messages"),
        ({"model": "m", "messages": ["hi"]}, "messages[0]"),
        (body({"content": "x"}), "messages[0].role"),
        (body({"role": "user", "content": 5}), "messages[0].content"),
        (body({"role": "user", "content": ["x"]}), "messages[0].content[0]"),
        (body({"role": "assistant", "tool_calls": {}}), "messages[0].tool_calls"),
        (body({"role": "assistant", "tool_calls": ["x"]}), "messages[0].tool_calls[0]"),
        (
            body({"role": "assistant", "tool_calls": [{"function": {"arguments": {}}}]}),
            "messages[0].tool_calls[0].function.arguments",
        ),
        (body({"role": "assistant", "function_call": "x"}), "messages[0].function_call"),
        (body(stream="yes"), "stream"),
        (body(tools={}), "tools"),
        (body(tools=["x"]), "tools[0]"),
        (body(tools=[{}]), "tools[0].type"),
        (body(tools=[{"type": "function"}]), "tools[0].function.name"),
        (body(functions=[{}]), "functions[0].name"),
        (body(models="x"), "models"),
        (body(models=[1]), "models[0]"),
    ],
)
def test_wrong_shape_is_named_by_its_path(raw: Any, path: str) -> None:
    with pytest.raises(ClientError) as caught:
        decode_request(dumps(raw))
    assert caught.value.code == "invalid_request"
    assert caught.value.message.startswith(f"`{path}` must be ")


@pytest.mark.parametrize("raw", [b"", b"{", b'{"model":"a","model":"b"}', b'{"model":NaN}', b"\xff", b'"\\ud800"'])
def test_body_without_one_reading_is_refused(raw: bytes) -> None:
    with pytest.raises(ClientError) as caught:
        decode_request(raw)
    assert caught.value.code == "invalid_json"
