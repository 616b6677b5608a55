"""Messages bodies and events that the gateway writes by itself: errors, and what stands in the place of a call.

Texts come from the caller; nothing of an upstream's answer goes in here but the id and the model of a stream.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.core.canonical import JSON
from gateway.wire import leaves

_ERROR_TYPES = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What opens an answer."""

    id: str = "msg_gateway"
    model: str = ""


def error(code: str, message: str, status: int) -> bytes:
    """An error body. The SDK picks its exception by the HTTP status and gives out `error_code`, our code."""
    return leaves.encode(_error(code, message, status))


def error_event(code: str, message: str, status: int = 502) -> bytes:
    """The end of a stream that failed: the SDK raises an APIStatusError at it."""
    return event("error", _error(code, message, status))


def event(name: str, body: JSON) -> bytes:
    """One event of a stream, as Anthropic writes it: the type stands in the name too."""
    return b"event: " + name.encode("ascii") + b"\ndata: " + leaves.encode(body) + b"\n\n"


def text_block(text: str) -> dict[str, JSON]:
    return {"type": "text", "text": text}


def text_events(index: int, text: str) -> bytes:
    """A whole text block."""
    events: list[tuple[str, dict[str, JSON]]] = [
        ("content_block_start", {"content_block": text_block("")}),
        ("content_block_delta", {"delta": {"type": "text_delta", "text": text}}),
        ("content_block_stop", {}),
    ]
    return b"".join(event(name, {"type": name, "index": index, **body}) for name, body in events)


def opening(head: Head) -> bytes:
    """The first event of a stream."""
    message: JSON = {
        "id": head.id,
        "type": "message",
        "role": "assistant",
        "model": head.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 0, "output_tokens": 0},
    }
    return event("message_start", {"type": "message_start", "message": message})


def ending(stop_reason: str, output_tokens: int) -> bytes:
    """The last two events of a stream."""
    delta: JSON = {"stop_reason": stop_reason, "stop_sequence": None}
    body: JSON = {"type": "message_delta", "delta": delta, "usage": {"output_tokens": output_tokens}}
    return event("message_delta", body) + event("message_stop", {"type": "message_stop"})


def _error(code: str, message: str, status: int) -> JSON:
    kind = _ERROR_TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")
    return {
        "type": "error",
        "error": {"type": kind, "message": message, "details": {"error_code": code}},
        "request_id": None,
    }
