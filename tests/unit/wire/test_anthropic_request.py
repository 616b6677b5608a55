"""Messages requests: parts and their origins, sealed blocks, tools."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.core.errors import ClientError
from gateway.wire.anthropic import decode_request, rewrite, strip_tools
from tests.anthropic_support import SIGNATURE, tool_use
from tests.wire_support import dumps

USER: Any = {"role": "user", "content": "q"}
THINKING = {"type": "thinking", "thinking": "hm", "signature": SIGNATURE}


def request(*messages: Any, **more: Any) -> Any:
    return decode_request(dumps({"model": "m", "max_tokens": 9, "messages": list(messages) or [USER], **more}))


def said(found: Any) -> list[tuple[str, str]]:
    return [(part.origin.value, part.text) for part in found.parts]


def test_text_that_claims_to_be_encoded_is_a_part() -> None:
    for source in ({"type": "base64", "data": "a secret, plainly"}, {"type": "file", "file_id": "not an id"}):
        found = request({"role": "user", "content": [{"type": "image", "source": source}]})
        assert found.opaque == 0 and len(found.parts) == 1


@pytest.mark.parametrize("key", ["signature", "data", "encrypted_content"])
def test_short_and_readable_values_of_encoded_fields_are_parts(key: str) -> None:
    for value in ("AKIAIOSFODNN7EXAMPLE", "words of a person " * 9):
        assert said(request({"role": "user", "content": [{"type": "text", "text": "q", key: value}]}))[1][1] == value
    assert len(request({"role": "user", "content": [{"type": "text", "text": "q", key: SIGNATURE}]}).parts) == 1


def test_nothing_within_arguments_is_taken_for_the_protocol() -> None:
    arguments = {"type": "text", "id": "abc", "source": {"type": "base64", "data": "aGVsbG8="}, "signature": SIGNATURE}
    found = request(USER, {"role": "assistant", "content": [tool_use("t", arguments)]})
    assert [text for origin, text in said(found) if origin == "tool_args"] == [
        "t", "text", "abc", "base64", "aGVsbG8=", SIGNATURE,
    ]  # fmt: skip


def test_edited_thinking_is_left_out_and_what_is_empty_then_too() -> None:
    found = request(
        USER,
        {"role": "assistant", "content": [THINKING, {"type": "text", "text": "a"}]},
        USER,
        {"role": "assistant", "content": [THINKING]},
    )
    edits = {part.path: "<X>" for part in found.parts if part.text in ("hm", "a")}
    assert json.loads(rewrite(found.raw, edits))["messages"] == [
        USER,
        {"role": "assistant", "content": [{"type": "text", "text": "<X>"}]},
        USER,
    ]
    assert json.loads(rewrite(found.raw, {("model",): "n"}))["messages"] == found.raw["messages"]


@pytest.mark.parametrize(
    ("tool", "name"),
    [
        ({"type": "web_search_20260318", "name": "web_search"}, "web_search"),
        ({"type": "code_execution", "name": "bash"}, "code_execution"),
        ({"type": "mcp_toolset", "mcp_server_name": "x"}, "mcp"),
        ({"type": "brand_new_tool_20990101", "name": "read"}, "brand_new_tool"),
        ({"type": "bash_20250124_x", "name": "bash"}, "bash_20250124_x"),
    ],
)
def test_what_the_provider_runs_is_named(tool: dict[str, Any], name: str) -> None:
    found = request(tools=[tool])
    assert (found.provider_tools, found.tools) == ((name,), ())
    inline = {"type": "tool_addition", "tool": {"type": "tool_definition", "definition": tool}}
    assert request({"role": "system", "content": [inline]}, USER).provider_tools == (name,)
    compaction = {"type": "compaction", "content": "so far", "tool_changes": [inline]}
    assert request({"role": "assistant", "content": [compaction]}, USER).provider_tools == (name,)


def test_tools_that_the_agent_runs_are_its_own() -> None:
    found = request(
        tools=[
            {"name": "read", "input_schema": {}},
            {"type": "custom", "name": "write", "input_schema": {}},
            {"type": "bash_20250124", "name": "bash"},
            {"type": "text_editor_20250728", "name": "edit"},
            {"type": "computer_20251124", "name": "computer"},
            {"type": "browser_toolset_20260801"},
        ]
    )
    assert found.tools == ("read", "write", "bash", "edit", "computer") and found.provider_tools == ()


def test_fields_that_recall_something_are_named() -> None:
    found = request(
        container={"id": "c"}, thread={"type": "continue", "previous_message_id": "m"}, mcp_servers=[], plugins=None
    )
    assert set(found.provider_tools) == {"container", "stored_context", "mcp"}


def test_other_models_are_named() -> None:
    assert request(fallbacks=[{"model": "b"}], models=["c"]).fallback_models == ("c", "b")
    assert request(fallbacks="default").fallback_models == ("default",)


TOOLS = [{"name": "a", "input_schema": {}}, {"name": "b", "input_schema": {}}]


def test_stripped_tools_are_gone_and_a_forced_one_is_refused() -> None:
    raw = request(tools=TOOLS, tool_choice={"type": "auto"}).raw
    assert [tool["name"] for tool in strip_tools(raw, ["a"])["tools"]] == ["b"]  # type: ignore[union-attr,index,call-overload]
    assert not {"tools", "tool_choice"} & strip_tools(raw, ["a", "b"]).keys()
    for choice, names in (({"type": "tool", "name": "a"}, ["a"]), ({"type": "any"}, ["a", "b"])):
        with pytest.raises(ClientError) as refused:
            strip_tools({**raw, "tool_choice": choice}, names)  # type: ignore[dict-item]
        assert (refused.value.code, refused.value.status) == ("tool_denied", 403)


def test_a_conversation_with_calls_keeps_its_tools() -> None:
    raw = request(USER, {"role": "assistant", "content": [tool_use("a", {})]}, tools=TOOLS[:1]).raw
    assert strip_tools(raw, ["a"]) == raw


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"messages": [USER]}, "invalid_request"),
        ({"model": "m", "messages": []}, "invalid_request"),
        ({"model": "m", "messages": [{"content": "x"}]}, "invalid_request"),
        ({"model": "m", "messages": [{"role": "user", "content": {"type": "text"}}]}, "invalid_request"),
        ({"model": "m", "messages": [{"role": "user", "content": ["x"]}]}, "invalid_request"),
        ({"model": "m", "messages": [USER], "system": {"type": "text"}}, "invalid_request"),
        ({"model": "m", "messages": [USER], "stream": "yes"}, "invalid_request"),
        ({"model": "m", "messages": [USER], "tools": [{"type": 5}]}, "invalid_request"),
        ({"model": "m", "messages": [USER], "tools": [{"input_schema": {}}]}, "invalid_request"),
        ({"model": "m", "messages": [USER], "Tools": []}, "alike_names"),
        ({"model": "m", "messages": [USER], "tools": [{"name": "a", "Type": "web_search"}]}, "alike_names"),
    ],
)
def test_wrong_shapes_are_refused(body: dict[str, Any], code: str) -> None:
    with pytest.raises(ClientError) as refused:
        decode_request(dumps(body))
    assert refused.value.code == code
