"""Chat Completions responses: texts, proposed tool calls and usage of every choice, and taking calls out.

Strings that a model writes, at known and unknown places alike, are parts; names of calls are judged as actions, not as
text. An answer of an upstream that has no clear reading is an UpstreamError: it cannot be said to be harmless.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, cast

from gateway.core.canonical import JSON, parse
from gateway.core.errors import ClientError, UpstreamError
from gateway.core.exchange import Origin, Part, Path
from gateway.wire import leaves
from gateway.wire.calls import CallKind, CallVerdict, ProposedCall, check_verdicts, read_arguments
from gateway.wire.openai_chat_fields import (
    CHOICE_SKIPPED,
    TOP_SKIPPED,
    Usage,
    hides_calls,
    is_misspelt,
    is_text,
    read_usage,
)

_CALL_KEYS = ("tool_calls", "function_call")


class ChatResponse(NamedTuple):
    """One answer. `body` are the bytes as they came: forward these unless something is rewritten."""

    body: bytes
    raw: dict[str, JSON]
    parts: tuple[Part, ...]
    calls: tuple[ProposedCall, ...]
    usage: Usage | None
    finish_reasons: Mapping[int, str]  # by the position of the choice


def decode_response(body: bytes) -> ChatResponse:
    """Raises UpstreamError `upstream_protocol`, which never quotes the answer."""
    try:
        raw = parse(body, "answer of the upstream")
    except ClientError:
        raise _unreadable() from None
    if not isinstance(raw, dict) or is_misspelt(raw):
        raise _unreadable()
    choices = raw.get("choices")
    if not isinstance(choices, list):
        raise _unreadable()
    parts: list[Part] = []
    calls: list[ProposedCall] = []
    reasons: dict[int, str] = {}
    for position, choice in enumerate(choices):
        if not isinstance(choice, dict):
            raise _unreadable()
        _read_choice(choice, position, parts, calls)
        reason = choice.get("finish_reason")
        if isinstance(reason, str):
            reasons[position] = reason
    for key, value in raw.items():
        if key != "choices" and key not in TOP_SKIPPED:
            _walk(value, (key,), parts)
    return ChatResponse(
        body=body,
        raw=raw,
        parts=tuple(parts),
        calls=tuple(calls),
        usage=read_usage(raw.get("usage")),
        finish_reasons=reasons,
    )


def rewrite_response(response: ChatResponse, edits: Mapping[Path, str]) -> bytes:
    """The body with these values replaced. A choice in which something changes loses its `logprobs`: they spell the
    original text token by token."""
    return replace_calls(response, (), edits)


def replace_calls(
    response: ChatResponse, verdicts: Sequence[CallVerdict], edits: Mapping[Path, str] | None = None
) -> bytes:
    """The body after the verdicts on `response.calls`, in their order; no verdicts means that nothing is dropped.

    Dropped calls disappear, their texts are appended to the message's content, and where no call is left the
    `finish_reason` becomes `stop`. The original bytes when everything is allowed and nothing is edited.
    """
    if verdicts:
        check_verdicts(response.calls, verdicts)
    dropped = (
        [(call, verdict) for call, verdict in zip(response.calls, verdicts, strict=bool(verdicts)) if not verdict.allow]
        if verdicts
        else []
    )
    if not dropped and not edits:
        return response.body
    changes: dict[Path, JSON] = dict(edits or {})
    for path in edits or {}:
        if path[0] == "choices" and _has(response.raw, (*path[:2], "logprobs")):
            changes[(*path[:2], "logprobs")] = None
    raw = cast("dict[str, JSON]", leaves.with_values(response.raw, changes))
    for position in sorted({call.choice for call, _ in dropped}):
        raw = _without_calls(raw, position, [entry for entry in dropped if entry[0].choice == position])
    return leaves.encode(raw)


def _read_choice(choice: dict[str, JSON], position: int, parts: list[Part], calls: list[ProposedCall]) -> None:
    path: Path = ("choices", position)
    for key, value in choice.items():
        if key == "message":
            if not isinstance(value, dict):
                raise _unreadable()
            _read_message(value, position, parts, calls)
        elif key not in CHOICE_SKIPPED and key != "logprobs":
            _walk(value, (*path, key), parts)


def _read_message(message: dict[str, JSON], position: int, parts: list[Part], calls: list[ProposedCall]) -> None:
    path: Path = ("choices", position, "message")
    for key, value in message.items():
        if value is None or (key == "role" and value == "assistant"):
            continue
        at = (*path, key)
        if key == "tool_calls":
            if not isinstance(value, list):
                raise _unreadable()
            for index, call in enumerate(value):
                _read_call(call, position, index, parts, calls)
        elif key == "function_call":
            calls.append(_call(value, position, -1, "", CallKind.LEGACY))
            _read_payload(value, at, calls[-1], parts)
        else:
            _walk(value, at, parts)


def _read_call(call: JSON, position: int, index: int, parts: list[Part], calls: list[ProposedCall]) -> None:
    if not isinstance(call, dict):
        raise _unreadable()
    path: Path = ("choices", position, "message", "tool_calls", index)
    identifier = call.get("id")
    kinds = [kind for kind in (CallKind.FUNCTION, CallKind.CUSTOM) if call.get(kind.value) is not None]
    if len(kinds) != 1 or not isinstance(identifier, str | None):
        raise _unreadable()
    kind = kinds[0]
    calls.append(_call(call[kind.value], position, index, identifier or "", kind))
    _read_payload(call[kind.value], (*path, kind.value), calls[-1], parts)
    for key, value in call.items():
        if key not in ("id", "type", kind.value):
            _walk(value, (*path, key), parts)


def _call(payload: JSON, position: int, index: int, identifier: str, kind: CallKind) -> ProposedCall:
    if not isinstance(payload, dict):
        raise _unreadable()
    name, text = payload.get("name"), payload.get(_argument_key(kind))
    if not isinstance(name, str) or not isinstance(text, str):
        raise _unreadable()
    return ProposedCall(
        choice=position,
        index=index,
        id=identifier,
        name=name,
        arguments_text=text,
        arguments=read_arguments(kind, text),
        kind=kind,
    )


def _read_payload(payload: JSON, path: Path, call: ProposedCall, parts: list[Part]) -> None:
    argument_key = _argument_key(call.kind)
    parts.append(Part(Origin.TOOL_ARGS, call.arguments_text, (*path, argument_key)))
    for key, value in payload.items() if isinstance(payload, dict) else ():
        if key not in ("name", argument_key):
            _walk(value, (*path, key), parts)


def _argument_key(kind: CallKind) -> str:
    return "input" if kind is CallKind.CUSTOM else "arguments"


def _walk(value: JSON, path: Path, parts: list[Part]) -> None:
    if isinstance(value, str):  # most fields of most answers
        if value and path[-1] in _CALL_KEYS:
            raise _unreadable()
        if is_text(path, value):
            parts.append(Part(Origin.ASSISTANT, value, path))
        return
    if hides_calls({str(path[-1]): value}):
        raise _unreadable()
    parts.extend(Part(Origin.ASSISTANT, text, at) for at, text in leaves.leaves(value, path) if is_text(at, text))


def _without_calls(
    raw: dict[str, JSON], position: int, dropped: Sequence[tuple[ProposedCall, CallVerdict]]
) -> dict[str, JSON]:
    path: Path = ("choices", position)
    choice = cast("dict[str, JSON]", leaves.get(raw, path))
    message = dict(cast("dict[str, JSON]", choice["message"]))
    gone = {call.index for call, _ in dropped}
    if -1 in gone:
        del message["function_call"]
    calls = message.get("tool_calls")
    if isinstance(calls, list) and gone != {-1}:
        message["tool_calls"] = [call for index, call in enumerate(calls) if index not in gone]
        if not message["tool_calls"]:
            del message["tool_calls"]
    texts = [verdict.text for _, verdict in dropped if verdict.text]
    if texts:
        message["content"] = _appended(message.get("content"), texts)
    changes: dict[Path, JSON] = {(*path, "message"): message}
    if choice.get("finish_reason") in _CALL_KEYS and not any(message.get(key) for key in _CALL_KEYS):
        changes[(*path, "finish_reason")] = "stop"
    return cast("dict[str, JSON]", leaves.with_values(raw, changes))


def _appended(content: JSON, texts: Sequence[str]) -> JSON:
    text = "\n\n".join(texts)
    if isinstance(content, list):
        return [*content, {"type": "text", "text": text}]
    return f"{content}\n\n{text}" if isinstance(content, str) and content else text


def _has(raw: dict[str, JSON], path: Path) -> bool:
    try:
        return leaves.get(raw, path) is not None
    except (LookupError, TypeError):
        return False


def _unreadable() -> UpstreamError:
    return UpstreamError("upstream_protocol", "the model's answer is not a chat completion that can be inspected")
