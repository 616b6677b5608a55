"""The MCP codec takes any JSON, from agents and upstreams alike, and either reads it or refuses it."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.proxy.mcp_relay import clean_error
from gateway.wire import mcp, mcp_tools

anything: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
members = st.sampled_from(
    [
        "jsonrpc",
        "id",
        "method",
        "params",
        "result",
        "error",
        "code",
        "name",
        "arguments",
        "_meta",
        "tools",
        "nextCursor",
    ]
)
shaped: st.SearchStrategy[Any] = st.recursive(
    anything | st.sampled_from(["2.0", "tools/call", mcp.MODERN_VERSION]),
    lambda inner: st.dictionaries(members, inner, max_size=6) | st.lists(inner, max_size=2),
    max_leaves=20,
)


@given(
    shaped, st.dictionaries(st.sampled_from(["mcp-protocol-version", "mcp-method", "mcp-name"]), st.text(max_size=12))
)
def test_any_json_is_a_message_or_an_error_with_a_code(value: Any, headers: dict[str, str]) -> None:
    try:
        message = mcp.decode_message(value)
        if isinstance(message, mcp.Request):
            mcp.agree(message, headers)
            mcp_tools.tool_call(message)
            mcp_tools.takes_tasks(message)
    except mcp.RpcError as error:
        assert error.rpc_code < 0 and error.message


@given(st.binary(max_size=60))
def test_any_bytes_are_a_message_or_an_error(body: bytes) -> None:
    try:
        mcp.decode(body)
    except mcp.RpcError as error:
        assert error.rpc_code in {mcp.PARSE_ERROR, mcp.INVALID_REQUEST}


@given(st.dictionaries(st.sampled_from(["tools", "nextCursor", "x"]), shaped))
def test_list_of_any_shape_is_filtered(value: dict[str, Any]) -> None:
    changed = mcp_tools.filter_tools(
        value if isinstance(value.get("tools"), list) else {}, lambda _: False, extra=None, version=""
    )
    assert changed["tools"] == []
    assert mcp_tools.announce_tasks(value)["capabilities"]["extensions"][mcp.TASKS_EXTENSION] == {}


@given(shaped)
def test_errors_of_upstreams_lose_their_words(value: Any) -> None:
    message = mcp.decode_message(
        {"jsonrpc": "2.0", "id": 1, "error": {"code": -32000, "message": value, "data": value}}
    )
    assert isinstance(message, mcp.Response) and message.error is not None
    assert clean_error(message.error) == {"code": -32000, "message": "the tool server answered error -32000"}


@given(shaped, st.dictionaries(st.text(max_size=4), anything, max_size=3))
def test_mirrored_headers_can_be_sent_whatever_the_schema_says(schema: Any, arguments: dict[str, Any]) -> None:
    for name, value in mcp_tools.mirrored_headers(schema, arguments).items():
        assert name.startswith("mcp-param-") and value.isascii() and value.isprintable()


def test_mirrored_headers_follow_the_spec() -> None:
    schema = {
        "properties": {
            "region": {"type": "string", "x-mcp-header": "Region"},
            "deep": {"properties": {"flag": {"type": "boolean", "x-mcp-header": "Flag"}}},
            "count": {"type": "integer", "x-mcp-header": "Count"},
            "bad": {"type": "string", "x-mcp-header": "a b"},
            "absent": {"type": "string", "x-mcp-header": "Absent"},
        }
    }
    arguments = {"region": " eu", "deep": {"flag": True}, "count": 7, "bad": "x", "absent": None}
    found = mcp_tools.mirrored_headers(schema, arguments)
    assert found == {"mcp-param-region": "=?base64?IGV1?=", "mcp-param-flag": "true", "mcp-param-count": "7"}
    mcp_tools.check_mirrored({"mcp-param-region": "=?base64?IGV1?=", "mcp-param-else": "x"}, found)
    with pytest.raises(mcp.RpcError) as refused:
        mcp_tools.check_mirrored({"mcp-param-count": "8"}, found)
    assert refused.value.rpc_code == mcp.HEADER_MISMATCH


def test_rewritten_request_keeps_every_other_member() -> None:
    body = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "x": 1,
        "params": {"name": "a", "arguments": {}, "y": [2]},
    }
    request = mcp.decode(orjson.dumps(body))
    assert isinstance(request, mcp.Request)
    changed = orjson.loads(mcp_tools.with_arguments(request, {"b": 1}))
    body["params"]["arguments"] = {"b": 1}  # type: ignore[index]
    assert changed == body
