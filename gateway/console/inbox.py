"""The pages of the approval queue: the inbox, one held action, and what their forms post to."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.approvals.held_action import Event, HeldAction
from gateway.console.cards import Card, Glances, card, title, trace_of
from gateway.console.deciding import Ballot, decide, drawn, get_held, settle_unknown, shown_result
from gateway.console.desk import Desk
from gateway.console.sessions import Session
from gateway.core.errors import ClientError, GatewayError, TransitionError
from gateway.core.held import State

PAGE = 50
RECENT = 30
PRECEDENTS = 60  # how far back the last approved action of the same tool is looked for

_RAN = frozenset({State.APPROVED, State.EXECUTING, State.SUCCEEDED, State.FAILED, State.UNKNOWN})


class Inbox:
    """Handlers of /approvals."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._queue = desk.deps.queue
        self._glances = Glances()

    def routes(self) -> list[Route]:
        return [
            Route("/approvals", self.show, methods=["GET"]),
            Route("/approvals/{id}", self.show_one, methods=["GET"]),
            Route("/approvals/{id}/arguments", self.arguments, methods=["GET"]),
            Route("/approvals/{id}/approve", self.approve, methods=["POST"]),
            Route("/approvals/{id}/deny", self.deny, methods=["POST"]),
            Route("/approvals/{id}/reconcile", self.reconcile, methods=["POST"]),
        ]

    async def show(self, request: Request) -> Response:
        """What waits, the nearest expiry first; what nobody knows the outcome of; what was decided lately."""
        session = self._desk.session(request)
        cursor = request.query_params.get("cursor")
        pending, unknown, recent, counts = await asyncio.gather(
            self._queue.pending(PAGE, cursor),
            self._queue.unknown(PAGE),
            self._queue.recent(RECENT),
            self._queue.counts(),
        )
        now = self._desk.deps.clock()

        def cards(actions: Iterable[HeldAction]) -> list[Card]:
            return [card(action, session, now, self._glances) for action in actions]

        def drawn_page() -> Response:
            context = {
                # What nobody has swept yet is over all the same: its time is checked at every decision.
                "cards": cards(action for action in pending.actions if action.expires_s > now),
                "next": pending.next,
                "first": cursor is None,
                "unknown": cards(unknown),
                "recent": cards(action for action in recent if action.state is not State.UNKNOWN),
                "waiting": counts.get(State.PENDING, 0),
            }
            return self._desk.page(request, "inbox.html", context, session=session)

        return await asyncio.to_thread(drawn_page)  # agents choose how much there is to draw

    async def show_one(self, request: Request) -> Response:
        session = self._desk.session(request)
        return await self._page(request, session, await self._get(request))

    async def arguments(self, request: Request) -> Response:
        """The stored bytes, to save: for what is too large for a page."""
        self._desk.session(request)
        held = await self._get(request)
        headers = {"content-disposition": f'attachment; filename="{held.id}.json"'}
        return Response(held.arguments, media_type="application/octet-stream", headers=headers)

    async def approve(self, request: Request) -> Response:
        return await self._decide(request, approve=True)

    async def deny(self, request: Request) -> Response:
        return await self._decide(request, approve=False)

    async def reconcile(self, request: Request) -> Response:
        session, form = await self._desk.posted(request)
        held = await self._get(request)
        try:
            _same_page(held, form)
            outcome = form.get("outcome")
            if outcome not in ("happened", "failed"):
                raise ClientError("invalid_form", "say whether it happened")
            await settle_unknown(self._desk, session, held, ok=outcome == "happened", evidence=form.get("evidence", ""))
        except (ClientError, TransitionError) as error:
            return await self._page(request, session, await self._get(request), problem=error)
        return self._desk.redirect(f"/approvals/{held.id}")

    async def _decide(self, request: Request, *, approve: bool) -> Response:
        session, form = await self._desk.posted(request)
        held = await self._get(request)
        try:
            ballot = Ballot(approve=approve, digest=form.get("digest", ""), comment=form.get("comment", ""))
            await decide(self._desk, session, held, ballot)
        except (ClientError, TransitionError) as error:
            return await self._page(request, session, await self._get(request), problem=error)
        return self._desk.redirect(f"/approvals/{held.id}")

    async def _get(self, request: Request) -> HeldAction:
        return await get_held(self._desk, request.path_params["id"])

    async def _page(
        self, request: Request, session: Session, held: HeldAction, *, problem: GatewayError | None = None
    ) -> Response:
        now = self._desk.deps.clock()
        events, previous, waiting, result = await asyncio.gather(
            self._queue.events(held.id), self._precedent(held), self._desk.waiting(), shown_result(self._desk, held)
        )
        drawing = await drawn(held, previous)
        context: dict[str, Any] = {
            "card": card(held, session, now, self._glances),
            "title": title(held),
            "held": held,
            "drawing": drawing,
            "previous": previous,
            "trace": trace_of(held),
            "events": [(event, _telling(event)) for event in events],
            "result": result,
            "problem": problem,
            "waiting": waiting,
        }
        status = problem.status if problem is not None else 200
        return await asyncio.to_thread(
            self._desk.page, request, "held_action.html", context, session=session, status=status
        )

    async def _precedent(self, held: HeldAction) -> HeldAction | None:
        """The last approved action of the same tool before this one: what an approver compares with."""
        recent = await self._queue.recent(PRECEDENTS)
        return next(
            (
                other
                for other in recent
                if other.name == held.name
                and other.id != held.id
                and other.state in _RAN
                and other.created_s <= held.created_s
            ),
            None,
        )


def _same_page(held: HeldAction, form: dict[str, str]) -> None:
    if form.get("digest") != held.digest:
        raise ClientError(
            "approval_digest_mismatch", "this page showed another action than the stored one; read it again", status=409
        )


def _telling(event: Event) -> str:
    """One step of the history in words."""
    if event.source is None:
        return "was parked"
    if event.source is event.target:
        return "approved; more people are needed"
    return {
        State.APPROVED: "approved",
        State.DENIED: "denied",
        State.EXPIRED: "ran out of time",
        State.CANCELLED: "cancelled",
        State.INVALIDATED: "invalidated",
        State.SUPERSEDED: "was replaced",
        State.EXECUTING: "began to run",
        State.SUCCEEDED: "recorded success" if event.source is State.UNKNOWN else "succeeded",
        State.FAILED: "recorded failure" if event.source is State.UNKNOWN else "failed",
        State.UNKNOWN: "lost sight of the outcome",
        State.PENDING: "was parked",
    }[event.target]
