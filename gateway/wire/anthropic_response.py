"""Messages answers: texts, proposed tool calls and usage, and taking calls and blocks out.

Strings that a model writes, at known and unknown places alike, are parts; names of calls are judged as actions, not as
text. An answer that has no clear reading is an UpstreamError: it cannot be said to be harmless.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, cast

from gateway.core.canonical import JSON, parse
from gateway.core.errors import ClientError, UpstreamError
from gateway.core.exchange import Origin, Part, Path
from gateway.wire import anthropic_answers as answers
from gateway.wire import leaves
from gateway.wire.anthropic_fields import (
    CALL,
    Usage,
    call_name,
    hides_calls,
    is_expected,
    is_misspelt,
    is_sealed,
    is_text,
    read_usage,
    texts,
)
from gateway.wire.calls import CallVerdict, ProposedCall, check_verdicts

CALL_FIELDS = ("type", "id", "name", "input", "toolset_name")
"""What of a call is judged as an action."""


class MessagesResponse(NamedTuple):
    """One answer. `body` are the bytes as they came: forward these unless something is rewritten."""

    body: bytes
    raw: dict[str, JSON]
    parts: tuple[Part, ...]
    calls: tuple[ProposedCall, ...]
    """`index` is the position of the block."""
    usage: Usage | None
    finish_reasons: Mapping[int, str]


def decode_response(body: bytes, *, provider_runs: bool = False) -> MessagesResponse:
    """`provider_runs` tells whether the request let the provider run tools: without it, no trace of one is expected.

    Raises UpstreamError `upstream_protocol`, which never quotes the answer.
    """
    try:
        raw = parse(body, "answer of the upstream")
    except ClientError:
        raise _unreadable() from None
    content = raw.get("content") if isinstance(raw, dict) else None
    if not isinstance(raw, dict) or not isinstance(content, list) or raw.get("type") != "message" or is_misspelt(raw):
        raise _unreadable()
    parts: list[Part] = []
    calls: list[ProposedCall] = []
    for index, block in enumerate(content):
        kind = block.get("type") if isinstance(block, dict) else None
        if not isinstance(block, dict) or not isinstance(kind, str) or not is_expected(kind, provider_runs):
            raise _unreadable()
        if is_misspelt(block):
            raise _unreadable()
        _read_block(block, ("content", index), parts)
        if kind == CALL:
            calls.append(_call(block, index))
    for key, value in raw.items():
        if key != "content":
            _walk(value, (key,), parts)
    reason = raw.get("stop_reason")
    if not isinstance(reason, str | None) or (reason and is_text(("stop_reason",), reason)):
        raise _unreadable()
    return MessagesResponse(
        body=body,
        raw=raw,
        parts=tuple(parts),
        calls=tuple(calls),
        usage=read_usage(raw.get("usage")),
        finish_reasons={0: reason} if reason else {},
    )


def decode_count(body: bytes) -> bytes:
    """The body of an answer to `count_tokens`, which holds numbers and no words. Raises UpstreamError."""
    try:
        raw = parse(body, "answer of the upstream")
    except ClientError:
        raise _unreadable() from None
    if not isinstance(raw, dict) or type(raw.get("input_tokens")) is not int or texts(raw, ()):
        raise _unreadable()
    return body


def replace_calls(
    response: MessagesResponse, verdicts: Sequence[CallVerdict], edits: Mapping[Path, str] | None = None
) -> bytes:
    """The body after the verdicts on `response.calls`, in their order; no verdicts means that nothing is dropped.

    In the place of a dropped call stands a text block with the verdict's text; where no call is left the `stop_reason`
    becomes `end_turn`. A sealed block in which something would be edited is left out. The original bytes when
    everything is allowed and nothing is edited.
    """
    if verdicts:
        check_verdicts(response.calls, verdicts)
    dropped = (
        {
            call.index: verdict.text or ""
            for call, verdict in zip(response.calls, verdicts, strict=bool(verdicts))
            if not verdict.allow
        }
        if verdicts
        else {}
    )
    if not dropped and not edits:
        return response.body
    content = cast("list[dict[str, JSON]]", response.raw["content"])
    sealed = {path[1] for path in edits or {} if path[0] == "content" and is_sealed(content[cast("int", path[1])])}
    kept = {path: text for path, text in (edits or {}).items() if path[0] != "content" or path[1] not in sealed}
    raw = cast("dict[str, JSON]", leaves.with_values(response.raw, cast("Mapping[Path, JSON]", kept)))
    blocks: list[JSON] = []
    for index, block in enumerate(cast("list[JSON]", raw["content"])):
        if index in dropped:
            if dropped[index]:
                blocks.append(answers.text_block(dropped[index]))
        elif index not in sealed:
            blocks.append(block)
    changed = {**raw, "content": blocks}
    if dropped and len(dropped) == len(response.calls) and raw.get("stop_reason") == CALL:
        changed["stop_reason"] = "end_turn"
    return leaves.encode(changed)


def read_extras(block: Mapping[str, JSON], path: Path, known: Sequence[str]) -> list[tuple[Path, str]]:
    """The words in a block beside the fields that the caller reads. Raises UpstreamError where a call hides there."""
    found: list[tuple[Path, str]] = []
    for key, value in block.items():
        if key in known or value is None or isinstance(value, (bool, int, float)):
            continue
        if hides_calls({key: value}):
            raise _unreadable()
        found.extend(texts(value, (*path, key)))
    return found


def _read_block(block: dict[str, JSON], path: Path, parts: list[Part]) -> None:
    if block.get("type") == CALL:
        inputs = leaves.leaves(block.get("input"), (*path, "input"))
        parts.extend(Part(Origin.TOOL_ARGS, text, at) for at, text in inputs)
        parts.extend(Part(Origin.ASSISTANT, text, at) for at, text in read_extras(block, path, CALL_FIELDS))
        return
    for key, value in block.items():
        _walk(value, (*path, key), parts)


def _call(block: dict[str, JSON], index: int) -> ProposedCall:
    name, identifier, arguments = call_name(block), block.get("id"), block.get("input")
    if name is None or not isinstance(identifier, str):
        raise _unreadable()
    return ProposedCall(
        choice=0,
        index=index,
        id=identifier,
        name=name,
        arguments_text=leaves.encode(arguments).decode(),
        arguments=arguments if isinstance(arguments, dict) else None,
    )


def _walk(value: JSON, path: Path, parts: list[Part]) -> None:
    if value is None or isinstance(value, (bool, int, float)):
        return
    if hides_calls({str(path[-1]): value}):
        raise _unreadable()
    parts.extend(Part(Origin.ASSISTANT, text, at) for at, text in texts(value, path))


def _unreadable() -> UpstreamError:
    return UpstreamError("upstream_protocol", "the model's answer is not a message that can be inspected")
