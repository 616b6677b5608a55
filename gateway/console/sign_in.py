"""Signing in and out. Fetching any of these addresses changes nothing; only the POST makes a session."""

from __future__ import annotations

from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.console.bodies import read_form
from gateway.console.desk import Desk
from gateway.console.sessions import SESSION_S, SIGN_IN_FORM_S

_NEXT_STARTS = ("/approvals", "/runs")
TOKEN_CHARS_MAX = 200


class SignIn:
    """The sign-in page and what it posts to."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def routes(self) -> list[Route]:
        return [
            Route("/sign-in", self.show, methods=["GET"]),
            Route("/sign-in", self.enter, methods=["POST"]),
            Route("/sign-out", self.leave, methods=["POST"]),
        ]

    async def show(self, request: Request) -> Response:
        """One button where the printed link was followed, a field for an approver token otherwise."""
        return self._form(request, token=request.query_params.get("token", ""), after=request.query_params.get("next"))

    async def enter(self, request: Request) -> Response:
        """Make a session for a right token. The answer to a wrong one says nothing about why."""
        desk = self._desk
        form = await read_form(request)
        form_id = desk.sessions.form_id(request.cookies.get(desk.form_cookie))
        if form_id is None or not desk.sessions.csrf_matches(form_id, form.get("csrf", "")):
            problem = "This page had expired, or cookies are off. Please try again."
            return self._form(request, after=form.get("next"), problem=problem, status=403)
        cookie = desk.sessions.sign_in(form.get("token", "").strip()[:TOKEN_CHARS_MAX])
        if cookie is None:
            desk.failed(request)
            return self._form(request, after=form.get("next"), problem="This token is not known.", status=403)
        response = desk.redirect(_after(form.get("next")))
        desk.set_cookie(response, desk.session_cookie, cookie, SESSION_S)
        desk.drop_cookie(response, desk.form_cookie)
        return response

    async def leave(self, request: Request) -> Response:
        session, _ = await self._desk.posted(request)
        self._desk.sessions.end(session)
        response = self._desk.redirect("/sign-in")
        self._desk.drop_cookie(response, self._desk.session_cookie)
        return response

    def _form(
        self, request: Request, *, token: str = "", after: str | None = None, problem: str = "", status: int = 200
    ) -> Response:
        desk = self._desk
        cookie = request.cookies.get(desk.form_cookie)
        form_id = desk.sessions.form_id(cookie)
        if form_id is None:  # two open sign-in pages share one cookie, so that both work
            cookie = desk.sessions.form_cookie()
            form_id = desk.sessions.form_id(cookie)
        assert cookie is not None and form_id is not None
        context = {
            "token": token[:TOKEN_CHARS_MAX],
            "next": _after(after),
            "problem": problem,
            "form_csrf": desk.sessions.csrf(form_id),
            "by_link": desk.deps.sign_in_token is not None,
        }
        response = desk.page(request, "sign_in.html", context, status=status)
        desk.set_cookie(response, desk.form_cookie, cookie, SIGN_IN_FORM_S)
        return response


def _after(path: str | None) -> str:
    """Where to go after signing in: a page of ours, whatever the address says."""
    if path is None or not path.startswith(_NEXT_STARTS) or "\\" in path or "//" in path or not path.isprintable():
        return "/approvals"
    return quote(path, safe="/?&=%:+,.~-_")
