"""Live updates: one stream of server-sent events for each open page. Says that something changed, never what."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import orjson
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from gateway.approvals.waking import Changes
from gateway.console.desk import Desk, SignInRequiredError
from gateway.console.sessions import Session
from gateway.core.errors import StoreError

STREAMS_MAX = 500  # people times tabs; each costs a connection and a subscription
HEARTBEAT_S = 15.0  # under the idle limits of common proxies
STREAM_S_MAX = 900.0  # then the browser connects anew, and its session is read anew


class Live:
    """All open streams. `close` ends them, so that a server that stops need not wait for them."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._open: set[Changes] = set()

    def routes(self) -> list[Route]:
        return [Route("/events", self.events, methods=["GET"])]

    def close(self) -> None:
        for changes in tuple(self._open):
            changes.close()

    async def events(self, request: Request) -> Response:
        session = self._desk.session(request)
        if len(self._open) >= STREAMS_MAX:
            raise StoreError("too_many_streams", "too many pages are open; this one must be reloaded by hand")
        changes = await self._desk.deps.queue.changes()
        self._open.add(changes)
        return _EventStream(self._stream(changes, session, request), leave=lambda: self._leave(changes))

    def _leave(self, changes: Changes) -> None:
        self._open.discard(changes)
        changes.close()

    async def _stream(self, changes: Changes, session: Session, request: Request) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        end = loop.time() + min(STREAM_S_MAX, max(session.expires_s - self._desk.deps.clock(), 0))
        yield b"retry: 2000\n\nevent: ready\ndata: {}\n\n"
        while (left := end - loop.time()) > 0:
            try:
                change = await asyncio.wait_for(anext(changes), min(HEARTBEAT_S, left))
            except TimeoutError:
                yield b": still here\n\n"
                continue
            except StopAsyncIteration:
                return
            try:
                self._desk.session(request)
            except SignInRequiredError:
                return  # signed out or revoked meanwhile
            yield b"event: held\ndata: " + orjson.dumps({"id": change.id, "state": change.state}) + b"\n\n"


class _EventStream(StreamingResponse):
    """Leaves in any case, also when the browser went before the first byte and the iterator never began."""

    def __init__(self, content: AsyncIterator[bytes], leave: Callable[[], None]) -> None:
        # nginx would hold the events back to fill a buffer.
        super().__init__(content, media_type="text/event-stream", headers={"x-accel-buffering": "no"})
        self._leave = leave

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._leave()
