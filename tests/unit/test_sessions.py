"""Session facts: what conditions may know of an agent, and what it cannot wipe out."""

from __future__ import annotations

from typing import Any

from gateway.proxy import sessions
from gateway.proxy.caller import Caller
from gateway.proxy.sessions import Sessions
from gateway.traces.record import ActionDecision, ExchangeRecord


class View:
    name = "a"


def caller(run: str | None = None) -> Caller:
    view: Any = View()
    return Caller(agent=view, trace_id="t", span="s", run=run)


def record(surface: str = "mcp", *decisions: tuple[str, str], findings: tuple[str, ...] = ()) -> ExchangeRecord:
    return ExchangeRecord(
        id="i", trace_id="t", span="s", agent="a", surface=surface, operation="tools/call", started_s=0,
        decisions=tuple(ActionDecision(name, effect, "p/r", "") for name, effect in decisions),
        findings=dict.fromkeys(findings, 1) or None,
    )  # fmt: skip


def test_facts_count_what_passed_was_held_and_was_denied() -> None:
    known = Sessions()
    known.observe(record("mcp", ("bank.read", "allow"), ("bank.transfer", "hold")), now=0)
    known.observe(record("mcp", ("bank.rm", "deny"), findings=("pii.iban",)), now=1)
    assert known.of(caller("r1"), now=2) == {
        "run": "r1", "calls": 1, "held": 1, "denied": 1, "tools": ["bank.read"], "findings": ["pii.iban"],
    }  # fmt: skip


def test_naming_another_run_does_not_wipe_the_facts_out() -> None:
    known = Sessions()
    known.observe(record("mcp", findings=("secret.aws",)), now=0)
    assert known.of(caller("another"), now=1)["findings"] == ["secret.aws"]


def test_a_proposal_of_a_call_that_is_made_later_is_not_counted_twice() -> None:
    known = Sessions()
    known.observe(record("model", ("bank.read", "allow"), ("local.search", "allow")), now=0)
    assert known.of(caller(), now=1)["tools"] == ["local.search"]


def test_a_rest_ends_the_session_and_memory_is_bounded(monkeypatch) -> None:
    known = Sessions()
    known.observe(record("mcp", ("bank.read", "allow")), now=0)
    assert known.of(caller(), now=sessions.IDLE_S + 1)["calls"] == 0
    monkeypatch.setattr(sessions, "NAMES_MAX", 2)
    for number in range(5):
        known.observe(record("mcp", (f"t.{number}", "allow"), findings=(f"k{number}",)), now=0)
    facts = known.of(caller(), now=0)
    assert facts["calls"] == 6 and len(facts["tools"]) == 2 and len(facts["findings"]) == 2  # type: ignore[arg-type]
