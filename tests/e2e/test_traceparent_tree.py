"""One tree per run, whatever names the run: header, `traceparent`, or nothing at all."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from tests.gateways import Running, running_gateway
from tests.upstreams import ModelUpstream, completion, function_call, model_upstream, whole


@pytest.fixture(scope="module")
def upstream() -> Iterator[ModelUpstream]:
    with model_upstream() as running:
        yield running


@pytest.fixture(scope="module")
def gateway(upstream: ModelUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    os.environ["MODEL_URL"] = upstream.url
    try:
        with running_gateway(tmp_path_factory.mktemp("tree")) as running:
            yield running
    finally:
        del os.environ["MODEL_URL"]


def ask(gateway: Running, *messages: str, **headers: str) -> httpx2.Response:
    roles = ("user", "assistant")
    body = {
        "model": "demo-t",
        "messages": [{"role": roles[at % 2], "content": text} for at, text in enumerate(messages)],
    }
    return httpx2.post(f"{gateway.url}/v1/chat/completions", json=body, headers={**gateway.headers(), **headers})


def run(gateway: Running, trace: str, exchanges: int) -> dict[str, Any]:
    deadline = time.monotonic() + 10
    while True:
        answer = httpx2.get(
            f"{gateway.console}/api/runs/{trace}", headers={"authorization": f"Bearer {gateway.approver}"}
        )
        if answer.status_code == 200 and answer.json()["summary"]["exchanges"] == exchanges:
            found: dict[str, Any] = answer.json()
            return found
        assert time.monotonic() < deadline, answer.text


def test_an_agent_that_names_nothing_has_one_tree_per_conversation(gateway: Running, upstream: ModelUpstream) -> None:
    upstream.on("demo-t", whole(completion("fine")))
    turns = [("a question",), ("a question", "fine", "and another"), ("a question", "fine", "b", "fine", "c")]
    traces = {ask(gateway, *turn).headers["x-gateway-trace"] for turn in turns}
    assert len(traces) == 1
    assert ask(gateway, "something else").headers["x-gateway-trace"] not in traces


def test_a_named_run_is_one_tree_and_keeps_its_name(gateway: Running, upstream: ModelUpstream) -> None:
    upstream.on("demo-t", whole(completion(None, [function_call("search", {"q": "x"})])))
    traces = {ask(gateway, f"turn {turn}", **{"x-gateway-run": "job-7"}).headers["x-gateway-trace"] for turn in (1, 2)}
    assert len(traces) == 1
    tree = run(gateway, traces.pop(), 2)
    assert "job-7" in str(tree) and "local.search" in str(tree)


def test_the_callers_trace_is_joined_and_the_gateways_own_span_sent_on(
    gateway: Running, upstream: ModelUpstream
) -> None:
    upstream.on("demo-t", whole(completion("fine")))
    trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    for _ in range(2):
        assert ask(gateway, "x", traceparent=f"00-{trace}-{parent}-00").headers["x-gateway-trace"] == trace
    spans = {seen.headers["traceparent"] for seen in upstream.seen if trace in seen.headers["traceparent"]}
    assert len(spans) == 2 and not any(parent in span for span in spans)
    assert all(span.endswith("-01") for span in spans), "a caller cannot switch the record off"
    run(gateway, trace, 2)


@pytest.mark.parametrize(
    "bad", ["", "x", "00-" + "0" * 32 + "-b7ad6b7169203331-01", "ff-" + "1" * 32 + "-b7ad6b7169203331-01"]
)
def test_a_traceparent_that_is_none_is_ignored(gateway: Running, upstream: ModelUpstream, bad: str) -> None:
    upstream.on("demo-t", whole(completion("fine")))
    assert len(ask(gateway, "x", traceparent=bad).headers["x-gateway-trace"]) == 32


@pytest.mark.parametrize("bad", ["a b", "é", "x" * 129])
def test_a_run_name_that_cannot_be_kept_is_refused(gateway: Running, bad: str) -> None:
    headers = {**gateway.headers(), "x-gateway-run": bad.encode("utf-8").decode("latin-1")}
    answer = httpx2.get(
        f"{gateway.url}/v1/models", headers=[(k.encode(), v.encode("latin-1")) for k, v in headers.items()]
    )
    assert answer.status_code == 400 and answer.json()["error"]["code"] == "bad_run"
