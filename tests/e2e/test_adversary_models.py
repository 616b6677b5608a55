"""What an agent or a model endpoint might try on the model surface: each of these once got through."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from tests.e2e.test_model_surface import ask, post
from tests.gateways import Running, running_gateway
from tests.upstreams import ModelUpstream, completion, events, function_call, model_upstream, stream, whole

BUNDLE = """\
agents: {tester: {groups: [testers]}}
models:
  - {name: demo, match: ['demo-*', 'dear-*'], url: '${MODEL_URL}', paths: [{path: /embeddings}]}
"""
POLICY = """\
applies_to: {groups: [testers]}
models: ['demo-*']
paths: [/embeddings]
rules:
  - {id: reading, tools: [local.search], effect: allow, reason: Reading changes nothing.}
filters:
  - {id: mask, kinds: [pii.email], action: mask, reason: Addresses stay here.}
  - {id: keys, kinds: [secret.github_token], action: deny, reason: Keys stay here.}
"""
GITHUB = "ghp_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8"


@pytest.fixture(scope="module")
def upstream() -> Iterator[ModelUpstream]:
    with model_upstream() as running:
        yield running


@pytest.fixture(scope="module")
def gateway(upstream: ModelUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    bundle = tmp_path_factory.mktemp("bundle")
    (bundle / "policies").mkdir()
    (bundle / "bundle.yaml").write_text(BUNDLE)
    (bundle / "policies" / "testers.yaml").write_text(POLICY)
    os.environ["MODEL_URL"] = upstream.url
    try:
        with running_gateway(tmp_path_factory.mktemp("state"), agents=("tester",), bundle=bundle) as running:
            yield running
    finally:
        del os.environ["MODEL_URL"]


@pytest.mark.parametrize(
    "field",
    [
        {"models": ["dear-a"]},
        {"fallbacks": ["dear-a"]},
        {"fallbacks": [{"model": "dear-a"}]},
        {"fallbacks": [{"demo-a": ["dear-a"]}]},
        {"context_window_fallbacks": [{"demo-a": ["dear-a"]}]},
    ],
)
@pytest.mark.parametrize("path", ["chat/completions", "embeddings"])
def test_no_other_model_is_named_in_passing(gateway: Running, upstream: ModelUpstream, path: str, field: Any) -> None:
    before = len(upstream.seen)
    body = {**ask("demo-a"), "input": "x", **field}
    refused = httpx2.post(f"{gateway.url}/v1/{path}", json=body, headers=gateway.headers())
    assert (refused.status_code, refused.json()["error"]["code"]) == (404, "model_not_found")
    assert len(upstream.seen) == before


@pytest.mark.parametrize("path", ["chat/completions", "embeddings"])
@pytest.mark.parametrize("field", [{"Model": "dear-a"}, {"MODELS": ["dear-a"]}, {"\u017ftream": True}])
def test_members_of_another_case_do_not_leave(
    gateway: Running, upstream: ModelUpstream, path: str, field: dict[str, Any]
) -> None:
    """Model servers in Go would take them for what was decided on; the last one wins."""
    before = len(upstream.seen)
    body = {**ask("demo-a"), "input": "x", **field}
    refused = httpx2.post(f"{gateway.url}/v1/{path}", json=body, headers=gateway.headers())
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "alike_names")
    assert len(upstream.seen) == before


def test_arguments_that_differ_in_case_alone_are_not_proposed(gateway: Running, upstream: ModelUpstream) -> None:
    answer = completion(None, [function_call("search", {"q": "x", "Q": "y"})])
    upstream.on("demo-a", whole(answer))
    message = post(gateway, ask("demo-a")).json()["choices"][0]["message"]
    assert "tool_calls" not in message and "NOT EXECUTED" in message["content"]


SHELL = function_call("shell", {"cmd": "x"})
SEARCH = function_call("search", {"q": "x"})


@pytest.mark.parametrize(
    "message",
    [
        {"Tool_Calls": [SHELL]},
        {"tool_calls": [{**SEARCH, "Function": SHELL["function"]}]},
        {"tool_calls": [{**SEARCH, "function": {**SEARCH["function"], "Name": "shell"}}]},
        {"tool_calls": [{**SEARCH, "function": {**SEARCH["function"], "Arguments": '{"cmd":"x"}'}}]},
        {"FUNCTION_CALL": SHELL["function"]},
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
def test_calls_in_names_of_another_case_do_not_pass(
    gateway: Running, upstream: ModelUpstream, message: Any, streamed: bool
) -> None:
    """Agents in Go read names whatever their case."""
    if streamed:
        calls = [{"index": 0, **call} for call in message.get("tool_calls", ())]
        delta = {**message, **({"tool_calls": calls} if calls else {})}
        upstream.on("demo-a", *stream(*events(delta, finish="tool_calls")))
    else:
        answer = completion(None)
        answer["choices"][0]["message"] |= message
        upstream.on("demo-a", whole(answer))
    response = post(gateway, ask("demo-a", stream=streamed))
    assert "shell" not in response.text and "cmd" not in response.text
    assert "upstream_protocol" in response.text


def test_words_of_an_upstreams_error_go_through_the_filters(gateway: Running, upstream: ModelUpstream) -> None:
    for words, shown in ((f"no {GITHUB}", None), ("ask ann@example.com", "ask <EMAIL>")):
        body = json.dumps({"error": {"message": words, "code": "bad"}}).encode()
        head = b"HTTP/1.1 400 X\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        upstream.on("demo-a", head % len(body) + body)
        response = post(gateway, ask("demo-a"))
        assert words not in response.text
        error = response.json()["error"]
        assert (error["message"], response.status_code) == (shown, 400) if shown else error["code"] == "content_denied"
