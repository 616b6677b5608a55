"""Random requests to every path of the real data plane: no failure of its own, nothing sent without a decision, and no
request of one agent that shows it what is another's."""

from __future__ import annotations

import asyncio
import random
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import orjson
import pytest

from gateway.approvals import connect
from gateway.policy.identity import load_keyring
from gateway.proxy.http_calls import Operations
from gateway.proxy.http_surface import HttpSurface
from gateway.proxy.limits import Limiter
from gateway.proxy.mcp_surface import McpSurface
from gateway.proxy.model import ModelSurface
from gateway.proxy.plane import DataPlane
from gateway.proxy.tool_calls import ToolGate
from tests.e2e.test_mcp_raw_wire import META, Wire, run
from tests.tool_gateway import Running

ROUNDS = 5000
PATHS = [
    b"/", b"/v1", b"/v1/", b"/v1x/chat/completions", b"/v1/chat/completions", b"/v1/chat/completions/", b"/v1//models",
    b"/v1/models", b"/v1/models/%00", b"/v1/models/\xc3\xa9", b"/v1/embeddings", b"/v1/%2e%2e/tools/crm/contacts",
    b"/V1/chat/completions", b"/mcp", b"/mcp/", b"/mcpfoo", b"/mcp/bank", b"/mcp/bank/", b"/mcp/bank?x=1",
    b"/mcp/%62ank", b"/mcp/bank%2f..", b"/mcp/ghost", b"/tools", b"/tools/", b"/tools/crm", b"/tools/crm/",
    b"/tools/crm/contacts", b"/tools/crm/contacts/", b"/tools/crm//contacts", b"/tools/crm/contacts/7",
    b"/tools/crm/contacts/%2e%2e",
    b"/tools/crm/contacts/..%2f..", b"/tools/crm/contacts/7%00", b"/tools/%63rm/contacts",
    b"/tools/crm/contacts/%ff", b"/tools/crm/contacts/7/notes", b"/tools/crm%2fcontacts", b"/tools/../held/ha_x",
    b"/held", b"/held/", b"/held/ha_x", b"/held/ha_%2a", b"/held/../x",
    b"/healthz", b"/readyz", b"//tools/crm/contacts",
]  # fmt: skip
METHODS = ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "PROPFIND", "get"]
VALUES: list[Any] = [
    None, True, -0.0, 0, 1, 2**53, 2**63, 2**70, 1e308, "", "x", "\u0000", "\u202e", "ha_x", "pay", "transfer", "fee",
    [], {}, ["x"], {"a": {"b": []}}, "tools/call", "tools/list", "initialize", "ping", "2.0", "2026-07-28", "x" * 3000,
]  # fmt: skip
WORDS = "jsonrpc id method params name arguments to amount memo _meta model messages stream tools text result error"
KEYS = [*WORDS.split(" ")]
RAW = [
    b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"a":1,"a":2}', b'{"a":1e999}', b'{"a":NaN}', b'"\\ud800"', b"[" * 300,
    b'{"a":' * 150 + b"1" + b"}" * 150, b"\xef\xbb\xbf{}", b"1" * 5000, b'{"amount":' + b"9" * 5000 + b"}",
]  # fmt: skip


def tree(draw: random.Random, depth: int = 0) -> Any:
    if depth > 3 or draw.random() < 0.5:
        return draw.choice(VALUES)
    return {key: tree(draw, depth + 1) for key in draw.sample(KEYS, draw.randrange(6))}


def body_of(draw: random.Random) -> bytes:
    kind = draw.randrange(5)
    if kind == 0:
        return draw.choice(RAW)
    if kind == 1:
        params: dict[str, Any] = {"name": draw.choice(["pay", "pay", "fee", "transfer", "ghost"])}
        if draw.random() < 0.3:
            params["_meta"] = META
        params["arguments"] = draw.choice([{"to": "a", "amount": draw.choice(VALUES)}, {"to": "a", "amount": 1}])
        method = draw.choice(["tools/call", "tools/list", "Tools/Call", "tasks/get", "resources/read"])
        return dumps({"jsonrpc": "2.0", "id": 7, "method": method, "params": params})
    if kind == 2:
        return dumps([tree(draw) for _ in range(draw.randrange(4))])
    if kind == 3 and draw.random() < 0.5:
        return dumps({"text": draw.choice(VALUES), draw.choice([*KEYS, "text"]): "x"})
    if kind == 3:
        return dumps({"model": "demo-a", "messages": [{"role": "user", "content": tree(draw)}], "x": tree(draw)})
    return dumps(tree(draw))


def dumps(value: Any) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError:
        return b'{"amount":123456789012345678901234567890}'


