"""The pages of runs: a list with filters in its address, one run as a tree, one exchange with its masked content."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.approvals.held_action import HeldAction
from gateway.console.cards import STANDINGS
from gateway.console.chat import Turn, conversation, pretty
from gateway.console.desk import Desk
from gateway.console.timeline import timeline
from gateway.core.errors import ClientError, StoreError
from gateway.traces.query import BodyView, ExchangeView, RunSummary, RunTree
from gateway.traces.record import EFFECT_RANK
from gateway.traces.tree import flatten

PAGE = 50
HELD_MAX = 20  # a run that holds more is not read for them
RAW_CHARS_MAX = 30_000  # on the page; the rest is a download. Megabytes of text freeze a browser

_NOTES = {
    "truncated": "the end was cut when it was stored",
    "too_large": "it was too large to be stored",
    "masking_failed": "it could not be masked, so it was not stored",
    "not_sampled": "it is not part of the sample of contents that is kept",
    "queue_full": "too much was going on to keep it",
    "forgotten": "it is no longer kept",
}


class Runs:
    """Handlers of /runs. The store is read in threads: its calls block."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._runs = desk.deps.runs

    def routes(self) -> list[Route]:
        return [
            Route("/runs", self.show, methods=["GET"]),
            Route("/runs/{trace}", self.show_one, methods=["GET"]),
            Route("/runs/{trace}/exchanges/{id}", self.exchange, methods=["GET"]),
            Route("/runs/{trace}/exchanges/{id}/{part}", self.body, methods=["GET"]),
        ]

    async def show(self, request: Request) -> Response:
        session = self._desk.session(request)
        query = request.query_params
        chosen = RunFilter.of(query.get("agent"), query.get("effect"), query.get("error"))
        found, after = await list_runs(self._desk, chosen, query.get("before"), PAGE)
        context = {
            "runs": found,
            "next": urlencode({**chosen.query, "before": after}) if after else None,
            "first": not query.get("before"),
            "chosen": chosen,
            "effects": tuple(EFFECT_RANK),
            "waiting": await self._desk.waiting(),
        }
        return self._desk.page(request, "runs.html", context, session=session)

    async def show_one(self, request: Request) -> Response:
        """The tree, and the conversation as the run's last model exchange tells it."""
        session = self._desk.session(request)
        tree = await asyncio.to_thread(self._runs.run, request.path_params["trace"])
        if tree is None:
            raise ClientError("run_unknown", "there is no such run; it may be too old", status=404)
        (turns, told_by), held, waiting = await asyncio.gather(
            self._story(tree), self._held(tree.summary.held), self._desk.waiting()
        )
        context = {
            "summary": tree.summary,
            "timeline": timeline(tree),
            "turns": turns,
            "told_by": told_by,
            "truncated": tree.truncated,
            "held": [(action, STANDINGS[action.state]) for action in held],
            "waiting": waiting,
        }
        return await asyncio.to_thread(self._desk.page, request, "run.html", context, session=session)

    async def exchange(self, request: Request) -> Response:
        session = self._desk.session(request)
        view = await self._view(request)
        bodies = {name: body for name, body in (("request", view.request), ("response", view.response)) if body}
        context = {
            "view": view,
            "record": view.record,
            "turns": _turns(view),
            "bodies": {name: (body, *_raw(body)) for name, body in bodies.items()},
            "waiting": await self._desk.waiting(),
        }
        return await asyncio.to_thread(self._desk.page, request, "exchange.html", context, session=session)

    async def body(self, request: Request) -> Response:
        """The whole stored body, masked, to save."""
        self._desk.session(request)
        view = await self._view(request)
        part = request.path_params["part"]
        body = {"request": view.request, "response": view.response}.get(part)
        if body is None or body.data is None:
            raise ClientError("not_found", "there is no such body", status=404)
        headers = {"content-disposition": f'attachment; filename="{view.record.id}-{part}.txt"'}
        return Response(body.data, media_type="application/octet-stream", headers=headers)

    async def _held(self, ids: tuple[str, ...]) -> list[HeldAction]:
        """The run's held actions as they stand now; none while the store is away or once they are forgotten."""
        try:
            found = await asyncio.gather(*(self._desk.deps.queue.get(one) for one in ids[:HELD_MAX]))
        except StoreError:
            return []
        return [action for action in found if action is not None]

    async def _view(self, request: Request) -> ExchangeView:
        view = await asyncio.to_thread(self._runs.exchange, request.path_params["id"])
        if view is None or view.record.trace_id != request.path_params["trace"]:
            raise ClientError("exchange_unknown", "there is no such exchange; it may be too old", status=404)
        return view

    async def _story(self, tree: RunTree) -> tuple[tuple[Turn, ...], str | None]:
        """The last model exchange holds the whole conversation: agents send it again with every request."""
        models = [node.record for _, node in flatten(tree.roots) if node.step.source is node.record]
        models = [record for record in models if record.surface == "model"]
        if not models:
            return (), None
        last = max(models, key=lambda record: record.started_s)
        view = await asyncio.to_thread(self._runs.exchange, last.id)
        return (_turns(view), last.id) if view is not None else ((), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFilter:
    """What the address of a list selects. The same words in the pages and in the API."""

    agent: str | None
    effect: str | None
    has_error: bool | None

    @classmethod
    def of(cls, agent: str | None, effect: str | None, error: str | None) -> RunFilter:
        """Empty words select nothing: that is what a form sends for a field that was left alone."""
        if error not in (None, "", "yes", "no"):
            raise ClientError("invalid_filter", "`error` is `yes` or `no`")
        return cls(agent=agent or None, effect=effect or None, has_error={"yes": True, "no": False}.get(error or ""))

    @property
    def query(self) -> dict[str, str]:
        """As words of an address."""
        error = None if self.has_error is None else "yes" if self.has_error else "no"
        return {k: v for k, v in (("agent", self.agent), ("effect", self.effect), ("error", error)) if v}


async def list_runs(
    desk: Desk, chosen: RunFilter, before: str | None, limit: int
) -> tuple[list[RunSummary], str | None]:
    """Runs, newest first, and the cursor of what follows. Raises ClientError and StoreError."""
    found = await asyncio.to_thread(
        desk.deps.runs.runs,
        limit=limit + 1,
        before=before or None,
        agent=chosen.agent,
        effect=chosen.effect,
        has_error=chosen.has_error,
    )
    return found[:limit], found[limit - 1].cursor if len(found) > limit else None


def _turns(view: ExchangeView) -> tuple[Turn, ...]:
    request, response = view.request, view.response
    return conversation(request.data if request else None, response.data if response else None)


def _raw(body: BodyView) -> tuple[str, int, str]:
    """The text for the page, how many characters of it are left out, and what is missing from the store."""
    text = pretty(body.data) if body.data is not None else ""
    note = _NOTES.get(body.note, body.note) if body.note else ""
    return text[:RAW_CHARS_MAX], max(len(text) - RAW_CHARS_MAX, 0), note
