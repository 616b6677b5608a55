"""Records, maskers and recorders for tests of the trace room and of what stands on it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gateway.core.errors import FilterError
from gateway.core.filtering import Masked
from gateway.traces import (
    ActionDecision,
    Attachments,
    Attempt,
    ExchangeRecord,
    FilterPass,
    Recorder,
    RecorderLimits,
    Retention,
    TraceStore,
    Usage,
    context,
)

SECRET = "sk-live-4f9d2a7c8b1e6035"
STARTED_S = 1_790_000_000.0


def mask(data: bytes) -> Masked:
    """A masker that knows one kind of secret."""
    return Masked(re.sub(rb"sk-live-[0-9a-f]+", b"<SECRET>", data))


def cannot_mask(data: bytes) -> Masked:
    raise FilterError("filter_failed", "the filter failed")


def exchange(**changes: Any) -> ExchangeRecord:
    """An allowed chat exchange, with changes."""
    values: dict[str, Any] = {
        "id": context.exchange_id(),
        "trace_id": context.trace_id(),
        "span": context.span_id(),
        "agent": "billing",
        "surface": "model",
        "operation": "chat",
        "started_s": STARTED_S,
        "duration_ns": 250_000_000,
        "status": 200,
        "effect": "allow",
        "rule": "models/everyone",
        "reason": "models are open to all agents",
        "release": "d" * 64,
        "upstream": "openai",
        "model": "gpt-4o",
    }
    return ExchangeRecord(**{**values, **changes})


def held_payment(**changes: Any) -> ExchangeRecord:
    """A tool call that waited for people and then ran, with everything that a record can hold."""
    attempt = Attempt(context.span_id(), "bank", 180_000_000, 40_000_000, 30_000_000, 200, None, "bank.test", 443)
    hold = ActionDecision(
        "bank.transfer", "hold", "payments/large", "large transfers need a person", "act-1", 2_000_000, 150_000_000,
        140_000_000,
    )  # fmt: skip
    values: dict[str, Any] = {
        "surface": "mcp",
        "operation": "tools/call",
        "name": "bank.transfer",
        "model": None,
        "effect": "hold",
        "held": "act-1",
        "rule": "payments/large",
        "upstream": "bank",
        "decisions": (hold,),
        "attempts": (attempt,),
        "filters": (FilterPass("request", 1_000_000, 500_000, {"pii.iban": 1}),),
        "findings": {"pii.iban": 1},
        "facts": {"now": STARTED_S, "requests_this_minute": 3},
        "attributes": {"mcp.protocol.version": "2026-07-28", "gen_ai.tool.call.id": "call-1"},
        "usage": None,
    }
    return exchange(**{**values, **changes})


def chat(**changes: Any) -> ExchangeRecord:
    """A chat with usage and one attempt."""
    attempt = Attempt(context.span_id(), "openai", 1_000_000, 240_000_000, 90_000_000, 200, None, "api.test", 443)
    values: dict[str, Any] = {
        "provider": "openai",
        "model_responded": "gpt-4o-2024-08-06",
        "response_id": "chatcmpl-0123456789abcdef",
        "finish_reasons": ("stop",),
        "usage": Usage(1_000, 100, 400, 20),
        "attempts": (attempt,),
    }
    return exchange(**{**values, **changes})


@contextmanager
def recording(
    path: Path,
    masker: Callable[[bytes], Masked] = mask,
    *,
    limits: RecorderLimits | None = None,
    retention: Retention | None = None,
    attachments: Attachments | None = None,
) -> Iterator[Recorder]:
    """A recorder that is closed, and so flushed, at the end."""
    recorder = Recorder(TraceStore(path), masker, limits=limits, retention=retention, attachments=attachments)
    recorder.start()
    try:
        yield recorder
    finally:
        recorder.close()