def headers_of(draw: random.Random, token: str) -> list[tuple[bytes, bytes]]:
    key = b"Bearer " + token.encode()
    found = [draw.choice([(b"authorization", key), (b"authorization", key), (b"x-api-key", token.encode())])]
    more = [
        (b"authorization", b"Bearer \xff"), (b"authorization", b"Basic eDp5"), (b"x-api-key", b"\x00"),
        (b"content-type", b"application/json"), (b"content-type", b"text/plain"),
        (b"content-length", b"99999999999999999999"), (b"content-length", b"-1"), (b"transfer-encoding", b"chunked"),
        (b"x-gateway-run", b"run-1"), (b"x-gateway-run", b"\xff" * 200), (b"traceparent", b"00-" + b"a" * 52),
        (b"mcp-protocol-version", b"2025-11-25"), (b"mcp-protocol-version", b"2026-07-28"),
        (b"mcp-protocol-version", b"2025-03-26"), (b"mcp-method", b"tools/call"), (b"mcp-name", b"=?base64?eA=?="),
        (b"mcp-session-id", b"session-1~x"), (b"mcp-session-id", b"\xff~\xff"), (b"last-event-id", b"\xff"),
        (b"mcp-param-x", b"\r\nx: y"), (b"accept", b"\xff"), (b"if-match", b"a\nb"), (b"idempotency-key", b"\xff"),
        (b"x-upstream-key", b"a\r\nb"), (b"connection", b"upgrade"), (b"expect", b"100-continue"), (b"host", b"\xff"),
    ]  # fmt: skip
    found += draw.sample(more, draw.randrange(8))
    draw.shuffle(found)
    return found


async def asked(
    plane: DataPlane, method: str, target: bytes, headers: list[tuple[bytes, bytes]], body: bytes
) -> tuple[int, bytes]:
    raw, _, query = target.partition(b"?")
    scope = {
        "type": "http", "method": method, "path": unquote(raw.decode("latin-1")), "raw_path": raw,
        "query_string": query, "headers": headers,
    }  # fmt: skip
    pieces = [
        {"type": "http.request", "body": body[at : at + 700], "more_body": True} for at in range(0, len(body), 700)
    ]
    pieces.append({"type": "http.request", "body": b"", "more_body": False})
    never = asyncio.Event()
    status, answer = 0, b""

    async def receive() -> MutableMapping[str, Any]:
        if pieces:
            return pieces.pop(0)
        await never.wait()
        raise AssertionError

    async def send(message: MutableMapping[str, Any]) -> None:
        nonlocal status, answer
        if message["type"] == "http.response.start":
            assert status == 0, "answered twice"
            status = message["status"]
        else:
            answer += message.get("body", b"")

    await asyncio.wait_for(plane(scope, receive, send), 20)
    return status, answer


@pytest.mark.parametrize("seed", [1, 2])
def test_no_request_breaks_the_plane_or_slips_past_a_decision(
    tmp_path: Path, redis_url: str, seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    draw = random.Random(seed)

    async def work(wire: Wire) -> None:
        gateway: Running = wire.gateway
        gate, link = ToolGate(gateway.deps), connect(redis_url)
        http, limiter = HttpSurface(gate, Operations()), Limiter(link)
        keyring = load_keyring(gateway.folder / "keys.yaml")
        plane = DataPlane(
            gateway.deps,
            keyring=lambda: keyring,
            limiter=limiter,
            handlers={
                "/v1/": ModelSurface(gateway.deps, limiter),
                "/mcp/": McpSurface(gate),
                "/tools/": http,
                "/held/": http.held,
            },
            ready=lambda: (True, {}),
        )
        for _ in range(ROUNDS):
            method, target = draw.choice(METHODS), draw.choice(PATHS)
            token = draw.choice([*gateway.tokens.values(), "gk_nobody", "ga_aaaaaaaa_" + "a" * 43])
            headers, body = headers_of(draw, token), body_of(draw)
            if draw.random() < 0.4:  # one that comes further
                method, target = draw.choice([("POST", b"/mcp/bank"), ("POST", b"/tools/crm/contacts/7/notes")])
                known = [(b"authorization", b"Bearer " + token.encode()), (b"content-type", b"application/json")]
                headers = [*known, (b"mcp-protocol-version", b"2025-11-25"), *draw.sample(headers, draw.randrange(2))]
            status, answer = await asked(plane, method, target, headers, body)
            shown = (method, target, headers, body[:200], status, answer[:300])
            assert 100 < status < 600, shown
            for word in (b"internal_error", b"Traceback", b"operator-secret"):
                assert word not in answer, shown
        await link.aclose()
        decided = {entry["action"]: entry["effect"] for entry in gateway.audit() if entry["event"] == "tool_call"}
        for seen in wire.upstream.seen:
            text = str(seen.headers) + seen.body.decode("utf-8", "replace")
            assert not any(token in text for token in gateway.tokens.values())
            if seen.rpc == "tools/call":
                assert decided[f"bank.{seen.json['params']['name']}"] == "allow"
                assert seen.json["params"]["name"] == "pay"
            if seen.path.startswith("/api"):
                assert seen.path.startswith("/api/contacts") and ".." not in seen.path and "%" not in seen.path
        assert wire.upstream.calls() and any(seen.path.startswith("/api") for seen in wire.upstream.seen)
        calls = sum(entry["event"] == "tool_call" and entry["effect"] == "allow" for entry in gateway.audit())
        sent = len(wire.upstream.calls()) + sum(seen.path.startswith("/api") for seen in wire.upstream.seen)
        assert sent <= calls, "something was sent without a decision that was written down"

    run(tmp_path, redis_url, work, hold_wait_s=0)
    assert "request failed" not in caplog.text
