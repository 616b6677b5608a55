"""Decisions: which rules speak of a call, and what they say together. Pure but for memory of what cannot change.

Inside a layer the first matching rule decides; across layers the strictest effect wins, and obligations add up. Globs
and conditions that do not depend on the call are settled once per (agent, tool, surface), so that a call without
conditions is one lookup. Whatever fails, denies.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from gateway.core.action import LOCAL_SERVER, Action, Surface
from gateway.core.canonical import JSON
from gateway.core.decision import ApprovalTerms, Decision, Effect, Obligation, Reason, strictest
from gateway.core.filtering import FilterRule
from gateway.core.globs import matches as matches_glob
from gateway.core.globs import matches_any
from gateway.policy.conditions import Condition, Facts, Truth
from gateway.policy.model import Agent, Bundle, Case, HttpTool, Limits, McpServer, ModelRoute, Outcome, Policy, Rule

PLANS_MAX = (
    1024  # tools or models of one agent; the names come from agents, so what is remembered must not grow for ever
)
NAME_CHARS_MAX = 256  # a longer name of a tool or model means nothing that an operator wrote; it is not remembered
DECISIONS_MAX = 256  # combinations of outcomes of one tool; a plan with eight conditional layers has as many


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """One policy as far as one tool is concerned: the rules that may match, and what it says when none does."""

    rules: tuple[Rule, ...]
    fallback: Outcome | None
    possible: tuple[Outcome | None, ...]  # what it may say to some call, other than deny

    def outcome(self, facts: Facts) -> Outcome | None:
        """What the layer says; None abstains."""
        for rule in self.rules:
            matched = matches(rule, facts)
            if matched is Truth.TRUE:
                return rule.outcome
            if matched is Truth.ERROR:
                return rule.failed
        return self.fallback


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What is known about a tool before it is called. `decision` is set when the arguments cannot change it."""

    layers: tuple[Layer, ...]
    fixed: Mapping[str, Any]
    decision: Decision | None
    decisions: dict[tuple[Outcome | None, ...], Decision] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AgentView:
    """An agent with the layers that apply to it. Belongs to the PolicySet that made it."""

    name: str
    groups: frozenset[str]
    owner: str | None
    filter_rules: tuple[FilterRule, ...]
    limits: Limits
    strip_denied_tools: bool
    layers: tuple[Policy, ...]
    release: str
    _plans: dict[tuple[str, str, Surface], Plan] = field(default_factory=dict, repr=False)
    _routes: dict[str, ModelRoute | None] = field(default_factory=dict, repr=False)


def matches(rule: Rule, facts: Facts) -> Truth:
    """Whether the conditions of a rule hold: `when` and not `unless`. Both are asked apart, so that an error in one is
    not hidden by the other."""
    if rule.when is not None:
        truth = rule.when.truth(facts)
        if truth is not Truth.TRUE:
            return truth
    if rule.unless is not None:
        truth = rule.unless.truth(facts)
        if truth is not Truth.FALSE:
            return Truth.ERROR if truth is Truth.ERROR else Truth.FALSE
    return Truth.TRUE


def combine(outcomes: Iterable[Outcome | None], release: str) -> Decision:
    """The decision of several layers. None abstains; when all abstain, the call is denied without a reason."""
    spoken = [outcome for outcome in outcomes if outcome is not None]
    if not spoken:
        return Decision(effect=Effect.DENY, reasons=(), release=release)
    effect = strictest(*(outcome.effect for outcome in spoken))
    reasons = tuple(outcome.reason for outcome in spoken if outcome.effect is effect)
    if effect is Effect.DENY:
        return Decision(effect=effect, reasons=reasons, release=release)
    obligations = tuple(dict.fromkeys(o for outcome in spoken for o in outcome.obligations))
    if effect is Effect.ALLOW:
        return Decision(effect=effect, reasons=reasons, release=release, obligations=obligations)
    terms = [outcome.terms for outcome in spoken if outcome.terms is not None]
    if len({term.group for term in terms}) > 1:
        return Decision(effect=Effect.DENY, reasons=(_conflict(spoken), *reasons), release=release)
    merged = ApprovalTerms(
        group=terms[0].group,
        quorum=max(term.quorum for term in terms),
        expires_s=min(term.expires_s for term in terms),
        separation=any(term.separation for term in terms),
    )
    return Decision(effect=effect, reasons=reasons, release=release, obligations=obligations, terms=merged)


def _conflict(spoken: list[Outcome]) -> Reason:
    """Two layers that ask different groups. Taking either would drop what the other asks for, so neither is taken."""
    asked = sorted({f"`{o.reason.policy}/{o.reason.rule}` asks `{o.terms.group}`" for o in spoken if o.terms})
    return Reason(
        policy=next(outcome.reason.policy for outcome in spoken if outcome.terms),
        rule="conflicting_groups",
        effect=Effect.DENY,
        text=f"approval by one group cannot satisfy all layers: {', '.join(asked)}",
    )


