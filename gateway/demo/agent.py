"""The demo's agent: the official `openai` and `mcp` SDKs, pointed at the gateway by their base URLs alone."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from typing import Any

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import CallToolResult, TextContent
from openai import AsyncOpenAI

TURNS_MAX = 20  # the script needs eight; more would be a loop
POLL_S = 1.0
Say = Callable[[str, str], None]

TASK = "Please pay all open invoices and tell me the balance afterwards."


async def run_agent(gateway: str, key: str, run: str, say: Say) -> str:
    """Work the task to its end through the gateway; returns the model's last words. `say(kind, text)` narrates."""
    headers = {"x-gateway-run": run}
    model = AsyncOpenAI(base_url=f"{gateway}/v1", api_key=key, default_headers=headers, max_retries=0)
    http = httpx2.AsyncClient(headers={"authorization": f"Bearer {key}", **headers}, timeout=120)
    async with http, model, Client(streamable_http_client(f"{gateway}/mcp/bank", http_client=http)) as bank:
        offered = (await bank.list_tools()).tools
        say("agent", "tools it is offered: " + ", ".join(sorted(tool.name for tool in offered)))
        tools: list[Any] = [
            {
                "type": "function",
                "function": {
                    "name": f"bank__{tool.name}",
                    "description": tool.description or "",
                    "parameters": tool.input_schema,
                },
            }
            for tool in offered
            if tool.name != "gateway_approval_status"
        ]
        messages: list[Any] = [{"role": "user", "content": TASK}]
        for _ in range(TURNS_MAX):
            message = await _turn(model, messages, tools)
            messages.append(message)
            if not message.get("tool_calls"):
                return str(message["content"])
            for call in message["tool_calls"]:
                name = call["function"]["name"].removeprefix("bank__")
                result = await _call(bank, name, json.loads(call["function"]["arguments"]), say)
                messages.append({"role": "tool", "tool_call_id": call["id"], "content": result})
    raise RuntimeError(f"the agent did not finish within {TURNS_MAX} turns")


async def _turn(model: AsyncOpenAI, messages: list[Any], tools: list[Any]) -> dict[str, Any]:
    """One streamed turn, put together by the SDK's own accumulator."""
    async with model.chat.completions.stream(
        model="demo-accountant", messages=messages, tools=tools, stream_options={"include_usage": True}
    ) as stream:
        completion = await stream.get_final_completion()
    message = completion.choices[0].message
    turn: dict[str, Any] = {"role": "assistant", "content": message.content}
    if message.tool_calls:
        turn["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.function.name, "arguments": call.function.arguments},
            }
            for call in message.tool_calls
        ]
    return turn


async def _call(bank: Client, name: str, arguments: dict[str, Any], say: Say) -> str:
    """Call a tool; where the gateway parks the call, ask for its state until a person has decided."""
    shown = ", ".join(f"{key}={value}" for key, value in arguments.items())
    text = _text(await bank.call_tool(name, arguments))
    parked = re.search(r"\bha_[a-z2-7]{20,}\b", text)
    if not (parked and "NOT EXECUTED" in text):
        say("pass", f"{name}({shown}) -> {text.splitlines()[0]}")
        return text
    say("park", f"{name}({shown}) {parked[0]}")
    while parked and "NOT EXECUTED" in text and "waits" in text:
        await asyncio.sleep(POLL_S)
        text = _text(await bank.call_tool("gateway_approval_status", {"id": parked[0]}))
    say("decided", text.splitlines()[0])
    return text


def _text(result: CallToolResult) -> str:
    return "\n".join(block.text for block in result.content if isinstance(block, TextContent))
