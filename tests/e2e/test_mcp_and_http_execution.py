"""What people approved runs at most once, exactly as stored, or not at all: over MCP and as an HTTP operation."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2
import orjson
import pytest

from gateway.core.held import State
from gateway.proxy import execution
from gateway.proxy.execution import Executor
from tests.e2e.test_mcp_raw_wire import Wire
from tests.tool_gateway import BUNDLE, POLICY, tool_gateway
from tests.tool_upstream import CUT, STALL, events, http, tool, tool_upstream

Work = Callable[[Wire], Awaitable[None]]


def run(tmp_path: Path, redis_url: str, work: Work, *, modern: bool = True, **options: Any) -> None:
    async def main() -> None:
        async with tool_upstream(modern=modern) as upstream:
            async with tool_gateway(tmp_path, redis_url, upstream.url, **options) as gateway:
                async with httpx2.AsyncClient(timeout=20) as client:
                    await work(Wire(gateway, upstream, client))

    asyncio.run(main())


async def park(wire: Wire, **arguments: Any) -> Any:
    await wire.new("tools/call", {"name": "transfer", "arguments": {"to": "a", "amount": 5, **arguments}})
    return await wire.gateway.pending()


@pytest.mark.parametrize("modern", [True, False])
def test_the_stored_bytes_run_in_the_era_of_the_upstream(tmp_path: Path, redis_url: str, modern: bool) -> None:
    async def work(wire: Wire) -> None:
        held = await park(wire, memo="ü")
        await wire.gateway.approve(held)
        done = await wire.gateway.over(held)
        assert done.state is State.SUCCEEDED
        (call,) = wire.upstream.calls()
        assert held.arguments in call.body
        assert call.headers["authorization"] == "operator-secret-bank" or "operator-secret-bank" in str(call.headers)
        if modern:
            assert call.headers["mcp-name"] == "transfer" and "mcp-session-id" not in call.headers
        else:
            assert call.headers["mcp-session-id"] == "session-1"
            assert call.headers["mcp-protocol-version"] == "2025-11-25"
        record = await wire.gateway.records.found("execute_tool")
        assert (record.held, record.effect, record.status, record.error) == (held.id, "allow", 200, None)
        proposed = await wire.gateway.records.found("tools/call")
        assert (record.trace_id, record.parent_span) == (proposed.trace_id, proposed.span)
        assert [entry["event"] for entry in wire.gateway.audit()] == ["tool_call", "execute"]

    run(tmp_path, redis_url, work, modern=modern)


@pytest.mark.parametrize(
    "writes",
    [
        [CUT],
        [STALL],
        [http(b"oops", 500, "text/plain")],
        [http(b"no json")],
        [http(b'{"jsonrpc"')[:-4], CUT],
        events(b'{"jsonrpc":"2.0","method":"notifications/progress","params":{}}'),
        [*events(b"{}", end=False)],
    ],
)
def test_doubt_after_bytes_were_sent_is_unknown_and_never_tried_again(
    tmp_path: Path, redis_url: str, writes: list[Any]
) -> None:
    async def work(wire: Wire) -> None:
        wire.upstream.on("tools/call", *writes)
        held = await park(wire)
        await wire.gateway.approve(held)
        record = await wire.gateway.records.found("execute_tool")
        assert record.error not in (None, "tool_error")
        while (found := await wire.gateway.queue.get(held.id)) is not None and found.state is State.EXECUTING:
            await wire.gateway.queue.sweep(now=wire.gateway.deps.clock() + 60)
        assert found is not None and found.state is State.UNKNOWN
        asked = await wire.new("tools/call", {"name": "transfer", "arguments": {"to": "a", "amount": 5}})
        assert "OUTCOME UNKNOWN" in asked.text
        assert len(wire.upstream.calls()) == 1

    run(tmp_path, redis_url, work, bundle=BUNDLE.replace("read: 5s", "read: 1s"))


@pytest.mark.parametrize(
    ("writes", "text"),
    [
        ([http(b'{"jsonrpc":"2.0","id":3,"error":{"code":-32602,"message":"db-internal"}}')], "refused the parameters"),
        ([http(b"db-internal", 403, "text/plain")], "NOT EXECUTED"),
        ([http(b'{"jsonrpc":"2.0","id":3,"result":{"resultType":"input_required"}}')], "a question"),
    ],
)
def test_clear_refusal_of_the_tool_is_failed(tmp_path: Path, redis_url: str, writes: list[Any], text: str) -> None:
    async def work(wire: Wire) -> None:
        def answer(seen: Any) -> list[Any]:
            return [write.replace(b'"id":3', b'"id":%d' % seen.json["id"]) for write in writes]

        wire.upstream.answers["tools/call"] = answer
        held = await park(wire)
        await wire.gateway.approve(held)
        done = await wire.gateway.over(held)
        assert done.state is State.FAILED
        asked = await wire.new("tools/call", {"name": "transfer", "arguments": {"to": "a", "amount": 5}})
        assert text in asked.text and "db-internal" not in asked.text
        assert asked.json()["result"]["isError"] is True

    run(tmp_path, redis_url, work)


def test_what_changed_since_the_approval_does_not_run(tmp_path: Path, redis_url: str) -> None:
    async def work(wire: Wire) -> None:
        def changed_definition() -> None:
            wire.upstream.tools = [tool("pay"), tool("transfer", description="now with fees"), tool("fee")]

        def tool_is_gone() -> None:
            wire.upstream.tools = [tool("pay")]

        def denied_now() -> None:
            wire.gateway.reload(
                POLICY.replace(
                    "{id: transfers, tools: [bank.transfer], effect: hold",
                    "{id: transfers, tools: [bank.transfer], effect: deny",
                )
            )

        def stricter_terms() -> None:
            wire.gateway.reload(POLICY.replace("approval: {group: finance}", "approval: {group: finance, quorum: 2}"))

        def new_filter() -> None:
            wire.gateway.reload(
                POLICY + "filters:\n  - {id: mail, kinds: [pii.email], action: mask, reason: private}\n"
            )

        changes = [changed_definition, tool_is_gone, denied_now, stricter_terms, new_filter]
        for number, change in enumerate(changes):
            held = await park(wire, memo=f"mail x{number}@example.com")
            executing = asyncio.create_task(Executor(wire.gateway.deps, drain_s=1).run())
            change()
            await wire.gateway.approve(held)
            done = await wire.gateway.over(held)
            assert done.state is State.INVALIDATED, (change.__name__, done.note)
            executing.cancel()
            await asyncio.gather(executing, return_exceptions=True)
            wire.upstream.tools = [tool("pay"), tool("transfer"), tool("fee")]
            wire.gateway.reload(POLICY)
            wire.gateway.deps.definitions.store(next(iter(wire.gateway.deps.definitions._lists)), wire.upstream.tools)
        assert wire.upstream.calls() == []

    run(tmp_path, redis_url, work, execute=False)


def test_unrelated_edit_and_a_softer_rule_do_not_invalidate(tmp_path: Path, redis_url: str) -> None:
    async def work(wire: Wire) -> None:
        held = await park(wire)
        wire.gateway.reload(POLICY.replace("nobody charges fees", "fees are for others"))
        await wire.gateway.approve(held)
        assert (await wire.gateway.over(held)).state is State.SUCCEEDED
        held = await park(wire, amount=6)
        wire.gateway.reload(POLICY.replace("effect: hold, reason: money", "effect: allow, reason: money"))
        await wire.gateway.approve(held)
        assert (await wire.gateway.over(held)).state is State.SUCCEEDED

    run(tmp_path, redis_url, work)


def test_many_executors_dispatch_once(tmp_path: Path, redis_url: str) -> None:
    async def work(wire: Wire) -> None:
        held = await park(wire)
        racing = [asyncio.create_task(Executor(wire.gateway.deps, worker=f"w{n}", drain_s=5).run()) for n in range(16)]
        await wire.gateway.approve(held)
        assert (await wire.gateway.over(held)).state is State.SUCCEEDED
        for task in racing:
            task.cancel()
        await asyncio.gather(*racing, return_exceptions=True)
        assert len(wire.upstream.calls()) == 1

    run(tmp_path, redis_url, work, execute=False)


def test_upstream_that_is_away_before_the_claim_is_tried_again(
    tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execution, "RETRY_S", (0.05,))

    async def work(wire: Wire) -> None:
        held = await park(wire)
        wire.upstream.on("tools/list", CUT)
        await wire.gateway.approve(held)
        await wire.upstream.called("tools/list", 3)
        found = await wire.gateway.queue.get(held.id)
        assert found is not None and found.state is State.APPROVED
        del wire.upstream.answers["tools/list"]
        assert (await wire.gateway.over(held)).state is State.SUCCEEDED
        assert len(wire.upstream.calls()) == 1

    run(tmp_path, redis_url, work)


def test_approved_before_the_start_runs_after_it(tmp_path: Path, redis_url: str) -> None:
    async def work(wire: Wire) -> None:
        held = await park(wire)
        await wire.gateway.approve(held)
        executing = asyncio.create_task(Executor(wire.gateway.deps, drain_s=1).run())
        assert (await wire.gateway.over(held)).state is State.SUCCEEDED
        executing.cancel()
        await asyncio.gather(executing, return_exceptions=True)

    run(tmp_path, redis_url, work, execute=False)


def test_stop_waits_for_what_was_sent(tmp_path: Path, redis_url: str) -> None:
    async def work(wire: Wire) -> None:
        body = orjson.dumps({"jsonrpc": "2.0", "id": 3, "result": {"content": [], "resultType": "complete"}})
        wire.upstream.answers["tools/call"] = lambda seen: [
            STALL,
            http(body.replace(b'"id":3', b'"id":%d' % seen.json["id"])),
        ]
        held = await park(wire)
        executing = asyncio.create_task(Executor(wire.gateway.deps, drain_s=5).run())
        await wire.gateway.approve(held)
        await wire.upstream.called("tools/call")
        executing.cancel()
        await asyncio.sleep(0)  # one turn of the loop: the executor now waits for what it sent
        wire.upstream.release.set()
        await asyncio.gather(executing, return_exceptions=True)
        assert (await wire.gateway.queue.get(held.id)).state is State.SUCCEEDED  # type: ignore[union-attr]

    run(tmp_path, redis_url, work, execute=False)


class Tools:
    """A client of the HTTP tool `crm`."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire

    async def send(self, method: str, path: str, agent: str = "bob", **more: Any) -> httpx2.Response:
        headers = {**self.wire.gateway.headers(agent), **more.pop("headers", {})}
        return await self.wire.http.request(method, f"{self.wire.gateway.url}{path}", headers=headers, **more)


