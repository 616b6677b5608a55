"""What every page handler shares: who is asking, CSRF, rendering, and errors as pages or as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from gateway.console.bodies import read_form
from gateway.console.deps import ConsoleDeps
from gateway.console.guard import SECURITY_HEADERS, error_json
from gateway.console.rendering import Assets, environment
from gateway.console.sessions import FailureLimit, Session, Sessions
from gateway.core.errors import ClientError, GatewayError, StoreError
from gateway.core.held import State


class SignInRequiredError(Exception):
    """Nobody is signed in. Not an error: a page that asks to sign in answers it."""


class Desk:
    """The console's shared state, built once by `console_app`."""

    def __init__(self, deps: ConsoleDeps) -> None:
        self.deps = deps
        self.assets = Assets()
        self.sessions = Sessions(
            deps.secret, deps.keyring, deps.clock, sign_in_token=deps.sign_in_token, operator=deps.operator
        )
        self.failures = FailureLimit(deps.clock)
        self._templates = environment(self.assets)
        # `__Host-` binds the cookie to this host and to https; plain http on loopback cannot have it.
        prefix = "__Host-" if deps.secure else ""
        self.session_cookie = f"{prefix}gateway_session"
        self.form_cookie = f"{prefix}gateway_sign_in"

    def session(self, request: Request) -> Session:
        """The signed-in person. Raises SignInRequiredError."""
        session = self.sessions.read(request.cookies.get(self.session_cookie))
        if session is None:
            raise SignInRequiredError
        return session

    def failed(self, request: Request) -> None:
        """Count a wrong token. Raises ClientError `too_many_failures` (429) where there were too many.

        A right token always opens: people may share an address with whoever fails, and it cannot be guessed."""
        address = request.client.host if request.client else ""
        wait_s = self.failures.wait_s(address)
        if wait_s:
            raise ClientError(
                "too_many_failures",
                f"too many failed attempts from this address; try again in {wait_s} s",
                status=429,
                retry_after_s=wait_s,
            )
        self.failures.failed(address)

    async def posted(self, request: Request) -> tuple[Session, dict[str, str]]:
        """The person and the fields of a form of theirs. Raises ClientError `csrf` for a form that is not."""
        session = self.session(request)
        form = await read_form(request)
        if not self.sessions.csrf_matches(session.id, form.get("csrf", "")):
            raise ClientError("csrf", "this form was not made for your session; open the page again", status=403)
        return session, form

    async def waiting(self) -> int | None:
        """How many actions wait, for the top of a page; None while the store is away, which such a page outlives."""
        try:
            return (await self.deps.queue.counts()).get(State.PENDING, 0)
        except StoreError:
            return None

    def page(
        self,
        request: Request,
        template: str,
        context: Mapping[str, Any],
        *,
        session: Session | None = None,
        status: int = 200,
    ) -> HTMLResponse:
        """A page with everything that the frame around it needs."""
        policy = self.deps.status() if session is not None else None
        html = self._templates.get_template(template).render(
            {
                "session": session,
                "csrf": self.sessions.csrf(session.id) if session is not None else "",
                "policy": policy,
                "now": self.deps.clock(),
                "path": request.url.path,
                "waiting": None,
                **context,
            }
        )
        return HTMLResponse(html, status_code=status)

    def redirect(self, path: str) -> RedirectResponse:
        """See other: what follows a POST is a GET, so that a reload repeats nothing."""
        return RedirectResponse(path, status_code=303)

    def set_cookie(self, response: Response, name: str, value: str, lasts_s: int) -> None:
        response.set_cookie(
            name, value, max_age=lasts_s, path="/", secure=self.deps.secure, httponly=True, samesite="strict"
        )

    def drop_cookie(self, response: Response, name: str) -> None:
        response.delete_cookie(name, path="/", secure=self.deps.secure, httponly=True, samesite="strict")

    # Starlette's exception handlers, registered by `console_app`.

    async def on_gateway_error(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, GatewayError)
        retry = {} if error.retry_after_s is None else {"retry-after": str(error.retry_after_s)}
        return self._problem(request, error.status, error.code, error.message, retry)

    async def on_http_error(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        words = {404: ("not_found", "there is nothing at this address"), 405: ("method_not_allowed", "not this way")}
        code, message = words.get(error.status_code, ("http_error", "the request cannot be served"))
        return self._problem(request, error.status_code, code, message, error.headers or {})

    async def on_crash(self, request: Request, error: Exception) -> Response:
        del error  # Starlette logs it; people and programs get no details
        # Drawn without asking who is there: whatever broke the first page must not break this one. It leaves outside
        # of the guard, so it carries the headers itself.
        words = {"status": 500, "code": "internal", "message": "something went wrong here; it is in the log"}
        if _for_programs(request):
            response = Response(error_json(str(words["code"]), str(words["message"])), 500, None, "application/json")
        else:
            response = self.page(request, "problem.html", words, status=500)
        response.headers.update(SECURITY_HEADERS)
        return response

    async def on_sign_in_required(self, request: Request, error: Exception) -> Response:
        del error
        if request.method != "GET":
            return self._problem(request, 401, "sign_in_required", "sign in and try again", {})
        if request.headers.get("sec-fetch-site") == "cross-site":
            # A strict cookie stays home when a link elsewhere is followed. One hop from a page of our own brings it.
            return self.page(request, "hop.html", {"target": _target(request)})
        return self.redirect(f"/sign-in?next={quote(_target(request))}")

    def _problem(self, request: Request, status: int, code: str, message: str, headers: Mapping[str, str]) -> Response:
        if _for_programs(request):
            return Response(error_json(code, message), status, dict(headers), "application/json")
        session = self.sessions.read(request.cookies.get(self.session_cookie))
        response = self.page(
            request,
            "problem.html",
            {"status": status, "code": code, "message": message},
            session=session,
            status=status,
        )
        response.headers.update(headers)
        return response


def _for_programs(request: Request) -> bool:
    return request.url.path.startswith("/api/") or request.url.path == "/events"


def _target(request: Request) -> str:
    return request.url.path + (f"?{request.url.query}" if request.url.query else "")
