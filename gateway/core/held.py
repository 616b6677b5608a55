"""The life of a held action: one literal table. An unlisted transition raises; the store makes each one atomically."""

from __future__ import annotations

from enum import StrEnum

from gateway.core.errors import TransitionError


class State(StrEnum):
    PENDING = "PENDING"
    APPROVED = "APPROVED"
    DENIED = "DENIED"
    EXPIRED = "EXPIRED"
    CANCELLED = "CANCELLED"
    INVALIDATED = "INVALIDATED"
    SUPERSEDED = "SUPERSEDED"
    EXECUTING = "EXECUTING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    UNKNOWN = "UNKNOWN"


TRANSITIONS: dict[State, frozenset[State]] = {
    State.PENDING: frozenset(
        {State.APPROVED, State.DENIED, State.EXPIRED, State.CANCELLED, State.INVALIDATED, State.SUPERSEDED}
    ),
    State.APPROVED: frozenset({State.EXECUTING, State.EXPIRED, State.CANCELLED, State.INVALIDATED}),
    State.EXECUTING: frozenset({State.SUCCEEDED, State.FAILED, State.UNKNOWN}),
    State.UNKNOWN: frozenset({State.SUCCEEDED, State.FAILED}),  # a person reconciles, with evidence
    State.DENIED: frozenset(),
    State.EXPIRED: frozenset(),
    State.CANCELLED: frozenset(),
    State.INVALIDATED: frozenset(),
    State.SUPERSEDED: frozenset(),
    State.SUCCEEDED: frozenset(),
    State.FAILED: frozenset(),
}

TERMINAL = frozenset(state for state, targets in TRANSITIONS.items() if not targets)
OPEN = frozenset({State.PENDING, State.APPROVED, State.EXECUTING})
"""What an agent sees as still working."""


def step(current: State, target: State) -> State:
    """The target state; raises TransitionError `transition_refused` where the table has no such edge."""
    if target not in TRANSITIONS[current]:
        raise TransitionError("transition_refused", f"a held action that is {current} cannot become {target}")
    return target
