"""What a Prometheus sees of a whole gateway, and what it must not see."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator

import httpx2
import pytest

from gateway.traces.metrics import NAMES
from tests.gateways import BUNDLE, Running, running_gateway

SAMPLE = re.compile(r'([a-z_]+)(\{[a-z]+="(?:\\.|[^"\\\n])*"(?:,[a-z]+="(?:\\.|[^"\\\n])*")*\})? ([0-9.e+-]+)')
MADE_UP = "notifications/ask-4111111111111111"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("metrics")
    shutil.copytree(BUNDLE, folder / "bundle")
    with running_gateway(folder, bundle=folder / "bundle") as running:
        yield running


def scrape(gateway: Running) -> dict[str, float]:
    answer = httpx2.get(f"{gateway.console}/metrics")
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    found = {}
    for line in answer.text.splitlines():
        if not line.startswith("#"):
            sample = SAMPLE.fullmatch(line)
            assert sample, line
            found[sample[1] + (sample[2] or "")] = float(sample[3])
    return found


def eventually(gateway: Running, name: str, value: float) -> dict[str, float]:
    """The scrape in which a number is as expected: records are counted a moment after the answer."""
    deadline = time.monotonic() + 10
    while (found := scrape(gateway)).get(name) != value:
        assert time.monotonic() < deadline, (name, found.get(name))
    return found


def test_numbers_follow_what_happens_and_hold_nothing_that_agents_wrote(gateway: Running) -> None:
    headers = gateway.headers()
    call = {"jsonrpc": "2.0", "method": MADE_UP, "params": {"to": "x@example.com"}}
    assert httpx2.delete(f"{gateway.url}/tools/crm/contacts/secret-id", headers=headers).status_code == 202
    assert httpx2.get(f"{gateway.url}/tools/crm/contacts/secret-id", headers=headers).status_code == 502
    httpx2.post(f"{gateway.url}/mcp/bank", headers=headers, json=call)
    found = eventually(gateway, 'gateway_traces_records_total{outcome="stored"}', 3)
    assert found['gateway_exchanges_total{surface="http",operation="DELETE /contacts/{id}",effect="hold"}'] == 1
    assert found['gateway_errors_total{surface="http",code="upstream_connect"}'] == 1
    assert [name for name in found if name.startswith('gateway_exchanges_total{surface="mcp",operation="(other)"')]
    assert found['gateway_held_actions{state="PENDING"}'] == 1 and found['gateway_held_actions{state="DENIED"}'] == 0
    assert found["gateway_store_up"] == 1 and found["gateway_bundle_reload_failed"] == 0
    assert found['gateway_traces_records_total{outcome="dropped"}'] == 0 and found["gateway_traces_queued"] == 0
    assert found["gateway_upstream_requests_total"] > 0 and found['gateway_upstream_connections{state="busy"}'] == 0
    assert found['gateway_filter_texts_total{outcome="inspected"}'] > 0
    text = httpx2.get(f"{gateway.console}/metrics").text
    for word in ("secret-id", "4111", "example.com", *gateway.keys.values(), gateway.approver):
        assert word not in text
    assert {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")} == set(NAMES)


def test_agents_have_no_such_page(gateway: Running) -> None:
    for headers in ({}, gateway.headers()):
        answer = httpx2.get(f"{gateway.url}/metrics", headers=headers)
        assert answer.status_code in {401, 404} and "gateway_" not in answer.text


def test_mistake_in_the_bundle_is_seen_until_it_is_mended(gateway: Running) -> None:
    file = gateway.state_dir / "bundle" / "policies" / "testers.yaml"
    good = file.read_text()
    try:
        file.write_text(good + "defualt: deny\n")
        gateway.loop.call_soon_threadsafe(lambda: gateway.gateway.reload(now=True))
        eventually(gateway, "gateway_bundle_reload_failed", 1)
    finally:
        file.write_text(good)
    gateway.loop.call_soon_threadsafe(lambda: gateway.gateway.reload(now=True))
    eventually(gateway, "gateway_bundle_reload_failed", 0)
