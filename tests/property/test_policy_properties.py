"""What must hold for every bundle: layers only narrow, order is only order, and nothing that fails allows."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.action import Action, Surface
from gateway.core.decision import ApprovalTerms, Decision, Effect, Reason
from gateway.policy.conditions import Facts, Truth, compile_condition
from gateway.policy.explanation import explain
from gateway.policy.model import Agent, Bundle, Limits, Outcome, Policy, Rule
from gateway.policy.policy_keys import POLICY
from gateway.policy.policyset import PolicySet
from gateway.policy.problems import Place, Problems
from gateway.policy.shape import Page
from gateway.policy.source import parse

NOWHERE = Place("property")
TOOLS = ("bank.read", "bank.transfer", "crm.read", "local.shell", "nope.nothing")
CONDITIONS = (
    None, "args.n > 3", "args.n < 3", "args.s == 'a'", "has(args.n) && args.n == 3", "args.l.exists(x, x == 1)",
    "agent.name == 'bob'", "agent.name == 'eve'", "int(agent.name) == 1", "action.surface == 'mcp'",
    "session.risk > 1", "now.getHours() == 12", "false", "true",
)  # fmt: skip

conditions = st.sampled_from(CONDITIONS).map(lambda text: None if text is None else compile_condition(text))
effects = st.sampled_from(list(Effect))
all_terms = st.builds(
    ApprovalTerms,
    group=st.sampled_from(["a", "b"]),
    quorum=st.integers(1, 3),
    expires_s=st.sampled_from([60, 600]),
    separation=st.booleans(),
)
globs = st.lists(
    st.sampled_from(["*", "bank.*", "*.read", "bank.transfer", "local.?hell", "x.*"]), min_size=1, max_size=2
)


@st.composite
def outcomes(draw: Any, policy: str, name: str) -> Outcome:
    effect = draw(effects)
    terms = draw(all_terms) if effect is Effect.HOLD else None
    return Outcome(reason=Reason(policy=policy, rule=name, effect=effect, text="r"), terms=terms)


@st.composite
def rules(draw: Any, policy: str, name: str) -> Rule:
    failed = Reason(policy=policy, rule="condition_error", effect=Effect.DENY, text=name)
    return Rule(
        id=name,
        tools=tuple(draw(globs)),
        surfaces=draw(st.sampled_from([frozenset(), frozenset({Surface.MCP}), frozenset({Surface.MODEL})])),
        when=draw(conditions),
        unless=draw(conditions),
        outcome=draw(outcomes(policy, name)),
        failed=Outcome(reason=failed),
        place=NOWHERE,
    )


@st.composite
def layers(draw: Any, name: str) -> Policy:
    return Policy(
        name=name,
        agents=("*",),
        groups=(),
        rules=tuple(draw(rules(name, f"r{number}")) for number in range(draw(st.integers(0, 4)))),
        fallback=draw(st.one_of(st.none(), outcomes(name, "default"))),
        models=None,
        paths=None,
        limits=Limits(),
        filters=(),
        strip_denied_tools=False,
        place=NOWHERE,
    )


@st.composite
def policies(draw: Any) -> tuple[Policy, ...]:
    return tuple(draw(layers(f"p{number}")) for number in range(draw(st.integers(0, 4))))


arguments = st.dictionaries(
    st.sampled_from(["n", "s", "l", "z"]),
    st.one_of(
        st.integers(-5, 5), st.floats(), st.sampled_from(["a", "b", "a\0b", "", "\ud800"]), st.none(), st.booleans(),
        st.lists(st.integers(0, 2), max_size=3), st.just(2**64), st.just({"n": [None, math.inf]}), st.just(b"bytes"),
    ),
)  # fmt: skip
sessions = st.sampled_from([{}, {"risk": 0}, {"risk": 2}, {"risk": "high"}])
calls = st.tuples(st.sampled_from(TOOLS), arguments, sessions, st.sampled_from(list(Surface)))


def release_of(*given: Policy) -> PolicySet:
    bundle = Bundle(
        agents={"bob": Agent(name="bob", groups=frozenset({"finance"}))},
        models=(),
        servers={},
        http_tools={},
        functions={},
        limits=Limits(),
        policies=given,
        cases=(),
    )
    return PolicySet(bundle, "release")


def action_of(call: tuple[Any, ...]) -> Action:
    server, _, tool = call[0].partition(".")
    return Action(surface=call[3], server=server, tool=tool, arguments=call[1])


def decide(release: PolicySet, call: tuple[Any, ...]) -> Decision:
    view = release.agent("bob")
    assert view is not None
    return release.decide(view, action_of(call), call[2], now=1_767_614_400.0)


@given(policies(), layers("extra"), calls)
def test_adding_a_layer_never_loosens_what_another_layer_says(
    given: tuple[Policy, ...], extra: Policy, call: tuple[Any, ...]
) -> None:
    """A layer may speak where all others abstain; where one of them speaks, it can only be stricter."""
    before, after = decide(release_of(*given), call), decide(release_of(*given, extra), call)
    if before.reasons:
        assert after.effect.rank >= before.effect.rank
        if before.terms is not None and after.terms is not None:
            assert after.terms.quorum >= before.terms.quorum
            assert after.terms.expires_s <= before.terms.expires_s
            assert after.terms.separation >= before.terms.separation
            assert after.terms.group == before.terms.group
        assert set(before.obligations) <= set(after.obligations) or after.effect is Effect.DENY


@given(policies(), calls)
def test_adding_a_layer_that_denies_denies(given: tuple[Policy, ...], call: tuple[Any, ...]) -> None:
    reason = Reason(policy="no", rule="default", effect=Effect.DENY, text="r")
    no = Policy(
        name="no", agents=("*",), groups=(), rules=(), fallback=Outcome(reason=reason), models=None, paths=None,
        limits=Limits(), filters=(), strip_denied_tools=False, place=NOWHERE,
    )  # fmt: skip
    assert decide(release_of(*given, no), call).effect is Effect.DENY


@given(policies(), calls, st.randoms())
def test_order_of_layers_changes_neither_effect_nor_terms(
    given: tuple[Policy, ...], call: tuple[Any, ...], random: Any
) -> None:
    shuffled = list(given)
    random.shuffle(shuffled)
    one, other = decide(release_of(*given), call), decide(release_of(*shuffled), call)
    assert (one.effect, one.terms) == (other.effect, other.terms)
    assert set(one.obligations) == set(other.obligations)
    spoken = {(reason.policy, reason.rule) for reason in one.reasons if reason.rule != "conflicting_groups"}
    assert spoken == {(r.policy, r.rule) for r in other.reasons if r.rule != "conflicting_groups"}


@given(policies(), calls)
def test_tool_that_is_not_offered_is_always_denied(given: tuple[Policy, ...], call: tuple[Any, ...]) -> None:
    release = release_of(*given)
    view = release.agent("bob")
    assert view is not None
    if not release.may_use(view, call[0], call[3]):
        assert decide(release, call).effect is Effect.DENY


@given(policies(), calls)
def test_what_is_remembered_does_not_change_a_decision(given: tuple[Policy, ...], call: tuple[Any, ...]) -> None:
    release = release_of(*given)
    warm = [decide(release, call) for _ in range(2)][1]
    assert warm == decide(release_of(*given), call)


@given(policies(), calls)
def test_explanation_tells_of_the_decision_that_is_made(given: tuple[Policy, ...], call: tuple[Any, ...]) -> None:
    """Explanation walks the rules by itself, so each layer's verdict must agree with the one that decided."""
    release = release_of(*given)
    view = release.agent("bob")
    assert view is not None
    decision = decide(release, call)
    lines = list(explain(release, view, action_of(call), call[2], 1_767_614_400.0))
    assert any(line.startswith(f"decision {decision.effect} by {decision.rule}:") for line in lines)
    verdicts = [line.split()[1] for line in lines if line.startswith("  = ")]
    assert len(verdicts) == len(given)
    spoken = [Effect(verdict) for verdict in verdicts if verdict != "abstains"]
    if not any(reason.rule == "conflicting_groups" for reason in decision.reasons):
        assert max((effect.rank for effect in spoken), default=Effect.DENY.rank) == decision.effect.rank


