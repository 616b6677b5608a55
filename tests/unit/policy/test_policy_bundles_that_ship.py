"""The bundles in policies/ load with the filters that exist, and their own cases pass."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.core.action import Surface
from gateway.core.exchange import Origin
from gateway.core.globs import matches_any
from gateway.filters.kinds import KINDS
from gateway.policy import load_bundle
from gateway.policy.cases import run_cases, unreached_rules

ROOT = Path(__file__).parents[3] / "policies"
BUNDLES = sorted(file.parent for file in ROOT.rglob("bundle.yaml"))


@pytest.mark.parametrize("path", BUNDLES, ids=lambda path: str(path.relative_to(ROOT)))
def test_shipped_bundle_passes_its_own_cases_and_leaves_no_rule_untried(path: Path) -> None:
    policies = load_bundle(path, environment={}, known_kinds=KINDS, lenient=True)
    results = list(run_cases(policies))
    assert results
    assert [result for result in results if not result.passed] == []
    assert unreached_rules(policies, results) == []


def test_there_are_a_starter_and_two_examples() -> None:
    assert [str(path.relative_to(ROOT)) for path in BUNDLES] == ["examples/coding", "examples/support", "starter"]


def test_starter_is_served_without_any_variable_set() -> None:
    policies = load_bundle(ROOT / "starter", environment={}, known_kinds=KINDS)
    assert policies.servers["bank"].base_url == "http://127.0.0.1:9101/mcp"
    assert policies.models[0].base_url == "http://127.0.0.1:9102/v1"
    assert policies.models[0].credential is not None and policies.models[0].credential.headers() == ()


def test_starter_takes_the_addresses_of_the_demo_from_the_environment() -> None:
    environment = {"BANK_URL": "http://127.0.0.1:5/mcp", "MODEL_URL": "http://127.0.0.1:6/v1", "MODEL_API_KEY": "k"}
    policies = load_bundle(ROOT / "starter", environment=environment, known_kinds=KINDS)
    assert policies.servers["bank"].base_url == "http://127.0.0.1:5/mcp"
    route = policies.models[0]
    assert route.base_url == "http://127.0.0.1:6/v1"
    assert route.credential is not None and route.credential.headers() == ((b"authorization", b"Bearer k"),)


def test_starter_shows_the_agent_what_it_may_use_and_nothing_else() -> None:
    policies = load_bundle(ROOT / "starter", environment={})
    agent = policies.agent("bookkeeper")
    assert agent is not None and agent.strip_denied_tools
    tools = ["list_invoices", "read_invoice", "get_balance", "list_payees", "transfer", "delete_payee"]
    offered = [tool for tool in tools if policies.may_use(agent, f"bank.{tool}", Surface.MCP)]
    assert offered == tools[:-1]
    assert policies.visible_models(agent) == ("demo-accountant",)


def test_starter_never_masks_account_numbers_where_a_transfer_needs_them() -> None:
    """Masking the IBAN of an invoice would park a transfer to `<IBAN>`."""
    policies = load_bundle(ROOT / "starter", environment={})
    agent = policies.agent("bookkeeper")
    assert agent is not None
    speaking = [rule for rule in agent.filter_rules if matches_any(rule.kinds, "pii.iban")]
    assert [rule.tools for rule in speaking] == [("bank.list_payees",)]
    assert Origin.TOOL_ARGS not in speaking[0].origins
