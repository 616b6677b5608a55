"""The shapes of the JSON API, as JSON Schema 2020-12: they document it, and request bodies are checked against them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.console.bodies import COMMENT_CHARS_MAX
from gateway.core.action import Surface
from gateway.core.held import State
from gateway.traces.record import EFFECT_RANK
from gateway.traces.tree import StepKind

Schema = dict[str, Any]

_TIME = {"type": "string", "format": "date-time"}
_DIGEST = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
_COUNT = {"type": "integer", "minimum": 0}
_COST = {"type": ["number", "null"], "description": "US dollars; null where no price is known, which is not nothing."}
_EFFECT = {"enum": list(EFFECT_RANK)}
_TEXT = {"type": "string"}
_MAYBE = {"type": ["string", "null"]}


def _object(description: str, *, optional: tuple[str, ...] = (), **properties: Any) -> Schema:
    return {
        "type": "object",
        "description": description,
        "properties": properties,
        "required": [name for name in properties if name not in optional],
        "additionalProperties": False,
    }


def _list(name: str) -> Schema:
    return {"type": "array", "items": {"$ref": f"#/components/schemas/{name}"}}


def _page(name: str) -> Schema:
    return _object("One page.", items=_list(name), next={**_MAYBE, "description": "The cursor of the next page."})


SCHEMAS: Mapping[str, Schema] = {
    "Error": _object("What every refusal looks like.", error=_object("", code=_TEXT, message=_TEXT)),
    "Vote": _object(
        "One person's decision.", person=_TEXT, verdict={"enum": ["approve", "deny"]}, comment=_TEXT, at=_TIME
    ),
    "Event": _object(
        "One step in the life of an action. `source` is null for its proposal.",
        at=_TIME,
        who=_TEXT,
        source={"enum": [*State, None]},
        target={"enum": list(State)},
        note=_TEXT,
    ),
    "Action": _object(
        "A held action. `arguments` are the stored ones, which run; text by an agent, not verified.",
        optional=("events",),
        id=_TEXT,
        state={"enum": list(State)},
        digest=_DIGEST,
        agent=_TEXT,
        owner=_MAYBE,
        run={**_MAYBE, "description": "What the agent calls its run."},
        trace={**_MAYBE, "description": "The run's tree: /api/runs/{run}."},
        surface={"enum": list(Surface)},
        tool=_TEXT,
        upstream=_TEXT,
        credential=_MAYBE,
        definition=_MAYBE,
        arguments={"description": "Any JSON."},
        rule=_TEXT,
        reason=_TEXT,
        release=_TEXT,
        terms=_object("Who decides.", group=_TEXT, quorum=_COUNT, expires_s=_COUNT, separation={"type": "boolean"}),
        created_at=_TIME,
        expires_at=_TIME,
        changed_at=_TIME,
        votes=_list("Vote"),
        result={**_MAYBE, "description": "The tool's answer, masked; null when there is none or it is no longer kept."},
        result_error={"type": "boolean"},
        note=_TEXT,
        events=_list("Event"),
    ),
    "Actions": _page("Action"),
    "Ballot": _object(
        "A decision on what was seen: `digest` is that of the action.",
        optional=("comment",),
        digest=_DIGEST,
        comment={"type": "string", "maxLength": COMMENT_CHARS_MAX},
    ),
    "Reconciliation": _object(
        "What became of an action whose outcome is unknown.",
        digest=_DIGEST,
        outcome={"enum": ["happened", "failed"]},
        evidence={"type": "string", "minLength": 1, "maxLength": COMMENT_CHARS_MAX},
    ),
    "Run": _object(
        "All exchanges of one task of an agent.",
        run={"type": "string", "pattern": "^[0-9a-f]{32}$"},
        name=_MAYBE,
        agent=_TEXT,
        started_at=_TIME,
        duration_s={"type": "number"},
        exchanges=_COUNT,
        errors=_COUNT,
        effect={**_EFFECT, "description": "The strictest of the run."},
        input_tokens=_COUNT,
        output_tokens=_COUNT,
        cost=_COST,
        unpriced=_COUNT,
        held={"type": "array", "items": _TEXT, "description": "Ids of held actions."},
    ),
    "Runs": _page("Run"),
    "Step": _object(
        "One step of a run, in the order of reading. `after_ns` counts from the start of the run.",
        kind={"enum": list(StepKind)},
        span=_TEXT,
        parent=_MAYBE,
        depth=_COUNT,
        name=_TEXT,
        after_ns=_COUNT,
        duration_ns=_COUNT,
        effect={"enum": [*EFFECT_RANK, None]},
        error=_MAYBE,
        exchange=_MAYBE,
        held=_MAYBE,
        rule=_TEXT,
        reason=_TEXT,
        status={"type": "integer"},
        input_tokens={"type": ["integer", "null"]},
        output_tokens={"type": ["integer", "null"]},
        cost=_COST,
        findings={"type": "object", "additionalProperties": _COUNT},
    ),
    "RunTree": _object(
        "A run with its steps.",
        summary={"$ref": "#/components/schemas/Run"},
        steps=_list("Step"),
        truncated={"type": "boolean", "description": "The run is longer than this."},
    ),
    "Body": _object(
        "A stored body, masked. `note` says what is missing and why; `size` is what it was on the wire.",
        text=_MAYBE,
        size=_COUNT,
        note=_MAYBE,
        content_type=_TEXT,
    ),
    "Exchange": _object(
        "One request and its response.",
        id=_TEXT,
        run=_TEXT,
        agent=_TEXT,
        surface=_TEXT,
        operation=_TEXT,
        name=_TEXT,
        model=_MAYBE,
        upstream=_TEXT,
        started_at=_TIME,
        duration_ns=_COUNT,
        status={"type": "integer"},
        error=_MAYBE,
        effect=_EFFECT,
        rule=_TEXT,
        reason=_TEXT,
        release=_TEXT,
        held=_MAYBE,
        cost=_COST,
        request={"oneOf": [{"$ref": "#/components/schemas/Body"}, {"type": "null"}]},
        response={"oneOf": [{"$ref": "#/components/schemas/Body"}, {"type": "null"}]},
    ),
    "Status": _object(
        "The policy release in force, what is wrong with the files now, and how many actions are in each state.",
        release=_TEXT,
        loaded_at=_TIME,
        problems={"type": "array", "items": _TEXT},
        actions={"type": "object", "additionalProperties": _COUNT},
    ),
}
