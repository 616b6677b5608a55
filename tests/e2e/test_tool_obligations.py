"""Obligations of rules on calls that run: headers that go along, and answers that may not be larger than they say."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import httpx2
import orjson
import pytest

from gateway.core.action import Action
from gateway.core.decision import Decision, Obligation
from gateway.core.held import State
from gateway.policy import PolicySet
from tests.e2e.test_mcp_and_http_execution import Tools, park, run
from tests.e2e.test_mcp_raw_wire import TASKS, Wire, said
from tests.tool_upstream import CUT, events, http

CAP = 300
OBLIGED = f"""\
applies_to: {{agents: [bob, eve]}}
approval: {{group: finance}}
rules:
  - id: transfers
    tools: [bank.transfer, crm.update]
    effect: hold
    reason: money leaves the house
    obligations: [{{kind: add_header, name: X-Cost-Centre, value: '4711'}}, {{kind: cap_result, bytes: {CAP}}}]
  - id: capped
    tools: [bank.pay, crm.list, crm.read]
    effect: allow
    reason: harmless
    obligations: [{{kind: add_header, name: X-Cost-Centre, value: '4711'}}, {{kind: cap_result, bytes: {CAP}}}]
  - {{id: rest, tools: ['bank.*', 'crm.*'], effect: allow, reason: harmless}}
