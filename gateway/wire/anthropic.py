"""Anthropic Messages: the codec of the dialect, under one name.

Requests: `decode_request`, `rewrite`, `strip_tools`. Answers: `decode_response`, `replace_calls`. Streams:
`AnthropicStreamGuard`. Own bodies: `error`, `error_event`. A body that nothing rewrote is forwarded as it came: every
decoded one keeps its bytes in `body`.
"""

from __future__ import annotations

from gateway.wire.anthropic_answers import error, error_event
from gateway.wire.anthropic_fields import Usage
from gateway.wire.anthropic_request import MessagesRequest, decode_request, read_request, rewrite
from gateway.wire.anthropic_response import MessagesResponse, decode_count, decode_response, replace_calls
from gateway.wire.anthropic_stream import AnthropicStreamGuard
from gateway.wire.anthropic_tools import strip_tools

__all__ = [
    "AnthropicStreamGuard",
    "MessagesRequest",
    "MessagesResponse",
    "Usage",
    "decode_count",
    "decode_request",
    "decode_response",
    "error",
    "error_event",
    "read_request",
    "replace_calls",
    "rewrite",
    "strip_tools",
]
