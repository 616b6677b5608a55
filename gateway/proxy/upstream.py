"""What it takes to name an upstream, how long to wait for it, how it can fail, and the bytes of a request head.

Knows no socket. The pool owns framing: `host`, `content-length` and every hop-by-hop header are written by the
gateway alone, whatever the caller passes, so that caller and upstream cannot disagree about where a request ends.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from gateway.core.errors import ClientError, UpstreamError

Headers = Sequence[tuple[bytes, bytes]]


class Target(NamedTuple):
    """Where an upstream listens. `host` is ASCII: a name, or an address without brackets."""

    tls: bool
    host: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Seconds to wait for each phase of one exchange; all but `connect_s` and `pool_s` are checked every 0.1 s.

    `read_s` bounds the time to the complete response head, and then the silence between pieces of the body. `total_s`
    bounds the whole exchange from the call to the last byte; None means that only the phases are bounded.
    """

    connect_s: float = 5.0
    write_s: float = 30.0  # silence of the upstream while it should be taking the request
    read_s: float = 60.0  # a model may think this long before its first byte
    pool_s: float = 5.0
    unread_s: float = 300.0  # how long our own reader may leave a full buffer: an agent that stalled holds a connection
    total_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolLimits:
    """Bounds of a pool; all but the sizes count per target."""

    connections_max: int = 512  # twice the concurrency that is benchmarked; one costs about 20 kB
    waiting_max: int = 2048  # four exchanges' worth behind each connection: beyond, waiting only adds latency
    idle_s: float = 15.0  # below what common servers keep (nginx 75, gunicorn behind a balancer 60); uvicorn's 5 is
    # covered by the check before reuse
    head_bytes_max: int = 65_536  # response head, or trailers, or chunk framing without content
    headers_max: int = 128
    buffer_bytes_max: int = 262_144  # unread body held per response before the upstream is asked to pause


class Phase(StrEnum):
    """Where an exchange was when it failed."""

    POOL = "pool"
    CONNECT = "connect"
    WRITE = "write"
    READ = "read"


_STATUS = {"upstream_timeout": 504, "upstream_pool": 503}


class UpstreamFailure(UpstreamError):  # noqa: N818 - a kind of UpstreamError, as everyone else sees it
    """An exchange that did not come to its end.

    `code` is `upstream_connect`, `upstream_timeout`, `upstream_protocol`, `upstream_closed`, `upstream_pool` or
    `upstream_too_large`. `dispatched` is False only when it is certain that no byte of the request reached the
    upstream: only then may something that must run at most once be sent again.
    """

    def __init__(self, code: str, message: str, *, phase: Phase, dispatched: bool) -> None:
        super().__init__(code, message, status=_STATUS.get(code), retry_after_s=1 if code == "upstream_pool" else None)
        self.phase = phase
        self.dispatched = dispatched


SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that promise to change nothing (RFC 9110, 9.2.1) and may be sent again on a new connection."""

_METHODS = {name: name.encode() + b" " for name in ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE")}
_BODILESS = frozenset({"GET", "HEAD", "OPTIONS", "DELETE"})
_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,256}")
_PATH = re.compile(rb"/[\x21\x22\x24-\x7e]*")  # no space, no control, no fragment: nothing that splits a request line
_HOST = re.compile(r"[0-9A-Za-z._:-]{1,255}")
_OWNED = frozenset(
    b"host content-length transfer-encoding connection keep-alive proxy-connection proxy-authorization te trailer "
    b"upgrade expect http2-settings".split()
)
_prefixes: dict[bytes, bytes | None] = {}
_PREFIXES_MAX = 1024  # distinct header names remembered as checked; agents choose names, so it must not grow


def request_line_tail(target: Target) -> bytes:
    """What follows the path in every head that goes to this target: version and Host.

    Raises ClientError `invalid_target` for a host or port that cannot be written into a head."""
    if not _HOST.fullmatch(target.host) or not 0 < target.port < 65_536:
        raise ClientError("invalid_target", "the upstream address is not a host and a port; check `base_url`")
    host = f"[{target.host}]" if ":" in target.host else target.host
    if target.port != (443 if target.tls else 80):
        host = f"{host}:{target.port}"
    return b" HTTP/1.1\r\nhost: " + host.encode("ascii") + b"\r\n"


def encode_request(method: str, path: bytes, tail: bytes, headers: Headers, body: bytes) -> bytes:
    """The request as bytes. Raises ClientError for a method, path, name or value that could split it; never quotes it.

    Names are checked once and remembered; values are checked together, by counting line ends in the finished head.
    """
    verb = _METHODS.get(method)
    if verb is None:
        raise ClientError(
            "invalid_method", "the request method cannot be forwarded; use GET, POST, PUT, PATCH or DELETE"
        )
    if _PATH.fullmatch(path) is None:
        raise ClientError("invalid_path", "the request path cannot be forwarded; percent-encode it")
    pieces = [verb, path, tail]
    for name, value in headers:
        try:
            prefix = _prefixes[name]
        except KeyError:
            prefix = _check_name(name)
        if prefix is not None:
            pieces += (prefix, value, b"\r\n")
    lines = 1 + len(pieces) // 3  # the request line and Host are three pieces, and so is every header
    if body or method not in _BODILESS:
        pieces.append(b"content-length: %d\r\n\r\n" % len(body))
        lines += 2
    else:
        pieces.append(b"\r\n")
        lines += 1
    head = b"".join(pieces)
    if head.count(b"\n") != lines or head.count(b"\r") != lines or b"\0" in head:
        raise ClientError("invalid_header", "a header value holds a line break or NUL and cannot be forwarded")
    return head + body if body else head


def _check_name(name: bytes) -> bytes | None:
    """`name: ` for a field name that may be forwarded, None for one that the pool owns; raises for what is no token."""
    if _TOKEN.fullmatch(name) is None:
        raise ClientError("invalid_header", "a header name holds characters that cannot be forwarded")
    prefix = None if name.lower() in _OWNED else name + b": "
    if len(_prefixes) < _PREFIXES_MAX:
        _prefixes[name] = prefix
    return prefix