"""
LARGE = "secret figures " * 40
PAY = {"name": "pay", "arguments": {"to": "a", "amount": 1}}


def result(text: str, identifier: Any = 7) -> bytes:
    value = {"resultType": "complete", "content": [{"type": "text", "text": text}], "isError": False}
    return orjson.dumps({"jsonrpc": "2.0", "id": identifier, "result": value})


async def call(wire: Wire, modern: bool, name: str = "pay") -> httpx2.Response:
    return await (wire.new if modern else wire.old)("tools/call", {**PAY, "name": name})


def is_too_large(response: httpx2.Response) -> bool:
    """Whether the answer says clearly that the tool ran and that nothing of its answer is here."""
    body = response.json()["result"]
    assert "secret figures" not in response.text and body["isError"] is True
    return "The tool ran" in said(response) and f"longer than the {CAP} bytes" in said(response)


@pytest.mark.parametrize("modern", [True, False])
def test_header_goes_along_with_the_call_and_with_nothing_else(tmp_path: Path, redis_url: str, modern: bool) -> None:
    async def work(wire: Wire) -> None:
        assert (await call(wire, modern)).json()["result"]["isError"] is False
        await call(wire, modern, "fee")
        await (wire.new if modern else wire.old)("tools/list")
        paid, other = wire.upstream.calls()
        assert paid.headers["x-cost-centre"] == "4711"
        assert "x-cost-centre" not in other.headers
        assert paid.headers["authorization"] == other.headers["authorization"]
        assert all("x-cost-centre" not in seen.headers for seen in wire.upstream.calls("tools/list"))

    run(tmp_path, redis_url, work, modern=modern, policy=OBLIGED)


@pytest.mark.parametrize("modern", [True, False])
def test_answer_of_the_largest_size_passes_as_it_came_and_one_more_byte_does_not(
    tmp_path: Path, redis_url: str, modern: bool
) -> None:
    fitting = result("x" * (CAP - len(result(""))))
    assert len(fitting) == CAP

    async def work(wire: Wire) -> None:
        wire.upstream.on("tools/call", http(fitting))
        assert (await call(wire, modern)).content == fitting
        wire.upstream.on("tools/call", http(fitting + b" "))
        assert is_too_large(await call(wire, modern))
        record = await wire.gateway.records.found("tools/call", 2)
        assert (record.error, record.effect, record.status) == ("result_too_large", "allow", 200)
        wire.upstream.on("tools/call", http(result(LARGE)))
        assert LARGE in (await call(wire, modern, "fee")).text  # a rule without the obligation

    run(tmp_path, redis_url, work, modern=modern, policy=OBLIGED)


@pytest.mark.parametrize("modern", [True, False])
def test_streamed_answer_is_withheld_as_the_last_event(tmp_path: Path, redis_url: str, modern: bool) -> None:
    progress = b'{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1,"progress":1}}'

    async def work(wire: Wire) -> None:
        wire.upstream.on("tools/call", *events(progress, result(LARGE)))
        response = await call(wire, modern)
        first, last = [orjson.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: ")]
        assert first["method"] == "notifications/progress"
        assert last["id"] == 7 and last["result"]["isError"] is True
        assert "longer than the 300 bytes" in last["result"]["content"][0]["text"]
        assert "secret figures" not in response.text
        small = events(progress, result("fine"))
        wire.upstream.on("tools/call", *small)
        assert b"data: " + result("fine") in (await call(wire, modern)).content

    run(tmp_path, redis_url, work, modern=modern, policy=OBLIGED)


@pytest.mark.parametrize("streamed", [True, False])
def test_answer_beyond_all_that_is_read_is_the_same_error(tmp_path: Path, redis_url: str, streamed: bool) -> None:
    async def work(wire: Wire) -> None:
        whole = result(LARGE * 20)
        wire.upstream.on("tools/call", *(events(whole) if streamed else [http(whole)]))
        response = await call(wire, True)
        text = response.text
        if streamed:
            response = httpx2.Response(200, content=text.partition("data: ")[2].strip())
        assert is_too_large(response) and len(text) < 1000

    run(tmp_path, redis_url, work, policy=OBLIGED, response_bytes_max=5000)


def test_large_error_of_the_server_does_not_read_as_if_the_tool_had_run(tmp_path: Path, redis_url: str) -> None:
    async def work(wire: Wire) -> None:
        error = {"code": -32042, "message": "m", "data": {"elicitations": [LARGE]}}
        wire.upstream.on("tools/call", http(orjson.dumps({"jsonrpc": "2.0", "id": 7, "error": error})))
        response = await call(wire, False)
        assert response.json()["error"]["data"] == {"code": "result_too_large"}
        assert "secret figures" not in response.text and "ran" not in response.json()["error"]["message"]

    run(tmp_path, redis_url, work, policy=OBLIGED)


def test_stream_that_is_taken_up_again_does_not_get_around_the_bound(tmp_path: Path, redis_url: str) -> None:
    async def work(wire: Wire) -> None:
        wire.upstream.on("GET /mcp", *events(result("fine", 1), result(LARGE)))
        response = await wire.http.get(
            f"{wire.gateway.url}/mcp/bank",
            headers={
                **wire.gateway.headers(),
                "accept": "text/event-stream",
                "mcp-protocol-version": "2025-11-25",
                "last-event-id": "3",
            },
        )
        assert b"data: " + result("fine", 1) in response.content
        assert "secret figures" not in response.text and '"code":"result_too_large"' in response.text

    run(tmp_path, redis_url, work, modern=False, policy=OBLIGED)


def test_task_of_the_server_does_not_get_around_the_bound(tmp_path: Path, redis_url: str) -> None:
    async def work(wire: Wire) -> None:
        wire.upstream.result("tasks/get", {"taskId": "t1", "status": "completed", "result": {"content": [LARGE]}})
        response = await wire.new("tasks/get", {"taskId": "t1", "_meta": TASKS})
        assert response.json()["error"]["data"] == {"code": "result_too_large"} and "secret" not in response.text
        assert "x-cost-centre" not in wire.upstream.calls("tasks/get")[0].headers
        wire.upstream.result("resources/read", {"contents": [LARGE]})
        assert LARGE in (await wire.new("resources/read", {"uri": "a:b"})).text

    run(tmp_path, redis_url, work, policy=OBLIGED)


@pytest.mark.parametrize("filtered", [True, False])
def test_http_tool_gets_the_header_and_its_large_answer_is_502(tmp_path: Path, redis_url: str, filtered: bool) -> None:
    async def work(wire: Wire) -> None:
        tools = Tools(wire)
        fitting = b'"' + b"x" * (CAP - 2) + b'"'
        wire.upstream.on("GET /api/contacts/1", http(fitting))
        response = await tools.send("GET", "/tools/crm/contacts/1", headers={"x-cost-centre": "mine"})
        assert (response.status_code, response.content) == (200, fitting)
        assert wire.upstream.seen[-1].headers["x-cost-centre"] == "4711"
        assert wire.upstream.seen[-1].headers["x-api-key"] == "operator-secret-crm"
        wire.upstream.on("GET /api/contacts/1", http(fitting + b" ", 404))
        response = await tools.send("GET", "/tools/crm/contacts/1")
        assert (response.status_code, response.json()["error"]["code"]) == (502, "result_too_large")
        assert "the tool ran" in response.text and "xxx" not in response.text
        record = await wire.gateway.records.found("GET /contacts/{id}", 2)
        assert (record.error, record.status, record.effect) == ("result_too_large", 502, "allow")
        wire.upstream.on("GET /api/contacts/1", http(fitting[:-9] + b'"')[:-5], CUT)
        assert (await tools.send("GET", "/tools/crm/contacts/1")).json()["error"]["code"] == "upstream_closed"

    filters = "filters:\n  - {id: mail, kinds: [pii.email], action: mask, reason: private}\n" if filtered else ""
    run(tmp_path, redis_url, work, policy=OBLIGED + filters)


@pytest.mark.parametrize("modern", [True, False])
@pytest.mark.parametrize("streamed", [True, False])
def test_held_call_runs_with_the_obligations_and_its_large_answer_is_a_note(
    tmp_path: Path, redis_url: str, modern: bool, streamed: bool
) -> None:
    async def work(wire: Wire) -> None:
        def answer(seen: Any) -> list[Any]:
            whole = result(LARGE, seen.json["id"])
            return events(whole) if streamed else [http(whole)]

        wire.upstream.answers["tools/call"] = answer
        held = await park(wire)
        await wire.gateway.approve(held)
        done = await wire.gateway.over(held)
        assert done.state is State.SUCCEEDED and b"secret" not in (done.result or b"")
        (sent,) = wire.upstream.calls()
        assert sent.headers["x-cost-centre"] == "4711" and held.arguments in sent.body
        assert all("x-cost-centre" not in s.headers for s in wire.upstream.seen if s is not sent)
        asked = await wire.new("tools/call", {"name": "transfer", "arguments": {"to": "a", "amount": 5}})
        assert asked.json()["result"]["isError"] is True
        assert "EXECUTED, and the tool says that it succeeded" in said(asked) and "longer than the 300" in said(asked)
        record = await wire.gateway.records.found("execute_tool")
        assert (record.error, record.effect, record.status) == ("result_too_large", "allow", 200)
        assert len(wire.upstream.calls()) == 1

    run(tmp_path, redis_url, work, modern=modern, policy=OBLIGED)


def test_held_http_operation_runs_with_the_obligations_and_its_large_answer_is_a_note(
    tmp_path: Path, redis_url: str
) -> None:
    async def work(wire: Wire) -> None:
        tools = Tools(wire)
        wire.upstream.on("PUT /api/contacts/1", http(orjson.dumps({"note": LARGE})))
        assert (await tools.send("PUT", "/tools/crm/contacts/1", json={"a": 1})).status_code == 202
        held = await wire.gateway.pending()
        await wire.gateway.approve(held)
        assert (await wire.gateway.over(held)).state is State.SUCCEEDED
        again = await tools.send("PUT", "/tools/crm/contacts/1", json={"a": 1})
        assert (again.status_code, again.headers["x-held-action"]) == (502, held.id)
        assert again.json()["error"]["code"] == "result_too_large" and "answered 200" in again.text
        status = (await tools.send("GET", f"/held/{held.id}")).json()
        assert status["state"] == "SUCCEEDED" and "secret" not in str(status)
        (sent,) = [seen for seen in wire.upstream.seen if seen.method == "PUT"]
        assert sent.headers["x-cost-centre"] == "4711"

    run(tmp_path, redis_url, work, policy=OBLIGED)


def test_held_call_runs_with_the_obligations_of_the_release_now_in_force(tmp_path: Path, redis_url: str) -> None:
    async def work(wire: Wire) -> None:
        held = await park(wire)
        wire.gateway.reload(OBLIGED.replace("'4711'", "'4712'"))
        await wire.gateway.approve(held)
        assert (await wire.gateway.over(held)).state is State.SUCCEEDED
        assert wire.upstream.calls()[0].headers["x-cost-centre"] == "4712"

    run(tmp_path, redis_url, work, policy=OBLIGED)


def test_obligation_that_nobody_knows_denies_before_the_call_and_before_the_claim(
    tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    decide = PolicySet.decide

    def obliging(self: PolicySet, agent: Any, action: Action, session: Any, *, now: float) -> Decision:
        made_up = Obligation(kind="made_up", parameters=(("a", "b"),))
        return dataclasses.replace(decide(self, agent, action, session, now=now), obligations=(made_up,))

    async def work(wire: Wire) -> None:
        held = await park(wire)
        monkeypatch.setattr(PolicySet, "decide", obliging)
        for name in ("pay", "transfer"):
            response = await call(wire, True, name)
            assert "NOT EXECUTED" in said(response) and "cannot be done" in said(response)
        refused = await Tools(wire).send("GET", "/tools/crm/contacts/1")
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "unknown_obligation")
        await wire.gateway.approve(held)
        assert (await wire.gateway.over(held)).state is State.INVALIDATED
        assert wire.upstream.calls() == [] and wire.upstream.calls("GET /api/contacts/1") == []

    run(tmp_path, redis_url, work, policy=OBLIGED)
