"""A held action as people see it: one sentence, how urgent it is, who may decide. Pure, over the queue's records."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from gateway.approvals.held_action import HeldAction, Verdict, Vote
from gateway.console.sessions import Session
from gateway.console.values import clip, key_arguments, suspicious
from gateway.core.held import State

SOON_S = 600.0  # an approver at the desk can still read calmly
URGENT_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What a state means, in words for people."""

    label: str
    meaning: str
    tone: str  # wait | good | bad | calm


STANDINGS: dict[State, Standing] = {
    State.PENDING: Standing(label="Waiting", tone="wait", meaning="Nothing has happened. It waits for a decision."),
    State.APPROVED: Standing(label="Approved", tone="good", meaning="It was approved and will run in a moment."),
    State.DENIED: Standing(label="Denied", tone="bad", meaning="It was denied. It did not run and will not run."),
    State.EXPIRED: Standing(
        label="Expired", tone="calm", meaning="Nobody decided in time. It did not run and will not run."
    ),
    State.CANCELLED: Standing(label="Cancelled", tone="calm", meaning="It was withdrawn before it ran."),
    State.INVALIDATED: Standing(
        label="Invalidated", tone="bad", meaning="What was approved is no longer what would run. It did not run."
    ),
    State.SUPERSEDED: Standing(
        label="Replaced", tone="calm", meaning="An edited action took its place. It did not run."
    ),
    State.EXECUTING: Standing(label="Running", tone="wait", meaning="It was approved and is running now."),
    State.SUCCEEDED: Standing(label="Done", tone="good", meaning="It was approved and ran once."),
    State.FAILED: Standing(
        label="Failed", tone="bad", meaning="It was approved and ran once. The tool reported an error."
    ),
    State.UNKNOWN: Standing(
        label="Outcome unknown",
        tone="bad",
        meaning="It was sent, and no answer was recorded. It may or may not have happened. It is not tried again.",
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One held action beside the person who looks at it."""

    action: HeldAction
    arguments: tuple[tuple[str, str], ...]
    age_s: float
    left_s: float
    urgency: str  # calm | soon | urgent | over
    member: bool  # the person belongs to the group that decides
    vote: Vote | None  # the person's own
    suspicious: bool  # the arguments hold characters that could mislead

    @property
    def standing(self) -> Standing:
        return STANDINGS[self.action.state]

    @property
    def pending(self) -> bool:
        return self.action.state is State.PENDING

    @property
    def decidable(self) -> bool:
        return self.pending and self.member and self.left_s > 0 and self.vote is None

    @property
    def missing(self) -> int:
        """How many approvals are still needed."""
        return max(self.action.terms.quorum - self.action.approvals, 0)

    @property
    def decided_by(self) -> str:
        """Who settled it, for a list of decisions."""
        last = self.action.decisions[-1:] if self.action.state is not State.EXPIRED else ()
        deniers = [vote for vote in self.action.decisions if vote.verdict is Verdict.DENY]
        return ", ".join(vote.person for vote in deniers or self.action.decisions) if last else ""


class Glances:
    """What a list shows of the arguments, remembered by digest: they are looked at once, however often it is drawn."""

    REMEMBERED_MAX = 2_000  # a few hundred bytes each

    def __init__(self) -> None:
        self._known: OrderedDict[str, tuple[tuple[tuple[str, str], ...], bool]] = OrderedDict()

    def at(self, action: HeldAction) -> tuple[tuple[tuple[str, str], ...], bool]:
        """The telling arguments, and whether any could mislead. Safe from several threads: the worst is double work."""
        known = self._known.get(action.digest)
        if known is None:
            known = key_arguments(action.arguments), suspicious(action.arguments)
            self._known[action.digest] = known
            while len(self._known) > self.REMEMBERED_MAX:
                self._known.popitem(last=False)
        return known


def card(action: HeldAction, session: Session, now: float, glances: Glances) -> Card:
    left_s = action.expires_s - now
    arguments, misleading = glances.at(action)
    return Card(
        action=action,
        arguments=arguments,
        age_s=now - action.created_s,
        left_s=left_s,
        urgency=_urgency(action, left_s),
        member=session.belongs_to(action.terms.group),
        suspicious=misleading,
        vote=next((vote for vote in action.decisions if vote.person == session.person.name), None),
    )


def trace_of(action: HeldAction) -> str | None:
    """The tree of the run that the action belongs to, as the proxy noted it; None where it noted none."""
    trace = action.execution.get("trace_id")
    return trace if isinstance(trace, str) and len(trace) == 32 and trace.isalnum() else None


def title(action: HeldAction) -> str:
    """For the title bar: the tool's name is text that comes from outside, so it is short and printable."""
    return clip("".join(char for char in action.name if char.isprintable()), 60)


def _urgency(action: HeldAction, left_s: float) -> str:
    if action.state is not State.PENDING or left_s <= 0:
        return "over"
    return "urgent" if left_s <= URGENT_S else "soon" if left_s <= SOON_S else "calm"
