"""Records as the JSON API tells them; the shapes are those of `schemas`. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from gateway.approvals.held_action import Event, HeldAction
from gateway.console.cards import trace_of
from gateway.console.deps import PolicyStatus
from gateway.console.durations import iso
from gateway.console.timeline import timeline
from gateway.core.held import State
from gateway.traces.query import BodyView, ExchangeView, RunSummary, RunTree


def action(held: HeldAction, result: tuple[str, int] | None) -> dict[str, Any]:
    return {
        "id": held.id,
        "state": held.state,
        "digest": held.digest,
        "agent": held.agent,
        "owner": held.owner,
        "run": held.run,
        "trace": trace_of(held),
        "surface": held.surface,
        "tool": held.name,
        "upstream": held.upstream,
        "credential": held.credential,
        "definition": held.definition,
        "arguments": orjson.Fragment(held.arguments),  # the stored bytes themselves, not a second spelling
        "rule": held.rule,
        "reason": held.reason,
        "release": held.release,
        "terms": {
            "group": held.terms.group,
            "quorum": held.terms.quorum,
            "expires_s": held.terms.expires_s,
            "separation": held.terms.separation,
        },
        "created_at": iso(held.created_s),
        "expires_at": iso(held.expires_s),
        "changed_at": iso(held.changed_s),
        "votes": [
            {"person": vote.person, "verdict": vote.verdict, "comment": vote.comment, "at": iso(vote.at_s)}
            for vote in held.decisions
        ],
        "result": result[0] if result is not None else None,
        "result_error": held.result_error,
        "note": held.note,
    }


def event(one: Event) -> dict[str, Any]:
    return {"at": iso(one.at_s), "who": one.who, "source": one.source, "target": one.target, "note": one.note}


def run(summary: RunSummary) -> dict[str, Any]:
    return {
        "run": summary.trace_id,
        "name": summary.name,
        "agent": summary.agent,
        "started_at": iso(summary.started_s),
        "duration_s": summary.duration_s,
        "exchanges": summary.exchanges,
        "errors": summary.errors,
        "effect": summary.effect,
        "input_tokens": summary.input_tokens,
        "output_tokens": summary.output_tokens,
        "cost": summary.cost,
        "unpriced": summary.unpriced,
        "held": summary.held,
    }


def tree(found: RunTree) -> dict[str, Any]:
    drawn = timeline(found)
    steps = [
        {
            "kind": row.kind,
            "span": row.span,
            "parent": row.parent,
            "depth": row.depth,
            "name": row.label,
            "after_ns": row.after_ns,
            "duration_ns": row.duration_ns,
            "effect": row.effect,
            "error": row.error,
            "exchange": row.exchange,
            "held": row.held,
            "rule": row.rule,
            "reason": row.reason,
            "status": row.status,
            "input_tokens": row.input_tokens,
            "output_tokens": row.output_tokens,
            "cost": row.cost,
            "findings": row.findings,
        }
        for row in drawn.rows
    ]
    return {"summary": run(found.summary), "steps": steps, "truncated": found.truncated or drawn.left_out > 0}


def exchange(view: ExchangeView) -> dict[str, Any]:
    record = view.record
    return {
        "id": record.id,
        "run": record.trace_id,
        "agent": record.agent,
        "surface": record.surface,
        "operation": record.operation,
        "name": record.name,
        "model": record.model,
        "upstream": record.upstream,
        "started_at": iso(record.started_s),
        "duration_ns": record.duration_ns,
        "status": record.status,
        "error": record.error,
        "effect": record.effect,
        "rule": record.rule,
        "reason": record.reason,
        "release": record.release,
        "held": record.held,
        "cost": view.cost,
        "request": _body(view.request),
        "response": _body(view.response),
    }


def status(policy: PolicyStatus, counts: Mapping[State, int]) -> dict[str, Any]:
    return {
        "release": policy.release,
        "loaded_at": iso(policy.loaded_at),
        "problems": list(policy.problems),
        "actions": {state.value: count for state, count in counts.items()},
    }


def _body(view: BodyView | None) -> dict[str, Any] | None:
    if view is None:
        return None
    text = view.data.decode("utf-8", "replace") if view.data is not None else None
    return {"text": text, "size": view.size, "note": view.note, "content_type": view.content_type}
