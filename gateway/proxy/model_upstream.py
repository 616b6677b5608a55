"""What goes to a model endpoint and what of its answer may come back: headers by allowlist, errors without details."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.core.canonical import parse
from gateway.core.errors import ClientError, GatewayError, UpstreamError
from gateway.proxy.asgi import Header
from gateway.proxy.caller import Caller
from gateway.proxy.endpoint import endpoint_of
from gateway.proxy.upstream import Target, Timeouts

if TYPE_CHECKING:
    from gateway.policy import ModelRoute

CALLER_KEY_HEADER = b"x-upstream-key"
ERROR_BODY_BYTES_MAX = 65_536
ERROR_MESSAGE_CHARS_MAX = 500

# Sent on because the dialect has them; everything else of the caller stays here, its credentials first of all.
_REQUEST_HEADERS = (b"user-agent", b"openai-beta", b"x-client-request-id", b"anthropic-version", b"anthropic-beta")
_RESPONSE_HEADERS = frozenset(
    {b"content-type", b"x-request-id", b"request-id", b"openai-processing-ms", b"openai-version"}
)
_RESPONSE_PREFIXES = (b"x-ratelimit-", b"anthropic-ratelimit-")
_PASSED_ON = frozenset({400, 404, 413, 422})  # about the caller's own request: it needs to read what was wrong


@dataclass(frozen=True, slots=True, eq=False)
class ModelEndpoint:
    """A model route, taken apart once: what a request to it needs."""

    route: ModelRoute
    target: Target
    base: bytes
    timeouts: Timeouts
    own: tuple[Header, ...]  # the operator's credential

    @classmethod
    def of(cls, route: ModelRoute) -> ModelEndpoint:
        endpoint = endpoint_of(route)
        return cls(route, endpoint.target, endpoint.path, endpoint.timeouts, endpoint.headers)

    def headers(self, caller: Caller, headers: Mapping[bytes, bytes], *, stream: bool) -> list[Header]:
        """The headers of the upstream request. Raises ClientError where the route wants the caller's own key and it
        is missing."""
        found: list[Header] = [
            (b"content-type", b"application/json"),
            (b"accept", b"text/event-stream" if stream else b"application/json"),
            (b"accept-encoding", b"identity"),
            (b"traceparent", caller.traceparent.encode("ascii")),
        ]
        for name in _REQUEST_HEADERS:
            value = headers.get(name)
            if value is not None:
                found.append((name, value))
        found.extend(self._credential(headers))
        return found

    def _credential(self, headers: Mapping[bytes, bytes]) -> tuple[Header, ...]:
        """The operator's key, or the caller's own where the operator's route says so."""
        credential = self.route.credential
        if credential is None or not credential.passthrough:
            return self.own
        own = headers.get(CALLER_KEY_HEADER)
        if own is None:
            raise ClientError(
                "upstream_key_missing", "this model needs your own key: send it as `x-upstream-key`", status=401
            )
        return credential.headers(own.decode("latin-1"))


def response_headers(headers: Iterable[Header]) -> list[Header]:
    """The upstream's headers that say something to the agent and nothing of the upstream's inside."""
    return [
        (name, value) for name, value in headers if name in _RESPONSE_HEADERS or name.startswith(_RESPONSE_PREFIXES)
    ]


def upstream_refusal(status: int, headers: Iterable[Header], body: bytes) -> GatewayError:
    """The error that the agent sees when the upstream answered with an error status.

    What is about the caller's own request keeps its message, as the dialect has it; what is about the operator's
    account or the upstream's inside does not.
    """
    if status == 429:
        after = next((value for name, value in headers if name == b"retry-after"), b"")
        return UpstreamError(
            "upstream_rate_limited",
            "the model endpoint is rate limited; try again later",
            status=429,
            retry_after_s=min(int(after), 86_400) if after.isdigit() else None,
        )
    if status in _PASSED_ON:
        code, message = _read_error(body)
        return ClientError(code, message, status=status)
    if status in (401, 403):
        return UpstreamError("upstream_refused", "the model endpoint refused the operator's credential")
    return UpstreamError("upstream_error", f"the model endpoint answered with status {status}")


def _read_error(body: bytes) -> tuple[str, str]:
    try:
        value = parse(body)
    except ClientError:
        value = None
    error = value.get("error") if isinstance(value, dict) else None
    message = error.get("message") if isinstance(error, dict) else None
    code = error.get("code") if isinstance(error, dict) else None
    details = error.get("details") if isinstance(error, dict) else None
    if code is None and isinstance(details, dict):  # where Anthropic has it
        code = details.get("error_code")
    if not isinstance(message, str) or not message.strip():
        message = "the model endpoint refused the request"
    line = " ".join(message.split())[:ERROR_MESSAGE_CHARS_MAX]
    return (code if isinstance(code, str) and code.isascii() and len(code) <= 64 else "upstream_refused"), line
