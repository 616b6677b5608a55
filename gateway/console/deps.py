"""What the console needs, built once at start and passed down."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import quote, urlsplit

from gateway.approvals.queue import Queue
from gateway.core.canonical import JSON
from gateway.policy.identity import Keyring
from gateway.traces.query import RunStore

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


class PolicyStatus(Protocol):
    """Which release is in force, since when, and what is wrong with the files if the last reload was refused."""

    @property
    def release(self) -> str: ...
    @property
    def loaded_at(self) -> float: ...
    @property
    def problems(self) -> tuple[str, ...]:
        """Lines `file:line:column: what was found; what was expected`. Empty when the files are in force."""


def unmasked(text: str) -> str:
    """For tests and set-ups without filters."""
    return text


def unaudited(entry: Mapping[str, JSON]) -> None:
    """For tests."""
    del entry


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsoleDeps:
    """The rooms and settings of the console.

    `public_url` is the address as people reach it: links, the host check and `Secure` cookies follow it. `secret` signs
    sessions (32 random bytes; keep it over restarts to keep people signed in). `sign_in_token` is the one of the link
    that the embedded default prints at start; None where people sign in with approver tokens. Who comes by that link
    owns the machine, is called `operator`, and counts as a member of every approver group. `mask_text` is what results
    of tools go through before they are shown; it may raise FilterError, and then they are not shown. `audit`
    takes one line before a person's decision is carried out; when it raises StoreError nothing is decided. `metrics`
    gives the Prometheus text for whoever reaches the listener: aggregated numbers only. None: there is no such page.
    """

    queue: Queue
    runs: RunStore
    status: Callable[[], PolicyStatus]
    keyring: Callable[[], Keyring]
    secret: bytes
    public_url: str
    sign_in_token: str | None = None
    operator: str = "operator"
    mask_text: Callable[[str], str] = unmasked
    audit: Callable[[Mapping[str, JSON]], None] = unaudited
    metrics: Callable[[], Awaitable[bytes]] | None = None
    clock: Callable[[], float] = time.time

    @property
    def secure(self) -> bool:
        return urlsplit(self.public_url).scheme == "https"

    @property
    def hosts(self) -> frozenset[str]:
        """The `Host` headers that are answered: anything else may be a web page that rebinds its name to us."""
        parts = urlsplit(self.public_url)
        names = LOOPBACK if parts.hostname in LOOPBACK else {parts.hostname or ""}
        spelled = {f"[{name}]" if ":" in name else name for name in names}
        default = 443 if parts.scheme == "https" else 80
        port = parts.port or default
        return frozenset(f"{name}:{port}" for name in spelled) | (spelled if port == default else frozenset())

    @property
    def sign_in_url(self) -> str:
        """The link to print at start. Fetching it changes nothing: its page has a button."""
        base = self.public_url.rstrip("/")
        return f"{base}/sign-in?token={quote(self.sign_in_token)}" if self.sign_in_token else f"{base}/sign-in"
