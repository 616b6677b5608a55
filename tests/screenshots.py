"""Make the pictures of docs/images anew: `python -m tests.screenshots [--all FOLDER]`. Real console, real browser."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from tests.console_story import TRACE, Story, tell
from tests.consoles import RunningConsole, running_console
from tests.servers import throwaway

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = (  # noqa: SIM905 - a command line
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
IMAGES = Path(__file__).parents[1] / "docs" / "images"
PHONE = (390, 844)
DESK = (1280, 860)


@contextmanager
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        try:
            yield chromium
        finally:
            chromium.close()


def signed_in(chromium: Browser, console: RunningConsole, size: tuple[int, int], scheme: str = "light") -> Page:
    context = chromium.new_context(
        viewport={"width": size[0], "height": size[1]},
        color_scheme=scheme,  # type: ignore[arg-type]
        has_touch=size == PHONE,
    )
    page = context.new_page()
    page.goto(console.sign_in_url)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/approvals")
    return page


def every_page(chromium: Browser, console: RunningConsole, story: Story, folder: Path) -> None:
    """Each page in each size and scheme, to be looked at."""
    addresses = {
        "inbox": "/approvals",
        "held": f"/approvals/{story.trick.id}",
        "held-approve": f"/approvals/{story.trick.id}#approve",
        "quorum": f"/approvals/{story.refund.id}",
        "unknown": f"/approvals/{story.unknown.id}",
        "done": f"/approvals/{story.done.id}",
        "runs": "/runs",
        "run": f"/runs/{TRACE}",
        "exchange": f"/runs/{TRACE}/exchanges/{4:032x}",
    }
    folder.mkdir(parents=True, exist_ok=True)
    for scheme in ("light", "dark"):
        for label, size in (("phone", PHONE), ("desk", DESK)):
            page = signed_in(chromium, console, size, scheme)
            for name, address in addresses.items():
                page.goto(console.url + address)
                page.screenshot(path=folder / f"{name}-{label}-{scheme}.png", full_page="#" not in address)
            page.context.close()


def for_the_documents(chromium: Browser, console: RunningConsole, story: Story) -> None:
    IMAGES.mkdir(parents=True, exist_ok=True)
    desk = signed_in(chromium, console, (1280, 800))
    desk.screenshot(path=IMAGES / "inbox.png")
    desk.goto(f"{console.url}/runs/{TRACE}")
    desk.screenshot(path=IMAGES / "run.png")
    phone = signed_in(chromium, console, PHONE)
    phone.goto(f"{console.url}/approvals/{story.trick.id}")
    phone.screenshot(path=IMAGES / "action-phone.png")


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--all", type=Path, metavar="FOLDER", help="every page in every size, to look at")
    chosen = parser.parse_args(arguments)
    with throwaway() as redis, running_console(redis.url) as console, browser() as chromium:
        story = tell(console)
        if chosen.all:
            every_page(chromium, console, story, chosen.all)
        else:
            for_the_documents(chromium, console, story)


if __name__ == "__main__":
    main(sys.argv[1:])
