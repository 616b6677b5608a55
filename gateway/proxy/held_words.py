"""What an agent is told about a held action, in words that cannot be mistaken for success.

Everything that did not run says NOT EXECUTED first: a model that skims must not take a parked payment for a paid one.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from gateway.core.held import State

if TYPE_CHECKING:
    from gateway.approvals import HeldAction

STATUS_TOOL = "gateway_approval_status"


def describe(held: HeldAction) -> str:
    """One paragraph for the agent. Holds the rule's reason and an approver's comment, never arguments or names."""
    return _WORDS[held.state](held)


def _pending(held: HeldAction) -> str:
    until = datetime.fromtimestamp(held.expires_s, UTC).strftime("%Y-%m-%d %H:%M UTC")
    return (
        f"NOT EXECUTED. The call is parked as {held.id} and waits for a person to decide, at the latest until {until}. "
        f"{_why(held)} Ask again with the same arguments, or call {STATUS_TOOL} with this id. Do not look for another "
        "way to the same effect."
    )


def _approved(held: HeldAction) -> str:
    return f"NOT EXECUTED YET. The call {held.id} was approved and waits for its execution. Ask again in a moment."


def _executing(held: HeldAction) -> str:
    return (
        f"NOT EXECUTED TO ITS END YET. The call {held.id} was approved, runs now and waits for the tool to answer. "
        "Ask again in a moment; do not send it by another way."
    )


def _denied(held: HeldAction) -> str:
    comment = next((vote.comment for vote in reversed(held.decisions) if vote.comment), "")
    said = f" They said: {comment.strip().rstrip('.')}." if comment.strip() else ""
    return f"NOT EXECUTED. A person denied the call {held.id}.{said} Do not try it again."


def _expired(held: HeldAction) -> str:
    return (
        f"NOT EXECUTED. Nobody decided on the call {held.id} in time, so it expired. That is not a denial: call the "
        "tool again to ask once more."
    )


def _cancelled(held: HeldAction) -> str:
    return f"NOT EXECUTED. The call {held.id} was cancelled."


def _invalidated(held: HeldAction) -> str:
    note = f" ({held.note})" if held.note else ""
    return (
        f"NOT EXECUTED. What was proposed as {held.id} no longer holds{note}. Call the tool again to have it decided "
        "anew."
    )


def _superseded(held: HeldAction) -> str:
    return f"NOT EXECUTED. A person replaced the call {held.id} by an edited one."


def _succeeded(held: HeldAction) -> str:
    return f"EXECUTED. The call {held.id} was approved and ran once; its result is not kept any more."


def _failed(held: HeldAction) -> str:
    return f"The call {held.id} was approved and tried once; the tool answered with an error. It is not tried again."


def _unknown(held: HeldAction) -> str:
    return (
        f"OUTCOME UNKNOWN. The call {held.id} was approved and sent once, but no clear answer came back: it may or "
        "may not have taken effect. It is not run again; a person has to find out. Do not repeat it by another way."
    )


def _why(held: HeldAction) -> str:
    reason = held.reason.strip()
    if not reason:
        return f"It is held by the rule {held.rule}."
    return f"It is held by the rule {held.rule}: {reason}{'' if reason[-1] in '.!?' else '.'}"


_WORDS = {
    State.PENDING: _pending,
    State.APPROVED: _approved,
    State.EXECUTING: _executing,
    State.DENIED: _denied,
    State.EXPIRED: _expired,
    State.CANCELLED: _cancelled,
    State.INVALIDATED: _invalidated,
    State.SUPERSEDED: _superseded,
    State.SUCCEEDED: _succeeded,
    State.FAILED: _failed,
    State.UNKNOWN: _unknown,
}
