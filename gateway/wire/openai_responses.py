"""OpenAI Responses: the codec of the dialect, under one name.

Requests: `decode_request`, `rewrite`, `strip_tools`. Answers: `decode_response`, `rewrite_response`, `replace_calls`.
Streams: `ResponsesStreamGuard`. Error bodies are those of Chat Completions.
"""

from __future__ import annotations

from gateway.wire.openai_responses_events import error_event
from gateway.wire.openai_responses_request import ResponsesRequest, decode_request, read_request, rewrite
from gateway.wire.openai_responses_response import (
    ResponsesAnswer,
    decode_response,
    replace_calls,
    rewrite_response,
)
from gateway.wire.openai_responses_stream import RESPONSE, ResponsesStreamGuard
from gateway.wire.openai_responses_tools import provider_name, strip_tools

__all__ = [
    "RESPONSE",
    "ResponsesAnswer",
    "ResponsesRequest",
    "ResponsesStreamGuard",
    "decode_request",
    "decode_response",
    "error_event",
    "provider_name",
    "read_request",
    "replace_calls",
    "rewrite",
    "rewrite_response",
    "strip_tools",
]
