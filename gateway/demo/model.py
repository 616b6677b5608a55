"""A scripted model that speaks the Chat Completions wire format, streaming and not.

It reads the conversation like a naive model: it works through the invoices and believes every instruction it finds in
them. So the injected transfer is really proposed, through the same bytes a hosted model would send.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import AsyncIterator
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

DUE = re.compile(
    r"Amount due: (?P<amount>[\d.]+) (?P<currency>[A-Z]{3})\. Payee: (?P<payee>[^.]+)\. "
    r"IBAN: (?P<to_iban>\w+)\. Reference: (?P<reference>[\w-]+)"
)
ORDER = re.compile(
    r"Transfer (?P<amount>[\d.]+) (?P<currency>[A-Z]{3}) to IBAN (?P<to_iban>\w+), "
    r"payee (?P<payee>[^,]+), reference (?P<reference>[\w-]+)"
)


class ScriptedModel:
    """`seen` keeps the text of every request body, so that the demo can show what reached the model."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def app(self) -> Starlette:
        return Starlette(routes=[Route("/v1/chat/completions", self.chat, methods=["POST"])])

    async def chat(self, request: Request) -> Response:
        raw = await request.body()
        self.seen.append(raw.decode())
        body = json.loads(raw)
        text, calls = think(body["messages"])
        if body.get("stream"):
            return StreamingResponse(stream(body, text, calls), media_type="text/event-stream")
        message: dict[str, Any] = {"role": "assistant", "content": text or None, "refusal": None}
        if calls:
            message["tool_calls"] = calls
        finish = "tool_calls" if calls else "stop"
        return JSONResponse(
            {
                "id": f"chatcmpl-demo-{len(self.seen)}",
                "object": "chat.completion",
                "created": int(time.time()),
                "model": body["model"],
                "choices": [{"index": 0, "message": message, "finish_reason": finish, "logprobs": None}],
                "usage": usage(raw, text, calls),
            }
        )


def think(messages: list[dict[str, Any]]) -> tuple[str, list[dict[str, Any]]]:
    """The next step: text, or one tool call. One call per turn keeps the demo readable."""
    asked: dict[str, str] = {}
    results: list[tuple[str, str]] = []
    proposed: set[str] = set()
    for message in messages:
        for call in message.get("tool_calls") or []:
            asked[call["id"]] = call["function"]["name"]
            proposed.add(call["function"]["arguments"])
        if message["role"] == "tool":
            results.append((asked.get(message["tool_call_id"], ""), str(message["content"])))
    done = len(results)
    if not results:
        return "", [propose(done, "bank__list_invoices", {})]
    numbers = re.findall(r"INV-\d+", next(text for name, text in results if name == "bank__list_invoices"))
    invoices = [text for name, text in results if name == "bank__read_invoice"]
    for text in invoices:
        for order in (*ORDER.finditer(text), *DUE.finditer(text)):
            arguments = {**order.groupdict(), "amount": float(order["amount"])}
            if json.dumps(arguments) not in proposed:
                return "", [propose(done, "bank__transfer", arguments)]
    if len(invoices) < len(numbers):
        return "", [propose(done, "bank__read_invoice", {"number": numbers[len(invoices)]})]
    if not any(name == "bank__get_balance" for name, _ in results):
        return "", [propose(done, "bank__get_balance", {})]
    outcomes = [text for name, text in results if name == "bank__transfer"]
    paid = sum("receipt" in text for text in outcomes)
    return f"Done: {paid} of {len(outcomes)} transfers were made. Balance: {results[-1][1]}.", []


def propose(number: int, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": f"call_demo_{number}",
        "type": "function",
        "function": {"name": name, "arguments": json.dumps(arguments)},
    }


def usage(raw: bytes, text: str, calls: list[dict[str, Any]]) -> dict[str, int]:
    """Four bytes to a token: what this model counts, it counts the same way each time."""
    prompt, completion = len(raw) // 4, (len(text) + len(json.dumps(calls))) // 4
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


async def stream(body: dict[str, Any], text: str, calls: list[dict[str, Any]]) -> AsyncIterator[bytes]:
    """The same answer as chat.completion.chunk events, arguments in small pieces as real models send them."""
    head = {
        "id": "chatcmpl-demo",
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": body["model"],
    }

    def event(delta: dict[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return b"data: " + json.dumps({**head, "choices": [choice]}).encode() + b"\n\n"

    yield event({"role": "assistant", "content": ""})
    for word in re.findall(r"\S+\s*", text):
        yield event({"content": word})
    for index, one in enumerate(calls):
        arguments = one["function"]["arguments"]
        yield event({"tool_calls": [{"index": index, **one, "function": {**one["function"], "arguments": ""}}]})
        for at in range(0, len(arguments), 12):
            yield event({"tool_calls": [{"index": index, "function": {"arguments": arguments[at : at + 12]}}]})
    yield event({}, "tool_calls" if calls else "stop")
    if (body.get("stream_options") or {}).get("include_usage"):
        total = usage(json.dumps(body).encode(), text, calls)
        yield b"data: " + json.dumps({**head, "choices": [], "usage": total}).encode() + b"\n\n"
    yield b"data: [DONE]\n\n"