def test_http_tool_is_called_with_the_operators_key_and_encoded_anew(tmp_path: Path, redis_url: str) -> None:
    async def work(wire: Wire) -> None:
        tools = Tools(wire)
        head = ("set-cookie: a=b", "x-internal: db-internal", "etag: 7")
        wire.upstream.on("GET /api/contacts/a%20b", http(b'{"mail":"x@y.org"}', 200, "application/json", *head))
        response = await tools.send("GET", "/tools/crm/cont%61cts/a%20b", headers={"cookie": "c=d", "x-own": "1"})
        assert (response.status_code, response.json()) == (200, {"mail": "x@y.org"})
        assert response.headers["etag"] == "7" and "set-cookie" not in response.headers
        assert "db-internal" not in str(response.headers)
        sent = wire.upstream.seen[-1]
        assert sent.headers["x-api-key"] == "operator-secret-crm"
        assert not {"authorization", "cookie", "x-own"} & set(sent.headers) and "traceparent" in sent.headers
        record = await wire.gateway.records.found("GET /contacts/{id}")
        assert (record.name, record.effect, record.surface) == ("crm.read", "allow", "http")
        body = b'{ "text" : "hi" }'
        response = await tools.send(
            "POST", "/tools/crm/contacts/7/notes", content=body, headers={"content-type": "application/json"}
        )
        assert response.json() == {"ok": True} and wire.upstream.seen[-1].body == body

    run(tmp_path, redis_url, work)


