"""From values with places to the records of model.py. Runs only when nothing is wrong with any file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from gateway.core.action import LOCAL_SERVER, PROVIDER_SERVER, Surface
from gateway.core.decision import ApprovalTerms, Effect, FailureMode, Obligation, Reason
from gateway.core.exchange import Direction, Origin
from gateway.core.filtering import FilterAction, FilterRule
from gateway.core.globs import is_literal
from gateway.policy.model import (
    Agent,
    Bundle,
    Case,
    Credential,
    HttpTool,
    Limits,
    McpServer,
    ModelRoute,
    Operation,
    Outcome,
    Policy,
    Rule,
    Timeouts,
)
from gateway.policy.shape import At
from gateway.policy.words import ABSTAIN

CASE_NOW_S = 1_767_614_400.0  # 2026-01-05T12:00:00Z, a Monday: cases must not change with the calendar
_TERMS = ApprovalTerms()
_TIMEOUTS = Timeouts()


def build(bundle: At, policies: Mapping[str, At], tests: tuple[At, ...], environment: Mapping[str, str]) -> Bundle:
    """The records. Policies are given by name, in the order in which their layers are listed."""
    servers = {name: _server(name, at, environment) for name, at in bundle.get("servers", {}).items()}
    http_tools = {name: _http_tool(name, at, environment) for name, at in bundle.get("http_tools", {}).items()}
    return Bundle(
        agents={name: _agent(name, at) for name, at in bundle.get("agents", {}).items()},
        models=tuple(_route(at, environment) for at in bundle.get("models", ())),
        servers=servers,
        http_tools=http_tools,
        functions={name: _split(at.value) for name, at in bundle.get("functions", {}).items()},
        limits=_limits(bundle.value.get("limits")),
        policies=tuple(_policy(name, at) for name, at in policies.items()),
        cases=tuple(_case(case, http_tools) for page in tests for case in page.get("cases", ())),
    )


def _texts(at: At, key: str) -> tuple[str, ...]:
    return tuple(item.value for item in at.get(key, ()))


def _set(at: At, key: str, kind: Callable[[str], Any]) -> frozenset[Any]:
    return frozenset(kind(text) for text in _texts(at, key))


def _split(name: str) -> tuple[str, str]:
    server, _, tool = name.partition(".")
    return server, tool


def _agent(name: str, at: At) -> Agent:
    return Agent(name=name, groups=frozenset(_texts(at, "groups")), owner=at.get("owner"))


def _upstream(name: str, at: At, environment: Mapping[str, str]) -> dict[str, Any]:
    timeouts = at.value.get("timeouts")
    return {
        "name": name,
        "base_url": at.get("url"),
        "credential": _credential(at.value.get("credential"), environment),
        "timeouts": Timeouts(
            connect_s=float(timeouts.get("connect", _TIMEOUTS.connect_s)),
            read_s=float(timeouts.get("read", _TIMEOUTS.read_s)),
        )
        if timeouts
        else _TIMEOUTS,
    }


def _credential(at: At | None, environment: Mapping[str, str]) -> Credential | None:
    if at is None:
        return None
    header = str(at.get("header", "authorization")).lower()
    prefix = at.get("prefix", "Bearer " if header == "authorization" else "")
    optional = at.get("optional", False)
    if at.get("passthrough"):
        return Credential(name="caller", header=header, prefix=prefix, optional=optional, passthrough=True)
    name = at.get("env")
    value = environment.get(name) or None
    return Credential(name=f"env:{name}", header=header, prefix=prefix, optional=optional, value=value)


def _route(at: At, environment: Mapping[str, str]) -> ModelRoute:
    match = _texts(at, "match")
    rename = {name: to.value for name, to in at.get("rename", {}).items()}
    offers = dict.fromkeys((*filter(is_literal, match), *rename, *_texts(at, "offers")))
    return ModelRoute(
        **_upstream(at.get("name"), at, environment),
        match=match,
        rename=rename,
        offers=tuple(offers),
        paths={path.get("path"): frozenset(_texts(path, "methods") or ("POST",)) for path in at.get("paths", ())},
    )


def _server(name: str, at: At, environment: Mapping[str, str]) -> McpServer:
    return McpServer(
        **_upstream(name, at, environment),
        idempotency_key=at.get("idempotency_key", False),
        deny_methods=_texts(at, "deny_methods"),
    )


def _http_tool(name: str, at: At, environment: Mapping[str, str]) -> HttpTool:
    return HttpTool(
        **_upstream(name, at, environment),
        idempotency_key=at.get("idempotency_key", False),
        operations={
            key: Operation(
                name=key,
                method=operation.get("method"),
                path=operation.get("path"),
                query=_texts(operation, "query"),
                arguments=operation.get("arguments"),
            )
            for key, operation in at.get("operations", {}).items()
        },
    )


def _limits(at: At | None) -> Limits:
    return Limits(**{name: value.value for name, value in at.value.items()}) if at else Limits()


def _terms(at: At | None, otherwise: ApprovalTerms) -> ApprovalTerms:
    if at is None:
        return otherwise
    return ApprovalTerms(
        group=at.get("group", otherwise.group),
        quorum=at.get("quorum", otherwise.quorum),
        expires_s=at.get("expires", otherwise.expires_s),
        separation=at.get("separation", otherwise.separation),
    )


def _policy(name: str, at: At) -> Policy:
    terms = _terms(at.value.get("approval"), _TERMS)
    default = at.get("default", ABSTAIN)
    applies_to = at.value["applies_to"]
    return Policy(
        name=name,
        agents=_texts(applies_to, "agents"),
        groups=_texts(applies_to, "groups"),
        rules=tuple(_rule(name, rule, terms) for rule in at.get("rules", ())),
        fallback=None if default == ABSTAIN else _fallback(name, Effect(default), terms),
        models=_texts(at, "models") or None,
        paths=_texts(at, "paths") or None,
        limits=_limits(at.value.get("limits")),
        filters=tuple(_filter(name, rule) for rule in at.get("filters", ())),
        strip_denied_tools=at.get("strip_denied_tools", False),
        place=at.place,
    )


def _fallback(policy: str, effect: Effect, terms: ApprovalTerms) -> Outcome:
    reason = Reason(
        policy=policy,
        rule="default",
        effect=effect,
        text=f"no rule of the policy speaks of it; its default is {effect}",
    )
    return Outcome(reason=reason, terms=terms if effect is Effect.HOLD else None)


def _rule(policy: str, at: At, terms: ApprovalTerms) -> Rule:
    effect = Effect(at.get("effect"))
    name = at.get("id")
    failed = Reason(
        policy=policy,
        rule="condition_error",
        effect=Effect.DENY,
        text=f"a condition of rule `{name}` cannot be evaluated for this call",
    )
    return Rule(
        id=name,
        tools=_texts(at, "tools"),
        surfaces=_set(at, "surfaces", Surface),
        when=at.get("when"),
        unless=at.get("unless"),
        outcome=Outcome(
            reason=Reason(policy=policy, rule=name, effect=effect, text=at.get("reason")),
            terms=_terms(at.value.get("approval"), terms) if effect is Effect.HOLD else None,
            obligations=tuple(_obligation(item) for item in at.get("obligations", ())),
        ),
        failed=Outcome(reason=failed),
        place=at.place,
    )


def _obligation(at: At) -> Obligation:
    given = ((name, str(value.value)) for name, value in at.value.items() if name != "kind")
    return Obligation(kind=at.get("kind"), parameters=tuple(sorted(given)))


def _filter(policy: str, at: At) -> FilterRule:
    return FilterRule(
        policy=policy,
        id=at.get("id"),
        action=FilterAction(at.get("action")),
        reason=at.get("reason"),
        kinds=_texts(at, "kinds"),
        origins=_set(at, "origins", Origin),
        directions=_set(at, "directions", Direction),
        surfaces=_set(at, "surfaces", Surface),
        tools=_texts(at, "tools"),
        score_min=at.get("score_min", 0.0),
        on_error=FailureMode(at.get("on_error", FailureMode.CLOSED)),
    )


def _case(at: At, http_tools: Mapping[str, HttpTool]) -> Case:
    tool = at.get("tool")
    server = _split(tool or "")[0]
    modelled = server in (LOCAL_SERVER, PROVIDER_SERVER)
    served = Surface.MODEL if modelled else Surface.HTTP if server in http_tools else Surface.MCP
    return Case(
        name=at.get("name"),
        agent=at.get("agent"),
        tool=tool,
        model=at.get("model"),
        arguments=at.get("args", {}),
        session=at.get("session", {}),
        surface=Surface(at.get("surface", served)),
        now=at.get("now", CASE_NOW_S),
        expect=Effect(at.get("expect")),
        rule=at.get("rule"),
        place=at.place,
    )