@given(st.lists(layers("p"), max_size=2), arguments)
def test_tool_that_no_rule_names_is_denied(given: list[Policy], some: dict[str, Any]) -> None:
    silent = [Policy(**{n: getattr(p, n) for n in Policy.__slots__} | {"fallback": None}) for p in given]
    named = [p for p in silent if not any("*" in rule.tools or "*.read" in rule.tools for rule in p.rules)]
    decision = decide(release_of(*named), ("unheard.of", some, {}, Surface.MCP))
    assert (decision.effect, decision.reasons) == (Effect.DENY, ())


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(), st.tuples(st.integers())),
    lambda children: st.one_of(st.lists(children, max_size=4), st.dictionaries(st.text(), children, max_size=4)),
    max_leaves=12,
)


@settings(max_examples=300)
@given(st.dictionaries(st.one_of(st.text(max_size=3), st.sampled_from(["n", "s", "l"])), json_values, max_size=5))
def test_no_condition_raises_and_only_true_is_true(some: dict[str, Any]) -> None:
    """A condition and its opposite are true and false, or both errors: an error never passes for a value."""
    fixed = {"action.name": "", "action.server": "", "action.tool": "", "action.surface": "", "agent.name": "bob",
             "agent.groups": [], "agent.owner": ""}  # fmt: skip
    facts = Facts(fixed, some, {}, 0.0)
    for text in ("args.n > 3", "args.s == 'a'", "args.l.exists(x, x == 1)", "has(args.n)", "args.l.size() > 1"):
        one, other = compile_condition(text).truth(facts), compile_condition(f"!({text})").truth(facts)
        assert {one, other} in ({Truth.TRUE, Truth.FALSE}, {Truth.ERROR})


