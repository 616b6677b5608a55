"""Deciding and reading held actions, the same for the pages and the API."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from gateway.approvals.held_action import HeldAction
from gateway.console.bodies import comment_of
from gateway.console.chat import pretty
from gateway.console.desk import Desk
from gateway.console.reveal import decode
from gateway.console.sessions import Session
from gateway.console.values import Drawing, draw
from gateway.core.errors import ClientError, FilterError, StoreError

RESULT_CHARS_MAX = 20_000
THREAD_BYTES = 16_384  # larger arguments are drawn beside the event loop, which others wait for


async def get_held(desk: Desk, id: str) -> HeldAction:  # noqa: A002 - the word of the glossary
    """Raises ClientError `held_action_unknown`."""
    held = await desk.deps.queue.get(id)
    if held is None:
        raise ClientError("held_action_unknown", "there is no such held action; it may be too old", status=404)
    return held


async def drawn(held: HeldAction, previous: HeldAction | None) -> Drawing:
    before = previous.arguments if previous is not None else None
    if len(held.arguments) < THREAD_BYTES:
        return draw(held.arguments, before)
    return await asyncio.to_thread(draw, held.arguments, before)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ballot:
    """What a person posts. `digest` is that of the action that they saw."""

    approve: bool
    digest: str
    comment: str


async def decide(desk: Desk, session: Session, held: HeldAction, ballot: Ballot) -> HeldAction:
    """Vote as the person of the session, on the digest that they saw. Raises as the queue does.

    What cannot be drawn cannot be approved: nobody may sign what nobody can read.
    """
    group = held.terms.group
    if not session.belongs_to(group):
        raise ClientError(
            "approval_not_permitted", f"you are not a member of `{group}`, which decides this", status=403
        )
    if ballot.approve and (await drawn(held, None)).problem:
        raise ClientError("arguments_unreadable", "the stored arguments cannot be shown, so they cannot be approved")
    _audit(desk, session, held, "approve" if ballot.approve else "deny", ballot.digest)
    vote = desk.deps.queue.approve if ballot.approve else desk.deps.queue.deny
    return await vote(
        held.id,
        session.person.name,
        session.groups_for(group),
        digest=ballot.digest,
        comment=comment_of(ballot.comment),
        now=desk.deps.clock(),
    )


async def settle_unknown(desk: Desk, session: Session, held: HeldAction, *, ok: bool, evidence: str) -> HeldAction:
    """Say what became of an UNKNOWN action, as a member of the group that approved it."""
    if not session.belongs_to(held.terms.group):
        raise ClientError(
            "approval_not_permitted", f"you are not a member of `{held.terms.group}`, which decides this", status=403
        )
    text = comment_of(evidence, "evidence")
    _audit(desk, session, held, "reconcile_succeeded" if ok else "reconcile_failed", held.digest)
    return await desk.deps.queue.reconcile(held.id, session.person.name, ok, text, now=desk.deps.clock())


def _audit(desk: Desk, session: Session, held: HeldAction, verdict: str, digest: str) -> None:
    """Who decided what, before it is done: ids and digests, not the comment, which may quote anything."""
    desk.deps.audit(
        {
            "event": "decision",
            "at": desk.deps.clock(),
            "held": held.id,
            "digest": digest,
            "person": session.person.name,
            "verdict": verdict,
            "group": held.terms.group,
            "rule": held.rule,
            "agent": held.agent,
        }
    )


async def shown_result(desk: Desk, held: HeldAction) -> tuple[str, int] | None:
    """The tool's answer, masked and cut, and how many characters are left out; None when there is none to show.

    Raises nothing: an answer that the filters could not inspect is replaced by a sentence that says so.
    """
    if held.result is None:
        return None
    try:
        text = await asyncio.to_thread(_masked, desk, held.result)  # filters take 0.2 s for a megabyte
    except (FilterError, StoreError):
        return "(not shown: the filters could not inspect it)", 0
    return text[:RESULT_CHARS_MAX], max(len(text) - RESULT_CHARS_MAX, 0)


def _masked(desk: Desk, result: bytes) -> str:
    return pretty(desk.deps.mask_text(decode(result)).encode())
