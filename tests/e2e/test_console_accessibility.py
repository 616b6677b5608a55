"""axe-core finds nothing on any page, in both schemes and both sizes. A vendored, pinned copy; no network."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

from tests.browsers import DESK, SMALL_PHONE, Watched
from tests.console_story import TRACE, tell
from tests.consoles import RunningConsole

AXE = Path(__file__).parent / "vendor" / "axe-core-4.14.1.min.js"  # MPL-2.0, from npm, unchanged
AXE_SHA256 = "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c"


def violations(page: Page) -> list[str]:
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found: dict[str, Any] = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [f"{one['id']}: {node['html'][:120]}" for one in found["violations"] for node in one["nodes"]]


def test_the_vendored_copy_is_the_published_one() -> None:
    assert hashlib.sha256(AXE.read_bytes()).hexdigest() == AXE_SHA256


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESK, SMALL_PHONE], ids=["desk", "phone"])
def test_pages_are_accessible(
    console: RunningConsole, open_page: Callable[..., Watched], size: tuple[int, int], scheme: str
) -> None:
    story = tell(console)
    console.status.problems = ("policies/payments.yaml:12:3: found `alow`; expected one of allow, hold, deny",)
    watched = open_page(size, color_scheme=scheme)
    page = watched.page
    found: dict[str, list[str]] = {}
    for path in ("/sign-in", console.sign_in_url.removeprefix(console.url)):
        page.goto(console.url + path)
        found[path] = violations(page)
    watched.sign_in()
    held = [f"/approvals/{one.id}" for one in (story.trick, story.refund, story.unknown, story.done)]
    pages = [
        "/approvals",
        *held,
        f"{held[0]}#approve",
        f"{held[0]}#deny",
        "/runs",
        "/runs?agent=nobody",
        f"/runs/{TRACE}",
    ]
    for path in (*pages, f"/runs/{TRACE}/exchanges/{4:032x}"):
        page.goto(console.url + path)
        found[path] = violations(page)
    page.goto(f"{console.url}/approvals")
    if size == DESK:
        page.keyboard.press("?")
        found["help"] = violations(page)
    assert {path: each for path, each in found.items() if each} == {}
