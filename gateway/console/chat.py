"""A masked body as a conversation: who said what, which calls, which results. Pure; what it does not know stays raw.

Reads only to show. A body that cannot be read as a conversation is not an error: the raw view is always there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import orjson

TURNS_MAX = 80  # the last ones; agents send the whole conversation with every request
BLOCK_CHARS_MAX = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A piece of a turn. `kind`: text, call, result or other; `title` is a tool's name or a content type."""

    kind: str
    text: str
    title: str = ""
    cut: int = 0

    @property
    def long(self) -> bool:
        return len(self.text) > 600 or self.text.count("\n") > 12

    @property
    def preview(self) -> str:
        return "\n".join(self.text[:300].split("\n")[:4]) + " …"


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    role: str  # system, user, assistant, tool, ...
    blocks: tuple[Block, ...]


def conversation(request: bytes | None, response: bytes | None) -> tuple[Turn, ...]:
    """The turns of one exchange, oldest first; empty where the bodies are no conversation."""
    return tuple([*_asked(_load(request)), *_answered(response)][-TURNS_MAX:])


def pretty(data: bytes) -> str:
    """JSON with line breaks where it is JSON; the text as it is otherwise."""
    value = _load(data)
    if isinstance(value, dict | list):
        return orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()
    return data.decode("utf-8", "replace")


def _asked(body: Any) -> Iterator[Turn]:
    if not isinstance(body, dict):
        return
    for name in ("system", "instructions"):
        if body.get(name):
            yield Turn(role="system", blocks=tuple(_content(body[name])))
    for message in _list(body.get("messages")):
        yield _message(message)
    if isinstance(body.get("input"), str):
        yield Turn(role="user", blocks=(_block("text", body["input"]),))
    for message in _list(body.get("input")):
        yield _message(message)
    if body.get("method") == "tools/call" and isinstance(body.get("params"), dict):
        params = body["params"]
        call = _block("call", _text(params.get("arguments", {})), title=_text(params.get("name", "")))
        yield Turn(role="assistant", blocks=(call,))


def _answered(response: bytes | None) -> Iterator[Turn]:
    body = _load(response)
    if body is None and response is not None:
        body = _joined(_events(response))
    if not isinstance(body, dict):
        return
    for choice in _list(body.get("choices")):
        if isinstance(choice, dict):
            yield _message(choice.get("message"))
    if body.get("role") == "assistant" and "content" in body:
        yield _message(body)
    for item in _list(body.get("output")):
        yield _message(item)
    result = body.get("result")
    if isinstance(result, dict) and "content" in result:
        yield Turn(role="tool", blocks=tuple(_content(result["content"])))
    error = body.get("error")
    if isinstance(error, dict):
        yield Turn(role="error", blocks=(_block("text", _text(error.get("message", ""))),))


def _message(message: Any) -> Turn:
    if not isinstance(message, dict):
        return Turn(role="unknown", blocks=(_block("other", _text(message)),))
    role = str(message.get("role") or message.get("type") or "unknown")[:40]
    blocks = list(_content(message.get("content")))
    if role == "tool":
        blocks = [Block(kind="result", text=block.text, title=block.title, cut=block.cut) for block in blocks]
    for call in _list(message.get("tool_calls")):
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(function, dict):
            blocks.append(_block("call", _text(function.get("arguments", "")), title=_text(function.get("name", ""))))
        else:
            blocks.append(_block("other", _text(call)))
    if message.get("refusal"):
        blocks.append(_block("text", _text(message["refusal"]), title="refusal"))
    if not blocks and "content" not in message:
        blocks.append(_block("other", _text(message)))
    return Turn(role=role, blocks=tuple(blocks))


def _content(content: Any) -> Iterator[Block]:
    if isinstance(content, str):
        yield _block("text", content)
        return
    for part in _list(content):
        kind = part.get("type") if isinstance(part, dict) else None
        if kind in ("text", "input_text", "output_text"):
            yield _block("text", _text(part.get("text", "")))
        elif kind == "tool_use":
            yield _block("call", _text(part.get("input", {})), title=_text(part.get("name", "")))
        elif kind == "tool_result":
            inner = "\n".join(block.text for block in _content(part.get("content")))
            yield _block("result", inner)
        else:
            yield _block("other", _text(part), title=str(kind or ""))


def _events(data: bytes) -> Iterator[Any]:
    for line in data.decode("utf-8", "replace").splitlines():
        if line.startswith("data:"):
            value = _load(line[5:].strip().encode())
            if isinstance(value, dict):
                yield value


def _joined(events: Iterable[Any]) -> dict[str, Any] | None:
    """The message that a stream was, for the shapes that are known."""
    messages: dict[int, dict[str, Any]] = {}
    for event in events:
        if "result" in event or "error" in event:
            return dict(event)  # a JSON-RPC answer: the last event, after notifications
        for choice in _list(event.get("choices")):
            if isinstance(choice, dict) and isinstance(choice.get("delta"), dict):
                index = choice.get("index")
                message = messages.setdefault(
                    index if isinstance(index, int) else 0, {"role": "assistant", "content": ""}
                )
                _add(message, choice["delta"])
    if not messages:
        return None
    for message in messages.values():
        message["tool_calls"] = [{"function": function} for function in message.get("calls", {}).values()]
    return {"choices": [{"message": message} for message in messages.values()]}


def _add(message: dict[str, Any], delta: dict[str, Any]) -> None:
    if isinstance(delta.get("content"), str):
        message["content"] += delta["content"]
    for call in _list(delta.get("tool_calls")):
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(function, dict):
            known = message.setdefault("calls", {}).setdefault(str(call.get("index")), {"name": "", "arguments": ""})
            known["name"] += _text(function.get("name") or "")
            known["arguments"] += _text(function.get("arguments") or "")


def _block(kind: str, text: str, title: str = "") -> Block:
    return Block(kind=kind, text=text[:BLOCK_CHARS_MAX], title=title[:200], cut=max(len(text) - BLOCK_CHARS_MAX, 0))


def _load(data: bytes | None) -> Any:
    if not data:
        return None
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()
