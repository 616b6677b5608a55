"""Runs the test cases of a bundle against its own policies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from gateway.core.action import Action
from gateway.core.decision import Effect
from gateway.policy.model import Case
from gateway.policy.policyset import PolicySet
from gateway.policy.problems import Place


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseResult:
    """What a case expected and what it got.

    `rules` are all `policy/rule` that were equally strict, or `default`; empty for a model. `decided_at` is the place
    of the first of them, where it has one.
    """

    case: Case
    effect: Effect
    rules: tuple[str, ...]
    reason: str
    decided_at: Place | None

    @property
    def passed(self) -> bool:
        return self.effect is self.case.expect and (self.case.rule is None or self.case.rule in self.rules)


def run_cases(policies: PolicySet) -> Iterator[CaseResult]:
    """The result of every case, in the order of the files."""
    places = {f"{policy.name}/{rule.id}": rule.place for policy in policies.policies for rule in policy.rules}
    for case in policies.cases:
        agent = policies.agent(case.agent)
        assert agent is not None, "cases with unknown agents are refused when the bundle is loaded"
        if case.model is not None:
            allowed = policies.route(agent, case.model) is not None
            reason = "a route and the `models` of the policies agree" if allowed else "no route, or no policy allows it"
            effect = Effect.ALLOW if allowed else Effect.DENY
            yield CaseResult(case=case, effect=effect, rules=(), reason=reason, decided_at=None)
            continue
        server, _, tool = (case.tool or "").partition(".")
        action = Action(surface=case.surface, server=server, tool=tool, arguments=case.arguments)
        decision = policies.decide(agent, action, case.session, now=case.now)
        yield CaseResult(
            case=case,
            effect=decision.effect,
            rules=tuple(f"{r.policy}/{r.rule}" for r in decision.reasons) or (decision.rule,),
            reason=decision.reason,
            decided_at=places.get(decision.rule),
        )


def unreached_rules(policies: PolicySet, results: list[CaseResult]) -> list[str]:
    """`policy/rule` of every rule that decided no case: a rule that nobody tried may say anything."""
    reached = {rule for result in results for rule in result.rules}
    named = (f"{policy.name}/{rule.id}" for policy in policies.policies for rule in policy.rules)
    return [name for name in named if name not in reached]
