"""Session facts: what an agent did lately, as conditions see it (`session.*`).

Kept by agent, not by run: a caller names its runs, and facts that a new name would wipe out could be escaped. A
session ends when the agent has rested for an hour. Memory of this process: behind a balancer each gateway knows only
what it served itself.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field

from gateway.core.canonical import JSON
from gateway.core.decision import Effect
from gateway.proxy.caller import Caller
from gateway.traces.record import ExchangeRecord

IDLE_S = 3600.0
AGENTS_MAX = 10_000  # agents come from the bundle, so this bounds a mistake
NAMES_MAX = 200  # distinct tools or kinds of findings; the first ones stay


@dataclass(slots=True)
class _Facts:
    seen_s: float
    calls: int = 0
    held: int = 0
    denied: int = 0
    tools: dict[str, None] = field(default_factory=dict)
    findings: dict[str, None] = field(default_factory=dict)


class Sessions:
    """`of` gives the facts for a decision, `observe` learns from a finished exchange."""

    def __init__(self) -> None:
        self._agents: OrderedDict[str, _Facts] = OrderedDict()

    def of(self, caller: Caller, *, now: float) -> Mapping[str, JSON]:
        """The facts about the caller's agent. All members are always there."""
        facts = self._agents.get(caller.agent.name)
        if facts is None or now - facts.seen_s > IDLE_S:
            return {"run": caller.run, "calls": 0, "held": 0, "denied": 0, "tools": [], "findings": []}
        return {
            "run": caller.run,
            "calls": facts.calls,
            "held": facts.held,
            "denied": facts.denied,
            "tools": list(facts.tools),
            "findings": list(facts.findings),
        }

    def observe(self, record: ExchangeRecord, *, now: float) -> None:
        """Count the decisions and findings of an exchange. Costs nothing for one that has neither."""
        if not record.decisions and not record.findings:
            return
        facts = self._agents.get(record.agent)
        if facts is None or now - facts.seen_s > IDLE_S:
            facts = self._agents[record.agent] = _Facts(now)
        facts.seen_s = now
        self._agents.move_to_end(record.agent)
        if len(self._agents) > AGENTS_MAX:
            self._agents.popitem(last=False)
        for decision in record.decisions:
            if decision.effect == Effect.DENY:
                facts.denied += 1
            elif decision.effect == Effect.HOLD:
                facts.held += 1
            elif record.surface != "model" or decision.action.startswith("local."):
                facts.calls += 1  # a model's proposal of a call that is made later is not counted twice
                if len(facts.tools) < NAMES_MAX:
                    facts.tools[decision.action] = None
        for kind in record.findings or ():
            if len(facts.findings) < NAMES_MAX:
                facts.findings[kind] = None
