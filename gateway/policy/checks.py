"""What must hold between the parts of a bundle: names that are mentioned exist, and nothing contradicts itself.

Works on values with places and steps over what was refused before, so that one mistake is reported once and the next
one is reported too.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.core.action import LOCAL_SERVER, PROVIDER_SERVER
from gateway.core.decision import Effect
from gateway.core.globs import is_literal, matches, matches_any
from gateway.policy.problems import Place, Problems, did_you_mean, listing, quote
from gateway.policy.shape import INVALID, At
from gateway.policy.words import FRAMING_HEADERS, RESERVED_RULES, is_guarded

_EMPTY = At({}, Place(""))


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The files of a bundle as read. `policies` are by name; `bundle` is empty where bundle.yaml cannot be read."""

    bundle: At
    policies: Mapping[str, At]
    tests: tuple[At, ...]
    environment: Mapping[str, str]
    known_kinds: Collection[str] | None
    known_obligations: Collection[str] | None
    lenient: bool
    problems: Problems


def check(parts: Parts) -> None:
    """Report everything that does not fit together."""
    _check_upstreams(parts)
    _check_models(parts)
    _check_operations(parts)
    tools = _Tools(parts)
    for name, at in _entries(parts.bundle, "functions"):
        tools.check(str(at.value), at.place, f"the function {quote(name)} on ")
    for policy in parts.policies.values():
        _check_policy(parts, policy, tools)
    for page in parts.tests:
        for case in _items(page, "cases"):
            _check_case(parts, case, tools)


def _entries(at: At, key: str) -> Iterator[tuple[str, At]]:
    """Names and values of a mapping; values that were refused are left out."""
    for name, value in at.get(key, {}).items():
        if value.value is not INVALID:
            yield name, value


def _items(at: At, key: str) -> Iterator[At]:
    yield from at.get(key, ())


def _part(at: At, key: str) -> At:
    found = at.value.get(key, _EMPTY)
    return found if isinstance(found, At) else _EMPTY


def _unique(parts: Parts, items: Iterator[At], key: str) -> None:
    first: dict[Any, Place] = {}
    for item in items:
        name = item.get(key)
        if name is not None and first.setdefault(name, item.at(key)) is not item.at(key):
            once = f"each `{key}` once (first in line {first[name].line})"
            parts.problems.add(item.at(key), f"{quote(str(name))} a second time", once)


def _upstreams(parts: Parts) -> Iterator[At]:
    yield from (at for key in ("servers", "http_tools") for _, at in _entries(parts.bundle, key))
    yield from _items(parts.bundle, "models")


def _check_upstreams(parts: Parts) -> None:
    servers, http_tools = parts.bundle.get("servers", {}), parts.bundle.get("http_tools", {})
    for name in servers.keys() & http_tools.keys():
        other = "a name of its own: tools of `servers` and `http_tools` share their names"
        parts.problems.add(http_tools[name].place, f"{quote(name)} in both", other)
    for at in _upstreams(parts):
        if "credential" in at.value:
            _check_credential(parts, at.value["credential"])