def test_http_refusals(tmp_path: Path, redis_url: str) -> None:
    async def work(wire: Wire) -> None:
        tools = Tools(wire)
        typed = {"content-type": "application/json"}
        cases = [
            (await tools.send("GET", "/tools/crm/unknown"), 404, "operation_unknown"),
            (await tools.send("GET", "/tools/nowhere/x"), 404, "unknown_tool"),
            (await tools.send("GET", "/tools/crm/contacts?x=1"), 400, "query_undeclared"),
            (await tools.send("GET", "/tools/crm/contacts/a%2Fb"), 400, "bad_path"),
            (await tools.send("POST", "/tools/crm/contacts/7/notes", content=b"x=1"), 415, "unsupported_media_type"),
            (await tools.send("POST", "/tools/crm/contacts/7/notes", content=b"{", headers=typed), 400, "invalid_json"),
            (
                await tools.send("POST", "/tools/crm/contacts/7/notes", content=b"{}", headers=typed),
                400,
                "invalid_arguments",
            ),
            (await tools.send("GET", "/tools/crm/contacts", agent="mal"), 403, "denied"),
            (await tools.send("GET", "/held/ha_" + "a" * 26), 404, "held_action_unknown"),
        ]
        for response, status, code in cases:
            assert (response.status_code, response.json()["error"]["code"]) == (status, code)
        assert wire.upstream.seen == []

    run(tmp_path, redis_url, work)


