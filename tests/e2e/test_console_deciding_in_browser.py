"""People decide in a real browser: with and without scripts, with keys alone, on a phone."""

from __future__ import annotations

import string
from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from gateway.core.decision import ApprovalTerms
from gateway.core.held import State
from tests.browsers import PHONE, SMALL_PHONE, Watched
from tests.console_story import TRACE, tell
from tests.consoles import RunningConsole

TOO_SMALL = """() => [...document.querySelectorAll(
    'a.button, button, .choice, input:not([type=hidden]):not([type=radio]), textarea, select')]
  .filter(e => e.checkVisibility())
  .filter(e => e.getBoundingClientRect().height < 44 || e.getBoundingClientRect().width < 44)
  .map(e => e.outerHTML.slice(0, 80))"""

Open = Callable[..., Watched]


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no-scripts"])
@pytest.mark.parametrize(("button", "state"), [("Approve", State.APPROVED), ("Deny", State.DENIED)])
def test_deciding_with_a_comment(
    console: RunningConsole, open_page: Open, scripts: bool, button: str, state: State
) -> None:
    held = console.propose({"amount": 250, "to": {"iban": "DE89"}})
    page = open_page(java_script_enabled=scripts).sign_in()
    page.get_by_role("link", name="bookkeeper wants bank.transfer").click()
    page.get_by_role("link", name=f"{button}…").click()
    page.get_by_label("Comment" if button == "Approve" else "Reason").fill("looked at the invoice")
    assert console.get(held.id).state is State.PENDING
    page.get_by_role("button", name=button, exact=True).click()
    expect(page.locator(".standing")).to_contain_text("It was approved" if button == "Approve" else "It was denied")
    now = console.get(held.id)
    assert now.state is state and now.decisions[0].comment == "looked at the invoice"
    expect(page.get_by_role("button", name=button, exact=True)).to_have_count(0)


def test_the_page_follows_what_happens_next(console: RunningConsole, open_page: Open) -> None:
    held = console.propose({"amount": 250})
    page = open_page().sign_in()
    page.goto(f"{console.url}/approvals/{held.id}#approve")
    page.get_by_role("button", name="Approve", exact=True).click()
    expect(page.locator(".live")).to_have_class("live js-only on")
    claim = console.call(console.queue.claim(held.id, worker="w", lease_s=60, now=console.clock()))
    assert claim is not None
    expect(page.locator(".standing")).to_contain_text("is running now")
    console.call(console.queue.complete(claim, ok=True, result=b'{"booked":"T-1"}', now=console.clock()))
    expect(page.locator(".standing")).to_contain_text("ran once")
    expect(page.locator("#result-title + .label + pre")).to_contain_text("T-1")


def test_new_actions_appear_in_an_open_inbox_and_the_focus_stays(console: RunningConsole, open_page: Open) -> None:
    first = console.propose({"amount": 1}, terms=ApprovalTerms(group="finance", expires_s=3600))
    page = open_page().sign_in()
    expect(page.locator(".live")).to_have_class("live js-only on")
    page.keyboard.press("j")
    second = console.propose({"amount": 2}, terms=ApprovalTerms(group="finance", expires_s=60))
    expect(page.locator(".item")).to_have_count(2)
    expect(page.locator(".item .open").first).to_have_id(f"item-{second.id}")
    expect(page.locator(f"#item-{first.id}")).to_be_focused()
    expect(page).to_have_title("(2) Approvals · Gateway")
    expect(page.locator("#announce")).to_have_text("A new action waits for a decision")


def test_a_page_with_words_in_it_is_not_replaced_under_the_hands(console: RunningConsole, open_page: Open) -> None:
    held = console.propose({"amount": 1}, terms=ApprovalTerms(group="finance", quorum=2))
    page = open_page().sign_in()
    page.goto(f"{console.url}/approvals/{held.id}")
    expect(page.locator(".live")).to_have_class("live js-only on")
    page.get_by_role("link", name="Deny…").click()
    page.get_by_label("Reason").fill("half a sentence")
    now = console.clock()
    console.call(console.queue.approve(held.id, "ana", ["finance"], digest=held.digest, comment="", now=now))
    expect(page.get_by_role("alert")).to_contain_text("This changed while you were here")
    expect(page.get_by_label("Reason")).to_have_value("half a sentence")


