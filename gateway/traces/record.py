"""What the gateway remembers of one exchange: plain values, made on the hot path, read by the recorder's thread.

Knows neither the store nor OpenTelemetry. Times inside an exchange are nanoseconds from its start, so that a step of
the wall clock cannot bend a tree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, NamedTuple, TypeAlias

Fact: TypeAlias = "str | int | float | bool | None"

ALLOWED_FAILED_OPEN: Final = "allowed_failed_open"
"""The effect that is recorded when a filter or store failed and its rule says so may pass. Never recorded as allow."""

EFFECT_RANK: Final[Mapping[str, int]] = MappingProxyType({"allow": 0, ALLOWED_FAILED_OPEN: 1, "hold": 2, "deny": 3})
"""Strictness of recorded effects; the worst of a run is its highest."""


class Attempt(NamedTuple):
    """One try at an upstream. `span` is its own span id (16 hex); `error` is an error code, never upstream text."""

    span: str
    upstream: str
    started_ns: int = 0
    duration_ns: int = 0
    first_byte_ns: int | None = None  # from the start of this attempt
    status: int | None = None
    error: str | None = None
    address: str = ""
    port: int = 0


class ActionDecision(NamedTuple):
    """What policy said about one action. `held` is the held action's id; `duration_ns` ends with the inline
    wait for people, which took `waited_ns` of it."""

    action: str
    effect: str
    rule: str
    reason: str
    held: str | None = None
    started_ns: int = 0
    duration_ns: int = 0
    waited_ns: int = 0


class FilterPass(NamedTuple):
    """One look of the filters at a text. `findings` counts by kind; `denied` is the rule that forbade it."""

    direction: str  # request | response
    started_ns: int = 0
    duration_ns: int = 0
    findings: Mapping[str, int] | None = None
    denied: str | None = None
    error: str | None = None


class Usage(NamedTuple):
    """Tokens as the upstream counted them. `cached` is the part of `input` that was read from the provider's cache,
    `reasoning` the part of `output` that was thinking."""

    input: int
    output: int
    cached: int = 0
    reasoning: int = 0
    cache_written: int = 0


@dataclass(slots=True, kw_only=True, eq=False)
class ExchangeRecord:
    """One request and its response. Mutable, so that a handler can make it first and fill it in as it goes along; it
    belongs to the recorder once it was put.

    Not frozen on purpose: a frozen dataclass of this width costs three times as much to make. `effect` starts as deny:
    a record that nobody gave a verdict must not read as allowed. `id` comes from `context.exchange_id()`.
    """

    id: str  # 32 hex digits, ordered by time
    trace_id: str  # the run's tree, 32 hex digits
    span: str  # the gateway's own span of this request, 16 hex digits
    agent: str
    surface: str  # model | mcp | http
    operation: str  # chat, tools/call, tools/list, hold, execute_tool, ...
    started_s: float  # wall clock
    name: str = ""  # the action, `server.tool`, where there is one
    parent_span: str | None = None
    run: str | None = None  # what the caller calls the run, if it named one
    duration_ns: int = 0
    status: int = 0  # HTTP status that the agent saw
    error: str | None = None  # error code that the agent saw, or why the response broke off
    effect: str = "deny"  # allow | hold | deny | allowed_failed_open
    rule: str = ""
    reason: str = ""
    release: str = ""
    held: str | None = None
    upstream: str = ""
    provider: str | None = None  # OpenTelemetry's gen_ai.provider.name, e.g. `openai`
    model: str | None = None
    model_responded: str | None = None
    response_id: str | None = None
    finish_reasons: tuple[str, ...] = ()
    usage: Usage | None = None
    findings: Mapping[str, int] | None = None  # counts by kind
    attempts: tuple[Attempt, ...] = ()
    decisions: tuple[ActionDecision, ...] = ()
    filters: tuple[FilterPass, ...] = ()
    facts: Mapping[str, Fact] | None = None  # inputs of the decision that a replay cannot recompute: clock, counters
    attributes: Mapping[str, Fact] | None = None  # standard OpenTelemetry names, such as `mcp.protocol.version`
    request: bytes | None = None  # raw; masked by the recorder before anything is stored
    response: bytes | None = None
    request_type: str = ""
    response_type: str = ""
    content_note: str | None = None  # the recorder's: why bodies are missing


def is_notable(record: ExchangeRecord) -> bool:
    """Whether content is kept whatever the sampling says: errors, denials, holds, and what passed a failed guard."""
    if record.effect != "allow" or record.error is not None or record.held is not None or record.status >= 400:
        return True
    for decision in record.decisions:
        if decision.effect != "allow":
            return True
    return any(attempt.error is not None for attempt in record.attempts) if record.attempts else False
