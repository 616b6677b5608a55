"""What `gateway policy ...` prints, and with which exit code."""

from __future__ import annotations

import io
import json
from pathlib import Path

from gateway.policy import commands
from tests.policy_bundles import write_bundle

POLICY = """\
applies_to: {groups: [finance]}
rules:
  - {id: known, tools: [bank.transfer], when: args.to == 'dana', unless: args.amount > 50, effect: allow, reason: Ok.}
  - {id: model, tools: [bank.*], surfaces: [model], effect: deny, reason: Not here.}
  - {id: rest, tools: [bank.*], effect: hold, reason: Look at it., approval: {group: finance, expires: 5m}}
"""
FLOOR = "applies_to: {agents: [eve]}\n"
CASES = """\
cases:
  - {name: small passes, agent: bob, tool: bank.transfer, args: {to: dana, amount: 5}, expect: allow, rule: p/known}
  - name: large passes
    agent: bob
    tool: bank.transfer
    args: {to: dana, amount: 51}
    expect: allow
    rule: p/known
  - {name: models, agent: bob, model: gpt-small, expect: allow}
"""


def bundle(folder: Path, cases: str = CASES) -> Path:
    files = {"policies/p.yaml": POLICY, "policies/floor.yaml": FLOOR}
    return write_bundle(folder, files | ({"tests/t.yaml": cases} if cases else {}))


def explain(folder: Path, **words: str) -> tuple[int, str]:
    out = io.StringIO()
    told = {"agent": "bob", "tool": "bank.transfer"} | words
    return commands.explain(bundle(folder), environment={}, out=out, now=0.0, **told), out.getvalue()  # type: ignore[arg-type]


def test_check_counts_what_a_good_bundle_holds(tmp_path: Path) -> None:
    out = io.StringIO()
    assert commands.check(bundle(tmp_path), environment={}, out=out) == 0
    assert "is good: 2 agents, 1 model route, 1 MCP server, 1 HTTP tool, 2 policies, 3 rules" in out.getvalue()


def test_check_notes_agents_without_any_policy(tmp_path: Path) -> None:
    out = io.StringIO()
    folder = write_bundle(tmp_path, {"policies/p.yaml": POLICY})
    assert commands.check(folder, environment={}, out=out) == 0
    assert "note: no policy applies to agent `eve`" in out.getvalue()


def test_check_lists_every_problem(tmp_path: Path) -> None:
    out = io.StringIO()
    folder = write_bundle(tmp_path, {"policies/p.yaml": "applies_to: {agents: [bbo]}\ndefualt: deny\n"})
    assert commands.check(folder, environment={}, out=out) == 1
    lines = out.getvalue().splitlines()
    assert lines[0].startswith(f"{tmp_path}/policies/p.yaml:1:23: found `bbo`")
    assert lines[1].startswith(f"{tmp_path}/policies/p.yaml:2:1: found the key `defualt`")
    assert lines[2] == f"{tmp_path} cannot be used: 2 problems"


def test_check_needs_no_secrets(tmp_path: Path) -> None:
    text = "agents: {bob: {}}\nservers: {a: {url: '${NOT_SET_HERE}', credential: {env: NOT_SET_EITHER}}}\n"
    assert commands.check(write_bundle(tmp_path, {}, bundle=text), environment={}, out=io.StringIO()) == 0


def test_test_shows_expected_beside_got(tmp_path: Path) -> None:
    out = io.StringIO()
    assert commands.test(bundle(tmp_path), environment={}, out=out) == 1
    assert out.getvalue().splitlines() == [
        "ok    small passes",
        "FAIL  large passes",
        f"      {tmp_path}/tests/t.yaml:3:5: bob calls bank.transfer",
        "      expected allow by p/known",
        f"      got      hold by p/rest ({tmp_path}/policies/p.yaml:5:5): Look at it.",
        "FAIL  models",
        f"      {tmp_path}/tests/t.yaml:9:5: bob calls gpt-small",
        "      expected allow",
        "      got      deny: no route, or no policy allows it",
        out.getvalue().splitlines()[9],
        "note: no case is decided by p/model",
    ]
    assert out.getvalue().splitlines()[9].startswith("1 passed, 2 failed, release ")


def test_test_without_cases_is_no_success(tmp_path: Path) -> None:
    out = io.StringIO()
    assert commands.test(bundle(tmp_path, cases=""), environment={}, out=out) == 1
    assert "no test cases" in out.getvalue()


def test_schema_prints_json(tmp_path: Path) -> None:
    for kind in (None, "bundle", "policy", "tests"):
        out = io.StringIO()
        assert commands.schema(kind, out=out) == 0
        assert json.loads(out.getvalue())["$schema"].endswith("2020-12/schema")


def test_explain_says_why_each_rule_does_or_does_not_match(tmp_path: Path) -> None:
    code, text = explain(tmp_path, args_json='{"to": "dana", "amount": 51}')
    assert code == 0
    for line in (
        "agent bob (groups: finance)",
        f"layer floor ({tmp_path}/policies/floor.yaml): does not apply to this agent",
        "  - known (line 3): tool matches bank.transfer, when is true, unless is true",
        "  - model (line 4): not for surface mcp",
        "  > rest (line 5): tool matches bank.*: hold",
        "  = hold",
        "decision hold by p/rest: Look at it.",
        "approval group finance, quorum 1, expires 300s, separation false",
    ):
        assert line in text.splitlines()


def test_explain_shows_rules_that_were_not_asked(tmp_path: Path) -> None:
    _, text = explain(tmp_path, args_json='{"to": "dana", "amount": 5}')
    assert "  > known (line 3): tool matches bank.transfer, when is true, unless is false: allow" in text
    assert "  . rest (line 5): not asked, a rule before it matched" in text


def test_explain_shows_the_error_of_a_condition(tmp_path: Path) -> None:
    _, text = explain(tmp_path, args_json='{"to": "dana"}')
    assert 'unless is an error (NOT_FOUND: Key not found in map : "amount"): denied as condition_error' in text
    assert "decision deny by p/condition_error" in text
    _, text = explain(tmp_path, args_json=json.dumps({"to": "a\0b"}))
    assert "hold a NUL byte" in text


def test_explain_says_when_nothing_speaks(tmp_path: Path) -> None:
    _, text = explain(tmp_path, tool="crm.read")
    assert "  - rest (line 5): no tool matches (bank.*)" in text
    assert "  = abstains (default)" in text
    assert "decision deny by default: no rule allows it" in text


def test_explain_refuses_questions_that_have_no_answer(tmp_path: Path) -> None:
    for words, expected in (
        ({"agent": "bbo"}, "no agent `bbo`; declared are `bob` or `eve`"),
        ({"surface": "smtp"}, "no surface `smtp`; it is `model`, `mcp` or `http`"),
        ({"tool": "transfer"}, "no tool `transfer`; write it as `server.tool`"),
        ({"args_json": "{"}, "the value of --args is refused: not valid JSON"),
        ({"args_json": "[]"}, "the value of --args is not an object"),
        ({"session_json": '{"a": 1, "a": 2}'}, "the value of --session is refused: a duplicate key"),
    ):
        code, text = explain(tmp_path, **words)
        assert code == 2 and expected in text
