"""A running console for tests over HTTP, and people who are signed in to it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import httpx2
import pytest

from tests.consoles import LINK_TOKEN, RunningConsole, running_console


@pytest.fixture
def console(redis_url: str) -> Iterator[RunningConsole]:
    with running_console(redis_url) as running:
        yield running


@pytest.fixture
def anonymous(console: RunningConsole) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=console.url) as client:
        yield client


@pytest.fixture
def sign_in(console: RunningConsole) -> Iterator[Callable[[str], httpx2.Client]]:
    """A client that is signed in with a token."""
    opened: list[httpx2.Client] = []

    def enter(token: str) -> httpx2.Client:
        client = httpx2.Client(base_url=console.url)
        opened.append(client)
        page = client.get("/sign-in")
        answer = client.post("/sign-in", data={"csrf": csrf_of(page), "token": token, "next": "/approvals"})
        assert answer.status_code == 303, answer.text
        return client

    yield enter
    for client in opened:
        client.close()


@pytest.fixture
def operator(sign_in: Callable[[str], httpx2.Client]) -> httpx2.Client:
    return sign_in(LINK_TOKEN)


def csrf_of(page: httpx2.Response) -> str:
    found = re.search(r'name="csrf" value="([^"]+)"', page.text)
    assert found, page.text
    return found[1]
