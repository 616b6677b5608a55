"""Held actions as the fields of a Redis hash, and back. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from gateway.approvals.held_action import Event, HeldAction, Proposal, Verdict, Vote
from gateway.core.action import Surface
from gateway.core.decision import ApprovalTerms
from gateway.core.held import State


def pending(proposal: Proposal, now: float) -> HeldAction:
    """What a proposal becomes when it is held."""
    return HeldAction(
        id=proposal.id,
        state=State.PENDING,
        digest=proposal.digest,
        agent=proposal.agent,
        surface=proposal.surface,
        server=proposal.server,
        tool=proposal.tool,
        arguments=proposal.arguments,
        rule=proposal.rule,
        reason=proposal.reason,
        release=proposal.release,
        terms=proposal.terms,
        created_s=now,
        expires_s=now + proposal.terms.expires_s,
        changed_s=now,
        owner=proposal.owner,
        run=proposal.run,
        upstream=proposal.upstream,
        definition=proposal.definition,
        credential=proposal.credential,
        execution=proposal.execution,
    )


def to_fields(held: HeldAction) -> list[str | bytes | int]:
    """Field, value, field, value...; what is None is left out, the state is written by the script."""
    fields: dict[str, str | bytes | int | None] = {
        "id": held.id,
        "digest": held.digest,
        "agent": held.agent,
        "surface": held.surface.value,
        "server": held.server,
        "tool": held.tool,
        "arguments": held.arguments,
        "rule": held.rule,
        "reason": held.reason,
        "release": held.release,
        "group": held.terms.group,
        "quorum": held.terms.quorum,
        "terms_expires_s": held.terms.expires_s,
        "separation": int(held.terms.separation),
        "created_s": repr(held.created_s),
        "expires_s": repr(held.expires_s),
        "changed_s": repr(held.changed_s),
        "owner": held.owner,
        "run": held.run,
        "upstream": held.upstream,
        "definition": held.definition,
        "credential": held.credential,
        "execution": orjson.dumps(dict(held.execution)),
    }
    return [word for name, value in fields.items() if value is not None for word in (name, value)]


def from_fields(flat: Sequence[bytes]) -> HeldAction:
    """The action of a HGETALL reply that is not empty; its result lives under a key of its own."""
    fields = dict(zip(flat[::2], flat[1::2], strict=True))
    text = {name.decode(): value.decode() for name, value in fields.items() if name not in (b"arguments", b"execution")}
    settled = text.get("settled_s")
    return HeldAction(
        id=text["id"],
        state=State(text["state"]),
        digest=text["digest"],
        agent=text["agent"],
        surface=Surface(text["surface"]),
        server=text["server"],
        tool=text["tool"],
        arguments=fields[b"arguments"],
        rule=text["rule"],
        reason=text["reason"],
        release=text["release"],
        terms=ApprovalTerms(
            group=text["group"],
            quorum=int(text["quorum"]),
            expires_s=int(text["terms_expires_s"]),
            separation=text["separation"] == "1",
        ),
        created_s=float(text["created_s"]),
        expires_s=float(text["expires_s"]),
        changed_s=float(text["changed_s"]),
        owner=text.get("owner"),
        run=text.get("run"),
        upstream=text["upstream"],
        definition=text.get("definition"),
        credential=text.get("credential"),
        execution=orjson.loads(fields[b"execution"]),
        decisions=_votes(text),
        result_error=text.get("result_error") == "1",
        settled_s=float(settled) if settled else None,
        worker=text.get("worker"),
        note=text.get("note", ""),
    )


def has_result(flat: Sequence[bytes]) -> bool:
    return b"has_result" in flat[::2]


def _votes(text: dict[str, str]) -> tuple[Vote, ...]:
    votes = []
    for name, value in text.items():
        if name.startswith("vote:"):
            verdict, at_s, comment = value.split(" ", 2)
            votes.append(Vote(person=name[len("vote:") :], verdict=Verdict(verdict), comment=comment, at_s=float(at_s)))
    return tuple(sorted(votes, key=lambda vote: (vote.at_s, vote.person)))


def from_event(line: bytes) -> Event:
    event: dict[str, Any] = orjson.loads(line)
    return Event(
        at_s=float(event["at_s"]),
        who=event["who"],
        source=State(event["source"]) if event["source"] else None,
        target=State(event["target"]),
        digest=event["digest"],
        note=event["note"],
    )
