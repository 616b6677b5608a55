"""Reads `envelopes.json` and holds the codec to it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.wire import mcp

CASES = json.loads((Path(__file__).parent / "envelopes.json").read_text())["cases"]
KINDS = {mcp.Request: "request", mcp.Notification: "notification", mcp.Response: "response", tuple: "batch"}


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_envelope(case: dict[str, Any]) -> None:
    body = case["text"].encode() if "text" in case else json.dumps(case["body"]).encode()
    try:
        message = mcp.decode(body)
        found: str | int = KINDS[type(message)]
        if isinstance(message, mcp.Request):
            version = mcp.agree(message, case.get("headers", {}))
            assert version == case.get("version", version)
    except mcp.RpcError as error:
        found = error.rpc_code
        assert error.status == 400
    assert found == case["expect"]


def test_refusal_of_a_version_lists_those_that_are_spoken() -> None:
    with pytest.raises(mcp.RpcError) as refused:
        mcp.header_version({"mcp-protocol-version": "1999-01-01"})
    assert refused.value.data == {"supported": list(mcp.VERSIONS), "requested": "1999-01-01"}


@pytest.mark.parametrize("value", ["plain", "", "two words", " edge", "ü", "=?base64?eA==?=", "line\nbreak", "\x7f"])
def test_header_values_survive(value: str) -> None:
    encoded = mcp.encode_header(value)
    assert encoded.isascii() and encoded.isprintable()
    assert mcp.decode_header(encoded) == value
