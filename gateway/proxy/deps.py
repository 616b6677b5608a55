"""What the request handlers of the data plane need, built once at start and passed down."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gateway.core.canonical import JSON
from gateway.proxy.runs import Runs
from gateway.proxy.sessions import Sessions

if TYPE_CHECKING:
    from gateway.approvals import Queue
    from gateway.filters import Scanner
    from gateway.policy import PolicySet
    from gateway.proxy.caller import Caller
    from gateway.proxy.definitions import Definitions
    from gateway.proxy.pool import Pool
    from gateway.traces import AuditLog, ExchangeRecord, Recorder


@dataclass(frozen=True, slots=True, kw_only=True)
class Deps:
    """The rooms that a surface talks to. `policy()` is the release in force now: call it once per decision.

    `queue` is None where no store is configured: a hold then answers `store_unavailable`.
    """

    policy: Callable[[], PolicySet]
    scanner: Scanner
    queue: Queue | None
    pool: Pool
    recorder: Recorder
    audit: AuditLog
    definitions: Definitions
    hold_wait_s: float = 25.0  # under the 30 s after which many HTTP clients and load balancers give up
    body_bytes_max: int = 4 * 1024 * 1024
    response_bytes_max: int = 16 * 1024 * 1024  # what a tool may answer when its text must be looked at
    runs: Runs = field(default_factory=Runs)
    sessions: Sessions = field(default_factory=Sessions)
    session_key: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)
    """Binds an MCP session to the agent that opened it. Workers that share sessions must share it."""
    clock: Callable[[], float] = time.time

    def session(self, caller: Caller) -> Mapping[str, JSON]:
        """The session facts for a decision about this caller."""
        return self.sessions.of(caller, now=self.clock())

    def finished(self, record: ExchangeRecord) -> None:
        """Remember an exchange that is over. The record belongs to the recorder from here on."""
        self.sessions.observe(record, now=self.clock())
        self.recorder.put(record)
