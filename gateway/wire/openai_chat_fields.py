"""What the fields of Chat Completions answers mean, shared by whole answers and streams."""

from __future__ import annotations

import re
from dataclasses import dataclass

from gateway.core.canonical import JSON
from gateway.core.exchange import Path

TOP_SKIPPED = frozenset(
    {
        "id", "object", "created", "model", "service_tier", "system_fingerprint", "provider", "usage",
        "obfuscation",  # random padding against guessing from sizes
        "moderation", "prompt_filter_results",  # scores; Azure
    }
)  # fmt: skip
"""Fields at the top of an answer that an upstream fills by itself; text of a model does not reach them."""

CHOICE_SKIPPED = frozenset({"index", "finish_reason", "native_finish_reason", "content_filter_results"})

_CALLING = frozenset({"choices", "delta", "message", "tool_calls", "function_call", "function", "custom", "name",
                      "arguments", "input"})  # fmt: skip

_IDENTIFIER = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
_BASE64 = re.compile(r"[A-Za-z0-9+/=_-]*")


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as the upstream counted them; `prompt_tokens` contains the cached ones."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0


def read_usage(value: JSON) -> Usage | None:
    """None where the upstream gave no counts: unknown, not zero."""
    if not isinstance(value, dict):
        return None
    return Usage(
        _count(value, "prompt_tokens"),
        _count(value, "completion_tokens"),
        _count(value.get("prompt_tokens_details"), "cached_tokens"),
        _count(value.get("completion_tokens_details"), "reasoning_tokens"),
    )


def is_text(path: Path, text: str) -> bool:
    """Whether a string of an answer may be a model's words: not an identifier, a type or encoded binary data."""
    if not text:
        return False
    match path[-1]:
        case "id" | "type" | "role" | "format":
            return _IDENTIFIER.fullmatch(text) is None
        case "data":
            return _BASE64.fullmatch(text) is None
    return True


def hides_calls(value: JSON) -> bool:
    """Whether a tool call stands at a place where the API has none: some client might still run it."""
    stack: list[JSON] = [value]
    while stack:
        node = stack.pop()
        if isinstance(node, dict):
            if node.get("tool_calls") or node.get("function_call"):
                return True
            stack.extend(node.values())
        elif isinstance(node, list):
            stack.extend(node)
    return False


_plain_names = set(_CALLING)
"""Names that were looked at and are no call in another case: answers repeat the same few."""
_PLAIN_NAMES_MAX = 1024


def is_misspelt(value: JSON) -> bool:
    """Whether a name that makes a call stands somewhere in another case: agents in Go would read it all the same, and
    run a call that was not judged."""
    stack: list[JSON] = [value]
    while stack:
        node = stack.pop()
        if isinstance(node, dict):
            for key, item in node.items():
                if key not in _plain_names:
                    if key.casefold() in _CALLING:
                        return True
                    if len(_plain_names) < _PLAIN_NAMES_MAX and len(key) <= 64:
                        _plain_names.add(key)
                if isinstance(item, (dict, list)):
                    stack.append(item)
        elif isinstance(node, list):
            stack.extend(node)
    return False


def _count(value: JSON, key: str) -> int:
    count = value.get(key) if isinstance(value, dict) else None
    return count if isinstance(count, int) and not isinstance(count, bool) and count >= 0 else 0
