"""The gateway's own MCP client against the official server: one contract for both eras, JSON and streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from mcp.server.mcpserver import Context, MCPServer

from gateway.core.errors import UpstreamError
from gateway.proxy.endpoint import Endpoint
from gateway.proxy.mcp_client import McpClient
from gateway.proxy.pool import Pool
from gateway.proxy.upstream import Target, UpstreamFailure
from tests.tool_gateway import served
from tests.tool_upstream import CUT, STALL, ToolUpstream, events, http, tool, tool_upstream

TRACE = "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"


def server() -> MCPServer:
    made: MCPServer = MCPServer("contract")

    @made.tool()
    async def echo(text: str, ctx: Context) -> str:
        """Says it again, after some progress."""
        await ctx.report_progress(1, 2, "working")
        await ctx.report_progress(2, 2, "done")
        return text

    @made.tool()
    def fail() -> str:
        """Fails."""
        raise ValueError("no")

    return made


def endpoint(url: str, path: str = "/mcp") -> Endpoint:
    return Endpoint(name="x", target=Target(False, "127.0.0.1", int(url.rpartition(":")[2])), path=path.encode())


@asynccontextmanager
async def client() -> AsyncIterator[McpClient]:
    pool = Pool()
    try:
        yield McpClient(pool)
    finally:
        await pool.aclose()


def only_old(app: Any) -> Any:
    """A server of the time before 2026-07-28: it knows neither the version nor `server/discover`."""

    async def guard(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and dict(scope["headers"]).get(b"mcp-protocol-version") == b"2026-07-28":
            await send({"type": "http.response.start", "status": 400, "headers": []})
            await send({"type": "http.response.body", "body": b"Bad Request: unsupported protocol version"})
            return
        await app(scope, receive, send)

    return guard


@pytest.mark.parametrize("json_response", [False, True])
@pytest.mark.parametrize("old", [False, True])
def test_lists_and_calls_the_official_server(old: bool, json_response: bool) -> None:
    async def main() -> None:
        app = server().streamable_http_app(json_response=json_response)
        async with served(only_old(app) if old else app) as url, client() as mcp_client:
            tools = await mcp_client.list_tools(endpoint(url))
            assert [entry["name"] for entry in tools] == ["echo", "fail"]
            async with mcp_client.session(endpoint(url), traceparent=TRACE) as session:
                assert session.version == ("2025-11-25" if old else "2026-07-28")
                answer = await session.call_tool("echo", '{"text":"ü"}'.encode(), headers={}, total_s=5)
                assert answer.result is not None and answer.result["content"][0]["text"] == "ü"
                failed = await session.call_tool("fail", b"{}", headers={}, total_s=5)
                assert failed.result is not None and failed.result["isError"] is True

    asyncio.run(main())


@pytest.mark.parametrize("modern", [False, True])
def test_the_bytes_of_the_arguments_are_sent_as_they_are(modern: bool) -> None:
    async def main() -> None:
        async with tool_upstream(modern=modern) as upstream, client() as mcp_client:
            async with mcp_client.session(endpoint(upstream.url), traceparent=TRACE) as session:
                await session.call_tool("pay", b'{"b":1.50, "a":"\\u00fc"}', headers={"mcp-param-a": "x"}, total_s=5)
            (call,) = upstream.calls()
            assert b'"arguments":{"b":1.50, "a":"\\u00fc"}' in call.body
            assert call.json["params"]["_meta"]["traceparent"] == call.headers["traceparent"] == TRACE
            assert ("mcp-param-a" in call.headers) is modern
            ended = [seen.headers.get("mcp-session-id") for seen in upstream.seen if seen.method == "DELETE"]
            assert ended == ([] if modern else ["session-1"])

    asyncio.run(main())


def test_pages_are_followed_and_a_server_that_pages_for_ever_is_cut_off() -> None:
    async def main() -> None:
        async with tool_upstream() as upstream, client() as mcp_client:
            upstream.result("tools/list", {"tools": [tool("pay")], "nextCursor": "again"})
            assert len(await mcp_client.list_tools(endpoint(upstream.url))) == 50

    asyncio.run(main())


def test_requests_of_the_server_are_answered_while_a_call_runs() -> None:
    async def main() -> None:
        async with tool_upstream(modern=False) as upstream, client() as mcp_client:
            ping = b'{"jsonrpc":"2.0","id":"p","method":"ping"}'
            sample = b'{"jsonrpc":"2.0","id":"s","method":"sampling/createMessage","params":{}}'
            final = b'{"jsonrpc":"2.0","id":3,"result":{"content":[]}}'
            upstream.on("tools/call", *events(ping, sample, final))
            async with mcp_client.session(endpoint(upstream.url)) as session:
                answer = await session.call_tool("pay", b"{}", headers={}, total_s=5)
            assert answer.result == {"content": []}
            replies = {seen.json["id"]: seen.json for seen in upstream.seen if seen.body and "method" not in seen.json}
            assert replies["p"]["result"] == {} and replies["s"]["error"]["code"] == -32601

    asyncio.run(main())


@pytest.mark.parametrize(
    ("writes", "dispatched"),
    [
        ([CUT], True),
        ([STALL], True),
        ([http(b"", 500)], True),
        ([http(b"", 503)], True),
        ([http(b"rubbish")], True),
        (events(b"rubbish"), True),
        (events(), True),
        ([http(b"", 400)], False),
        ([http(b"", 302)], False),
    ],
)
def test_it_is_said_whether_something_may_have_run(writes: list[Any], dispatched: bool) -> None:
    async def main(upstream: ToolUpstream, mcp_client: McpClient) -> None:
        upstream.on("tools/call", *writes)
        with pytest.raises(UpstreamError) as failed:
            async with mcp_client.session(endpoint(upstream.url)) as session:
                await session.call_tool("pay", b"{}", headers={}, total_s=0.5)
        failure = failed.value
        assert (isinstance(failure, UpstreamFailure) and failure.dispatched) is dispatched
        assert len(upstream.calls()) == 1

    async def around() -> None:
        async with tool_upstream() as upstream, client() as mcp_client:
            await main(upstream, mcp_client)

    asyncio.run(around())


def test_server_that_changed_its_era_is_found_out() -> None:
    async def main() -> None:
        async with tool_upstream() as upstream, client() as mcp_client:
            await mcp_client.list_tools(endpoint(upstream.url))
            upstream.modern = False
            upstream.on("tools/list", http(b"", 400))
            with pytest.raises(UpstreamError):
                await mcp_client.list_tools(endpoint(upstream.url))
            del upstream.answers["tools/list"]
            assert await mcp_client.list_tools(endpoint(upstream.url))
            assert upstream.calls("initialize")

    asyncio.run(main())
