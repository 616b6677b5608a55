"""Proposals for tests of the queue and of what stands on it."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.approvals.held_action import Proposal
from gateway.core.action import Action, Surface
from gateway.core.canonical import JSON
from gateway.core.decision import ApprovalTerms, Decision, Effect, Reason


def proposal(
    arguments: Mapping[str, JSON] | None = None,
    *,
    agent: str = "clerk",
    owner: str | None = None,
    run: str | None = None,
    terms: ApprovalTerms | None = None,
) -> Proposal:
    """A transfer that a rule holds; the same arguments give the same digest, and always another id."""
    action = Action(
        surface=Surface.MCP,
        server="bank",
        tool="transfer",
        arguments=arguments or {"to": "DE89 3704 0044 0532 0130 00", "amount": "120.00"},
        upstream="bank",
        definition="d" * 64,
        credential="bank-token",
    )
    reason = Reason(policy="payments", rule="large", effect=Effect.HOLD, text="transfers are looked at by a person")
    decision = Decision(effect=Effect.HOLD, reasons=(reason,), release="r" * 64, terms=terms or ApprovalTerms())
    return Proposal.of(action, decision, agent=agent, owner=owner, run=run, execution={"protocol": "2026-07-28"})
