"""A real Chromium for tests and screenshots: the system's, headless, with a fresh profile each time."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Browser, Page, sync_playwright

from tests.consoles import RunningConsole

ARGUMENTS = (  # noqa: SIM905 - a command line
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
PHONE = (390, 844)
SMALL_PHONE = (360, 640)
DESK = (1280, 860)


@contextmanager
def chromium() -> Iterator[Browser]:
    path = shutil.which("chromium") or shutil.which("google-chrome")
    assert path, "no Chromium on PATH; `sh deploy/setup.sh browser` installs it"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


class Watched:
    """A page that notes everything it must not do: foreign requests, dialogs, popups, errors, blocked content."""

    def __init__(self, browser: Browser, console: RunningConsole, size: tuple[int, int] = DESK, **options: Any) -> None:
        width, height = size
        self.console = console
        self.problems: list[str] = []
        self.context = browser.new_context(
            viewport={"width": width, "height": height}, has_touch=width < 600, **options
        )
        self.context.set_default_timeout(10_000)
        self.page: Page = self.context.new_page()
        own = urlsplit(console.url).netloc
        note = self.problems.append
        self.context.on("page", lambda other: note(f"popup {other.url}"))
        self.page.on("request", lambda one: urlsplit(one.url).netloc != own and note(f"request to {one.url}"))
        self.page.on("dialog", lambda one: (note(f"dialog {one.message}"), one.dismiss()))
        self.page.on("pageerror", lambda error: note(f"error {error}"))
        self.page.on("console", lambda one: one.type == "error" and note(f"console {one.text}"))

    def sign_in(self) -> Page:
        self.page.goto(self.console.sign_in_url)
        self.page.get_by_role("button", name="Sign in").click()
        self.page.wait_for_url("**/approvals")
        return self.page

    def close(self) -> None:
        self.context.close()
