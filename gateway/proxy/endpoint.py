"""Where an upstream listens and what the operator's files say must go with every request to it."""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.proxy.upstream import Target, Timeouts


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
