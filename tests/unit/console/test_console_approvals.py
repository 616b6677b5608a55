"""Deciding in the pages, as plain forms: who may, on what, when, and what the page says afterwards."""

from __future__ import annotations

import re
from collections.abc import Callable

import httpx2
import pytest

from gateway.approvals.held_action import HeldAction
from gateway.core.decision import ApprovalTerms
from gateway.core.errors import FilterError
from gateway.core.held import State
from tests.console_story import TRACE, tell
from tests.consoles import RunningConsole
from tests.servers import ask
from tests.unit.console.conftest import csrf_of

SignIn = Callable[[str], httpx2.Client]


def decide(client: httpx2.Client, held: HeldAction, verdict: str, **fields: str) -> httpx2.Response:
    page = client.get(f"/approvals/{held.id}")
    form = {"csrf": csrf_of(page), "digest": held.digest, "comment": "", **fields}
    return client.post(f"/approvals/{held.id}/{verdict}", data=form)


def test_the_inbox_says_in_one_sentence_what_would_happen(console: RunningConsole, operator: httpx2.Client) -> None:
    later = console.propose({"amount": 1}, terms=ApprovalTerms(group="finance", expires_s=7200))
    sooner = console.propose(
        {"amount": 250, "to": {"iban": "DE89"}}, terms=ApprovalTerms(group="finance", expires_s=90)
    )
    page = operator.get("/approvals").text
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", page))
    assert (
        "bookkeeper wants bank.transfer amount 250 to.iban DE89 Transfers need a person 1 min left asked 0 s ago"
        in text
    )
    assert page.index(sooner.id) < page.index(later.id)


def test_approving_with_a_comment(console: RunningConsole, operator: httpx2.Client) -> None:
    held = console.propose({"amount": 250})
    answer = decide(operator, held, "approve", comment="matches\r\nthe invoice")
    assert answer.status_code == 303 and answer.headers["location"] == f"/approvals/{held.id}"
    now = console.get(held.id)
    assert now.state is State.APPROVED
    assert [(v.person, v.verdict, v.comment) for v in now.decisions] == [
        ("operator", "approve", "matches\nthe invoice")
    ]
    page = operator.get(f"/approvals/{held.id}").text
    assert "It was approved and will run in a moment" in page and "matches" in page
    assert 'action="/approvals/' not in page


def test_denying(console: RunningConsole, operator: httpx2.Client) -> None:
    held = console.propose({"amount": 250})
    assert decide(operator, held, "deny", comment="no invoice").status_code == 303
    assert console.get(held.id).state is State.DENIED
    assert "It did not run and will not run" in operator.get(f"/approvals/{held.id}").text


@pytest.mark.parametrize("csrf", ["", "wrong", None])
def test_a_form_without_the_sessions_token_is_refused(
    console: RunningConsole, operator: httpx2.Client, csrf: str | None
) -> None:
    held = console.propose({"amount": 250})
    form = {"digest": held.digest, **({} if csrf is None else {"csrf": csrf})}
    for verdict in ("approve", "deny", "reconcile"):
        answer = operator.post(f"/approvals/{held.id}/{verdict}", data=form)
        assert answer.status_code == 403 and "csrf" in answer.text
    assert console.get(held.id).state is State.PENDING


def test_the_token_of_another_session_is_refused(
    console: RunningConsole, operator: httpx2.Client, sign_in: SignIn
) -> None:
    held = console.propose({"amount": 250})
    other = sign_in(console.approver("ana", "finance"))
    stolen = csrf_of(operator.get(f"/approvals/{held.id}"))
    answer = other.post(f"/approvals/{held.id}/approve", data={"csrf": stolen, "digest": held.digest})
    assert answer.status_code == 403 and console.get(held.id).state is State.PENDING


def test_nobody_decides_without_signing_in(console: RunningConsole, anonymous: httpx2.Client) -> None:
    held = console.propose({"amount": 250})
    answer = anonymous.post(f"/approvals/{held.id}/approve", data={"csrf": "x", "digest": held.digest})
    assert answer.status_code == 401 and console.get(held.id).state is State.PENDING


@pytest.mark.parametrize("digest", ["", "0" * 64])
def test_the_digest_that_the_page_showed_must_be_the_stored_one(
    console: RunningConsole, operator: httpx2.Client, digest: str
) -> None:
    held = console.propose({"amount": 250})
    for verdict in ("approve", "deny"):
        answer = decide(operator, held, verdict, digest=digest)
        assert answer.status_code == 409 and "Nothing was changed" in answer.text
    assert console.get(held.id).state is State.PENDING


def test_another_group_cannot_decide_and_is_told_so(console: RunningConsole, sign_in: SignIn) -> None:
    held = console.propose({"amount": 250}, terms=ApprovalTerms(group="finance"))
    outsider = sign_in(console.approver("otto", "platform"))
    page = outsider.get(f"/approvals/{held.id}")
    assert "You are not one of them" in page.text and "/approve" not in page.text
    for verdict in ("approve", "deny"):
        assert decide(outsider, held, verdict).status_code == 403
    assert console.get(held.id).state is State.PENDING
    member = sign_in(console.approver("ana", "finance"))
    assert decide(member, held, "approve").status_code == 303
    assert console.get(held.id).decisions[0].person == "ana"


