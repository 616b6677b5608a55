"""What an agent or a tool server might try on the tool surfaces: each of these once got through."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import httpx2
import orjson
import pytest

from gateway.wire import mcp
from tests.e2e.test_mcp_raw_wire import FILTERS, GITHUB, META, Wire, run
from tests.tool_upstream import events, http

HEADERS = {"mcp_protocol_version": mcp.MODERN_VERSION, "mcp_method": "tools/call", "mcp_name": "pay"}


async def crm(wire: Wire, method: str, path: str, body: bytes = b"", **headers: str) -> httpx2.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await wire.http.request(
        method, f"{wire.gateway.url}/tools/crm{path}", content=body, headers={**wire.gateway.headers(), **named}
    )


@pytest.mark.parametrize("sent", ['x","amount":1,"to":"' + "p" * 35, "00-" + "ab" * 16 + "-" + "cd" * 8 + "-00"])
def test_own_span_is_written_into_the_metadata_and_nowhere_else(tmp_path: Path, redis_url: str, sent: str) -> None:
    """The caller's span, escaped where it belongs and verbatim in the arguments: those must arrive as decided."""
    assert len(sent) == 55
    escaped = "".join(f"\\u{ord(char):04x}" for char in sent)

    async def work(wire: Wire) -> None:
        body = (
            b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"pay","arguments":{"memo":"'
            + sent.encode()
            + (b'"' if "amount" in sent else b'","amount":1,"to":"a"')
            + b'},"_meta":'
            + orjson.dumps(META)[:-1]
            + b',"traceparent":"'
            + escaped.encode()
            + b'"}}}'
        )
        decided = orjson.loads(body)["params"]["arguments"]
        await wire.post(body, **HEADERS)
        (seen,) = wire.upstream.calls()
        assert seen.json["params"]["arguments"] == decided

    run(tmp_path, redis_url, work)


def test_body_is_never_labelled_with_another_charset(tmp_path: Path, redis_url: str) -> None:
    """A server that believed it would read `+ADEAMAAw-` as 100."""

    async def work(wire: Wire) -> None:
        for kind in ("application/json; charset=utf-7", "application/json;x=1 ; Charset = 'UTF-16'"):
            refused = await crm(wire, "POST", "/contacts/7/notes", b'{"text":"+ADEAMAAw-"}', content_type=kind)
            assert refused.status_code == 415
            rpc = await wire.post({"jsonrpc": "2.0", "id": 7, "method": "ping"}, content_type=kind)
            assert "unsupported_media_type" in rpc.text
        kept = await crm(
            wire, "POST", "/contacts/7/notes", b'{"text":"x"}', content_type='application/json; charset="UTF-8"'
        )
        assert kept.status_code == 200
        assert {seen.headers.get("content-type") for seen in wire.upstream.calls("POST /api/contacts/7/notes")} == {
            "application/json"
        }

    run(tmp_path, redis_url, work)


CALL: dict[str, Any] = {"name": "fee", "arguments": {"to": "a", "amount": 1}}


@pytest.mark.parametrize(
    "message",
    [
        {"method": "ping", "Method": "tools/call", "params": CALL},
        {"method": "resources/list", "params": {}, "PARAMS": CALL, "METHOD": "tools/call"},
        {"method": "tools/call", "params": {"name": "pay", "arguments": CALL["arguments"], "Name": "fee"}},
        {"method": "tools/call", "params": {"name": "pay", "arguments": {"to": "a", "amount": 1, "Amount": 10**6}}},
        {"method": "tools/call", "params": {**CALL, "name": "pay", "argument\u017f": {"to": "a", "amount": 10**6}}},
        {"method": "tools/call", "params": {**CALL, "name": "transfer", "METHOD": "x", "_META": {}}},
    ],
)
def test_members_that_differ_in_case_alone_are_refused(tmp_path: Path, redis_url: str, message: Any) -> None:
    """Servers in Go read members whatever their case, the last one wins: they would run another call."""

    async def work(wire: Wire) -> None:
        for tool in wire.upstream.tools:
            tool["inputSchema"] = {"type": "object"}
        await wire.old("tools/list")
        before = len(wire.upstream.seen)
        response = await wire.post({"jsonrpc": "2.0", "id": 7, **message}, mcp_protocol_version="2025-11-25")
        assert "error" in response.json()
        assert [seen.rpc for seen in wire.upstream.seen[before:]] == []
        assert (await wire.gateway.queue.pending()).actions == ()

    run(tmp_path, redis_url, work)


def test_http_arguments_that_differ_in_case_alone_are_refused(tmp_path: Path, redis_url: str) -> None:
    async def work(wire: Wire) -> None:
        for body in (b'{"text":"a","Text":"b"}', b'{"text":"a","ID":"8"}', b'{"text":"a","deep":[{"a":1,"A":2}]}'):
            refused = await crm(wire, "POST", "/contacts/7/notes", body, content_type="application/json")
            assert (refused.status_code, refused.json()["error"]["code"]) == (400, "alike_names")
        assert wire.upstream.seen == []

    run(tmp_path, redis_url, work)


def test_nothing_leaves_in_members_that_the_protocol_does_not_know(tmp_path: Path, redis_url: str) -> None:
    async def work(wire: Wire) -> None:
        extra = await wire.post(
            {"jsonrpc": "2.0", "id": 7, "method": "resources/list", "note": GITHUB}, mcp_protocol_version="2025-11-25"
        )
        assert extra.json()["error"]["code"] == mcp.INVALID_REQUEST
        for method in ("ping", "tools/list", "initialize", "notifications/initialized"):
            message = {"jsonrpc": "2.0", "method": method, "params": {"note": GITHUB}}
            await wire.post(
                message if method.startswith("notif") else {**message, "id": 7}, mcp_protocol_version="2025-11-25"
            )
        assert not any(GITHUB.encode() in seen.body for seen in wire.upstream.seen)

    run(tmp_path, redis_url, work, policy=FILTERS)


@pytest.mark.parametrize(
    "result",
    [
        {"content": [{"type": "image", "data": f"look: {GITHUB}", "mimeType": "image/png"}]},
        {"content": [{"type": "image", "data": base64.b64encode(f"is {GITHUB}".encode()).decode()}]},
        {"content": [], "structuredContent": {"uri": "x", "blob": GITHUB}},
        {"content": [{"type": "audio", "data": [GITHUB]}]},
        {"content": [{"type": "resource", "resource": {"uri": "x", "blob": GITHUB}}]},
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
def test_text_that_claims_to_be_binary_is_looked_at(
    tmp_path: Path, redis_url: str, result: Any, streamed: bool
) -> None:
    async def work(wire: Wire) -> None:
        body = orjson.dumps({"jsonrpc": "2.0", "id": 7, "result": {"resultType": "complete", **result}})
        wire.upstream.on("tools/call", *(events(body) if streamed else [http(body)]))
        response = await wire.new("tools/call", {"name": "pay", "arguments": {"to": "a", "amount": 1}})
        assert "withheld" in response.text and GITHUB not in response.text
        assert base64.b64encode(f"is {GITHUB}".encode()).decode() not in response.text

    run(tmp_path, redis_url, work, policy=FILTERS)


def test_binary_results_pass_as_they_came(tmp_path: Path, redis_url: str) -> None:
    async def work(wire: Wire) -> None:
        data = base64.b64encode(bytes(range(256)) * 8).decode()
        block = {"type": "image", "data": data, "mimeType": "image/png"}
        wire.upstream.result("tools/call", {"content": [block]})
        answer = await wire.pay()
        assert answer["result"]["content"] == [block]

    run(tmp_path, redis_url, work, policy=FILTERS)


@pytest.mark.parametrize(
    "body",
    [
        f"caf\xe9 {GITHUB}".encode("latin-1"),
        f"key {GITHUB}".encode("utf-16"),
        f"key {GITHUB}".encode("utf-16-le"),
        f"key {GITHUB}".encode("utf-16-be"),
        f"key {GITHUB}".encode("utf-32"),
    ],
)
def test_answers_in_other_encodings_are_looked_at(tmp_path: Path, redis_url: str, body: bytes) -> None:
    async def work(wire: Wire) -> None:
        wire.upstream.on("GET /api/contacts/7", http(body, 200, "text/plain"))
        refused = await crm(wire, "GET", "/contacts/7")
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "content_denied")

    run(tmp_path, redis_url, work, policy=FILTERS)


def test_other_encodings_are_masked_and_binary_answers_pass(tmp_path: Path, redis_url: str) -> None:
    async def work(wire: Wire) -> None:
        wire.upstream.on("GET /api/contacts/7", http(b"caf\xe9 ann@example.com \xff", 200, "text/plain"))
        assert (await crm(wire, "GET", "/contacts/7")).content == b"caf\xe9 <EMAIL> \xff"
        picture = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 40
        wire.upstream.on("GET /api/contacts/7", http(picture, 200, "image/png"))
        assert (await crm(wire, "GET", "/contacts/7")).content == picture

    run(tmp_path, redis_url, work, policy=FILTERS)


@pytest.mark.parametrize("code", [-32042, mcp.UNSUPPORTED_VERSION, mcp.MISSING_CAPABILITY])
def test_data_of_a_servers_error_is_looked_at(tmp_path: Path, redis_url: str, code: int) -> None:
    async def work(wire: Wire) -> None:
        error = {"code": code, "message": "x", "data": {"hint": f"use {GITHUB}"}}
        wire.upstream.on("tools/call", http(orjson.dumps({"jsonrpc": "2.0", "id": 7, "error": error})))
        response = await wire.new("tools/call", {"name": "pay", "arguments": {"to": "a", "amount": 1}})
        assert "error" in response.json() and GITHUB not in response.text

    run(tmp_path, redis_url, work, policy=FILTERS)


def test_members_beside_a_result_do_not_reach_the_agent(tmp_path: Path, redis_url: str) -> None:
    async def work(wire: Wire) -> None:
        result = {"resultType": "complete", "content": []}
        body = {"jsonrpc": "2.0", "id": 7, "result": result, "note": f"use {GITHUB}"}
        wire.upstream.on("tools/call", http(orjson.dumps(body)))
        assert await wire.pay() == {"jsonrpc": "2.0", "id": 7, "result": result}

    run(tmp_path, redis_url, work, policy=FILTERS)


def test_card_number_written_with_a_fraction_is_found(tmp_path: Path, redis_url: str) -> None:
    async def work(wire: Wire) -> None:
        wire.upstream.on(
            "tools/call",
            http(
                b'{"jsonrpc":"2.0","id":7,"result":{"resultType":"complete","content":[],"structuredContent":'
                b'{"card":4111111111111111.0,"other":4.111111111111111e15}}}'
            ),
        )
        answer = await wire.pay()
        assert answer["result"]["structuredContent"] == {"card": "<CARD>", "other": "<CARD>"}

    run(tmp_path, redis_url, work, policy=FILTERS.replace("pii.email", "pii.email, pii.card"))


def test_answers_to_a_batch_are_bounded(tmp_path: Path, redis_url: str) -> None:
    async def work(wire: Wire) -> None:
        note = orjson.dumps({"jsonrpc": "2.0", "method": "notifications/message", "params": {"data": "x" * 900}})
        done = orjson.dumps({"jsonrpc": "2.0", "id": 7, "result": {}})
        wire.upstream.on("resources/list", *events(*[note] * 200, done))
        batch = [{"jsonrpc": "2.0", "id": 7, "method": "resources/list"}]
        response = await wire.post(batch, mcp_protocol_version="2025-03-26")
        assert response.json()["error"]["data"] == {"code": "upstream_too_large"}

    run(tmp_path, redis_url, work, response_bytes_max=20_000)