def test_keys_alone_are_enough(console: RunningConsole, open_page: Open) -> None:
    first = console.propose({"amount": 1}, terms=ApprovalTerms(group="finance", expires_s=60))
    second = console.propose({"amount": 2}, terms=ApprovalTerms(group="finance", expires_s=3600))
    page = open_page().sign_in()
    for key, held in (
        ("j", first),
        ("ArrowDown", second),
        ("ArrowDown", second),
        ("k", first),
        ("ArrowUp", first),
        ("j", second),
    ):
        page.keyboard.press(key)
        expect(page.locator(f"#item-{held.id}")).to_be_focused()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.locator(f"#item-{second.id}").focus()
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/approvals/{second.id}")
    page.get_by_role("link", name="Approve…").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_label("Comment")).to_be_focused()
    page.keyboard.type("by keys: approve, deny, y, a, d")
    page.keyboard.press("Escape")
    expect(page.get_by_role("link", name="Approve…")).to_be_visible()
    page.keyboard.press("u")
    page.wait_for_url("**/approvals")
    page.go_back()
    page.goto(f"{console.url}/approvals/{second.id}")
    page.get_by_role("link", name="Approve…").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_label("Comment")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Approve", exact=True)).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator(".standing")).to_contain_text("It was approved")
    assert console.get(second.id).state is State.APPROVED


def test_no_single_key_decides(console: RunningConsole, open_page: Open) -> None:
    held = console.propose({"amount": 1})
    watched = open_page()
    page = watched.sign_in()
    address = f"{console.url}/approvals/{held.id}"
    for where in ("", "#approve", "#deny"):
        page.goto("about:blank")
        watched.problems.clear()
        page.goto(address + where)
        for key in [*string.ascii_letters, *string.digits, *"!?.,+- ", "Enter", "Delete", "Backspace"]:
            if key == "u":
                continue  # leads back to the list
            page.keyboard.press(key)
        assert console.get(held.id).state is State.PENDING, where


@pytest.mark.parametrize("size", [SMALL_PHONE, PHONE], ids=["360", "390"])
def test_on_a_phone_everything_fits_and_can_be_touched(
    console: RunningConsole, open_page: Open, size: tuple[int, int]
) -> None:
    story = tell(console)
    console.status.problems = ("policies/a-rather-long-name-of-a-file.yaml:12:3: found `alow`; expected `allow`",)
    page = open_page(size).sign_in()
    held = [f"/approvals/{one.id}" for one in (story.trick, story.refund, story.unknown, story.done)]
    for path in (
        "/approvals",
        *held,
        f"{held[0]}#approve",
        "/runs",
        f"/runs/{TRACE}",
        f"/runs/{TRACE}/exchanges/{4:032x}",
    ):
        page.goto(console.url + path)
        wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide == 0, path
        small = page.evaluate(TOO_SMALL)
        assert small == [], path


def test_on_a_phone_the_decision_is_at_the_thumb_and_a_double_tap_decides_nothing(
    console: RunningConsole, open_page: Open
) -> None:
    story = tell(console)
    page = open_page(PHONE).sign_in()
    page.goto(f"{console.url}/approvals/{story.trick.id}")
    boxes = {name: page.get_by_role("link", name=f"{name}…").bounding_box() for name in ("Deny", "Approve")}
    deny, approve = boxes["Deny"], boxes["Approve"]
    assert deny and approve
    assert min(deny["y"], approve["y"]) > 844 * 0.8 and approve["y"] + approve["height"] <= 844
    assert approve["x"] - (deny["x"] + deny["width"]) >= 16
    for box in (approve, deny):
        for spot in (0.1, 0.5, 0.9):
            page.goto(f"{console.url}/approvals/{story.trick.id}")
            x, y = box["x"] + box["width"] * spot, box["y"] + box["height"] / 2
            page.touchscreen.tap(x, y)
            page.touchscreen.tap(x, y)
            page.touchscreen.tap(x, y)
            assert console.get(story.trick.id).state is State.PENDING
    page.goto(f"{console.url}/approvals/{story.trick.id}")
    page.get_by_role("link", name="Approve…").tap()
    button = page.get_by_role("button", name="Approve", exact=True)
    expect(button).to_be_in_viewport(ratio=1)
    button.tap()
    expect(page.locator(".standing")).to_contain_text("It was approved")


def test_a_link_from_elsewhere_arrives_signed_in(console: RunningConsole, open_page: Open) -> None:
    held = console.propose({"amount": 1})
    watched = open_page()
    page = watched.sign_in()
    page.goto("data:text/html,<a href='" + f"{console.url}/approvals/{held.id}" + "'>from a chat</a>")
    watched.problems.clear()
    page.get_by_role("link").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("bookkeeper wants bank.transfer")
    assert console.get(held.id).state is State.PENDING


def test_an_unknown_outcome_is_recorded_without_scripts(console: RunningConsole, open_page: Open) -> None:
    story = tell(console)
    page = open_page(java_script_enabled=False).sign_in()
    page.get_by_role("link", name="was sent, and no answer was recorded").click()
    page.get_by_label("It did not happen").check()
    page.get_by_label("Evidence").fill("not in the zone file")
    page.get_by_role("button", name="Record the outcome").click()
    expect(page.locator(".standing")).to_contain_text("reported an error")
    assert console.get(story.unknown.id).state is State.FAILED
