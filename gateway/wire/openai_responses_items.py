"""Items of the Responses dialect: which of them make the agent act, which only say something, and the words in them.

An output item of a type that is not listed in `PASSIVE` is a proposed call, also one that does not exist yet: whether
the agent would act on it cannot be known, so a rule must allow it by its name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from gateway.core.canonical import JSON, digest
from gateway.core.errors import UpstreamError
from gateway.core.exchange import Path
from gateway.wire import leaves
from gateway.wire.calls import CallKind, ProposedCall, read_arguments
from gateway.wire.openai_chat_fields import Usage, hides_calls
from gateway.wire.openai_chat_request import PROTOCOL_WORDS

PROVIDER_RAN = frozenset(
    {
        "web_search_call", "file_search_call", "code_interpreter_call", "image_generation_call",
        "mcp_call", "mcp_list_tools", "program", "program_output",
    }
)  # fmt: skip
"""What the provider ran by itself: the request was refused unless a rule allowed the tool."""

PASSIVE = PROVIDER_RAN | frozenset(
    {
        "message", "reasoning", "compaction",
        # Results, and what the agent had sent itself.
        "function_call_output", "custom_tool_call_output", "computer_call_output", "local_shell_call_output",
        "shell_call_output", "apply_patch_call_output", "mcp_approval_response", "tool_search_output",
        "additional_tools",
    }
)  # fmt: skip

CALL_TEXTS = {"function_call": "arguments", "custom_tool_call": "input"}
"""The items that call a tool which the agent declared, and where their arguments stand."""

NOT_EXECUTED = "The call of a tool was NOT EXECUTED."

_HEADS = frozenset({"id", "type", "call_id", "status"})
_SKIPPED = frozenset(
    {
        "output", "object", "created_at", "completed_at", "status", "model", "service_tier", "usage", "truncation",
        "id", "billing", "tool_usage", "system_fingerprint",
    }
)  # fmt: skip
"""Fields at the top of a response that an upstream fills by itself; everything else is looked at."""

_CALLING = frozenset(
    {"output", "item", "response", "type", "name", "namespace", "call_id", "arguments", "input", "action", "operation"}
)
_FOREIGN = frozenset({"tools", "attributes", "categories"})
"""What stands below these has names of other people's choosing."""

ECHO = frozenset({"instructions", "tools", "tool_choice", "text", "metadata", "prompt"})
"""The repeated request: what looks like a call in there is a turn of the past, or the name of a field in a schema."""

_ECHO_WORDS = PROTOCOL_WORDS | {"max_output_tokens", "max_messages", "content_filter", "steered", "disabled", "failed"}

# Words of the protocol or identifiers, if they look like one; text that only stands there is text.
_WORD_KEYS = frozenset(
    {
        "id", "call_id", "item_id", "file_id", "container_id", "approval_request_id", "response_id", "caller_id",
        "type", "role", "status", "object", "phase", "obfuscation", "fingerprint", "model", "execution",
        "previous_response_id", "detail", "quality", "size", "background", "output_format",
    }
)  # fmt: skip
_OPAQUE = {
    ("image_generation_call", "result"),
    ("reasoning", "encrypted_content"),
    ("compaction", "encrypted_content"),
}
_IDENTIFIER = re.compile(r"[A-Za-z0-9_.:|/+=-]{1,256}")
_BASE64 = re.compile(r"[A-Za-z0-9+/=_-]*")


def unreadable() -> UpstreamError:
    return UpstreamError("upstream_protocol", "the model's answer is not a response that can be inspected")


def type_of(item: JSON) -> str:
    """The type of an output item. Raises UpstreamError where it has none."""
    kind = item.get("type") if isinstance(item, dict) else None
    if not isinstance(kind, str) or not kind:
        raise unreadable()
    return kind


def is_call(item: Mapping[str, JSON]) -> bool:
    """Whether the agent acts on this item."""
    kind = item.get("type")
    return not (kind in PASSIVE or (kind == "tool_search_call" and item.get("execution") == "server"))


def refuse_unexpected(item: Mapping[str, JSON], provider_runs: bool) -> None:
    """Raises UpstreamError for a trace of a tool that the request did not let the provider run."""
    kind = type_of(dict(item))
    if not provider_runs and (kind in PROVIDER_RAN or (kind == "tool_search_call" and not is_call(item))):
        raise unreadable()


def call_of(item: Mapping[str, JSON], index: int) -> ProposedCall:
    """The call that an item proposes. A function in a namespace is called `namespace__name`; an item of another type
    by its type without `_call`, and its arguments are all that it says."""
    kind = type_of(dict(item))
    key = CALL_TEXTS.get(kind)
    identifier = item.get("call_id")
    if identifier is None:
        identifier = item.get("id")
    if not isinstance(identifier, str | None):
        raise unreadable()
    if key is None:
        said = {name: value for name, value in item.items() if name not in _HEADS}
        return ProposedCall(
            choice=0,
            index=index,
            id=identifier or "",
            name=kind.removesuffix("_call"),
            arguments_text=leaves.encode(said).decode(),
            arguments=said,
        )
    name, text, space = item.get("name"), item.get(key), item.get("namespace")
    if not isinstance(name, str) or not isinstance(text, str) or not isinstance(space, str | None):
        raise unreadable()
    call_kind = CallKind.CUSTOM if kind == "custom_tool_call" else CallKind.FUNCTION
    return ProposedCall(
        choice=0,
        index=index,
        id=identifier or "",
        name=f"{space}__{name}" if space else name,
        arguments_text=text,
        arguments=read_arguments(call_kind, text),
        kind=call_kind,
    )