def test_what_has_expired_cannot_be_approved(console: RunningConsole, operator: httpx2.Client) -> None:
    held = console.propose({"amount": 250}, terms=ApprovalTerms(group="finance", expires_s=60))
    page = operator.get(f"/approvals/{held.id}")
    console.clock.ahead_s += 61
    assert held.id not in operator.get("/approvals").text.split("Decided lately")[0]
    answer = operator.post(f"/approvals/{held.id}/approve", data={"csrf": csrf_of(page), "digest": held.digest})
    assert answer.status_code == 303 and console.get(held.id).state is State.EXPIRED
    assert "Nobody decided in time" in operator.get(f"/approvals/{held.id}").text


def test_a_second_decision_is_refused_and_the_first_stands(console: RunningConsole, sign_in: SignIn) -> None:
    held = console.propose({"amount": 250})
    ana, ben = (sign_in(console.approver(name, "finance")) for name in ("ana", "ben"))
    stale = ben.get(f"/approvals/{held.id}")
    assert decide(ana, held, "deny").status_code == 303
    answer = ben.post(f"/approvals/{held.id}/approve", data={"csrf": csrf_of(stale), "digest": held.digest})
    assert answer.status_code == 409 and "Nothing was changed" in answer.text
    assert console.get(held.id).state is State.DENIED


def test_a_quorum_needs_distinct_people(console: RunningConsole, sign_in: SignIn) -> None:
    held = console.propose({"amount": 250}, terms=ApprovalTerms(group="finance", quorum=2))
    ana, ben = (sign_in(console.approver(name, "finance")) for name in ("ana", "ben"))
    assert decide(ana, held, "approve").status_code == 303
    page = ana.get(f"/approvals/{held.id}").text
    assert "You have approved. 1 more person" in page and 'id="approve"' not in page
    decide(ana, held, "approve")
    assert console.get(held.id).state is State.PENDING
    assert "1 of 2 approvals" in ben.get("/approvals").text
    decide(ben, held, "approve")
    assert console.get(held.id).state is State.APPROVED


def test_the_owner_does_not_count_where_the_rule_asks_for_separation(console: RunningConsole, sign_in: SignIn) -> None:
    held = console.propose({"amount": 250}, owner="lena", terms=ApprovalTerms(group="finance", separation=True))
    lena = sign_in(console.approver("lena", "finance"))
    assert decide(lena, held, "approve").status_code == 403
    assert console.get(held.id).state is State.PENDING


def test_a_comment_that_is_too_long_changes_nothing(console: RunningConsole, operator: httpx2.Client) -> None:
    held = console.propose({"amount": 250})
    answer = decide(operator, held, "approve", comment="x" * 2001)
    assert answer.status_code == 400 and console.get(held.id).state is State.PENDING


def test_an_unknown_outcome_is_reconciled_with_evidence(console: RunningConsole, sign_in: SignIn) -> None:
    story = tell(console)
    path = f"/approvals/{story.unknown.id}"
    member, outsider = (sign_in(console.approver(n, g)) for n, g in (("ines", "platform"), ("otto", "finance")))
    page = member.get(path)
    assert "It may or may not have happened" in page.text and "What to do" in page.text
    form = {
        "csrf": csrf_of(page),
        "digest": story.unknown.digest,
        "outcome": "happened",
        "evidence": "zone file, 06:31",
    }
    for broken in ({"evidence": "  "}, {"outcome": "maybe"}, {"digest": "0" * 64}):
        assert member.post(f"{path}/reconcile", data=form | broken).status_code in (400, 409)
    theirs = csrf_of(outsider.get(path))
    assert outsider.post(f"{path}/reconcile", data=form | {"csrf": theirs}).status_code == 403
    assert console.get(story.unknown.id).state is State.UNKNOWN
    assert member.post(f"{path}/reconcile", data=form).status_code == 303
    assert console.get(story.unknown.id).state is State.SUCCEEDED
    assert "zone file, 06:31" in member.get(path).text


HOSTILE = {
    "<script>alert(1)</script>": '"><img src=x onerror=alert(1)>',
    "style": "</td></table><style>*{display:none}</style>",
    "template": "{{ 7*7 }}{% raw %}",
    "link": "https://evil.example/approve javascript:alert(1)",
    "bidi": "\u202eREVERSED",
    "nested": {"a": [{"b": "</pre></details></main><form action=https://evil.example>"}]},
}


def test_hostile_arguments_stay_text(console: RunningConsole, operator: httpx2.Client) -> None:
    held = console.propose(HOSTILE, tool="local.<b>tool</b>", run="<i>run</i>")
    for path in ("/approvals", f"/approvals/{held.id}"):
        page = operator.get(path).text
        for tag in ("<script>alert", "<img src=x", "<style", "<b>tool", "<i>run", "<form action=https", "{{ 7", "49{"):
            assert (tag in page) == (tag == "{{ 7" and "approvals/" in path), (path, tag)
        assert "\u202e" not in page
        assert 'href="https://evil' not in page