def test_http_failures_of_the_upstream_keep_its_words(tmp_path: Path, redis_url: str) -> None:
    async def work(wire: Wire) -> None:
        tools = Tools(wire)
        for writes, status, code in (
            ([http(b"db-internal", 500)], 502, "upstream_status"),
            ([http(b"db-internal", 401)], 502, "upstream_credential"),
            ([http(b"", 301, "text/plain", "location: http://db-internal")], 502, "upstream_redirect"),
            ([CUT], 502, "upstream_closed"),
            ([STALL], 504, "upstream_timeout"),
        ):
            wire.upstream.on("GET /api/contacts/1", *writes)
            response = await tools.send("GET", "/tools/crm/contacts/1")
            assert (response.status_code, response.json()["error"]["code"]) == (status, code)
            assert "db-internal" not in response.text + str(response.headers)
        wire.upstream.on("GET /api/contacts/1", http(b'{"why":"no such contact"}', 404))
        response = await tools.send("GET", "/tools/crm/contacts/1")
        assert (response.status_code, response.json()) == (404, {"why": "no such contact"})

    run(tmp_path, redis_url, work, bundle=BUNDLE.replace("read: 5s", "read: 1s"))


def test_http_call_is_held_approved_and_its_result_fetched(tmp_path: Path, redis_url: str) -> None:
    async def work(wire: Wire) -> None:
        tools = Tools(wire)
        update = {"json": {"name": "Ann"}}
        path = "/tools/crm/contacts/a%20b?dry=no"
        parked = await tools.send("PUT", path, **update)
        assert parked.status_code == 202 and parked.headers["retry-after"] == "5"
        location = parked.headers["location"]
        assert location == f"/held/{parked.json()['held_action']}"
        assert parked.json()["state"] == "PENDING" and parked.json()["message"].startswith("NOT EXECUTED")
        assert (await tools.send("GET", location, agent="eve")).status_code == 404
        assert (await tools.send("GET", location)).json()["state"] == "PENDING"
        held = await wire.gateway.pending()
        assert orjson.loads(held.arguments) == {"dry": "no", "id": "a b", "name": "Ann"}
        await wire.gateway.approve(held)
        assert (await wire.gateway.over(held)).state is State.SUCCEEDED
        (sent,) = [seen for seen in wire.upstream.seen if seen.method == "PUT"]
        assert (sent.path, sent.json) == ("/api/contacts/a%20b?dry=no", {"name": "Ann"})
        assert len(sent.headers["idempotency-key"]) == 64
        shown = (await tools.send("GET", location)).json()
        assert shown["result"]["status"] == 200 and shown["result"]["json"] == {"ok": True}
        again = await tools.send("PUT", path, **update)
        assert (again.status_code, again.json(), again.headers["x-held-action"]) == (200, {"ok": True}, held.id)
        assert len([seen for seen in wire.upstream.seen if seen.method == "PUT"]) == 1

    run(tmp_path, redis_url, work)


