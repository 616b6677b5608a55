"""Which pieces of a tool message filters look at."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import ClientError
from gateway.core.exchange import Origin, Path
from gateway.proxy import texts

values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=20), inner, max_size=4),
    max_leaves=12,
)


def strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value] if value else []
    if isinstance(value, list):
        return [found for item in value for found in strings(item)]
    return [found for item in value.values() for found in strings(item)] if isinstance(value, dict) else []


@given(values)
def test_no_string_of_arguments_escapes(value: Any) -> None:
    parts = texts.argument_parts(value)
    seen = [part.text for part in parts if not (part.path and part.path[0] == "\x00key")]
    assert sorted(text for text in seen if not text.lstrip("-").isdigit()) == sorted(
        text for text in strings(value) if not text.lstrip("-").isdigit()
    )
    assert all(part.origin is Origin.TOOL_ARGS for part in parts)


@given(values)
def test_edits_change_what_they_name_and_nothing_else(value: Any) -> None:
    parts = [part for part in texts.argument_parts(value) if part.path and part.path[0] != "\x00key"]
    changed = texts.edited(value, {part.path: "X" for part in parts}) if parts else value
    assert all(text == "X" for text in strings(changed)) or not parts
    assert texts.edited(value, {}) == value if isinstance(value, dict | list) else True


def test_long_numbers_and_telling_names_are_text_too() -> None:
    value = {"card": 4111111111111111, "n": 1763879409123, "to": True, "ghp_a1B2c3D4e5F6": 1, "amount": 5, "ok-name": 2}
    assert {part.text for part in texts.argument_parts(value)} == {"4111111111111111", "ghp_a1B2c3D4e5F6"}


def test_a_masked_name_refuses_the_message() -> None:
    (part,) = texts.argument_parts({"x@example.com": 1})
    with pytest.raises(ClientError) as refused:
        texts.edited({"x@example.com": 1}, {part.path: "<EMAIL>"})
    assert refused.value.code == "content_denied"


def test_base64_of_results_is_no_text_but_of_arguments_it_is() -> None:
    block: dict[str, Any] = {
        "content": [
            {"type": "image", "data": "aGVsbG8=", "mimeType": "image/png"},
            {"type": "text", "text": "hello"},
            {"type": "resource", "resource": {"uri": "a://b", "blob": "aGVsbG8="}},
        ]
    }
    assert "aGVsbG8=" not in {part.text for part in texts.result_parts(block)}
    assert [part.text for part in texts.argument_parts(block)].count("aGVsbG8=") == 2


def test_loose_parts_are_what_the_protocol_does_not_define() -> None:
    params = {
        "name": "pay",
        "arguments": {"a": "in arguments"},
        "requestState": "opaque",
        "inputResponses": {"q": {"content": "an answer"}},
        "_meta": {"io.modelcontextprotocol/clientInfo": {"name": "x"}, "progressToken": "p", "vendor/x": "mine"},
    }
    parts = texts.loose_parts(params, known=frozenset({"name", "arguments"}))
    found: dict[Path, str] = {part.path: part.text for part in parts}
    assert found == {("inputResponses", "q", "content"): "an answer", ("_meta", "vendor/x"): "mine"}


def test_a_message_of_very_many_strings_is_refused() -> None:
    with pytest.raises(ClientError) as refused:
        texts.argument_parts(["x"] * (texts.PARTS_MAX + 1))
    assert refused.value.status == 413
