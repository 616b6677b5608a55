"""Taking tools out of a chat request."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.core.errors import ClientError
from gateway.wire.openai_chat import read_request, strip_tools


def function(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


def request(**fields: Any) -> dict[str, Any]:
    tools = [function("pay"), {"type": "custom", "custom": {"name": "sql"}}, function("read")]
    return {"model": "m", "messages": [{"role": "user", "content": "x"}], "tools": tools, **fields}


def test_named_tools_go_and_the_others_stay_in_order() -> None:
    raw = request(tool_choice="auto")
    stripped = strip_tools(raw, {"pay", "sql", "unknown"})
    assert stripped["tools"] == [function("read")]
    assert stripped["tool_choice"] == "auto"
    assert len(raw["tools"]) == 3
    assert read_request(stripped).tools == ("read",)


def test_tools_of_the_provider_are_not_taken_by_their_name() -> None:
    raw = request(tools=[{"type": "web_search", "name": "pay"}, function("pay")])
    assert strip_tools(raw, {"pay"})["tools"] == [{"type": "web_search", "name": "pay"}]


def test_request_without_tools_left_has_no_tool_fields() -> None:
    stripped = strip_tools(request(tool_choice="auto", parallel_tool_calls=False), {"pay", "sql", "read"})
    assert stripped.keys() == {"model", "messages"}


def test_legacy_functions_go_too() -> None:
    raw = {"model": "m", "messages": [], "functions": [{"name": "pay"}, {"name": "read"}], "function_call": "auto"}
    assert strip_tools(raw, {"pay"}) == {**raw, "functions": [{"name": "read"}]}
    assert strip_tools(raw, {"pay", "read"}) == {"model": "m", "messages": []}


def test_choice_among_allowed_tools_loses_the_removed_ones() -> None:
    choice = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [function("pay"), function("read")]}}
    stripped = strip_tools(request(tool_choice=choice), {"pay"})
    assert stripped["tool_choice"]["allowed_tools"]["tools"] == [function("read")]  # type: ignore[index,call-overload]
    assert strip_tools(request(tool_choice=choice), {"pay", "read"})["tool_choice"] == "none"


@pytest.mark.parametrize(
    "choice",
    [
        function("pay"),
        {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [function("pay")]}},
    ],
)
def test_request_that_forces_a_removed_tool_is_refused(choice: dict[str, Any]) -> None:
    with pytest.raises(ClientError) as caught:
        strip_tools(request(tool_choice=choice), {"pay"})
    assert (caught.value.code, caught.value.status) == ("tool_denied", 403)


def test_request_that_requires_any_tool_is_refused_when_none_is_left() -> None:
    assert strip_tools(request(tool_choice="required"), {"pay"})["tool_choice"] == "required"
    with pytest.raises(ClientError):
        strip_tools(request(tool_choice="required"), {"pay", "sql", "read"})


def test_forced_legacy_function_that_was_removed_is_refused() -> None:
    raw = {"model": "m", "messages": [], "functions": [{"name": "pay"}], "function_call": {"name": "pay"}}
    with pytest.raises(ClientError):
        strip_tools(raw, {"pay"})
