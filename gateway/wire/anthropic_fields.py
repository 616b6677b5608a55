"""What the fields and blocks of Anthropic Messages mean, shared by requests, whole answers and streams.

Sealed blocks: a thinking block is signed (a compaction too), so its text is never edited. What a mask rule would change
in a sealed block takes the whole block away instead; what a deny rule finds in it denies as anywhere else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from gateway.core.canonical import JSON
from gateway.core.exchange import Path
from gateway.wire import leaves

CALL = "tool_use"
"""The block with which a model asks the agent to run a tool."""

PROVIDER_CALLS = frozenset({"server_tool_use", "mcp_tool_use"})
"""Blocks that tell what the provider has run by itself."""

PROVIDER_BLOCKS = PROVIDER_CALLS | {
    "web_search_tool_result", "web_fetch_tool_result", "code_execution_tool_result", "bash_code_execution_tool_result",
    "text_editor_code_execution_tool_result", "tool_search_tool_result", "mcp_tool_result", "advisor_tool_result",
    "container_upload", "mcp_tool_listing",
}  # fmt: skip
"""Blocks of an answer that can only stand there when the provider ran a tool."""

ANSWER_BLOCKS = PROVIDER_BLOCKS | {"text", "thinking", "redacted_thinking", "compaction", "fallback", CALL}

DELTAS: Mapping[str, Mapping[str, str]] = {
    "text": {"text_delta": "text", "citations_delta": "citation"},
    "thinking": {"thinking_delta": "thinking", "signature_delta": "signature"},
    CALL: {"input_json_delta": "partial_json"},
    **{kind: {"input_json_delta": "partial_json"} for kind in PROVIDER_CALLS},
    "compaction": {"compaction_delta": "content"},
}
"""Which deltas a block may have, and the field of each that carries its content. Clients drop others or trip."""

_CALLING = frozenset(
    {"type", "message", "content", "content_block", "delta", "index", "id", "name", "toolset_name", "input", "text",
     "partial_json", "stop_reason"}
)  # fmt: skip

_ENCODED = frozenset({"signature", "data", "encrypted_content", "encrypted_index", "encrypted_stdout"})
_IDENTIFIERS = frozenset({"id", "type", "role", "model", "tool_use_id", "file_id", "stop_reason", "service_tier"})
_SEALED = frozenset({"thinking", "redacted_thinking", "compaction"})

_ENCODED_CHARS_MIN = 48  # a signature has hundreds; a key or a name that somebody puts there is mostly shorter

_IDENTIFIER = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
_BASE64 = re.compile(rb"[A-Za-z0-9+/\r\n]*={0,2}")


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as the upstream counted them. `input_tokens` contains neither those read from the cache nor those written
    to it; `thinking_tokens` are a part of `output_tokens`."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_creation_tokens: int = 0
    thinking_tokens: int = 0


def read_usage(value: JSON, before: Usage | None = None) -> Usage | None:
    """None where the upstream gave no counts: unknown, not zero. Later counts of a stream replace the earlier ones,
    and those that they leave out stay."""
    if not isinstance(value, dict):
        return before
    known = before or Usage()
    details = value.get("output_tokens_details")
    return Usage(
        _count(value, "input_tokens", known.input_tokens),
        _count(value, "output_tokens", known.output_tokens),
        _count(value, "cache_read_input_tokens", known.cache_read_tokens),
        _count(value, "cache_creation_input_tokens", known.cache_creation_tokens),
        _count(details if isinstance(details, dict) else {}, "thinking_tokens", known.thinking_tokens),
    )


def is_expected(kind: str, provider_runs: bool) -> bool:
    """Whether a block of this type may stand in an answer. What no rule allowed to run must not have run."""
    return kind in ANSWER_BLOCKS and (provider_runs or kind not in PROVIDER_BLOCKS)


def is_sealed(block: Mapping[str, JSON]) -> bool:
    """Whether nothing in this block may be edited, because the provider would refuse it when it comes back."""
    return block.get("type") in _SEALED or bool(block.get("signature"))


def is_text(path: Path, text: str) -> bool:
    """Whether a string of an answer may be a model's words: not an identifier, a type or encoded binary data."""
    if not text:
        return False
    key = path[-1]
    if key in _IDENTIFIERS:
        return _IDENTIFIER.fullmatch(text) is None
    return not is_encoded(path, text)


def is_encoded(path: Path, text: str) -> bool:
    """Whether this is binary content of the provider's own making, which nobody but the provider can read."""
    return path[-1] in _ENCODED and len(text) >= _ENCODED_CHARS_MIN and len(text) % 4 == 0 and is_base64(text)


def is_base64(text: str) -> bool:
    """The standard alphabet alone: most keys and tokens have a sign that it lacks, so they stay visible."""
    return text.isascii() and _BASE64.fullmatch(text.encode()) is not None


def texts(value: JSON, path: Path) -> list[tuple[Path, str]]:
    """The words in a value of an answer that is not a block's own text."""
    return [(at, text) for at, text in leaves.leaves(value, path) if is_text(at, text)]


def hides_calls(value: JSON) -> bool:
    """Whether a tool call stands at a place where the API has none: some client might still run it."""
    stack: list[JSON] = [value]
    while stack:
        node = stack.pop()
        if isinstance(node, dict):
            if any(key.casefold() == "type" and item == CALL for key, item in node.items()):
                return True
            if node.get("tool_calls") or node.get("function_call"):
                return True
            stack.extend(node.values())
        elif isinstance(node, list):
            stack.extend(node)
    return False


def is_misspelt(node: Mapping[str, JSON]) -> bool:
    """Whether a name that makes a call stands here in another case: agents in Go would read it all the same, and run a
    call that was not judged."""
    return any(key not in _CALLING and key.casefold() in _CALLING for key in node)


def call_name(block: Mapping[str, JSON]) -> str | None:
    """The name of a proposed call: `bash`, or `computer.key` for a member of a toolset, which has no name of its own in
    the request. None where the block has no clear one: the API allows letters, digits, `_` and `-`, and a name stands
    in what the agent and a person read."""
    name, family = block.get("name"), block.get("toolset_name")
    if not isinstance(name, str) or not isinstance(family, str | None):
        return None
    whole = f"{family}.{name}" if family else name
    return whole if _IDENTIFIER.fullmatch(whole) else None


def _count(value: Mapping[str, JSON], key: str, before: int) -> int:
    count = value.get(key)
    return count if isinstance(count, int) and not isinstance(count, bool) and count >= 0 else before