def test_http_server_error_leaves_the_outcome_unknown(tmp_path: Path, redis_url: str) -> None:
    async def work(wire: Wire) -> None:
        tools = Tools(wire)
        wire.upstream.on("DELETE /api/contacts/1", http(b"db-internal", 500))
        assert (await tools.send("DELETE", "/tools/crm/contacts/1")).status_code == 202
        held = await wire.gateway.pending()
        await wire.gateway.approve(held)
        await wire.gateway.records.found("execute_tool")
        while (await wire.gateway.queue.get(held.id)).state is State.EXECUTING:  # type: ignore[union-attr]
            await wire.gateway.queue.sweep(now=wire.gateway.deps.clock() + 60)
        response = await tools.send("DELETE", "/tools/crm/contacts/1")
        assert response.status_code == 409 and response.json()["error"]["code"] == "held_unknown"
        assert len([seen for seen in wire.upstream.seen if seen.method == "DELETE"]) == 1

    run(tmp_path, redis_url, work)


def test_http_answers_and_arguments_are_filtered(tmp_path: Path, redis_url: str) -> None:
    async def work(wire: Wire) -> None:
        tools = Tools(wire)
        wire.upstream.on("GET /api/contacts/1", http(b'{"mail":"x@y.org","n":1.50}'))
        assert (await tools.send("GET", "/tools/crm/contacts/1")).json() == {"mail": "<EMAIL>", "n": 1.5}
        wire.upstream.on("GET /api/contacts/1", http(b"call x@y.org", 200, "application/octet-stream"))
        assert (await tools.send("GET", "/tools/crm/contacts/1")).content == b"call <EMAIL>"
        wire.upstream.on("GET /api/contacts/1", http(b"\xff\x00raw", 200, "image/png"))
        assert (await tools.send("GET", "/tools/crm/contacts/1")).content == b"\xff\x00raw"
        await tools.send("GET", "/tools/crm/contacts?name=x@y.org")
        assert wire.upstream.seen[-1].path == "/api/contacts?name=%3CEMAIL%3E"

    policy = POLICY + "filters:\n  - {id: mail, kinds: [pii.email], action: mask, reason: private}\n"
    run(tmp_path, redis_url, work, policy=policy)


def test_http_store_away_is_503(tmp_path: Path) -> None:
    async def main() -> None:
        async with tool_upstream() as upstream:
            async with tool_gateway(tmp_path, None, upstream.url, execute=False) as gateway:
                async with httpx2.AsyncClient(timeout=20) as client:
                    tools = Tools(Wire(gateway, upstream, client))
                    response = await tools.send("DELETE", "/tools/crm/contacts/1")
                    assert response.status_code == 503 and response.headers["retry-after"]
                    assert response.json()["error"]["code"] == "store_unavailable"
                    assert (await tools.send("GET", "/tools/crm/contacts/1")).status_code == 200
                    assert [seen.method for seen in upstream.seen] == ["GET"]

    asyncio.run(main())


def test_log_of_a_bug_does_not_quote_what_it_stumbled_over(
    tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(self: Executor, held_id: str) -> None:
        del self, held_id
        raise KeyError("hunter2")

    async def work(wire: Wire) -> None:
        monkeypatch.setattr(Executor, "_attempt", broken)
        held = await park(wire)
        await wire.gateway.approve(held)
        while "the execution failed" not in caplog.text:
            await asyncio.sleep(0)
        assert "KeyError at test_mcp_and_http_execution.py:" in caplog.text and "hunter2" not in caplog.text

    run(tmp_path, redis_url, work)
