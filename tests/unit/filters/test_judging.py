"""Rules over findings: selection, first match inside a policy, strictest across, and failures as rules declare them."""

from __future__ import annotations

import asyncio

import pytest

from gateway.core.action import Surface
from gateway.core.decision import FailureMode
from gateway.core.errors import FilterError
from gateway.core.exchange import Direction, Origin
from gateway.core.filtering import FilterAction, FilterRule, apply_edits
from gateway.filters import Scanner, judge, judge_async, plan
from tests.filter_support import MASK_ALL, rule, scanner, verdict

MAIL = "mail amy@example.com now"
TOKEN = "gh" + "p_" + "a1B2" * 9


class Broken(Scanner):
    def scan(self, text: str) -> tuple[()]:
        raise FilterError("filter_failed", "a filter failed")


def masked(text: str, *rules: FilterRule) -> str:
    return apply_edits(text, verdict(text, rules).edits)


def test_mask_puts_a_placeholder_in_place() -> None:
    text = f"{MAIL}, {TOKEN}, 4012888888881881"
    assert masked(text, rule()) == "mail <EMAIL> now, <SECRET>, <CARD>"


def test_rules_select_kinds_by_glob() -> None:
    text = f"{MAIL} {TOKEN}"
    assert masked(text, rule(FilterAction.MASK, "pii.*")) == f"mail <EMAIL> now {TOKEN}"
    assert masked(text, rule(FilterAction.MASK, "secret.github_*")) == f"{MAIL} <SECRET>"
    assert masked(text, rule(FilterAction.MASK, "secret.gitlab_*")) == text


def test_first_rule_of_a_policy_decides() -> None:
    exception = rule(FilterAction.RECORD, "pii.email", name="exception")
    assert masked(MAIL, exception, rule()) == MAIL
    assert [finding.kind for finding in verdict(MAIL, (exception, rule())).findings] == ["pii.email"]
    assert masked(MAIL, rule(), exception) == "mail <EMAIL> now"


def test_strictest_policy_wins() -> None:
    lenient, strict = rule(FilterAction.RECORD, policy="a"), rule(FilterAction.DENY, policy="b")
    for rules in ((lenient, strict), (strict, lenient), (rule(), strict)):
        result = verdict(MAIL, rules)
        assert result.denied is strict
        assert result.edits == ()


def test_findings_that_no_rule_selects_are_not_reported() -> None:
    assert verdict(MAIL, (rule(FilterAction.MASK, "pii.card"),)).findings == ()


def test_score_below_the_minimum_goes_to_the_next_rule() -> None:
    sure = rule(FilterAction.DENY, "pii.*", name="sure", score_min=0.9)
    loose = rule(FilterAction.RECORD, "pii.*", name="loose")
    assert verdict(MAIL, (sure, loose)).denied is sure
    assert verdict("call (415) 555-2671", (sure, loose)).denied is None
    assert len(verdict("call (415) 555-2671", (sure, loose)).findings) == 1


def test_rules_select_places() -> None:
    base = {"policy": "p", "id": "r", "action": FilterAction.MASK, "reason": "r", "kinds": ("*",)}
    at = {"surface": Surface.MODEL, "direction": Direction.REQUEST, "origin": Origin.USER}
    other = {"surface": Surface.MCP, "direction": Direction.RESPONSE, "origin": Origin.TOOL_RESULT}
    for key, many in (("surface", "surfaces"), ("direction", "directions"), ("origin", "origins")):
        rules = (FilterRule(**base, **{many: frozenset({at[key]})}),)  # type: ignore[arg-type]
        assert not plan(rules, **at).is_empty  # type: ignore[arg-type]
        assert plan(rules, **(at | {key: other[key]})).is_empty  # type: ignore[arg-type]


def test_rule_with_tools_applies_to_those_tools_only() -> None:
    rules = (FilterRule(policy="p", id="r", action=FilterAction.MASK, reason="r", kinds=("*",), tools=("bank.*",)),)

    def edits(tool: str | None) -> int:
        found = judge(
            rules,
            scanner(),
            MAIL,
            origin=Origin.TOOL_ARGS,
            direction=Direction.REQUEST,
            surface=Surface.MCP,
            tool=tool,
        )
        return len(found.edits)

    assert [edits("bank.pay"), edits("mail.send"), edits(None)] == [1, 0, 0]


def test_without_rules_nothing_is_inspected() -> None:
    assert verdict(MAIL, (), Broken()).findings == ()


def test_failure_denies_unless_every_rule_fails_open() -> None:
    open_ = rule(on_error=FailureMode.OPEN)
    with pytest.raises(FilterError):
        verdict(MAIL, MASK_ALL, Broken())
    with pytest.raises(FilterError):
        verdict(MAIL, (open_, rule(policy="other")), Broken())
    result = verdict(MAIL, (open_,), Broken())
    assert result.failed_open and not result.edits


def test_plans_are_remembered_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.filters.judging._PLANS_MAX", 10)
    at = {"surface": Surface.MCP, "direction": Direction.REQUEST, "origin": Origin.TOOL_ARGS}
    rules = (FilterRule(policy="p", id="r", action=FilterAction.MASK, reason="r", kinds=("*",), tools=("a.*",)),)
    first = plan(rules, tool="a.b", **at)  # type: ignore[arg-type]
    assert plan(rules, tool="a.b", **at) is first  # type: ignore[arg-type]
    for number in range(50):
        plan(rules, tool=f"a.{number}", **at)  # type: ignore[arg-type]
        plan((rule(name=str(number)),), **at)  # type: ignore[arg-type]
    from gateway.filters import judging

    assert len(judging._plans) <= 10
    assert all(len(plans.by_place) <= 10 for plans in judging._plans.values())


@pytest.mark.parametrize("text", [MAIL, f"{MAIL} " * 2000])
def test_judging_with_pauses_says_the_same(text: str) -> None:
    at = {"surface": Surface.MODEL, "direction": Direction.RESPONSE, "origin": Origin.ASSISTANT}
    assert asyncio.run(judge_async(MASK_ALL, scanner(), text, **at)) == verdict(text)  # type: ignore[arg-type]
