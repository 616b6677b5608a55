"""What holds for every request to the console, before any page is asked: host, origin, size, headers. Pure ASGI."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from urllib.parse import urlsplit

import orjson
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.core.errors import ClientError

BODY_BYTES_MAX = 64 * 1024  # the largest form is a comment; the largest API body a comment and a digest

# No inline script or style, no frames, nothing from elsewhere. Text that slips through as markup can do nothing.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
SECURITY_HEADERS: Mapping[str, str] = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "referrer-policy": "no-referrer",  # addresses hold ids of actions, and once the sign-in token
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "cache-control": "no-store",
}
HEALTH = "/healthz"  # asked by probes that name the host by its address
METRICS = "/metrics"  # asked by collectors that do the same; a page that rebinds a name always names a name
_CHANGING = frozenset({"POST", "PUT", "PATCH", "DELETE"})


class Guard:
    """Refuses foreign hosts, cross-site writes and large bodies; adds the security headers to every response."""

    def __init__(self, app: ASGIApp, *, hosts: frozenset[str], secure: bool) -> None:
        self._app = app
        self._hosts = hosts
        self._headers = dict(SECURITY_HEADERS)
        if secure:
            self._headers["strict-transport-security"] = "max-age=31536000"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers.setdefault(name, value)
            await send(message)

        refusal = self._refusal(scope)
        if refusal is not None:
            await _refuse(refusal, send_guarded)
            return
        await self._app(scope, _capped(receive), send_guarded)

    def _refusal(self, scope: Scope) -> ClientError | None:
        headers = Headers(scope=scope)
        if not self._answers(scope["path"], headers.get("host", "").lower()):
            return ClientError(
                "unknown_host", "this host name is not the console's; set GATEWAY_CONSOLE_URL to it", status=421
            )
        if scope["method"] not in _CHANGING:
            return None
        # Browsers say where a request comes from, and pages cannot change it. `Origin` is no witness here: under
        # `no-referrer` it is `null` for our own forms too. CSRF tokens stand behind this.
        if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            return ClientError("cross_site", "this request comes from another site and is refused", status=403)
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > BODY_BYTES_MAX:
            return _too_large()
        return None

    def _answers(self, path: str, host: str) -> bool:
        return path == HEALTH or host in self._hosts or (path == METRICS and _is_address(host))


def _is_address(host: str) -> bool:
    """Whether a `Host` header is an IP address, with or without a port."""
    try:
        ip_address(urlsplit(f"//{host}").hostname or "")
    except ValueError:
        return False
    return True


def _capped(receive: Receive) -> Receive:
    """Count what arrives: a chunked body has no length to check beforehand."""
    received = 0

    async def receive_capped() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > BODY_BYTES_MAX:
            raise _too_large()
        return message

    return receive_capped


def _too_large() -> ClientError:
    return ClientError("body_too_large", f"the body is larger than {BODY_BYTES_MAX} bytes", status=413)


def error_json(code: str, message: str) -> bytes:
    """The one shape of errors in the API."""
    return orjson.dumps({"error": {"code": code, "message": message}})


async def _refuse(error: ClientError, send: Send) -> None:
    body = error_json(error.code, error.message)
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
