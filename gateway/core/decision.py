"""What a policy says about one action, exchange or finding."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Effect(StrEnum):
    """Ordered by strictness: allow < hold < deny."""

    ALLOW = "allow"
    HOLD = "hold"
    DENY = "deny"

    @property
    def rank(self) -> int:
        return _RANK[self]


_RANK = {Effect.ALLOW: 0, Effect.HOLD: 1, Effect.DENY: 2}


def strictest(*effects: Effect) -> Effect:
    """The strictest of at least one effect."""
    return max(effects, key=_RANK.__getitem__)


class FailureMode(StrEnum):
    """What a named failure means. Only the pipeline turns a failure into a decision."""

    CLOSED = "closed"
    OPEN = "open"  # recorded as `allowed_failed_open`, never as allow


@dataclass(frozen=True, slots=True, kw_only=True)
class Obligation:
    """What must be done with an allowed or approved exchange. A kind that the pipeline does not know means deny."""

    kind: str
    parameters: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """One rule that spoke. `text` is what its author wrote for an approver to read."""

    policy: str
    rule: str
    effect: Effect
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalTerms:
    """Who may approve, how many, and for how long. Part of the digest that people approve."""

    group: str = "approvers"
    quorum: int = 1
    expires_s: int = 3600
    separation: bool = False  # the agent's owner does not count as an approver


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What the gateway must do, and why. `reasons[0]` is the rule that decided."""

    effect: Effect
    reasons: tuple[Reason, ...]
    release: str
    obligations: tuple[Obligation, ...] = field(default=())
    terms: ApprovalTerms | None = None  # set exactly when the effect is hold

    @property
    def rule(self) -> str:
        """`policy/rule` of the deciding rule, as traces and approvers see it."""
        return f"{self.reasons[0].policy}/{self.reasons[0].rule}" if self.reasons else "default"

    @property
    def reason(self) -> str:
        return self.reasons[0].text if self.reasons else "no rule allows it"