def _check_credential(parts: Parts, at: At) -> None:
    name, passthrough = at.get("env"), at.get("passthrough", False)
    if (name is not None) == passthrough:
        found = "`env` beside `passthrough`" if passthrough else "no `env`"
        parts.problems.add(at.place, found, "`env: NAME_OF_A_VARIABLE`, or for a model `passthrough: true`")
    header = str(at.get("header", "")).lower()
    if header in FRAMING_HEADERS:
        parts.problems.add(at.at("header"), quote(header), "a header for credentials; HTTP itself needs this one")
    if name is None:
        return
    value = parts.environment.get(name, "")
    if not value and not at.get("optional", False) and not parts.lenient:
        parts.problems.add(at.at("env"), f"no value for {quote(name)}", "it in the environment, or `optional: true`")
    if value and not re.fullmatch(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?", value):
        mend = "printable ASCII without spaces or line breaks at its ends"
        parts.problems.add(at.at("env"), f"a value of {quote(name)} that cannot be sent", mend)


def _check_models(parts: Parts) -> None:
    routes = [route for route in _items(parts.bundle, "models") if route.get("match") is not None]
    _unique(parts, iter(routes), "name")
    taken: dict[tuple[str, str], Place] = {}
    for route in routes:
        named = [*_items(route, "offers"), *(At(name, at.place) for name, at in _entries(route, "rename"))]
        for model in named:
            first = next(
                (r for r in routes if matches_any((glob.value for glob in _items(r, "match")), model.value)), None
            )
            if first is not route:
                goes = f"it goes to {quote(str(first.get('name')))}" if first else "no route matches it"
                parts.problems.add(model.place, quote(model.value), f"a name that `match` of this route takes; {goes}")
        for extra in _items(route, "paths"):
            for method in [item.value for item in _items(extra, "methods")] or ["POST"]:
                key = (extra.get("path"), method)
                if taken.setdefault(key, extra.place) is not extra.place:
                    where = f"each path and method once (first in line {taken[key].line})"
                    parts.problems.add(extra.place, f"{method} {quote(str(key[0]))} a second time", where)


def _check_operations(parts: Parts) -> None:
    for _, tool in _entries(parts.bundle, "http_tools"):
        shapes: dict[tuple[str, str], str] = {}
        for name, operation in _entries(tool, "operations"):
            path = operation.get("path")
            if path is None:
                continue
            fields = re.findall(r"\{(\w+)\}", path)
            shape = (operation.get("method", ""), re.sub(r"\{\w+\}", "{}", path))
            if shapes.setdefault(shape, name) != name:
                other = f"a request that only one operation matches; {quote(shapes[shape])} matches the same"
                parts.problems.add(operation.at("path"), quote(path), other)
            query = [item.value for item in _items(operation, "query")]
            for double in {name for name in (*fields, *query) if (*fields, *query).count(name) > 1}:
                parts.problems.add(operation.at("path"), f"the argument {quote(double)} twice", "each argument once")
            properties = operation.get("arguments", {}).get("properties")
            if not isinstance(properties, dict):
                continue
            for field in (*fields, *query):
                if field not in properties:
                    hint = did_you_mean(field, properties)
                    found = f"no {quote(field)} among the `properties`"
                    parts.problems.add(operation.at("arguments"), found, "every argument of path and query there", hint)


class _Tools:
    """Which tools can exist. MCP servers tell theirs only when asked, so there only the server is checked."""

    def __init__(self, parts: Parts) -> None:
        self._problems = parts.problems
        self._operations = {
            name: None if at.value is INVALID else tuple(at.get("operations", ()))
            for name, at in parts.bundle.get("http_tools", {}).items()
        }
        self._servers = tuple(dict.fromkeys((*parts.bundle.get("servers", {}), *self._operations, LOCAL_SERVER)))

    def check(self, glob: str, place: Place, found: str = "") -> None:
        """Report a tool or glob that can never match."""
        server, dot, tool = glob.partition(".")
        if not dot:
            return
        known = any(matches(server, name) for name in self._servers) or "*" in server
        if not known and (found or server != PROVIDER_SERVER):  # a function cannot be one that the provider runs
            hint = did_you_mean(server, self._servers)
            self._problems.add(
                place, f"{found}{quote(glob)}", f"a declared server or HTTP tool ({listing(self._servers)})", hint
            )
        operations = self._operations.get(server)
        if operations and not any(matches(tool, name) for name in operations):
            hint = did_you_mean(tool, operations)
            self._problems.add(
                place, f"{found}{quote(glob)}", f"an operation of `{server}`: {listing(operations)}", hint
            )


def _check_policy(parts: Parts, policy: At, tools: _Tools) -> None:
    _check_subjects(parts, policy)
    rules = tuple(_items(policy, "rules"))
    _unique(parts, iter(rules), "id")
    _unique(parts, _items(policy, "filters"), "id")
    for rule in (*rules, *_items(policy, "filters")):
        for glob in _items(rule, "tools"):
            tools.check(glob.value, glob.place)
    credentials = {str(_part(at, "credential").get("header", "")).lower() for at in _upstreams(parts)}
    for rule in rules:
        _check_rule(parts, rule, credentials)
    _check_filters(parts, policy)
    _check_models_of(parts, policy)


def _check_rule(parts: Parts, rule: At, credentials: Collection[str]) -> None:
    problems = parts.problems
    effect = rule.get("effect")
    if "approval" in rule.value and effect not in (None, Effect.HOLD):
        problems.add(rule.at("approval"), f"`approval` in a rule that is `{effect}`", "it only where `effect: hold`")
    if "obligations" in rule.value and effect == Effect.DENY:
        problems.add(rule.at("obligations"), "`obligations` in a rule that is `deny`", "them where a call can run")
    for obligation in _items(rule, "obligations"):
        kind = obligation.get("kind")
        if kind is not None and parts.known_obligations is not None and kind not in parts.known_obligations:
            problems.add(
                obligation.at("kind"), quote(kind), f"what this gateway can do: {listing(parts.known_obligations)}"
            )
        header = str(obligation.get("name", "")).lower()
        if obligation.get("kind") == "add_header" and header and (is_guarded(header) or header in credentials):
            mend = "a header that HTTP, credentials and the gateway itself do not use"
            problems.add(obligation.at("name"), quote(header), mend)


def _check_filters(parts: Parts, policy: At) -> None:
    known = parts.known_kinds
    if known is None:
        return
    for rule in _items(policy, "filters"):
        for glob in _items(rule, "kinds"):
            if not any(matches(glob.value, kind) for kind in known):
                hint = did_you_mean(glob.value, known)
                parts.problems.add(
                    glob.place, quote(glob.value), "a kind that a filter can find (docs/policy.md)", hint
                )


def _check_models_of(parts: Parts, policy: At) -> None:
    problems = parts.problems
    routes = tuple(_items(parts.bundle, "models"))
    known = {glob.value for route in routes for glob in _items(route, "match")}
    for model in _items(policy, "models"):
        if is_literal(model.value) and not matches_any(known, model.value):
            problems.add(
                model.place, quote(model.value), "a model that a route matches", did_you_mean(model.value, known)
            )
    extras = {extra.get("path") for route in routes for extra in _items(route, "paths")} - {None}
    for path in _items(policy, "paths"):
        if not any(matches(path.value, extra) for extra in extras):
            problems.add(
                path.place, quote(path.value), "an extra path of a model route", did_you_mean(path.value, extras)
            )


def _check_subjects(parts: Parts, policy: At) -> None:
    applies_to = _part(policy, "applies_to")
    if "applies_to" in policy.value and not applies_to.value:
        parts.problems.add(applies_to.place, "nobody", "`agents` or `groups`; `agents: ['*']` is everybody")
    agents = parts.bundle.get("agents", {})
    groups = {group.value for _, agent in _entries(parts.bundle, "agents") for group in _items(agent, "groups")}
    for key, known in (("agents", agents), ("groups", groups)):
        for glob in _items(applies_to, key):
            if is_literal(glob.value) and glob.value not in known:
                what = "a declared agent" if key == "agents" else "a group of a declared agent"
                parts.problems.add(glob.place, quote(glob.value), what, did_you_mean(glob.value, known))


def _check_case(parts: Parts, case: At, tools: _Tools) -> None:
    problems = parts.problems
    agents = parts.bundle.get("agents", {})
    agent, tool, model = case.get("agent"), case.get("tool"), case.get("model")
    if agent is not None and agent not in agents:
        problems.add(case.at("agent"), quote(agent), "a declared agent", did_you_mean(agent, agents))
    if (tool is None) == (model is None):
        problems.add(case.place, "both `tool` and `model`" if tool else "neither `tool` nor `model`", "one of them")
    if tool is not None:
        tools.check(tool, case.at("tool"))
    if model is not None:
        for key in ("args", "session", "surface", "rule"):
            if key in case.value:
                problems.add(case.at(key), f"`{key}` beside `model`", "it only beside `tool`")
        if case.get("expect") == Effect.HOLD:
            problems.add(case.at("expect"), "`hold` for a model", "`allow` or `deny`")
    policy, _, rule = str(case.get("rule", "default")).partition("/")
    if not rule:
        return
    known = {str(item.get("id")) for item in _items(parts.policies.get(policy, _EMPTY), "rules")} | set(RESERVED_RULES)
    if policy not in parts.policies:
        problems.add(case.at("rule"), quote(policy), "the name of a policy", did_you_mean(policy, parts.policies))
    elif rule not in known:
        problems.add(case.at("rule"), quote(rule), f"a rule of `{policy}`", did_you_mean(rule, known))
