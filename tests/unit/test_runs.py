"""To which run an exchange belongs when the agent does not say so."""

from __future__ import annotations

from gateway.proxy import runs
from gateway.proxy.runs import Runs


def test_a_conversation_keeps_its_run_while_it_lasts() -> None:
    known = Runs()
    first = known.of_conversation("a", ("hello", "world"), now=0)
    assert len(first) == 32 and known.of_conversation("a", ("hello", "world"), now=3000) == first
    assert known.of_conversation("a", ("hello", "world"), now=3000 + runs.IDLE_S) != first


def test_another_agent_or_opening_is_another_run() -> None:
    known = Runs()
    first = known.of_conversation("a", ("hello",), now=0)
    assert known.of_conversation("b", ("hello",), now=0) != first
    assert known.of_conversation("a", ("hello", ""), now=0) != first


def test_a_call_belongs_to_the_run_in_which_a_model_proposed_exactly_it() -> None:
    known = Runs()
    known.proposed("a", "bank.transfer", '{"amount":5}', "f" * 32, now=0)
    assert known.of_call("a", "bank.transfer", '{"amount":5}', now=5) == "f" * 32
    assert known.of_call("a", "bank.transfer", '{"amount":6}', now=5) is None
    assert known.of_call("b", "bank.transfer", '{"amount":5}', now=5) is None
    assert known.of_call("a", "bank.transfer", '{"amount":5}', now=runs.PROPOSAL_S) is None


def test_memory_is_bounded(monkeypatch) -> None:
    monkeypatch.setattr(runs, "ENTRIES_MAX", 3)
    known = Runs()
    for number in range(10):
        known.of_conversation("a", (str(number),), now=0)
        known.proposed("a", "t", str(number), "f" * 32, now=0)
    assert len(known._conversations) == 3 and len(known._proposals) == 3
