"""What a PolicySet answers beside decisions: routes, functions, limits, views across reloads."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.core.action import Action, Surface
from gateway.core.decision import Effect
from gateway.core.errors import PolicyLoadError
from gateway.core.filtering import FilterAction
from gateway.policy import PolicySet, load_bundle, policyset
from tests.policy_bundles import BUNDLE, decide, load, write_bundle

ALLOW_ALL = "applies_to: {agents: ['*']}\ndefault: allow\n"


def test_models_need_a_route_and_a_policy(tmp_path: Path) -> None:
    policies = load(
        tmp_path,
        {
            "policies/a.yaml": "applies_to: {agents: [bob]}\nmodels: ['gpt-*', 'claude-*']\n",
            "policies/b.yaml": "applies_to: {groups: [finance]}\nmodels: ['*small', 'claude-*']\n",
            "policies/c.yaml": "applies_to: {agents: [bob]}\n",
        },
    )
    bob, eve = policies.agent("bob"), policies.agent("eve")
    assert bob is not None and eve is not None
    route = policies.route(bob, "gpt-small")
    assert route is not None and route.name == "main" and route.upstream_model("gpt-small") == "gpt-small"
    assert policies.route(bob, "gpt-large") is None, "one layer with a list does not have it"
    assert policies.route(bob, "claude-1") is None, "allowed, but nothing serves it"
    assert policies.route(eve, "gpt-small") is None, "no layer says that eve may"
    assert policies.visible_models(bob) == ("gpt-small",)
    assert policies.visible_models(eve) == ()


def test_names_as_long_as_a_caller_likes_are_not_remembered(tmp_path: Path) -> None:
    policies = load(tmp_path, {"policies/a.yaml": "applies_to: {agents: [bob]}\nmodels: ['*']\ndefault: allow\n"})
    bob = policies.agent("bob")
    assert bob is not None
    assert policies.route(bob, "gpt-" + "x" * 1_000_000) is None
    assert policies.may_use(bob, "local." + "x" * 1_000_000, Surface.MODEL)
    assert not bob._routes and not bob._plans


def test_extra_paths_need_a_route_and_a_policy(tmp_path: Path) -> None:
    policies = load(tmp_path, {"policies/a.yaml": "applies_to: {agents: [bob]}\npaths: [/embeddings]\n"})
    bob, eve = policies.agent("bob"), policies.agent("eve")
    assert bob is not None and eve is not None
    route = policies.passthrough(bob, "POST", "/embeddings")
    assert route is not None and route.name == "main"
    for agent, method, path in (
        (bob, "GET", "/embeddings"),
        (bob, "POST", "/files"),
        (bob, "POST", "/embeddings/"),
        (eve, "POST", "/embeddings"),
    ):
        assert policies.passthrough(agent, method, path) is None


def test_renamed_and_literal_models_are_listed(tmp_path: Path) -> None:
    bundle = """\
agents: {bob: {}}
models:
  - {name: a, match: [one, 'two-*'], url: 'http://h/v1', rename: {two-x: real}, offers: [two-y]}
