"""Where an upstream listens and what the operator's files say must go with every request to it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from gateway.proxy.upstream import Target, Timeouts

if TYPE_CHECKING:
    from gateway.policy.model import Credential, Upstream
    from gateway.policy.model import Timeouts as DeclaredTimeouts


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One upstream, ready to be used. `headers` carry the operator's credential; `credential` is only its name.

    `path` is the base path: where an MCP server listens, or what stands before the operations of an HTTP tool.
    """

    name: str
    target: Target
    path: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()
    credential: str | None = None
    timeouts: Timeouts = field(default_factory=Timeouts)
    idempotency_key: bool = False

    def __repr__(self) -> str:
        return f"Endpoint({self.name!r})"  # never the credential


def endpoint_of(upstream: Upstream) -> Endpoint:
    """The endpoint of an upstream in the bundle; the same object for the same declaration."""
    return _endpoint(upstream.name, upstream.base_url, upstream.credential, upstream.timeouts, upstream.idempotency_key)


@lru_cache(maxsize=1024)  # the upstreams of a few releases
def _endpoint(
    name: str, base_url: str, credential: Credential | None, timeouts: DeclaredTimeouts, idempotency_key: bool
) -> Endpoint:
    url = urlsplit(base_url)
    tls = url.scheme == "https"
    return Endpoint(
        name=name,
        target=Target(tls, (url.hostname or "").encode("idna").decode(), url.port or (443 if tls else 80)),
        path=url.path.encode(),
        headers=() if credential is None else credential.headers(),
        credential=None if credential is None else credential.name,
        timeouts=Timeouts(connect_s=timeouts.connect_s, read_s=timeouts.read_s),
        idempotency_key=idempotency_key,
    )
