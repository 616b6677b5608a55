"""The JSON API: what the pages do, for programs that hold an approver token. Cookies mean nothing here."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import jsonschema_rs
import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway import __version__
from gateway.approvals.held_action import HeldAction
from gateway.console import answers
from gateway.console.bodies import read_json
from gateway.console.deciding import Ballot, decide, get_held, settle_unknown, shown_result
from gateway.console.desk import Desk
from gateway.console.openapi import Operation, Parameter, document
from gateway.console.runs import RunFilter, list_runs
from gateway.console.schemas import SCHEMAS
from gateway.console.sessions import Session
from gateway.core.canonical import JSON
from gateway.core.errors import ClientError
from gateway.core.held import State
from gateway.traces.record import EFFECT_RANK

LIMIT_MAX = 100
LIMIT = Parameter(
    name="limit", description="At most this many.", schema={"type": "integer", "minimum": 1, "maximum": LIMIT_MAX}
)
CURSOR = Parameter(name="cursor", description="`next` of the page before.", schema={"type": "string"})
STATE = Parameter(
    name="state",
    description="PENDING comes with the nearest expiry first and in pages; other states from the latest 100 changes.",
    schema={"enum": list(State), "default": "PENDING"},
)
RUN_QUERY = (
    Parameter(name="agent", description="Runs of this agent.", schema={"type": "string"}),
    Parameter(name="effect", description="Runs in which this verdict occurred.", schema={"enum": list(EFFECT_RANK)}),
    Parameter(name="error", description="With or without errors.", schema={"enum": ["yes", "no"]}),
    LIMIT,
    CURSOR,
)
RECENT = 100


class Api:
    """Handlers of /api, and the table that routes and documents them."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._queue = desk.deps.queue
        self._checks = {name: jsonschema_rs.validator_for(SCHEMAS[name]) for name in ("Ballot", "Reconciliation")}

    def operations(self) -> tuple[Operation, ...]:
        def ask(path: str, id: str, summary: str, handler: Any, answer: str, **more: Any) -> Operation:  # noqa: A002
            return Operation(method="GET", path=path, id=id, summary=summary, handler=handler, answer=answer, **more)

        def act(path: str, id: str, summary: str, handler: Any, body: str) -> Operation:  # noqa: A002
            return Operation(
                method="POST",
                path=path,
                id=id,
                summary=summary,
                handler=handler,
                answer="Action",
                body=body,
                refusals=(400, 403, 404, 409, 413, 415),
            )

        one = "/api/actions/{id}"
        return (
            ask("/api/actions", "listActions", "Held actions.", self.actions, "Actions",
                query=(STATE, LIMIT, CURSOR), refusals=(400,)),
            ask(one, "getAction", "One held action with its history.", self.action, "Action", refusals=(404,)),
            act(f"{one}/approve", "approveAction", "Approve what was seen.", self.approve, "Ballot"),
            act(f"{one}/deny", "denyAction", "Deny, finally.", self.deny, "Ballot"),
            act(f"{one}/reconcile", "reconcileAction", "Record an outcome.", self.reconcile, "Reconciliation"),
            ask("/api/runs", "listRuns", "Runs, newest first.", self.runs, "Runs", query=RUN_QUERY, refusals=(400,)),
            ask("/api/runs/{run}", "getRun", "One run as a tree.", self.run, "RunTree", refusals=(404,)),
            ask("/api/exchanges/{id}", "getExchange", "One exchange with its masked bodies.", self.exchange, "Exchange",
                refusals=(404,)),
            ask("/api/status", "getStatus", "The policy in force, and counts.", self.status, "Status"),
        )  # fmt: skip

    def routes(self) -> list[Route]:
        """Every operation behind the bearer check, and the document."""
        operations = self.operations()
        described = orjson.dumps(document(operations, url=self._desk.deps.public_url, version=__version__))

        async def openapi(request: Request) -> Response:
            del request
            return Response(described, media_type="application/json")

        return [
            *(Route(each.path, each.handler, methods=[each.method], name=each.id) for each in operations),
            Route("/api/openapi.json", openapi, methods=["GET"]),
        ]

    async def actions(self, request: Request) -> Response:
        self._caller(request)
        state = _state(request.query_params.get("state"))
        limit, cursor = _limit(request), request.query_params.get("cursor")
        after: str | None = None
        if state is State.PENDING:
            page = await self._queue.pending(limit, cursor)
            found, after = page.actions, page.next
        elif state is State.UNKNOWN:
            found = await self._queue.unknown(limit)
        else:
            found = tuple(held for held in await self._queue.recent(RECENT) if held.state is state)[:limit]
        return _json({"items": [await self._told(held) for held in found], "next": after})

    async def action(self, request: Request) -> Response:
        self._caller(request)
        held = await get_held(self._desk, request.path_params["id"])
        events = await self._queue.events(held.id)
        return _json({**await self._told(held), "events": [answers.event(event) for event in events]})

    async def approve(self, request: Request) -> Response:
        return await self._decide(request, approve=True)

    async def deny(self, request: Request) -> Response:
        return await self._decide(request, approve=False)

    async def reconcile(self, request: Request) -> Response:
        session = self._caller(request)
        body = await self._body(request, "Reconciliation")
        held = await get_held(self._desk, request.path_params["id"])
        if body["digest"] != held.digest:
            raise ClientError("approval_digest_mismatch", "this is not the digest of that action", status=409)
        settled = await settle_unknown(
            self._desk, session, held, ok=body["outcome"] == "happened", evidence=str(body["evidence"])
        )
        return _json(await self._told(settled))

    async def runs(self, request: Request) -> Response:
        self._caller(request)
        query = request.query_params
        chosen = RunFilter.of(query.get("agent"), query.get("effect"), query.get("error"))
        found, after = await list_runs(self._desk, chosen, query.get("cursor"), _limit(request))
        return _json({"items": [answers.run(summary) for summary in found], "next": after})

    async def run(self, request: Request) -> Response:
        self._caller(request)
        tree = await asyncio.to_thread(self._desk.deps.runs.run, request.path_params["run"])
        if tree is None:
            raise ClientError("run_unknown", "there is no such run; it may be too old", status=404)
        return _json(answers.tree(tree))

    async def exchange(self, request: Request) -> Response:
        self._caller(request)
        view = await asyncio.to_thread(self._desk.deps.runs.exchange, request.path_params["id"])
        if view is None:
            raise ClientError("exchange_unknown", "there is no such exchange; it may be too old", status=404)
        return _json(answers.exchange(view))

    async def status(self, request: Request) -> Response:
        self._caller(request)
        return _json(answers.status(self._desk.deps.status(), await self._queue.counts()))

    async def _decide(self, request: Request, *, approve: bool) -> Response:
        session = self._caller(request)
        body = await self._body(request, "Ballot")
        held = await get_held(self._desk, request.path_params["id"])
        ballot = Ballot(approve=approve, digest=str(body["digest"]), comment=str(body.get("comment", "")))
        return _json(await self._told(await decide(self._desk, session, held, ballot)))

    def _caller(self, request: Request) -> Session:
        """The approver of the bearer token. Raises ClientError `unauthorized` (401) or `too_many_failures` (429)."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        session = self._desk.sessions.bearer(token.strip()) if scheme.lower() == "bearer" else None
        if session is None:
            if token:
                self._desk.failed(request)
            raise ClientError("unauthorized", "send an approver token as `Authorization: Bearer ...`", status=401)
        return session

    async def _body(self, request: Request, schema: str) -> Mapping[str, JSON]:
        body = await read_json(request)
        error = next(self._checks[schema].iter_errors(body), None)
        if error is not None:
            # Only the place: the library's message quotes what was sent.
            known = SCHEMAS[schema]["properties"]
            at = "/".join(str(part) for part in error.instance_path if part in known)
            raise ClientError(
                "invalid_body", f"the body does not fit the schema `{schema}`" + (f" at `{at}`" if at else "")
            )
        return body

    async def _told(self, held: HeldAction) -> dict[str, Any]:
        return answers.action(held, await shown_result(self._desk, held))


def _json(value: Any) -> Response:
    return Response(orjson.dumps(value), media_type="application/json")


def _state(word: str | None) -> State:
    try:
        return State(word or State.PENDING)
    except ValueError:
        raise ClientError("invalid_filter", f"`state` is one of {', '.join(State)}") from None


def _limit(request: Request) -> int:
    word = request.query_params.get("limit", "50")
    if not word.isascii() or not word.isdecimal() or len(word) > 4 or not 1 <= int(word) <= LIMIT_MAX:
        raise ClientError("invalid_filter", f"`limit` is a number from 1 to {LIMIT_MAX}")
    return int(word)
