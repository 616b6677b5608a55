"""The JSON API does what its document says: every response is checked against the documented schema."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import httpx2
import jsonschema_rs
import pytest

from gateway.approvals.held_action import HeldAction
from gateway.core.decision import ApprovalTerms
from gateway.core.held import State
from tests.console_story import TRACE, Story, tell
from tests.consoles import RunningConsole


class Api:
    """A client that fails on any response that the document does not allow."""

    def __init__(self, client: httpx2.Client) -> None:
        self._client = client
        self.document: dict[str, Any] = client.get("/api/openapi.json").json()

    def request(self, method: str, path: str, **more: Any) -> httpx2.Response:
        answer = self._client.request(method, path, **more)
        template = self.template(path.partition("?")[0])
        responses = self.document["paths"][template][method.lower()]["responses"]
        assert str(answer.status_code) in responses, (answer.status_code, answer.text)
        schema = responses[str(answer.status_code)]["content"]["application/json"]["schema"]
        assert answer.headers["content-type"] == "application/json"
        whole = {**schema, "components": self.document["components"]}
        jsonschema_rs.validator_for(whole, validate_formats=True).validate(answer.json())
        return answer

    def get(self, path: str, **more: Any) -> httpx2.Response:
        return self.request("GET", path, **more)

    def post(self, path: str, json: Any, **more: Any) -> httpx2.Response:
        return self.request("POST", path, json=json, **more)

    def template(self, path: str) -> str:
        paths = self.document["paths"]
        return next(one for one in paths if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", one), path))


@pytest.fixture
def api(console: RunningConsole) -> Iterator[Api]:
    token = console.approver("ana", "finance", "platform")
    with httpx2.Client(base_url=console.url, headers={"authorization": f"Bearer {token}"}) as client:
        yield Api(client)


@pytest.fixture
def story(console: RunningConsole) -> Story:
    return tell(console)


def ballot(held: HeldAction, comment: str = "") -> dict[str, str]:
    return {"digest": held.digest, "comment": comment}


def test_the_document_is_openapi_and_covers_every_route(console: RunningConsole, api: Api) -> None:
    assert api.document["openapi"] == "3.1.0" and api.document["servers"] == [{"url": console.url}]
    documented = {(method.upper(), path) for path, each in api.document["paths"].items() for method in each}
    routed = {
        (method, route.path)  # type: ignore[attr-defined]
        for route in console.app.routes
        for method in (route.methods or ())  # type: ignore[attr-defined]
        if route.path.startswith("/api/") and method != "HEAD"  # type: ignore[attr-defined]
    }
    assert documented == routed - {("GET", "/api/openapi.json")}
    ids = [one["operationId"] for each in api.document["paths"].values() for one in each.values()]
    assert len(set(ids)) == len(ids)
    for schema in api.document["components"]["schemas"].values():
        jsonschema_rs.meta.validate({**schema, "$schema": "https://json-schema.org/draft/2020-12/schema"})


def test_every_reference_in_the_document_leads_somewhere(api: Api) -> None:
    names = set(re.findall(r"#/components/schemas/(\w+)", str(api.document)))
    assert names == set(api.document["components"]["schemas"])


def test_waiting_actions_come_with_the_stored_arguments(console: RunningConsole, api: Api, story: Story) -> None:
    found = api.get("/api/actions?state=PENDING").json()
    assert [item["state"] for item in found["items"]] == ["PENDING"] * 4 and found["next"] is None
    item = next(item for item in found["items"] if item["id"] == story.trick.id)
    assert item["arguments"]["amount"] == "4980.00" and item["tool"] == "bank.transfer" and item["trace"] == TRACE
    one = api.get(f"/api/actions/{story.trick.id}").json()
    assert one["digest"] == story.trick.digest and one["events"][0]["source"] is None


def test_lists_by_state_and_in_pages(api: Api, story: Story) -> None:
    assert [item["id"] for item in api.get("/api/actions?state=UNKNOWN").json()["items"]] == [story.unknown.id]
    assert [item["id"] for item in api.get("/api/actions?state=SUCCEEDED").json()["items"]] == [story.done.id]
    first = api.get("/api/actions?limit=3").json()
    rest = api.get("/api/actions", params={"limit": 3, "cursor": first["next"]}).json()
    ids = [item["id"] for item in first["items"] + rest["items"]]
    assert len(ids) == len(set(ids)) == 4 and rest["next"] is None
    for query in ("state=MAYBE", "limit=0", "limit=101", "limit=x", "cursor=%00"):
        assert api.get(f"/api/actions?{query}").status_code == 400, query


def test_approving_and_denying(console: RunningConsole, api: Api) -> None:
    first, second = console.propose({"amount": 1}), console.propose({"amount": 2})
    answer = api.post(f"/api/actions/{first.id}/approve", ballot(first, "fine"))
    assert answer.status_code == 200 and answer.json()["state"] == "APPROVED"
    assert answer.json()["votes"][0]["person"] == "ana"
    assert api.post(f"/api/actions/{second.id}/deny", {"digest": second.digest}).json()["state"] == "DENIED"
    assert api.post(f"/api/actions/{second.id}/approve", ballot(second)).status_code == 409


def test_refusals_are_documented_and_change_nothing(console: RunningConsole, api: Api) -> None:
    held = console.propose({"amount": 1}, terms=ApprovalTerms(group="finance"))
    theirs = console.propose({"amount": 1}, terms=ApprovalTerms(group="legal"))
    path = f"/api/actions/{held.id}/approve"
    assert api.post(path, {"digest": "0" * 64}).status_code == 409
    assert api.post(f"/api/actions/{theirs.id}/approve", ballot(theirs)).status_code == 403
    assert api.post("/api/actions/ha_nothing/approve", {"digest": "0" * 64}).status_code == 404
    bad: list[Any] = [
        {},
        [],
        {"digest": 1},
        {"digest": "x"},
        {**ballot(held), "extra": 1},
        {**ballot(held), "comment": "x" * 2001},
    ]
    for body in bad:
        assert api.post(path, body).status_code == 400, body
    assert (
        api.request(
            "POST", path, content=b'{"digest":"a","digest":"b"}', headers={"content-type": "application/json"}
        ).status_code
        == 400
    )
    assert api.request("POST", path, data={"digest": held.digest}).status_code == 415
    assert (
        api.request("POST", path, content=b"x" * 70_000, headers={"content-type": "application/json"}).status_code
        == 413
    )
    for one in (held, theirs):
        assert console.get(one.id).state is State.PENDING


def test_errors_never_quote_what_was_sent(console: RunningConsole, api: Api) -> None:
    held = console.propose({"amount": 1})
    for body in ({"digest": "SECRETWORD"}, {"SECRETWORD": 1}, {"digest": held.digest, "comment": ["SECRETWORD"]}):
        assert "SECRETWORD" not in api.post(f"/api/actions/{held.id}/approve", body).text


@pytest.mark.parametrize("header", [None, "Bearer", "Bearer wrong", "Basic YTpi", "bearer ga_aaaaaaaa_" + "A" * 43])
def test_without_an_approver_token_there_is_nothing(console: RunningConsole, api: Api, header: str | None) -> None:
    held = console.propose({"amount": 1})
    with httpx2.Client(base_url=console.url) as client:
        stranger = Api(client)
        headers = {} if header is None else {"authorization": header}
        for path in (f"/api/actions/{held.id}", "/api/actions", "/api/runs", "/api/status"):
            assert stranger.get(path, headers=headers).status_code == 401
        assert stranger.post(f"/api/actions/{held.id}/approve", ballot(held), headers=headers).status_code == 401
    assert console.get(held.id).state is State.PENDING


def test_cookies_mean_nothing_to_the_api(console: RunningConsole, operator: httpx2.Client) -> None:
    held = console.propose({"amount": 1})
    assert operator.get("/api/actions").status_code == 401
    assert operator.post(f"/api/actions/{held.id}/approve", json=ballot(held)).status_code == 401


def test_reconciling(api: Api, story: Story) -> None:
    path = f"/api/actions/{story.unknown.id}/reconcile"
    body = {"digest": story.unknown.digest, "outcome": "failed", "evidence": "not in the zone file"}
    for wrong in ({"evidence": ""}, {"outcome": "x"}, {"digest": "x"}):
        assert api.post(path, body | wrong).status_code == 400
    assert api.post(path, body | {"digest": "0" * 64}).status_code == 409
    answer = api.post(path, body).json()
    assert answer["state"] == "FAILED" and answer["note"] == "not in the zone file"
    assert api.post(path, body).status_code == 200  # sent twice is recorded once
    assert api.post(path, body | {"outcome": "happened"}).status_code == 409


def test_runs_exchanges_and_status(console: RunningConsole, api: Api, story: Story) -> None:
    listed = api.get("/api/runs?agent=bookkeeper&effect=deny&error=yes").json()["items"]
    assert [item["run"] for item in listed] == [TRACE] and story.trick.id in listed[0]["held"]
    newest = api.get("/api/runs?limit=1").json()
    rest = api.get("/api/runs", params={"limit": 1, "cursor": newest["next"]}).json()
    assert len(newest["items"]) == len(rest["items"]) == 1 and rest["next"] is None
    tree = api.get(f"/api/runs/{TRACE}").json()
    assert {step["kind"] for step in tree["steps"]} == {"exchange", "filter", "decision", "hold", "attempt"}
    spans = {step["span"] for step in tree["steps"]}
    assert all(step["parent"] in spans for step in tree["steps"] if step["depth"])
    exchange = api.get(f"/api/exchanges/{4:032x}").json()
    assert "VERIFY-77" in exchange["response"]["text"]
    assert api.get(f"/api/exchanges/{5:032x}").json()["request"] is None
    assert api.get(f"/api/runs/{'0' * 32}").status_code == 404
    assert api.get("/api/exchanges/x").status_code == 404
    assert api.get("/api/runs?effect=maybe").status_code == 400
    console.status.problems = ("a.yaml:1:1: x",)
    status = api.get("/api/status").json()
    assert status["problems"] == ["a.yaml:1:1: x"] and status["actions"]["PENDING"] == 4


def test_unknown_addresses_and_methods_have_the_same_shape(console: RunningConsole, api: Api) -> None:
    with httpx2.Client(base_url=console.url) as client:
        for method, path, status in (("GET", "/api/nothing", 404), ("DELETE", "/api/actions", 405)):
            answer = client.request(method, path)
            assert answer.status_code == status and set(answer.json()["error"]) == {"code", "message"}
