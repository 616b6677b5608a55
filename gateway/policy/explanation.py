"""Tells a policy author, rule by rule, why a call is decided as it is. Never decides: it shows what `decide` did."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gateway.core.action import Action
from gateway.core.canonical import JSON
from gateway.core.decision import Decision
from gateway.core.globs import matches, matches_any
from gateway.policy.conditions import Condition, Facts, Truth
from gateway.policy.model import Outcome, Policy, Rule
from gateway.policy.policyset import AgentView, PolicySet, known_facts


def explain(
    policies: PolicySet, agent: AgentView, action: Action, session: Mapping[str, JSON], now: float
) -> Iterator[str]:
    """Lines for a terminal. They hold what the operator asked about, so they are for that terminal only."""
    decision = policies.decide(agent, action, session, now=now)
    yield f"agent {agent.name} (groups: {', '.join(sorted(agent.groups)) or 'none'})"
    yield f"call  {action.name} on {action.surface}, arguments of {len(action.arguments)} members"
    facts = Facts(known_facts(agent, action.server, action.tool, action.surface), action.arguments, session, now)
    layers = set(agent.layers)
    for policy in policies.policies:
        yield ""
        if policy not in layers:
            yield f"layer {policy.name} ({policy.place.file}): does not apply to this agent"
            continue
        yield f"layer {policy.name} ({policy.place.file})"
        yield from _layer(policy, action, facts)
    yield ""
    yield from _verdict(decision)


def _layer(policy: Policy, action: Action, facts: Facts) -> Iterator[str]:
    decided: Outcome | None = None
    for rule in policy.rules:
        where = f"line {rule.place.line}"
        if decided is not None:
            yield f"  . {rule.id} ({where}): not asked, a rule before it matched"
            continue
        outcome, why = _rule(rule, action, facts)
        decided = outcome
        yield f"  {'>' if outcome else '-'} {rule.id} ({where}): {why}"
    if decided is None:
        decided = policy.fallback
    yield f"  = {decided.effect if decided else 'abstains'}{'' if decided is not policy.fallback else ' (default)'}"


def _rule(rule: Rule, action: Action, facts: Facts) -> tuple[Outcome | None, str]:
    """What the rule makes of the call, and why, in words."""
    if rule.surfaces and action.surface not in rule.surfaces:
        return None, f"not for surface {action.surface}"
    if not matches_any(rule.tools, action.name):
        return None, f"no tool matches ({', '.join(rule.tools)})"
    said = [f"tool matches {next(glob for glob in rule.tools if matches(glob, action.name))}"]
    for word, condition, wanted in (("when", rule.when, Truth.TRUE), ("unless", rule.unless, Truth.FALSE)):
        if condition is None:
            continue
        truth, why = _ask(condition, facts)
        said.append(f"{word} is {why}")
        if truth is Truth.ERROR:
            return rule.failed, f"{', '.join(said)}: denied as condition_error"
        if truth is not wanted:
            return None, ", ".join(said)
    return rule.outcome, f"{', '.join(said)}: {rule.outcome.effect}"


def _ask(condition: Condition, facts: Facts) -> tuple[Truth, str]:
    if condition.static:  # settled before any call, so arguments that cannot be converted do not matter
        facts = facts.without_call()
    truth = condition.truth(facts)
    return truth, f"an error ({condition.explain(facts)})" if truth is Truth.ERROR else truth.value


def _verdict(decision: Decision) -> Iterator[str]:
    yield f"decision {decision.effect} by {decision.rule}: {decision.reason}"
    for reason in decision.reasons[1:]:
        yield f"     and {reason.effect} by {reason.policy}/{reason.rule}: {reason.text}"
    if decision.terms is not None:
        terms: dict[str, Any] = {
            "group": decision.terms.group,
            "quorum": decision.terms.quorum,
            "expires": f"{decision.terms.expires_s}s",
            "separation": str(decision.terms.separation).lower(),
        }
        yield "approval " + ", ".join(f"{key} {value}" for key, value in terms.items())
    for obligation in decision.obligations:
        yield f"obliged  {obligation.kind} " + ", ".join(f"{key}={value}" for key, value in obligation.parameters)
    yield f"release  {decision.release}"
