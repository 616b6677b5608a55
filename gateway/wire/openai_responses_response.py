"""Responses answers: texts, proposed calls and usage, and taking calls out. An answer that has no clear reading is an
UpstreamError: it cannot be said to be harmless."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, cast

from gateway.core.canonical import JSON, parse
from gateway.core.errors import ClientError
from gateway.core.exchange import Origin, Part, Path
from gateway.wire import leaves
from gateway.wire import openai_responses_items as items
from gateway.wire.calls import CallVerdict, ProposedCall, check_verdicts
from gateway.wire.openai_chat_fields import Usage

UPSTREAM_FAILED = "the model endpoint failed; try again"


class ResponsesAnswer(NamedTuple):
    """One answer. `body` are the bytes as they came: forward these unless something is rewritten. The `index` of a
    call is the position of its item in `output`."""

    body: bytes
    raw: dict[str, JSON]
    parts: tuple[Part, ...]
    calls: tuple[ProposedCall, ...]
    usage: Usage | None
    finish_reasons: Mapping[int, str]


def decode_response(body: bytes, *, provider_runs: bool = False) -> ResponsesAnswer:
    """`provider_runs` tells whether the request let the provider run tools: without it, no trace of one is expected.
    Raises UpstreamError `upstream_protocol`, which never quotes the answer."""
    try:
        raw = parse(body, "answer of the upstream")
    except ClientError:
        raise items.unreadable() from None
    output = raw.get("output") if isinstance(raw, dict) else None
    if not isinstance(raw, dict) or not isinstance(output, list):
        raise items.unreadable()
    items.refuse_misspelt({key: value for key, value in raw.items() if key not in items.ECHO})
    parts: list[Part] = []
    calls: list[ProposedCall] = []
    for index, item in enumerate(output):
        items.type_of(item)
        assert isinstance(item, dict)
        items.refuse_unexpected(item, provider_runs)
        path: Path = ("output", index)
        if items.is_call(item):
            calls.append(items.call_of(item, index))
        else:
            items.refuse_hidden_calls({key: value for key, value in item.items() if key != "tools"})
        parts.extend(Part(Origin.ASSISTANT, text, at) for at, text in items.item_words(item, path))
    if raw.get("choices"):
        raise items.unreadable()  # another dialect's answer in this one: some client would read it
    for at, text in items.echo_words(raw, ()):
        parts.append(Part(Origin.ASSISTANT if at == ("output_text",) else Origin.SYSTEM, text, at))
    reason = items.finish_reason(raw)
    return ResponsesAnswer(
        body=body,
        raw=raw,
        parts=tuple(parts),
        calls=tuple(calls),
        usage=items.read_usage(raw.get("usage")),
        finish_reasons={0: reason} if reason else {},
    )


def rewrite_response(response: ResponsesAnswer, edits: Mapping[Path, str]) -> bytes:
    """The body with these values replaced. A text that changes loses its `logprobs`: they spell the original."""
    return replace_calls(response, (), edits)


def replace_calls(
    response: ResponsesAnswer, verdicts: Sequence[CallVerdict], edits: Mapping[Path, str] | None = None
) -> bytes:
    """The body after the verdicts on `response.calls`, in their order; no verdicts means that nothing is taken away.

    A message with the verdict's text stands in the place of each call that is not allowed, so that positions stay as
    they are; the status stays too. The original bytes when everything is allowed and nothing is edited.
    """
    if verdicts:
        check_verdicts(response.calls, verdicts)
    denied = {
        call.index: items.message(verdict.text or items.NOT_EXECUTED, call.index, call.id)
        for call, verdict in zip(response.calls, verdicts or [CallVerdict(True)] * len(response.calls), strict=True)
        if not verdict.allow
    }
    silent = items.silent_error(response.raw)
    if not denied and not edits and not silent:
        return response.body
    kept = {path: text for path, text in (edits or {}).items() if path[0] != "output" or path[1] not in denied}
    changes: dict[Path, JSON] = {**kept, **items.bare_logprobs(response.raw, list(kept))}
    for index, message in denied.items():
        changes["output", index] = message
    if silent:
        changes["error", "message"] = UPSTREAM_FAILED
    joined = response.raw.get("output_text")
    if denied and isinstance(joined, str):
        said = cast("str", changes.get(("output_text",), joined))
        texts = [verdict.text or items.NOT_EXECUTED for verdict in verdicts if not verdict.allow]
        changes["output_text",] = "\n\n".join(text for text in (said, *texts) if text)
    return leaves.encode(leaves.with_values(cast("JSON", response.raw), changes))
