"""OpenAI Chat Completions: the codec of the dialect, under one name.

Requests: `decode_request`, `rewrite`, `strip_tools`. Responses: `decode_response`, `rewrite_response`, `replace_calls`.
Streams: `ChatStreamGuard`. Own bodies: `error`, `assistant_message`, `assistant_stream`, `models_list`.
A body that nothing rewrote is forwarded as it came: every decoded one keeps its bytes in `body`.
"""

from __future__ import annotations

from gateway.wire.calls import CallKind, CallVerdict, ProposedCall
from gateway.wire.openai_chat_answers import (
    Head,
    assistant_message,
    assistant_stream,
    error,
    error_event,
    models_list,
)
from gateway.wire.openai_chat_choice import StreamLimits
from gateway.wire.openai_chat_fields import Usage
from gateway.wire.openai_chat_request import ChatRequest, decode_request, other_models, read_request, rewrite
from gateway.wire.openai_chat_response import ChatResponse, decode_response, replace_calls, rewrite_response
from gateway.wire.openai_chat_stream import ChatStreamGuard
from gateway.wire.openai_chat_tools import strip_tools
from gateway.wire.outputs import Blocked, Decide, Failed, Output, Release

__all__ = [
    "Blocked",
    "CallKind",
    "CallVerdict",
    "ChatRequest",
    "ChatResponse",
    "ChatStreamGuard",
    "Decide",
    "Failed",
    "Head",
    "Output",
    "ProposedCall",
    "Release",
    "StreamLimits",
    "Usage",
    "assistant_message",
    "assistant_stream",
    "decode_request",
    "decode_response",
    "error",
    "error_event",
    "models_list",
    "other_models",
    "read_request",
    "replace_calls",
    "rewrite",
    "rewrite_response",
    "strip_tools",
]
