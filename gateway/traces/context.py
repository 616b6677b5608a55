"""Identities of traces: W3C trace context, run ids, span ids. No I/O but the system's randomness.

Source: https://www.w3.org/TR/trace-context/ section 3.2.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from typing import NamedTuple

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII | re.DOTALL)
_TRACE_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.ASCII | re.IGNORECASE)
_ZERO_TRACE = "0" * 32
_ZERO_SPAN = "0" * 16
TRACEPARENT_CHARS_MAX = 512  # later versions may be longer than the 55 of version 00; nobody needs more than this


class TraceParent(NamedTuple):
    """The caller's place in its trace. `sampled` is the caller's wish; it does not switch the gateway's record off."""

    trace_id: str
    span: str
    sampled: bool


def parse_traceparent(value: str | bytes | None) -> TraceParent | None:
    """Read a `traceparent`. None for everything that the specification calls invalid: uppercase, zero ids, version ff,
    trailing characters in version 00."""
    if not value or len(value) > TRACEPARENT_CHARS_MAX:
        return None
    text = value.decode("latin-1") if isinstance(value, bytes) else value
    found = _TRACEPARENT.fullmatch(text)
    if found is None:
        return None
    version, trace_id, span, flags, rest = found.groups()
    if version == "ff" or (version == "00" and rest is not None) or trace_id == _ZERO_TRACE or span == _ZERO_SPAN:
        return None
    return TraceParent(trace_id, span, bool(int(flags, 16) & 1))


def format_traceparent(trace_id: str, span: str) -> str:
    """The header to send on. Always sampled: an upstream that traces belongs to the same tree."""
    return f"00-{trace_id}-{span}-01"


def normalise_run(text: str, *, scope: str = "") -> str:
    """32 hex digits for what a caller calls its run. A trace id or a UUID keeps its digits, so that the caller finds
    its own trace again; anything else is hashed together with `scope` (the agent), so that the `run-1` of two agents
    are two runs."""
    if _TRACE_ID.fullmatch(text) and text != _ZERO_TRACE:
        return text
    if _UUID.fullmatch(text):
        digits = text.replace("-", "").lower()
        if digits != _ZERO_TRACE:
            return digits
    spelled = f"{len(scope)}:{scope}{text}".encode("utf-8", "surrogatepass")
    return hashlib.sha256(spelled).hexdigest()[:32]


_drawn: list[str] = []  # random chunks of 16 hex digits; `pop` is atomic, so threads never share one
_DRAW_BYTES = 4096  # one system call for some hundred ids
os.register_at_fork(after_in_child=_drawn.clear)


def _chunk() -> str:
    while True:
        try:
            return _drawn.pop()
        except IndexError:
            digits = os.urandom(_DRAW_BYTES).hex()
            _drawn.extend([digits[at : at + 16] for at in range(0, len(digits), 16)])


def span_id() -> str:
    """A fresh span id, 16 hex digits."""
    while (drawn := _chunk()) == _ZERO_SPAN:
        pass
    return drawn


def trace_id() -> str:
    """A fresh trace id, 32 hex digits."""
    return span_id() + span_id()


def exchange_id() -> str:
    """A fresh exchange id: 12 hex digits of milliseconds, then 20 random ones, so that ids sort by time and the
    store appends instead of writing all over its index."""
    return f"{time.time_ns() // 1_000_000:012x}{_chunk()}{_chunk()[:4]}"