def test_the_page_compares_with_the_last_approved_action_of_the_tool(
    console: RunningConsole, operator: httpx2.Client
) -> None:
    first = console.propose({"amount": 100, "to": "A", "memo": "old"})
    assert "this is the first to compare with" in operator.get(f"/approvals/{first.id}").text
    decide(operator, first, "approve")
    denied = console.propose({"amount": 999, "to": "Z"})
    decide(operator, denied, "deny")
    second = console.propose({"amount": 250, "to": "A"})
    page = operator.get(f"/approvals/{second.id}").text
    assert "2 values differ" in page and f'href="/approvals/{first.id}"' in page
    assert page.count('class="changed"') == 1 and "memo</code> is gone" in page
    same = console.propose({"amount": 100, "to": "A", "memo": "old"}, agent="other")
    assert "The same arguments" in operator.get(f"/approvals/{same.id}").text


def test_results_are_masked_and_not_shown_when_the_filters_fail(
    console: RunningConsole, operator: httpx2.Client
) -> None:
    story = tell(console)
    console.mask = lambda text: text.replace("T-20931", "<SECRET>")
    page = operator.get(f"/approvals/{story.done.id}").text
    assert "Booked as &lt;SECRET&gt;" in page and "T-20931" not in page

    def failing(text: str) -> str:
        raise FilterError("filter_timeout", "too slow")

    console.mask = failing
    page = operator.get(f"/approvals/{story.done.id}").text
    assert "the filters could not inspect it" in page and "T-20931" not in page


def test_huge_arguments_are_cut_visibly_and_can_be_saved_whole(
    console: RunningConsole, operator: httpx2.Client
) -> None:
    held = console.propose({"rows": [f"row {n}" for n in range(9_000)]})
    page = operator.get(f"/approvals/{held.id}")
    assert "This page does not show everything" in page.text and len(page.text) < 2_000_000
    saved = operator.get(f"/approvals/{held.id}/arguments")
    assert saved.content == held.arguments
    assert saved.headers["content-disposition"].startswith("attachment")


def test_mistakes_in_the_policy_files_are_on_every_page(console: RunningConsole, operator: httpx2.Client) -> None:
    console.status.problems = ("policies/a.yaml:3:7: found `alow`; expected one of allow, hold, deny <b>",)
    for path in ("/approvals", "/runs"):
        page = operator.get(path).text
        assert "policies/a.yaml:3:7" in page and "the last good release stays in force" in page and "<b>" not in page
    console.status.problems = ()
    assert "stays in force" not in operator.get("/approvals").text


def test_fetching_changes_nothing(console: RunningConsole, operator: httpx2.Client) -> None:
    story = tell(console)
    ids = [story.trick.id, story.refund.id, story.unknown.id, story.done.id]
    paths = [
        "/",
        "/sign-in",
        console.sign_in_url,
        "/approvals",
        "/runs",
        f"/runs/{TRACE}",
        "/healthz",
        "/metrics",
        "/sign-out",
    ]
    paths += [
        f"/approvals/{one}{rest}" for one in ids for rest in ("", "/arguments", "/approve", "/deny", "/reconcile")
    ]
    paths += [f"/runs/{TRACE}/exchanges/{4:032x}{rest}" for rest in ("", "/request", "/response")]
    token = console.approver("ana", "finance", "platform")
    api = ["/api/actions", "/api/runs", f"/api/runs/{TRACE}", "/api/status", "/api/openapi.json"]
    api += [f"/api/actions/{one}{rest}" for one in ids for rest in ("", "/approve", "/deny", "/reconcile")]
    before = stored(console)
    for method in ("GET", "HEAD"):
        for path in paths:
            assert operator.request(method, path).status_code in (200, 303, 405), path
        for path in api:
            answer = operator.request(method, path, headers={"authorization": f"Bearer {token}"})
            assert answer.status_code in (200, 405), path
    assert stored(console) == before


def test_every_route_that_can_be_fetched_was_walked(console: RunningConsole) -> None:
    getters = {route.path for route in console.app.routes if "GET" in (route.methods or ())}  # type: ignore[attr-defined]
    assert getters == {
        "/", "/healthz", "/metrics", "/static/{digest}/{name}", "/sign-in", "/approvals", "/approvals/{id}",
        "/approvals/{id}/arguments", "/runs", "/runs/{trace}", "/runs/{trace}/exchanges/{id}",
        "/runs/{trace}/exchanges/{id}/{part}", "/events", "/api/actions", "/api/actions/{id}", "/api/runs",
        "/api/runs/{run}", "/api/exchanges/{id}", "/api/status", "/api/openapi.json",
    }  # fmt: skip


def stored(console: RunningConsole) -> dict[bytes, object]:
    """Everything in Redis, serialised by the server itself."""
    keys = ask(console.redis_url, "KEYS", "*")
    assert isinstance(keys, list) and keys
    return {key: ask(console.redis_url, "DUMP", key.decode()) for key in sorted(keys)}