@dataclass(frozen=True, eq=False)
class PolicySet:
    """One release of a bundle. Immutable; what it remembers follows from it."""

    bundle: Bundle
    release: str

    @property
    def agents(self) -> Mapping[str, Agent]:
        return self.bundle.agents

    @property
    def models(self) -> tuple[ModelRoute, ...]:
        return self.bundle.models

    @property
    def servers(self) -> Mapping[str, McpServer]:
        return self.bundle.servers

    @property
    def http_tools(self) -> Mapping[str, HttpTool]:
        return self.bundle.http_tools

    @property
    def functions(self) -> Mapping[str, tuple[str, str]]:
        return self.bundle.functions

    @property
    def policies(self) -> tuple[Policy, ...]:
        return self.bundle.policies

    @property
    def cases(self) -> tuple[Case, ...]:
        return self.bundle.cases

    def agent(self, name: str) -> AgentView | None:
        """The agent with its layers; None for one that the bundle does not declare."""
        return self._views.get(name)

    def decide(self, agent: AgentView, action: Action, session: Mapping[str, JSON], *, now: float) -> Decision:
        """What the gateway must do with the action. Never raises: what cannot be judged is denied."""
        if agent.release != self.release:
            agent = self._current(agent)
        plan = agent._plans.get((action.server, action.tool, action.surface))
        if plan is None:
            plan = self._plan(agent, action.server, action.tool, action.surface)
        if plan.decision is not None:
            return plan.decision
        facts = Facts(plan.fixed, action.arguments, session, now)
        outcomes = tuple([layer.outcome(facts) for layer in plan.layers])
        decision = plan.decisions.get(outcomes)
        if decision is None:
            decision = combine(outcomes, self.release)
            if len(plan.decisions) < DECISIONS_MAX:
                plan.decisions[outcomes] = decision
        return decision

    def may_use(self, agent: AgentView, name: str, surface: Surface) -> bool:
        """False exactly when every call of the tool would be denied, whatever its arguments, session and time.

        Conditions that look at those count as "may be true, may be false, each by itself": what `amount > 5` in one
        layer and `amount < 5` in another exclude together is not worked out.
        """
        server, _, tool = name.partition(".")
        agent = self._current(agent)
        plan = agent._plans.get((server, tool, surface)) or self._plan(agent, server, tool, surface)
        possible = [layer.possible for layer in plan.layers]
        groups = {o.terms.group for layer in possible for o in layer if o is not None and o.terms is not None}
        return any(_some_way(possible, group) for group in (None, *groups))

    def obligations(self, agent: AgentView, server: str, surface: Surface) -> tuple[Obligation, ...]:
        """What rules may ask to be done with calls of this server's tools, whichever the tool and its arguments: too
        much rather than too little."""
        return tuple(
            obligation
            for layer in self._current(agent).layers
            for rule in layer.rules
            if rule.outcome.obligations and (not rule.surfaces or surface in rule.surfaces)
            if any("*" in (part := glob.partition(".")[0]) or matches_glob(part, server) for glob in rule.tools)
            for obligation in rule.outcome.obligations
        )

    def resolve_function(self, function_name: str) -> tuple[str, str]:
        """(server, tool) that a function of a model's tool list means; `local` for what the agent executes itself."""
        known = self.functions.get(function_name)
        if known is not None:
            return known
        server, separator, tool = function_name.partition("__")
        return (server, tool) if separator and tool and self.executes(server) else (LOCAL_SERVER, function_name)

    def executes(self, server: str) -> bool:
        """Whether the gateway itself runs the tools of this server."""
        return server in self.bundle.servers or server in self.bundle.http_tools

    def route(self, agent: AgentView, model: str) -> ModelRoute | None:
        """Where the model is served; None when the agent may not use it or nothing serves it."""
        if len(model) > NAME_CHARS_MAX:
            return None
        agent = self._current(agent)
        if model in agent._routes:
            return agent._routes[model]
        found = None
        if _admitted((layer.models for layer in agent.layers), model):
            found = next((route for route in self.models if matches_any(route.match, model)), None)
        if len(agent._routes) >= PLANS_MAX:
            agent._routes.clear()
        agent._routes[model] = found
        return found

    def visible_models(self, agent: AgentView) -> tuple[str, ...]:
        """Model names that can be listed and that this agent may use, in the order of the routes."""
        names = dict.fromkeys(name for route in self.models for name in route.offers)
        return tuple(name for name in names if self.route(agent, name) is not None)

    def passthrough(self, agent: AgentView, method: str, path: str) -> ModelRoute | None:
        """The route that takes an extra path (below `/v1`, such as `/embeddings`) as it is; None: denied."""
        if not _admitted((layer.paths for layer in self._current(agent).layers), path):
            return None
        return next((route for route in self.models if method in route.paths.get(path, ())), None)

    @cached_property
    def _views(self) -> Mapping[str, AgentView]:
        return {agent.name: self._view(agent) for agent in self.bundle.agents.values()}

    def _current(self, agent: AgentView) -> AgentView:
        """The view of this release: one from before a reload must not decide by rules that are gone. An agent that is
        gone has no layers, so everything is denied."""
        if agent.release == self.release:
            return agent
        return self._views.get(agent.name) or replace(agent, layers=(), release=self.release, _plans={}, _routes={})

    def _view(self, agent: Agent) -> AgentView:
        layers = tuple(policy for policy in self.policies if policy.applies(agent))
        return AgentView(
            name=agent.name,
            groups=agent.groups,
            owner=agent.owner,
            filter_rules=tuple(rule for layer in layers for rule in layer.filters),
            limits=_lowest([layer.limits for layer in layers], self.bundle.limits),
            strip_denied_tools=any(layer.strip_denied_tools for layer in layers),
            layers=layers,
            release=self.release,
        )

    def _plan(self, agent: AgentView, server: str, tool: str, surface: Surface) -> Plan:
        fixed = known_facts(agent, server, tool, surface)
        facts = Facts(fixed, {}, {}, 0.0)
        layers = tuple(_layer(policy, fixed["action.name"], surface, facts) for policy in agent.layers)
        settled = not any(layer.rules for layer in layers)
        decision = combine((layer.fallback for layer in layers), self.release) if settled else None
        plan = Plan(layers, fixed, decision)
        if len(tool) <= NAME_CHARS_MAX:
            if len(agent._plans) >= PLANS_MAX:
                agent._plans.clear()
            agent._plans[(server, tool, surface)] = plan
        return plan