yaml_pieces = st.sampled_from(
    ["applies_to", "rules", "id", ": ", "\n", "\n  ", "- ", "{", "}", "[", "]", ", ", "'", '"', "|\n", ">", "&a ", "*a",
     "!x ", "<<", "? ", "%", "---\n", "#", "\t", "\x00", "1", "-0.5", ".inf", "2026-01-01", "null", "\ud83d", "é"]
)  # fmt: skip


@settings(max_examples=300)
@given(
    st.one_of(
        st.binary(max_size=60),
        st.lists(yaml_pieces, max_size=25).map(lambda p: "".join(p).encode("utf-8", "surrogatepass")),
    )
)
def test_any_bytes_are_nodes_or_problems(data: bytes) -> None:
    source = parse("file.yaml", data)
    assert (source.root is None) == bool(source.problems)
    problems = Problems()
    if source.root is not None:
        POLICY.read(source.root, Page(source.lines, problems, {}))
    for line in problems.lines():
        assert line.startswith("file.yaml:") and "\n" not in line and "; expected " in line


def test_properties_use_the_conditions_of_a_real_file(tmp_path: Path) -> None:
    """The strategies build records directly; this holds them to what the loader makes."""
    from tests.policy_bundles import load

    text = "applies_to: {agents: ['*']}\nrules:\n- {id: a, tools: ['*'], when: args.n > 3, effect: allow, reason: r}\n"
    rule = load(tmp_path, {"policies/p.yaml": text}).policies[0].rules[0]
    assert rule.when is compile_condition("args.n > 3") and rule.failed.effect is Effect.DENY
