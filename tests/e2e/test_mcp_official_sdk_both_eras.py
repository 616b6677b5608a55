"""The official `mcp` SDK, client and server, with the gateway between them, in both protocol eras."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.server.mcpserver import Context, MCPServer
from mcp_types import TextContent

from tests.tool_gateway import Running, served, tool_gateway

ERAS = ["auto", "legacy"]


@dataclass
class Bank:
    """What the upstream really did."""

    transfers: list[tuple[str, float]] = field(default_factory=list)
    seen: list[dict[str, str]] = field(default_factory=list)


def bank_app(bank: Bank, *, json_response: bool = False) -> Any:
    server: MCPServer = MCPServer("bank", instructions="be careful")

    @server.tool()
    def balance() -> str:
        """The balance."""
        return "100.00"

    @server.tool()
    def transfer(to: str, amount: float) -> str:
        """Transfer money."""
        bank.transfers.append((to, amount))
        return f"transferred {amount} to {to}"

    @server.tool()
    def fee() -> str:
        """Charge a fee."""
        raise AssertionError("must not be called")

    @server.tool()
    async def slow(ctx: Context) -> str:
        """Reports progress."""
        await ctx.report_progress(1, 2, "half")
        return "done"

    @server.resource("note://one")
    def note() -> str:
        return "call bob@example.com"

    inner = server.streamable_http_app(json_response=json_response)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            bank.seen.append({name.decode(): value.decode() for name, value in scope["headers"]})
        await inner(scope, receive, send)

    return app


def text(result: Any) -> str:
    return "\n".join(block.text for block in result.content if isinstance(block, TextContent))


@asynccontextmanager
async def client(gateway: Running, era: str, agent: str = "bob") -> AsyncIterator[Client]:
    http = httpx2.AsyncClient(headers=gateway.headers(agent), timeout=30)
    transport = streamable_http_client(f"{gateway.url}/mcp/bank", http_client=http)
    async with http, Client(transport, mode=era) as connected:
        yield connected


def between(tmp_path: Path, redis_url: str, work: Callable[[Running, Bank], Awaitable[None]], **options: Any) -> None:
    """Run `work` with a bank, the gateway before it, and everything on loopback."""

    async def main() -> None:
        bank = Bank()
        app = bank_app(bank, json_response=options.pop("json_response", False))
        async with served(app) as upstream, tool_gateway(tmp_path, redis_url, upstream, **options) as gateway:
            await work(gateway, bank)

    asyncio.run(main())


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("json_response", [False, True])
def test_sdk_calls_allowed_tools_and_sees_no_denied_ones(
    tmp_path: Path, redis_url: str, era: str, json_response: bool
) -> None:
    async def work(gateway: Running, bank: Bank) -> None:
        async with client(gateway, era) as session:
            names = {tool.name for tool in (await session.list_tools()).tools}
            assert names == {"balance", "transfer", "slow", "gateway_approval_status"}
            result = await session.call_tool("balance", {})
            assert (text(result), result.is_error) == ("100.00", False)
            denied = await session.call_tool("fee", {})
            assert denied.is_error and "nobody charges fees" in text(denied)

    between(tmp_path, redis_url, work, json_response=json_response)


@pytest.mark.parametrize("era", ERAS)
def test_held_call_is_parked_approved_and_runs_once(tmp_path: Path, redis_url: str, era: str) -> None:
    async def work(gateway: Running, bank: Bank) -> None:
        async with client(gateway, era) as session:
            arguments = {"to": "acme", "amount": 12.5}
            parked = await session.call_tool("transfer", arguments)
            assert parked.is_error and text(parked).startswith("NOT EXECUTED. The call is parked as ha_")
            assert "money leaves the house" in text(parked) and bank.transfers == []
            held_id = re.search(r"ha_[a-z2-7]+", text(parked))
            assert held_id is not None
            waiting = await session.call_tool("gateway_approval_status", {"id": held_id[0]})
            assert "NOT EXECUTED" in text(waiting)
            held = await gateway.pending()
            await gateway.approve(held)
            await gateway.over(held)
            result = await session.call_tool("gateway_approval_status", {"id": held_id[0]})
            assert (text(result), result.is_error) == ("transferred 12.5 to acme", False)
            again = await session.call_tool("transfer", arguments)
            assert (text(again), again.is_error) == ("transferred 12.5 to acme", False)
            assert bank.transfers == [("acme", 12.5)]

    between(tmp_path, redis_url, work)


@pytest.mark.parametrize("era", ERAS)
def test_quick_decision_answers_the_call_itself(tmp_path: Path, redis_url: str, era: str) -> None:
    async def work(gateway: Running, bank: Bank) -> None:
        async with client(gateway, era) as session:
            call = asyncio.create_task(session.call_tool("transfer", {"to": "acme", "amount": 1}))
            await gateway.approve(await gateway.pending())
            result = await call
            assert (text(result), result.is_error) == ("transferred 1.0 to acme", False)
            assert bank.transfers == [("acme", 1.0)]

    between(tmp_path, redis_url, work, hold_wait_s=20)


@pytest.mark.parametrize("era", ERAS)
def test_progress_of_the_tool_and_of_the_wait_reaches_the_client(tmp_path: Path, redis_url: str, era: str) -> None:
    async def work(gateway: Running, bank: Bank) -> None:
        reports: list[str | None] = []

        async def note(progress: float, total: float | None, message: str | None) -> None:
            reports.append(message)

        async with client(gateway, era) as session:
            result = await session.call_tool("slow", {}, progress_callback=note)
            assert text(result) == "done" and reports == ["half"]
            parked = await session.call_tool("transfer", {"to": "a", "amount": 1}, progress_callback=note)
            assert parked.is_error
            assert reports[1] is not None and "waits for a person" in reports[1]

    between(tmp_path, redis_url, work)


@pytest.mark.parametrize("era", ERAS)
def test_keys_do_not_cross_the_border(tmp_path: Path, redis_url: str, era: str) -> None:
    async def work(gateway: Running, bank: Bank) -> None:
        async with client(gateway, era) as session:
            await session.call_tool("balance", {})
            assert (await session.read_resource("note://one")).contents
        assert bank.seen
        for headers in bank.seen:
            assert "operator-secret-bank" in headers["authorization"]
            assert not any(gateway.tokens["bob"] in value for value in headers.values())
            assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", headers.get("traceparent", "")) or (
                "agent-gateway" not in headers.get("user-agent", "")
            )

    between(tmp_path, redis_url, work)


@pytest.mark.parametrize("era", ERAS)
def test_agent_without_any_tool_of_a_server_does_not_reach_it(tmp_path: Path, redis_url: str, era: str) -> None:
    async def work(gateway: Running, bank: Bank) -> None:
        with pytest.raises(BaseException, match=r"."):
            async with client(gateway, era, "mal") as session:
                await session.list_tools()
        assert all("initialize" not in str(headers) for headers in bank.seen)

    between(tmp_path, redis_url, work)
