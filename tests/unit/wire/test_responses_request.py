"""Responses requests: origins of texts, tools of the agent and of the provider, and what nobody has seen."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.core.errors import ClientError
from gateway.core.exchange import Origin
from gateway.wire.openai_responses import decode_request, provider_name, read_request, rewrite, strip_tools
from tests.wire_support import dumps


def read(**body: Any) -> Any:
    return decode_request(dumps({"model": "m", **body}))


def parts(**body: Any) -> list[tuple[str, str]]:
    return [(part.origin.value, part.text) for part in read(**body).parts]


def function(name: str) -> dict[str, Any]:
    return {"type": "function", "name": name}


def test_instructions_come_first_then_the_input() -> None:
    assert parts(input="hello", instructions="be kind") == [("system", "be kind"), ("user", "hello")]


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ({"role": "user", "content": "a"}, [("user", "a")]),
        ({"role": "developer", "content": [{"type": "input_text", "text": "a"}]}, [("system", "a")]),
        ({"role": "odd", "content": "a"}, [("user", "odd"), ("user", "a")]),
        (
            {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
             "content": [{"type": "output_text", "text": "a", "annotations": []}, {"type": "refusal", "refusal": "b"}]},
            [("assistant", "a"), ("assistant", "b")],
        ),
        ({"type": "function_call", "call_id": "c", "name": "pay", "arguments": '{"a":1}'},
         [("tool_args", "pay"), ("tool_args", '{"a":1}')]),
        ({"type": "custom_tool_call", "call_id": "c", "name": "pay", "input": "auto"},
         [("tool_args", "pay"), ("tool_args", "auto")]),
        ({"type": "function_call_output", "call_id": "c", "output": "text"}, [("tool_result", "text")]),
        ({"type": "custom_tool_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "b"}]},
         [("tool_result", "b")]),
        ({"type": "reasoning", "id": "rs_1", "encrypted_content": "gAAAx-_=",
          "summary": [{"type": "summary_text", "text": "a"}]}, [("assistant", "a")]),
        ({"type": "mcp_call", "id": "mcp_1", "name": "n", "arguments": "{}", "output": "o", "server_label": "s"},
         [("tool_args", "mcp_call"), ("tool_args", "n"), ("tool_args", "{}"), ("tool_result", "o"),
          ("tool_args", "s")]),
        ({"type": "something_new", "x": {"y": ["a"]}}, [("user", "something_new"), ("user", "a")]),
        ({"type": "function_call_output", "call_id": "not an id", "output": "o"},
         [("tool_result", "not an id"), ("tool_result", "o")]),
    ],
)  # fmt: skip
def test_items_have_the_origin_of_who_said_it(item: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    assert parts(input=[item]) == expected


def test_encoded_content_is_counted_and_not_read() -> None:
    blocks = [
        {"type": "input_image", "image_url": "data:image/png;base64,iVBORw0KGgo="},
        {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERi0="},
        {"type": "input_image", "image_url": "data:image/png;base64,not encoded"},
    ]
    found = read(input=[{"role": "user", "content": blocks}])
    assert found.opaque == 2
    assert [part.text for part in found.parts] == ["a.pdf", "data:image/png;base64,not encoded"]


def test_tools_are_the_agents_or_the_providers() -> None:
    found = read(
        input=[{"type": "additional_tools", "role": "developer", "tools": [function("late"), {"type": "shell"}]}],
        tools=[
            function("pay"),
            {"type": "custom", "name": "run"},
            {"type": "namespace", "name": "crm", "description": "d", "tools": [function("get")]},
            {"type": "mcp", "server_label": "x"},
            {"type": "web_search_preview"},
            {"type": "web_search_2025_08_26"},
            {"type": "computer_use_preview"},
            {"type": "local_shell"},
        ],
        tool_choice={"type": "apply_patch"},
    )
    assert found.tools == ("pay", "run", "crm__get", "late")
    assert found.provider_tools == ("mcp", "web_search", "computer_use", "local_shell", "shell", "apply_patch")


@pytest.mark.parametrize(
    ("kind", "name"),
    [("web_search_preview_2025_03_11", "web_search"), ("computer", "computer_use"), ("_preview", "_preview")],
)
def test_versions_of_a_provider_tool_are_one(kind: str, name: str) -> None:
    assert provider_name(kind) == name


@pytest.mark.parametrize(
    ("body", "unseen"),
    [
        ({"previous_response_id": "resp_1"}, ("previous_response_id",)),
        ({"conversation": {"id": "conv_1"}, "prompt": {"id": "p"}}, ("conversation", "prompt")),
        ({"input": [{"id": "msg_1"}]}, ("item_reference",)),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, ("item_reference",)),
        ({"previous_response_id": None, "conversation": None, "prompt": None, "input": "x"}, ()),
        ({"previous_response_id": ""}, ("previous_response_id",)),
    ],
)
def test_what_is_only_referred_to_is_named(body: dict[str, Any], unseen: tuple[str, ...]) -> None:
    assert read(**body).unseen == unseen


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"model": ""}, "model"),
        ({"stream": "yes"}, "stream"),
        ({"background": 1}, "background"),
        ({"input": 5}, "input"),
        ({"input": ["x"]}, "input[0]"),
        ({"input": [{"type": 5}]}, "input[0].type"),
        ({"input": [{"type": "message", "content": "x"}]}, "input[0].role"),
        ({"input": [{"type": "function_call", "name": "n", "arguments": {}}]}, "input[0].arguments"),
        ({"tools": {}}, "tools"),
        ({"tools": [{"name": "x"}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"tools": [{"type": "namespace", "name": "n", "tools": [{"type": "mcp"}]}]}, "tools[0].tools[0].type"),
    ],
)
def test_wrong_shapes_are_named_by_their_path(body: dict[str, Any], path: str) -> None:
    with pytest.raises(ClientError) as refused:
        read(**body)
    assert (refused.value.code, refused.value.status) == ("invalid_request", 400)
    assert f"`{path}`" in refused.value.message


@pytest.mark.parametrize("key", ["Model", "INPUT", "Previous_Response_Id", "Tools", "Background"])
def test_members_in_another_case_are_refused(key: str) -> None:
    with pytest.raises(ClientError) as refused:
        read(input="x", **{key: "y"})
    assert refused.value.code == "alike_names"


def test_background_is_refused() -> None:
    with pytest.raises(ClientError) as refused:
        read(input="x", background=True)
    assert refused.value.code == "background_not_supported"


def test_stripping_takes_tools_from_every_place() -> None:
    brought = {"type": "additional_tools", "role": "developer", "tools": [function("pay"), function("read")]}
    raw = read(
        input=[brought],
        tools=[function("pay"), {"type": "namespace", "name": "crm", "tools": [function("pay"), function("get")]},
               {"type": "namespace", "name": "b", "tools": [function("pay")]}],
        tool_choice={"type": "allowed_tools", "mode": "auto", "tools": [function("pay"), function("read")]},
    ).raw  # fmt: skip
    stripped = read_request(strip_tools(raw, ["pay", "crm__pay", "b__pay"]))
    assert stripped.tools == ("crm__get", "read")
    assert stripped.raw["tool_choice"]["tools"] == [function("read")]  # type: ignore[index, call-overload]
    assert json.loads(stripped.body) == stripped.raw and read_request(raw).tools[0] == "pay"


def test_stripping_the_last_tool_takes_the_choice_with_it() -> None:
    raw = read(input="x", tools=[function("pay")], tool_choice="auto", parallel_tool_calls=True).raw
    assert strip_tools(raw, ["pay"]) == {"model": "m", "input": "x"}
    allowed = {"type": "allowed_tools", "mode": "auto", "tools": [function("pay")]}
    raw = read(input="x", tools=[function("pay"), function("read")], tool_choice=allowed).raw
    assert strip_tools(raw, ["pay"])["tool_choice"] == "none"


@pytest.mark.parametrize(
    "choice", ["required", function("pay"), {"type": "allowed_tools", "mode": "required", "tools": [function("pay")]}]
)
def test_forcing_a_stripped_tool_is_refused(choice: Any) -> None:
    raw = read(input="x", tools=[function("pay")], tool_choice=choice).raw
    with pytest.raises(ClientError) as refused:
        strip_tools(raw, ["pay"])
    assert refused.value.code == "tool_denied" and refused.value.status == 403


def test_rewriting_changes_the_named_values() -> None:
    request = read(input=[{"role": "user", "content": "a"}], instructions="b")
    edits = {part.path: "X" for part in request.parts if part.origin is Origin.USER}
    assert json.loads(rewrite(request.raw, edits)) == {
        "model": "m",
        "input": [{"role": "user", "content": "X"}],
        "instructions": "b",
    }