def known_facts(agent: AgentView, server: str, tool: str, surface: Surface) -> dict[str, Any]:
    """What conditions may ask about agent and action: the same for every call of the tool."""
    return {
        "action.name": f"{server}.{tool}",
        "action.server": server,
        "action.tool": tool,
        "action.surface": surface.value,
        "agent.name": agent.name,
        "agent.groups": sorted(agent.groups),
        "agent.owner": agent.owner or "",
    }


def _layer(policy: Policy, name: str, surface: Surface, facts: Facts) -> Layer:
    """The rules of a policy that may match this tool, up to the first that certainly does: that one is the fallback."""
    rules: list[Rule] = []
    possible: list[Outcome | None] = []
    fallback = policy.fallback
    for rule in policy.rules:
        if (rule.surfaces and surface not in rule.surfaces) or not matches_any(rule.tools, name):
            continue
        when, unless = _settled(rule.when, Truth.TRUE, facts), _settled(rule.unless, Truth.FALSE, facts)
        if when is Truth.FALSE or (when is Truth.TRUE and unless is Truth.TRUE):
            continue
        if when is Truth.ERROR or (when is Truth.TRUE and unless is Truth.ERROR):
            fallback = rule.failed
            break
        if when is Truth.TRUE and unless is Truth.FALSE:
            fallback = rule.outcome
            break
        rules.append(rule)
        if unless in (None, Truth.FALSE):
            possible.append(rule.outcome)  # else the rule can only fail
    spoken = tuple(o for o in (*possible, fallback) if o is None or o.effect is not Effect.DENY)
    return Layer(tuple(rules), fallback, spoken)


def _settled(condition: Condition | None, absent: Truth, facts: Facts) -> Truth | None:
    """What a condition says to every call of one tool by one agent; None when that depends on the call."""
    if condition is None:
        return absent
    return condition.truth(facts) if condition.static else None


def _some_way(possible: list[tuple[Outcome | None, ...]], group: str | None) -> bool:
    """Whether some choice of one outcome per layer is not a deny, with all holds asking this one group."""
    usable = [[o for o in layer if o is None or o.terms is None or o.terms.group == group] for layer in possible]
    return all(usable) and any(outcome is not None for layer in usable for outcome in layer)


def _admitted(lists: Iterable[tuple[str, ...] | None], name: str) -> bool:
    """Every layer that has a list must admit the name, and at least one must have one."""
    given = [globs for globs in lists if globs is not None]
    return bool(given) and all(matches_any(globs, name) for globs in given)


def _lowest(given: list[Limits], defaults: Limits) -> Limits:
    def lowest(name: str) -> int | None:
        values: list[int] = [value for limits in given if (value := getattr(limits, name)) is not None]
        default: int | None = getattr(defaults, name)
        return min(values) if values else default

    return Limits(**{name: lowest(name) for name in Limits.__slots__})
