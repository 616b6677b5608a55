"""The console as one Starlette app, for a listener that agents do not reach."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from gateway.console.api import Api
from gateway.console.deps import ConsoleDeps
from gateway.console.desk import Desk, SignInRequiredError
from gateway.console.guard import METRICS, Guard
from gateway.console.inbox import Inbox
from gateway.console.live import Live
from gateway.console.runs import Runs
from gateway.console.sign_in import SignIn
from gateway.core.errors import GatewayError


def console_app(deps: ConsoleDeps) -> Starlette:
    """The pages and the JSON API. `app.state.live.close()` ends open event streams; call it when the server stops."""
    desk = Desk(deps)
    live = Live(desk)
    routes = [
        Route("/", _home, methods=["GET"]),
        Route("/healthz", _healthy, methods=["GET"]),
        Route("/static/{digest}/{name}", desk.assets.serve, methods=["GET"]),
        *SignIn(desk).routes(),
        *Inbox(desk).routes(),
        *Runs(desk).routes(),
        *Api(desk).routes(),
        *live.routes(),
    ]
    if deps.metrics is not None:
        routes.append(Route(METRICS, _metrics(deps.metrics), methods=["GET"]))
    app = Starlette(
        routes=routes,
        middleware=[Middleware(Guard, hosts=deps.hosts, secure=deps.secure)],
        exception_handlers={
            GatewayError: desk.on_gateway_error,
            HTTPException: desk.on_http_error,
            SignInRequiredError: desk.on_sign_in_required,
            Exception: desk.on_crash,
        },
    )
    app.router.redirect_slashes = False
    app.state.live = live
    return app


async def _home(request: Request) -> Response:
    del request
    return RedirectResponse("/approvals", status_code=303)


def _metrics(read: Callable[[], Awaitable[bytes]]) -> Callable[[Request], Awaitable[Response]]:
    async def scraped(request: Request) -> Response:
        """Counts for a Prometheus, which has nobody to sign in. No content, no names but the operator's."""
        del request
        return Response(await read(), headers={"content-type": "text/plain; version=0.0.4; charset=utf-8"})

    return scraped


async def _healthy(request: Request) -> Response:
    """Whether this process answers. Whether it is ready is the data plane's `/readyz`."""
    del request
    return PlainTextResponse("ok\n")
