"""Make the pictures of docs/images anew: `python -m tests.screenshots [--all FOLDER]`. Real console, real browser."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from playwright.sync_api import Browser, Page

from tests.browsers import DESK, PHONE, Watched, chromium
from tests.console_story import TRACE, Story, tell
from tests.consoles import RunningConsole, running_console
from tests.servers import throwaway

IMAGES = Path(__file__).parents[1] / "docs" / "images"


def signed_in(browser: Browser, console: RunningConsole, size: tuple[int, int], scheme: str = "light") -> Page:
    return Watched(browser, console, size, color_scheme=scheme).sign_in()


def every_page(browser: Browser, console: RunningConsole, story: Story, folder: Path) -> None:
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
            page = signed_in(browser, console, size, scheme)
            for name, address in addresses.items():
                page.goto(console.url + address)
                page.screenshot(path=folder / f"{name}-{label}-{scheme}.png", full_page="#" not in address)
            page.context.close()


def for_the_documents(browser: Browser, console: RunningConsole, story: Story) -> None:
    IMAGES.mkdir(parents=True, exist_ok=True)
    desk = signed_in(browser, console, (1280, 800))
    desk.screenshot(path=IMAGES / "inbox.png")
    desk.set_viewport_size({"width": 1280, "height": 1080})
    desk.goto(f"{console.url}/runs/{TRACE}")
    desk.screenshot(path=IMAGES / "run.png")
    phone = signed_in(browser, console, PHONE)
    phone.goto(f"{console.url}/approvals/{story.trick.id}")
    phone.screenshot(path=IMAGES / "action-phone.png")


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--all", type=Path, metavar="FOLDER", help="every page in every size, to look at")
    chosen = parser.parse_args(arguments)
    with throwaway() as redis, running_console(redis.url) as console, chromium() as browser:
        story = tell(console)
        if chosen.all:
            every_page(browser, console, story, chosen.all)
        else:
            for_the_documents(browser, console, story)


if __name__ == "__main__":
    main(sys.argv[1:])