"""
    policies = load(tmp_path, {"policies/a.yaml": "applies_to: {agents: ['*']}\nmodels: ['*']\n"}, bundle=bundle)
    bob = policies.agent("bob")
    assert bob is not None
    assert policies.visible_models(bob) == ("one", "two-x", "two-y")
    assert policies.models[0].upstream_model("two-x") == "real"


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        ("pay", ("bank", "transfer")),
        ("bank__transfer", ("bank", "transfer")),
        ("bank__a__b", ("bank", "a__b")),
        ("crm__read", ("crm", "read")),
        ("other__x", ("local", "other__x")),
        ("bank__", ("local", "bank__")),
        ("__x", ("local", "__x")),
        ("local__x", ("local", "local__x")),
        ("shell", ("local", "shell")),
        ("a.b", ("local", "a.b")),
    ],
)
def test_function_names_mean_tools(tmp_path: Path, function: str, expected: tuple[str, str]) -> None:
    assert load(tmp_path, {}).resolve_function(function) == expected


def test_gateway_executes_declared_servers_only(tmp_path: Path) -> None:
    policies = load(tmp_path, {})
    assert policies.executes("bank") and policies.executes("crm")
    assert not policies.executes("local") and not policies.executes("other")


def test_lowest_limit_of_the_layers_holds_and_defaults_fill_up(tmp_path: Path) -> None:
    policies = load(
        tmp_path,
        {
            "policies/a.yaml": "applies_to: {agents: [bob]}\nlimits: {requests_per_minute: 900}\n",
            "policies/b.yaml": "applies_to: {agents: [bob]}\nlimits: {requests_per_minute: 500, tokens_per_day: 7}\n",
        },
        bundle=BUNDLE + "limits: {requests_per_minute: 60, tokens_per_minute: 5}\n",
    )
    bob, eve = policies.agent("bob"), policies.agent("eve")
    assert bob is not None and eve is not None
    assert bob.limits.requests_per_minute == 500
    assert (bob.limits.tokens_per_minute, bob.limits.tokens_per_day) == (5, 7)
    assert (eve.limits.requests_per_minute, eve.limits.tokens_per_day) == (60, None)


def test_filter_rules_and_stripping_come_from_all_layers(tmp_path: Path) -> None:
    policies = load(
        tmp_path,
        {
            "policies/a.yaml": "applies_to: {agents: ['*']}\nfilters:\n"
            "- {id: m, kinds: [pii.email], action: mask, reason: r, tools: [bank.*], score_min: 0.5, on_error: open}\n",
            "policies/b.yaml": "applies_to: {agents: [bob]}\nstrip_denied_tools: true\nfilters:\n"
            "- {id: d, kinds: ['secret.*'], action: deny, reason: r, origins: [tool_args], directions: [request]}\n",
        },
    )
    bob, eve = policies.agent("bob"), policies.agent("eve")
    assert bob is not None and eve is not None
    assert [(rule.policy, rule.id, rule.action) for rule in bob.filter_rules] == [
        ("a", "m", FilterAction.MASK),
        ("b", "d", FilterAction.DENY),
    ]
    assert bob.filter_rules[0].score_min == 0.5 and bob.filter_rules[0].on_error == "open"
    assert bob.strip_denied_tools and not eve.strip_denied_tools
    assert len(eve.filter_rules) == 1


def test_unknown_agent_has_no_view(tmp_path: Path) -> None:
    assert load(tmp_path, {}).agent("mallory") is None


def test_view_from_before_a_reload_decides_by_the_new_rules(tmp_path: Path) -> None:
    before = load(tmp_path, {"policies/a.yaml": ALLOW_ALL + "models: ['*']\npaths: ['*']\n"})
    old = before.agent("bob")
    assert old is not None
    after = load(tmp_path, {"policies/a.yaml": "applies_to: {agents: ['*']}\ndefault: deny\n"})
    action = Action(surface=Surface.MCP, server="bank", tool="x", arguments={})
    assert before.decide(old, action, {}, now=0).effect is Effect.ALLOW
    decision = after.decide(old, action, {}, now=0)
    assert (decision.effect, decision.release) == (Effect.DENY, after.release)
    assert not after.may_use(old, "bank.x", Surface.MCP)
    assert after.route(old, "gpt-small") is None
    assert after.passthrough(old, "POST", "/embeddings") is None
    assert before.decide(old, action, {}, now=0).effect is Effect.ALLOW, "the old set stays as it was"


def test_view_of_an_agent_that_is_gone_is_denied_everything(tmp_path: Path) -> None:
    before = load(tmp_path, {"policies/a.yaml": ALLOW_ALL})
    old = before.agent("eve")
    assert old is not None
    after = load(tmp_path, {}, bundle="agents: {bob: {}}\nservers: {bank: {url: 'http://h'}}\n")
    action = Action(surface=Surface.MCP, server="bank", tool="x", arguments={})
    assert after.decide(old, action, {}, now=0).effect is Effect.DENY
    assert not after.may_use(old, "bank.x", Surface.MCP)


def test_what_is_remembered_about_tools_does_not_grow_for_ever(tmp_path: Path) -> None:
    policies = load(tmp_path, {"policies/a.yaml": ALLOW_ALL})
    for number in range(policyset.PLANS_MAX + 10):
        assert decide(policies, "bob", f"bank.tool{number}").effect is Effect.ALLOW
    view = policies.agent("bob")
    assert view is not None and len(view._plans) <= policyset.PLANS_MAX


def test_release_follows_every_file_and_nothing_else(tmp_path: Path) -> None:
    def release(files: dict[str, str], folder: str = "x") -> str:
        return load(tmp_path / folder, files).release

    first = release({"policies/a.yaml": ALLOW_ALL})
    assert first == release({"policies/a.yaml": ALLOW_ALL}, "y"), "the same files elsewhere are the same release"
    assert first != release({"policies/a.yaml": ALLOW_ALL + "# why\n"}, "z")
    (tmp_path / "y" / "policies" / ".a.yaml.swp").write_text("x")
    (tmp_path / "y" / "policies" / "a.yaml~").write_text("x")
    assert first == load_bundle(tmp_path / "y", environment={}).release


def test_credential_values_do_not_show(tmp_path: Path) -> None:
    bundle = "agents: {bob: {}}\nservers: {a: {url: 'http://h', credential: {env: TOKEN, header: X-Api-Key}}}\n"
    policies = load(tmp_path, {}, bundle=bundle, environment={"TOKEN": "hunter2"})
    credential = policies.servers["a"].credential
    assert credential is not None
    assert credential.headers() == ((b"x-api-key", b"hunter2"),)
    assert credential.name == "env:TOKEN"
    assert "hunter2" not in repr(policies)


def test_caller_key_travels_only_where_the_operator_lets_it(tmp_path: Path) -> None:
    bundle = "agents: {bob: {}}\nmodels: [{name: a, match: ['*'], url: 'http://h', credential: {passthrough: true}}]\n"
    credential = load(tmp_path, {}, bundle=bundle).models[0].credential
    assert credential is not None and credential.passthrough and not credential.optional
    assert credential.headers("sk-1") == ((b"authorization", b"Bearer sk-1"),)
    assert credential.headers() == ()


def test_missing_folder_and_missing_variables_are_told(tmp_path: Path) -> None:
    with pytest.raises(PolicyLoadError) as caught:
        load_bundle(tmp_path / "nowhere", environment={})
    assert "bundle.yaml" in caught.value.message
    bundle = "agents: {bob: {}}\nservers: {a: {url: '${U}', credential: {env: T}}}\n"
    with pytest.raises(PolicyLoadError):
        load(tmp_path, {}, bundle=bundle)
    assert isinstance(load(tmp_path, {}, bundle=bundle, lenient=True), PolicySet)


def test_obligation_that_the_gateway_cannot_meet_is_a_problem(tmp_path: Path) -> None:
    """Accepted at load, it would deny every call at run time."""
    text = "applies_to: {agents: [bob]}\nrules:\n- {id: a, tools: [bank.x], effect: allow, reason: r, "
    files = {"policies/a.yaml": text + "obligations: [{kind: cap_result, bytes: 5}]}\n"}
    assert load(tmp_path, files, known_obligations={"cap_result"}).policies
    with pytest.raises(PolicyLoadError, match="3:75: found `cap_result`; expected what this gateway can do: nothing"):
        load(tmp_path, files, known_obligations=frozenset())


def test_files_are_bounded(tmp_path: Path) -> None:
    write_bundle(tmp_path, {"policies/big.yaml": "#" * 300_000})
    with pytest.raises(PolicyLoadError, match="too large"):
        load_bundle(tmp_path, environment={})
    (tmp_path / "policies" / "big.yaml").unlink()
    for number in range(201):
        (tmp_path / "policies" / f"p{number}.yaml").write_text(ALLOW_ALL)
    with pytest.raises(PolicyLoadError, match="more than 200 files"):
        load_bundle(tmp_path, environment={})


def test_problems_are_listed_up_to_a_bound(tmp_path: Path) -> None:
    rules = "".join(f"- {{id: r{n}, tools: [nope.x], effect: allow, reason: r}}\n" for n in range(300))
    with pytest.raises(PolicyLoadError) as caught:
        load(tmp_path, {"policies/a.yaml": "applies_to: {agents: ['*']}\nrules:\n" + rules})
    assert len(caught.value.problems) == 201
    assert caught.value.problems[-1] == "... and 100 more problems; mend these first"
