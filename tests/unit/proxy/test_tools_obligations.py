"""Which obligations can be met, how several add up, and which headers no rule may add."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gateway import cli
from gateway.core.action import Surface
from gateway.core.decision import Obligation
from gateway.core.errors import PolicyLoadError
from gateway.policy.policy_keys import OBLIGATION_KINDS
from gateway.policy.words import is_guarded
from gateway.proxy import http_surface, mcp_visit, obligations, upstream
from gateway.proxy.caller import Caller
from gateway.proxy.model_calls import CallJudge
from gateway.proxy.obligations import KNOWN_OBLIGATIONS, NO_DUTIES, Duties, duties_of
from gateway.proxy.runs import Runs
from gateway.traces import context
from gateway.traces.record import ExchangeRecord
from gateway.wire.calls import ProposedCall
from tests.policy_bundles import BUNDLE, load, write_bundle

RULE = "applies_to: {agents: [bob]}\nrules:\n- {id: a, tools: ['*'], effect: allow, reason: r, obligations: ["


def header(name: str, value: str) -> Obligation:
    return Obligation(kind="add_header", parameters=(("name", name), ("value", value)))


def cap(size: int) -> Obligation:
    return Obligation(kind="cap_result", parameters=(("bytes", str(size)),))


def test_obligations_of_several_layers_add_up() -> None:
    assert duties_of(()) is NO_DUTIES and NO_DUTIES.permits(10**12) and NO_DUTIES.bound(5) == 5
    duties = duties_of((cap(20), header("X-A", "1"), cap(10), header("x-a", "2")))
    assert duties == Duties(headers=((b"x-a", b"1"), (b"x-a", b"2")), result_bytes_max=10)
    assert duties.permits(10) and not duties.permits(11)
    assert (duties.bound(5), duties.bound(50)) == (5, 10)


def test_one_unknown_kind_among_known_ones_is_not_met() -> None:
    assert duties_of((cap(1), Obligation(kind="log_it"), header("x-a", "1"))) is None


def test_every_kind_of_the_vocabulary_can_be_met() -> None:
    assert set(OBLIGATION_KINDS) == KNOWN_OBLIGATIONS


def test_asking_what_can_be_met_loads_nothing_else_of_the_proxy() -> None:
    code = "import sys, gateway.proxy.obligations; print([n for n in sys.modules if n.startswith('gateway.')])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "['gateway.proxy', 'gateway.proxy.obligations']"


def test_every_header_that_the_gateway_writes_or_passes_on_is_guarded() -> None:
    names = {
        *upstream._OWNED,
        *http_surface._TO_UPSTREAM,
        *(name.encode() for name in (*mcp_visit._TO_UPSTREAM, *mcp_visit._TO_UPSTREAM_MODERN)),
        *(b"mcp-session-id", b"mcp-param-region", b"traceparent", b"accept-encoding", b"idempotency-key"),
        *(b"authorization", b"x-api-key", b"x-upstream-key", b"content-encoding", b"x-gateway-run"),
    }
    assert [name for name in names if not is_guarded(name.decode())] == []
    assert not is_guarded("x-cost-centre")


@pytest.mark.parametrize("name", ["Host", "AUTHORIZATION", "Content-Length", "TraceParent", "Mcp-Name", "X-Crm-Token"])
def test_guarded_header_is_refused_at_load_with_its_place(tmp_path: Path, name: str) -> None:
    bundle = BUNDLE.replace(
        "http://127.0.0.1:9103", "http://127.0.0.1:9103\n    credential: {env: T, header: x-CRM-token}"
    )
    policy = RULE + f"{{kind: add_header, name: {name}, value: x}}]}}\n"
    with pytest.raises(PolicyLoadError) as caught:
        load(tmp_path, {"policies/p.yaml": policy}, bundle=bundle, environment={"T": "t"})
    expected = "a header that HTTP, credentials and the gateway itself do not use"
    (problem,) = caught.value.problems
    assert problem.endswith(f"policies/p.yaml:3:90: found `{name.lower()}`; expected {expected}")


@pytest.mark.parametrize("value", ["a\r\nhost: evil", "", " x", "ü"])
def test_value_that_could_not_be_sent_as_it_is_written_is_refused_at_load(tmp_path: Path, value: str) -> None:
    quoted = '"' + value.replace("\r", "\\r").replace("\n", "\\n") + '"'
    with pytest.raises(PolicyLoadError, match=r"policies/p\.yaml:3:"):
        load(tmp_path, {"policies/p.yaml": RULE + f"{{kind: add_header, name: x-a, value: {quoted}}}]}}\n"})


def test_what_may_be_asked_of_a_server_is_rather_too_much_than_too_little(tmp_path: Path) -> None:
    obliged = "effect: allow, reason: r, obligations: [{kind: cap_result, bytes: "
    policy = f"""\
applies_to: {{agents: [bob]}}
rules:
- {{id: a, tools: [bank.x], surfaces: [mcp], when: args.n == 1, {obliged}10}}]}}
- {{id: b, tools: [bank.x], surfaces: [http], {obliged}11}}]}}
- {{id: c, tools: ['*.delete'], {obliged}12}}]}}
- {{id: d, tools: [crm.read], {obliged}13}}]}}
- {{id: e, tools: [bank.y], effect: allow, reason: r}}
"""
    policies = load(tmp_path, {"policies/p.yaml": policy})
    bob, eve = policies.agent("bob"), policies.agent("eve")
    assert bob is not None and eve is not None
    assert [dict(o.parameters)["bytes"] for o in policies.obligations(bob, "bank", Surface.MCP)] == ["10", "12"]
    assert policies.obligations(eve, "bank", Surface.MCP) == ()


def test_call_that_an_agent_executes_itself_is_denied_where_a_rule_obliges(tmp_path: Path) -> None:
    """There is no request of the gateway in which a header could be sent, and no answer that it sees."""
    policies = load(tmp_path, {"policies/p.yaml": RULE + "{kind: cap_result, bytes: 5}]}\n"})
    bob = policies.agent("bob")
    assert bob is not None
    deps: Any = SimpleNamespace(
        policy=lambda: policies, scanner=None, queue=None, session=lambda _: {}, clock=time.time
    )
    caller = Caller(agent=bob, trace_id=context.trace_id(), span=context.span_id())
    record = ExchangeRecord(
        id=context.exchange_id(), trace_id=caller.trace_id, span=caller.span, agent="bob", surface="model",
        operation="chat", started_s=0.0,
    )  # fmt: skip
    judge = CallJudge(deps, Runs(), caller, record, 0)
    calls = [
        ProposedCall(choice=0, index=n, id=str(n), name=name, arguments_text="{}", arguments={})
        for n, name in enumerate(("shell", "bank__transfer"))
    ]
    local, executed = asyncio.run(judge.judge(calls))
    assert not local.allow and "NOT EXECUTED" in (local.text or "")
    assert executed.allow  # the gateway executes it: its obligations are met at the tool endpoint


@pytest.mark.parametrize("command", ["check", "test"])
def test_command_line_refuses_what_nobody_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    write_bundle(tmp_path, {"policies/p.yaml": RULE + "{kind: cap_result, bytes: 5}]}\n"})
    assert cli.main(["policy", "check", "--bundle", str(tmp_path)]) == 0
    monkeypatch.setattr(obligations, "KNOWN_OBLIGATIONS", frozenset({"add_header"}))
    assert cli.main(["policy", command, "--bundle", str(tmp_path)]) == 1
    assert "found `cap_result`; expected what this gateway can do: `add_header`" in capsys.readouterr().out
