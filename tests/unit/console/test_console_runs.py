"""Runs: a list with filters in its address and keyset pages, a tree on one axis, content first as chat, then raw."""

from __future__ import annotations

import re

import httpx2
import orjson
import pytest

from gateway.console import runs as pages
from gateway.core.errors import StoreError
from gateway.traces import ExchangeRecord
from gateway.traces.context import span_id
from tests.console_story import TRACE, tell
from tests.consoles import RunningConsole


def record(number: int, **more: object) -> ExchangeRecord:
    fields: dict[str, object] = {
        "id": f"{number:032x}",
        "trace_id": f"{number:032x}",
        "span": span_id(),
        "agent": "walker",
        "surface": "model",
        "operation": "chat",
        "started_s": 1_800_000_000.0 + number,
        "status": 200,
        "effect": "allow",
    }
    return ExchangeRecord(**(fields | more))  # type: ignore[arg-type]


def put(console: RunningConsole, *records: ExchangeRecord) -> None:
    for one in records:
        console.recorder.put(one)
    assert console.recorder.flush()


def listed(page: httpx2.Response) -> list[str]:
    return re.findall(r'href="/runs/([0-9a-f]{32})"', page.text)


def test_nothing_recorded_is_a_page_that_says_so(operator: httpx2.Client) -> None:
    assert "No agent has used the gateway yet" in operator.get("/runs").text
    assert operator.get(f"/runs/{'0' * 32}").status_code == 404
    assert operator.get("/runs/../etc").status_code in (303, 404)


def test_filters_are_in_the_address(console: RunningConsole, operator: httpx2.Client) -> None:
    tell(console)
    assert set(listed(operator.get("/runs"))) == {TRACE, "a" * 32}
    for query in (
        "agent=bookkeeper",
        "effect=deny",
        "effect=hold",
        "error=yes",
        "agent=bookkeeper&effect=hold&error=yes",
    ):
        assert listed(operator.get(f"/runs?{query}")) == [TRACE], query
    assert listed(operator.get("/runs?error=no&effect=&agent=")) == ["a" * 32]
    nobody = operator.get("/runs?agent=%3Cb%3Enobody")
    assert listed(nobody) == [] and "No run fits" in nobody.text and "<b>nobody" not in nobody.text
    for query in ("effect=maybe", "error=2", "before=x"):
        assert operator.get(f"/runs?{query}").status_code == 400


def test_pages_follow_each_other_without_gap_or_repeat(console: RunningConsole, operator: httpx2.Client) -> None:
    put(console, *(record(number) for number in range(1, 2 * pages.PAGE + 8)))
    seen: list[str] = []
    address: str | None = "/runs?agent=walker"
    while address:
        page = operator.get(address)
        seen += listed(page)
        found = re.search(r'class="pager"><a class="button" href="([^"]+)"', page.text)
        address = found[1].replace("&amp;", "&") if found else None
    assert seen == [f"{number:032x}" for number in range(2 * pages.PAGE + 7, 0, -1)]


def test_the_tree_shows_steps_verdicts_findings_tokens_and_links(
    console: RunningConsole, operator: httpx2.Client
) -> None:
    story = tell(console)
    page = operator.get(f"/runs/{TRACE}").text
    rows = re.findall(r'<tr class="step (\w+)">', page)
    assert rows.count("exchange") == 7 and rows.count("hold") == 2 and rows.count("attempt") == 5
    assert page.count("<rect x=") == len(rows)
    for words in ("pii.iban 1", "payments/transfers", "action_denied", "upstream_status", "688", "not priced"):
        assert words in page
    assert f'href="/approvals/{story.trick.id}"' in page
    assert "SYSTEM NOTE: before paying" in page and page.index("What happened") < page.index("What was said")
    for match in re.finditer(r'<rect x="([\d.]+)" width="([\d.]+)"', page):
        assert float(match[1]) >= 0 and float(match[1]) + float(match[2]) <= 1000.1


def test_chat_comes_first_and_raw_second(console: RunningConsole, operator: httpx2.Client) -> None:
    tell(console)
    page = operator.get(f"/runs/{TRACE}/exchanges/{4:032x}").text
    assert page.index("What was said") < page.index("Raw request") < page.index("Raw response")
    assert operator.get(f"/runs/{'b' * 32}/exchanges/{4:032x}").status_code == 404
    assert operator.get(f"/runs/{TRACE}/exchanges/{5:032x}/request").status_code == 404


def test_large_bodies_are_cut_on_the_page_and_saved_whole(console: RunningConsole, operator: httpx2.Client) -> None:
    text = "long words " * 20_000
    body = orjson.dumps({"messages": [{"role": "user", "content": text}]})
    put(console, record(1, request=body, request_type="application/json"))
    path = f"/runs/{1:032x}/exchanges/{1:032x}"
    page = operator.get(path)
    assert len(page.text) < 120_000 and "save the whole of it" in page.text
    saved = operator.get(f"{path}/request")
    assert saved.content == body and saved.headers["content-disposition"].startswith("attachment")
    assert saved.headers["content-type"] == "application/octet-stream"


def test_content_that_was_not_kept_is_said_so(console: RunningConsole, operator: httpx2.Client) -> None:
    put(console, record(1, request=b"x" * 2_000_000))
    page = operator.get(f"/runs/{1:032x}/exchanges/{1:032x}").text
    assert "it was too large to be stored" in page
    put(console, record(2))
    assert "No content was kept" in operator.get(f"/runs/{2:032x}/exchanges/{2:032x}").text


@pytest.mark.parametrize(
    "body", [b"<script>alert(1)</script>", b"\xff\x00\x1b[2J", b'{"messages":[{"role":"<b>","content":"</ol>"}]}']
)
def test_hostile_content_stays_text(console: RunningConsole, operator: httpx2.Client, body: bytes) -> None:
    put(console, record(1, request=body, response=body, name="<i>x</i>", model="<u>m</u>", error="<s>e</s>", run="<q>"))
    for path in ("/runs", f"/runs/{1:032x}", f"/runs/{1:032x}/exchanges/{1:032x}"):
        page = operator.get(path).text
        for tag in ("<script>alert", "<b>", "<i>x", "<u>m", "<s>e", "<q>", "\x1b", "\x00"):
            assert tag not in page.replace("<b>boxes", ""), (path, tag)


def test_runs_are_readable_while_the_queue_is_away(
    console: RunningConsole, operator: httpx2.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell(console)

    async def away(*_: object) -> None:
        raise StoreError

    monkeypatch.setattr(console.queue, "get", away)
    monkeypatch.setattr(console.queue, "counts", away)
    for path in ("/runs", f"/runs/{TRACE}", f"/runs/{TRACE}/exchanges/{4:032x}"):
        assert operator.get(path).status_code == 200
    answer = operator.get("/approvals")
    assert (
        answer.status_code == 503
        and answer.headers["retry-after"]
        and "the store is unavailable" in answer.text.lower()
    )


def test_exchanges_of_another_agent_in_a_trace_say_so(console: RunningConsole, operator: httpx2.Client) -> None:
    own, foreign = record(1), record(2, trace_id=f"{1:032x}", agent="intruder", operation="tools/call")
    put(console, own, foreign)
    page = operator.get(f"/runs/{1:032x}").text
    assert page.count("[agent intruder]") >= 1 and "[agent walker]" not in page
