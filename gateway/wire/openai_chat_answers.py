"""Chat Completions bodies that the gateway writes by itself: errors, held or denied answers, the list of models.

Texts come from the caller; nothing of an upstream's answer goes in here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gateway.core.canonical import JSON
from gateway.wire import leaves, sse

DONE = b"data: [DONE]\n\n"

_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    422: "invalid_request_error",
    429: "rate_limit_error",
}


def error(code: str, message: str, status: int, *, param: str | None = None) -> bytes:
    """An error body. The SDK picks its exception by the HTTP status; `code` and `type` are for programs to read."""
    kind = _ERROR_TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return leaves.encode({"error": {"message": message, "type": kind, "param": param, "code": code}})


def error_event(code: str, message: str, status: int = 502) -> bytes:
    """The end of a stream that failed: the SDK raises an APIError at the first event, other clients stop at the second.

    Without it a stream that ends early looks like a success to most clients.
    """
    return sse.encode(error(code, message, status)) + DONE


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What every chunk of an answer repeats. `created` is in unix seconds."""

    id: str
    model: str
    created: int


def assistant_message(head: Head, text: str, *, finish_reason: str = "stop") -> bytes:
    """A complete answer with one assistant message and no tool call. It cost no tokens, so `usage` is zero."""
    message: JSON = {"role": "assistant", "content": text, "refusal": None}
    return leaves.encode(
        {
            "id": head.id,
            "object": "chat.completion",
            "created": head.created,
            "model": head.model,
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason}],
            "usage": _NO_USAGE,
        }
    )


def assistant_stream(head: Head, text: str, *, finish_reason: str = "stop", include_usage: bool = False) -> bytes:
    """The same as a complete stream."""
    events = [
        chunk(head, [_choice(0, {"role": "assistant", "content": ""}, None)]),
        chunk(head, [_choice(0, {"content": text}, None)]),
        chunk(head, [_choice(0, {}, finish_reason)]),
    ]
    if include_usage:
        events.append(chunk(head, [], usage=_NO_USAGE))
    return b"".join([*events, DONE])


def notice(head: Head, choice: int, text: str, *, opens: bool = False) -> bytes:
    """One event that adds `text` to what a choice says; one that opens a stream names the role."""
    delta: dict[str, JSON] = {"role": "assistant"} if opens else {}
    return chunk(head, [_choice(choice, {**delta, "content": text}, None)])


def ending(head: Head, choices: Iterable[int], finish_reason: str) -> bytes:
    """One event that ends these choices."""
    return chunk(head, [_choice(choice, {}, finish_reason) for choice in choices])


def chunk(head: Head, choices: Sequence[JSON], *, usage: JSON = None) -> bytes:
    """One event of a stream."""
    body: dict[str, JSON] = {
        "id": head.id,
        "object": "chat.completion.chunk",
        "created": head.created,
        "model": head.model,
        "choices": list(choices),
    }
    if usage is not None:
        body["usage"] = usage
    return sse.encode(leaves.encode(body))


def models_list(names: Iterable[str]) -> bytes:
    """The body of `GET /v1/models`."""
    entries: list[JSON] = [{"id": name, "object": "model", "created": 0, "owned_by": "gateway"} for name in names]
    return leaves.encode({"object": "list", "data": entries})


_NO_USAGE: JSON = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}


def _choice(index: int, delta: dict[str, JSON], finish_reason: str | None) -> JSON:
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