def item_words(item: Mapping[str, JSON], path: Path) -> Iterator[tuple[Path, str]]:
    """Every string of an output item in which a model or a tool may say something. Arguments of calls are not among
    them: they are judged as an action. Raises UpstreamError for a call where none belongs."""
    kind = type_of(dict(item))
    if is_call(item):
        judged = ("name", "namespace", CALL_TEXTS[kind]) if kind in CALL_TEXTS else item.keys() - _HEADS
        yield from words({key: value for key, value in item.items() if key not in judged}, path)
        return
    for key, value in item.items():
        if (kind, key) in _OPAQUE and isinstance(value, str) and _BASE64.fullmatch(value):
            continue
        yield from words(value, (*path, key))


def echo_words(response: Mapping[str, JSON], path: Path) -> Iterator[tuple[Path, str]]:
    """The same for what stands around the output: the repeated request above all."""
    for key, value in response.items():
        if key in _SKIPPED or value is None or isinstance(value, (bool, int, float)):
            continue
        if key not in ECHO:
            refuse_hidden_calls({key: value})
        for at, text in words(value, (*path, key)):
            if text not in _ECHO_WORDS:
                yield at, text


def words(value: JSON, path: Path) -> Iterator[tuple[Path, str]]:
    """Strings that are not a word of the protocol at a place where it has one. Token probabilities that spell the text
    beside them are left out: who changes a text takes them away."""
    if isinstance(value, str):
        if value and not (path and path[-1] in _WORD_KEYS and _IDENTIFIER.fullmatch(value)):
            yield path, value
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from words(inner, (*path, index))
    elif isinstance(value, dict):
        for key, inner in value.items():
            if key == "logprobs" and _spells(inner, value.get("text")):
                continue
            yield from words(inner, (*path, key))


def refuse_hidden_calls(value: JSON) -> None:
    """Raises UpstreamError for a call at a place where the dialect has none: some client might still run it."""
    if hides_calls(value):
        raise unreadable()
    stack = [value]
    while stack:
        node = stack.pop()
        if isinstance(node, dict):
            kind = node.get("type")
            if isinstance(kind, str) and kind in CALL_TEXTS:
                raise unreadable()
            stack.extend(node.values())
        elif isinstance(node, list):
            stack.extend(node)


def refuse_misspelt(value: JSON) -> None:
    """Raises UpstreamError for a name that makes a call in another case: agents in Go would read it all the same, and
    run a call that was not judged."""
    stack = [value]
    while stack:
        node = stack.pop()
        if isinstance(node, dict):
            for key, inner in node.items():
                if key not in _CALLING and key.casefold() in _CALLING:
                    raise unreadable()
                if isinstance(inner, dict | list) and key not in _FOREIGN:
                    stack.append(inner)
        elif isinstance(node, list):
            stack.extend(node)


def bare_logprobs(doc: JSON, paths: Iterator[Path] | list[Path]) -> dict[Path, JSON]:
    """Changes that take away the token probabilities beside these texts: they spell what was masked."""
    found: dict[Path, JSON] = {}
    for path in paths:
        holder = leaves.get(doc, path[:-1])
        if isinstance(holder, dict) and holder.get("logprobs"):
            found[(*path[:-1], "logprobs")] = []
    return found


def is_identifier(text: str) -> bool:
    return _IDENTIFIER.fullmatch(text) is not None


def is_base64(text: str) -> bool:
    return _BASE64.fullmatch(text) is not None


def message(text: str, index: int, call_id: str) -> dict[str, JSON]:
    """The item that stands where a call was taken away. Its id is the call's own: the API takes no id twice in a
    conversation."""
    part: JSON = {"type": "output_text", "annotations": [], "logprobs": [], "text": text}
    identifier = f"msg_gateway_{digest([index, call_id])[:32]}"
    return {"id": identifier, "type": "message", "role": "assistant", "status": "completed", "content": [part]}


def read_usage(value: JSON) -> Usage | None:
    """None where the upstream gave no counts."""
    if not isinstance(value, dict):
        return None
    return Usage(
        _count(value, "input_tokens"),
        _count(value, "output_tokens"),
        _count(value.get("input_tokens_details"), "cached_tokens"),
        _count(value.get("output_tokens_details"), "reasoning_tokens"),
    )


def finish_reason(response: Mapping[str, JSON]) -> str | None:
    """How the response ended: its status, or why it is incomplete."""
    details = response.get("incomplete_details")
    reason = details.get("reason") if isinstance(details, dict) else None
    status = response.get("status")
    word = reason if isinstance(reason, str) and reason else status
    return word if isinstance(word, str) and is_identifier(word) else None


def silent_error(response: Mapping[str, JSON]) -> bool:
    """Whether the response failed for a reason that is not about the caller's own request: its message stays here."""
    error = response.get("error")
    code = error.get("code") if isinstance(error, dict) else None
    if not isinstance(error, dict):
        return False
    return not (isinstance(code, str) and code.startswith(("invalid_", "image_", "empty_", "unsupported_")))


def _spells(logprobs: JSON, text: JSON) -> bool:
    if not isinstance(logprobs, list) or not isinstance(text, str):
        return False
    tokens: list[str] = []
    octets = bytearray()
    for entry in logprobs:
        token = entry.get("token") if isinstance(entry, dict) else None
        codes = entry.get("bytes") if isinstance(entry, dict) else None
        tokens.append(token if isinstance(token, str) else "")
        if isinstance(codes, list):
            octets.extend(code for code in codes if isinstance(code, int) and 0 <= code < 256)
    return "".join(tokens) == text or bytes(octets) == text.encode("utf-8", "replace")


def _count(value: JSON, key: str) -> int:
    count = value.get(key) if isinstance(value, dict) else None
    return count if isinstance(count, int) and not isinstance(count, bool) and count >= 0 else 0
