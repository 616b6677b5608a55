"""One reader for the data cases beside it: what a bundle decides, and what is said about a bundle that is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from gateway.core.action import Surface
from gateway.core.errors import PolicyLoadError
from tests.policy_bundles import BUNDLE, decide, load

HERE = Path(__file__).parent
KINDS = ("pii.email", "pii.card", "pii.iban", "secret.github_token")


def cases(folder: str) -> list[Any]:
    return [
        pytest.param(case, id=f"{file.stem}: {case['name']}")
        for file in sorted((HERE / folder).glob("*.yaml"))
        for case in YAML(typ="safe", pure=True).load(file.read_text(encoding="utf-8"))
    ]


def load_case(folder: Path, case: dict[str, Any]) -> Any:
    files = {f"{kind}/{name}.yaml": text for kind in ("policies", "tests") for name, text in case.get(kind, {}).items()}
    files |= case.get("files", {})
    return load(
        folder, files, bundle=case.get("bundle", BUNDLE), environment=case.get("environment", {}), known_kinds=KINDS
    )


@pytest.mark.parametrize("case", cases("problems"))
def test_problem_is_reported_at_its_place(case: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(PolicyLoadError) as caught:
        load_case(tmp_path, case)
    assert [line.removeprefix(f"{tmp_path}/") for line in caught.value.problems] == case["problems"]
    for word in case.get("never", ()):
        assert word not in caught.value.message


@pytest.mark.parametrize("case", cases("decisions"))
def test_bundle_decides(case: dict[str, Any], tmp_path: Path) -> None:
    policies = load_case(tmp_path, case)
    for call in case["calls"]:
        told = call.get("why", call)
        surface = Surface(call.get("surface", "mcp"))
        arguments = {**call.get("args", {}), **{k: "x" * n for k, n in call.get("long_args", {}).items()}}
        decision = decide(
            policies, call.get("agent", "bob"), call["tool"], arguments, surface=surface, session=call.get("session")
        )
        assert decision.effect == call["effect"], told
        rules = [f"{reason.policy}/{reason.rule}" for reason in decision.reasons]
        assert rules == call.get("rules", rules), told
        assert (decision.terms is not None) == (decision.effect == "hold"), told
        for name, expected in call.get("terms", {}).items():
            assert getattr(decision.terms, name) == expected, told
        if "obligations" in call:
            given = [[obligation.kind, dict(obligation.parameters)] for obligation in decision.obligations]
            assert given == call["obligations"], told
        view = policies.agent(call.get("agent", "bob"))
        offered = policies.may_use(view, call["tool"], surface)
        assert offered == call.get("offered", offered), told
        assert offered or decision.effect == "deny", told
        assert decision.release == policies.release
