"""One Chromium for a module; a console and a watched page for each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser

from tests.browsers import Watched, chromium
from tests.consoles import RunningConsole, running_console


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Not for the session: Playwright keeps an event loop in this thread, and other modules want to run their own."""
    with chromium() as running:
        yield running


@pytest.fixture
def console(redis_url: str) -> Iterator[RunningConsole]:
    with running_console(redis_url) as running:
        yield running


@pytest.fixture
def open_page(browser: Browser, console: RunningConsole) -> Iterator[Callable[..., Watched]]:
    """Opens watched pages. At the end, none of them may have done what a page must not do."""
    opened: list[Watched] = []

    def open_one(*args: object, **options: object) -> Watched:
        watched = Watched(browser, console, *args, **options)  # type: ignore[arg-type]
        opened.append(watched)
        return watched

    yield open_one
    problems = [problem for watched in opened for problem in watched.problems]
    for watched in opened:
        watched.close()
    assert problems == []
