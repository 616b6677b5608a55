"""Policies are edited while the gateway runs: a good edit is in force, a bad one changes nothing and is told loudly."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest

from gateway.policy.identity import mint, revoke
from tests.gateways import BUNDLE, GatewayProcess
from tests.upstreams import completion, function_call, model_upstream, whole


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    folder = tmp_path_factory.mktemp("reload")
    shutil.copytree(BUNDLE, folder / "bundle")
    with model_upstream() as upstream:
        upstream.on("demo-a", whole(completion(None, [function_call("search", {"q": "x"})])))
        running = GatewayProcess(folder / "state", bundle=folder / "bundle", MODEL_URL=upstream.url)
        running.start()
        try:
            yield running
        finally:
            running.stop()


def policy(gateway: GatewayProcess) -> Path:
    return Path(gateway.environment["GATEWAY_BUNDLE"]) / "policies" / "testers.yaml"


def search_is_allowed(gateway: GatewayProcess) -> bool:
    answer = httpx2.post(
        f"{gateway.url}/v1/chat/completions",
        json={"model": "demo-a", "messages": [{"role": "user", "content": "x"}]},
        headers={"authorization": f"Bearer {gateway.key}"},
    )
    assert answer.status_code == 200, answer.text
    return "tool_calls" in answer.json()["choices"][0]["message"]


def ready(gateway: GatewayProcess) -> dict[str, object]:
    found: dict[str, object] = httpx2.get(f"{gateway.url}/readyz").json()
    return found


def until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 15
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_an_edit_is_in_force_within_seconds_and_a_bad_one_never(gateway: GatewayProcess) -> None:
    text = policy(gateway).read_text()
    assert search_is_allowed(gateway)
    release = ready(gateway)["release"]

    policy(gateway).write_text(text.replace("[local.search, ", "["))
    until(lambda: ready(gateway)["release"] != release)
    assert not search_is_allowed(gateway)
    strict = ready(gateway)["release"]

    policy(gateway).write_text(text.replace("effect: allow", "efect: allow"))
    until(lambda: ready(gateway)["bundle"] == "reload_failed")
    assert ready(gateway)["release"] == strict and ready(gateway)["status"] == "ready"
    assert not search_is_allowed(gateway), "the last good release stays in force"
    log = gateway.log.read_text()
    assert "bundle NOT reloaded" in log and "testers.yaml:9:5" in log and "`effect`" in log
    problems = gateway.api("/api/status")
    assert "testers.yaml:9:5" in str(problems)
    page = httpx2.get(f"{gateway.console}/approvals", follow_redirects=True)
    assert "testers.yaml" not in page.text, "only people who signed in see the files"

    policy(gateway).write_text(text)
    until(lambda: ready(gateway)["release"] == release)
    assert ready(gateway)["bundle"] == "in_force" and search_is_allowed(gateway)


def test_sighup_loads_at_once(gateway: GatewayProcess) -> None:
    release = ready(gateway)["release"]
    text = policy(gateway).read_text()
    policy(gateway).write_text(text.replace("Reading changes nothing.", "Reading is harmless."))
    assert gateway.process is not None
    gateway.process.send_signal(signal.SIGHUP)
    until(lambda: ready(gateway)["release"] != release)
    policy(gateway).write_text(text)
    gateway.process.send_signal(signal.SIGHUP)
    until(lambda: ready(gateway)["release"] == release)


def test_a_key_made_while_it_runs_works_and_a_revoked_one_stops(gateway: GatewayProcess) -> None:
    keys = gateway.state_dir / "keys.yaml"
    token = mint(keys, "agent", "tester")

    def status() -> int:
        return httpx2.get(f"{gateway.url}/v1/models", headers={"authorization": f"Bearer {token}"}).status_code

    until(lambda: status() == 200)
    assert revoke(keys, "agent", token.split("_")[1]) == 1
    until(lambda: status() == 401)
    assert search_is_allowed(gateway), "the other key still works"
