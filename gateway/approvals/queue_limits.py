"""How much the queue takes, and for how long it keeps it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueLimits:
    """Bounds of the queue. The defaults fit a Redis with 2 GB."""

    pending_per_agent_max: int = 100  # a loop in one agent must not bury everybody's inbox
    pending_max: int = 200_000  # of all agents: twice the number that the pages are measured with
    closed_max: int = 200_000  # the oldest go first, whatever `retention_s` says
    arguments_bytes_max: int = 256 * 1024  # a page of 50 is read whole; nobody approves what nobody can read
    execution_bytes_max: int = 16 * 1024  # protocol version and trace ids
    result_bytes_max: int = 1024 * 1024  # larger ones are not kept; the outcome is
    text_chars_max: int = 4_000  # comments, evidence and notes: a page of prose
    quorum_max: int = 20  # votes are fields of the action
    result_ttl_s: int = 3_600  # results hold data of others: long enough to be fetched, no longer
    retention_s: int = 30 * 86_400  # closed actions, for the page of recent decisions; the audit log keeps longer
