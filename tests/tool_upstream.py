"""A tool server for tests, byte by byte as told: MCP of either era at `/mcp`, plain HTTP below `/api`; also the wrong
bytes. Requests are kept as they arrived."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson

CUT = object()  # close the connection here
STALL = object()  # say nothing more until `release` is set

Write = bytes | object
Answer = Callable[["Seen"], "list[Write]"]

PAY_SCHEMA = {
    "type": "object",
    "properties": {"to": {"type": "string", "maxLength": 40}, "amount": {"type": "number"}, "memo": {"type": "string"}},
    "required": ["to", "amount"],
    "additionalProperties": False,
}


@dataclass
class Seen:
    """One request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)

    @property
    def rpc(self) -> str:
        value = orjson.loads(self.body) if self.body else {}
        return value.get("method", "") if isinstance(value, dict) else ""


def tool(name: str, schema: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {"name": name, "description": f"does {name}", "inputSchema": schema or PAY_SCHEMA, **more}


def http(body: bytes, status: int = 200, kind: str = "application/json", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"content-type: {kind}", f"content-length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def events(*data: bytes, end: bool = True) -> list[Write]:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    frames = [b"event: message\ndata: " + item + b"\n\n" for item in data]
    writes: list[Write] = [head, *(b"%x\r\n%b\r\n" % (len(frame), frame) for frame in frames)]
    return [*writes, b"0\r\n\r\n"] if end else writes


@dataclass
class ToolUpstream:
    """Answers like a small MCP server unless `on` says otherwise for a JSON-RPC method or `METHOD /path`."""

    modern: bool = True
    tools: list[dict[str, Any]] = field(default_factory=lambda: [tool("pay"), tool("transfer"), tool("fee")])
    answers: dict[str, Answer] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    release: asyncio.Event = field(default_factory=asyncio.Event)
    url: str = ""
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    async def called(self, what: str, number: int = 1) -> None:
        """Until as many requests of this kind have arrived."""
        while len(self.calls(what)) < number:
            self.arrived.clear()
            await asyncio.wait_for(self.arrived.wait(), 10)

    def on(self, what: str, *writes: Write) -> None:
        self.answers[what] = lambda seen: list(writes)

    def result(self, what: str, value: dict[str, Any]) -> None:
        """Answer a JSON-RPC method with this result."""
        self.answers[what] = lambda seen: [_result(seen, value)]

    def calls(self, what: str = "tools/call") -> list[Seen]:
        return [seen for seen in self.seen if what in (seen.rpc, f"{seen.method} {seen.path}")]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                line, *rest = head.split("\r\n")
                method, path, _ = line.split(" ")
                headers = {k.lower(): v.strip() for k, _, v in (item.partition(":") for item in rest if item)}
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                seen = Seen(method, path, headers, body)
                self.seen.append(seen)
                self.arrived.set()
                for write in self._answer(seen):
                    if write is CUT:
                        return
                    if write is STALL:
                        await self.release.wait()
                        continue
                    assert isinstance(write, bytes)
                    writer.write(write)
                    await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()

    def _answer(self, seen: Seen) -> list[Write]:
        for key in (seen.rpc, f"{seen.method} {seen.path}", f"{seen.method} {seen.path.partition('?')[0]}"):
            if key in self.answers:
                return self.answers[key](seen)
        return [self._default(seen)]

    def _default(self, seen: Seen) -> bytes:
        if seen.path.startswith("/api"):
            return http(b'{"ok":true}')
        if seen.method != "POST":
            return http(b"", 405)
        match seen.rpc:
            case "server/discover" if self.modern:
                return _result(seen, {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}})
            case "initialize" if not self.modern:
                value = {
                    "protocolVersion": "2025-11-25",
                    "capabilities": {},
                    "serverInfo": {"name": "x", "version": "1"},
                }
                return _result(seen, value, "mcp-session-id: session-1", "set-cookie: a=b")
            case "tools/list":
                return _result(seen, {"tools": self.tools, "ttlMs": 0, "cacheScope": "public"})
            case "tools/call":
                return _result(seen, {"content": [{"type": "text", "text": "paid"}], "isError": False})
        if "id" not in seen.json:
            return http(b"", 202)
        error = {"jsonrpc": "2.0", "id": seen.json["id"], "error": {"code": -32601, "message": "secret internals"}}
        return http(orjson.dumps(error), 404 if self.modern else 200)


def _result(seen: Seen, value: dict[str, Any], *headers: str) -> bytes:
    body = {"jsonrpc": "2.0", "id": seen.json["id"], "result": {"resultType": "complete", **value}}
    return http(orjson.dumps(body), 200, "application/json", *headers)


@asynccontextmanager
async def tool_upstream(**options: Any) -> AsyncIterator[ToolUpstream]:
    """Serve one on a free port of loopback."""
    upstream = ToolUpstream(**options)
    server = await asyncio.start_server(upstream.serve, "127.0.0.1", 0)
    upstream.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield upstream
    finally:
        upstream.release.set()
        server.close()
