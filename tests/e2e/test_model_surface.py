"""Chat Completions through the whole gateway: official SDK as client, a byte-exact endpoint as upstream."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from tests.gateways import Running, running_gateway
from tests.upstreams import CUT, ModelUpstream, completion, events, function_call, model_upstream, stream, whole

MESSAGES: Any = [{"role": "user", "content": "Hello there"}]
SECRET_KEY = "upstream-secret-value"


@pytest.fixture(scope="module")
def upstream() -> Iterator[ModelUpstream]:
    with model_upstream() as running:
        yield running


@pytest.fixture(scope="module")
def gateway(upstream: ModelUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    os.environ["MODEL_URL"], os.environ["MODEL_API_KEY"] = upstream.url, SECRET_KEY
    try:
        with running_gateway(tmp_path_factory.mktemp("model")) as running:
            yield running
    finally:
        del os.environ["MODEL_URL"], os.environ["MODEL_API_KEY"]


@pytest.fixture
def client(gateway: Running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.keys["tester"], max_retries=0) as client:
        yield client


def post(gateway: Running, body: bytes | dict[str, Any], agent: str = "tester", **headers: str) -> httpx2.Response:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return httpx2.post(
        f"{gateway.url}/v1/chat/completions",
        content=data,
        headers={"content-type": "application/json", **gateway.headers(agent), **headers},
        timeout=20,
    )


def ask(model: str, **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": MESSAGES, **more}


# -- what passes


def test_sync_sdk_gets_the_answer_and_each_side_only_its_own_credential(
    client: openai.OpenAI, upstream: ModelUpstream, gateway: Running
) -> None:
    upstream.on("demo-a", whole(completion("Good day.")))
    answer = client.chat.completions.create(model="demo-a", messages=MESSAGES)
    assert answer.choices[0].message.content == "Good day."
    assert answer.usage is not None and answer.usage.total_tokens == 18
    seen = upstream.seen[-1]
    assert seen.line.startswith("POST /v1/chat/completions ")
    assert seen.headers["authorization"] == f"Bearer {SECRET_KEY}"
    assert gateway.keys["tester"] not in str(seen.headers) + seen.body.decode()
    raw = client.chat.completions.with_raw_response.create(model="demo-a", messages=MESSAGES)
    assert SECRET_KEY not in str(raw.headers) and "x-internal" not in raw.headers


def test_unguarded_bodies_are_forwarded_byte_for_byte(gateway: Running, upstream: ModelUpstream) -> None:
    body = (
        b'{ "messages":[{"content":"caf\\u00e9 \xc3\xa9","role":"user"}],\n'
        b' "x_unknown": {"a":[1, 2.50]}, "model":"demo-a"}'
    )
    answer = (
        b'{"choices": [ {"index":0,"message":{"content":"\\u00e9","role":"assistant"},'
        b'"finish_reason":"stop"}], "z":1.0}'
    )
    upstream.on("demo-a", whole(answer))
    response = post(gateway, body)
    assert upstream.seen[-1].body == body
    assert response.status_code == 200 and response.content == answer


def test_streams_that_nothing_touches_are_forwarded_byte_for_byte(gateway: Running, upstream: ModelUpstream) -> None:
    sent = events({"role": "assistant", "content": ""}, {"content": "Hi "}, {"content": "you "}, usage=True)
    upstream.on("demo-s", *stream(*sent))
    response = post(gateway, ask("demo-s", stream=True))
    assert response.content == b"".join(sent)
    assert response.headers["content-type"].startswith("text/event-stream")


def test_async_sdk_streams(gateway: Running, upstream: ModelUpstream) -> None:
    upstream.on(
        "demo-s", *stream(*events({"role": "assistant", "content": ""}, {"content": "One "}, {"content": "two."}))
    )

    async def run() -> str:
        async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.keys["tester"]) as client:
            found = ""
            async for event in await client.chat.completions.create(model="demo-s", messages=MESSAGES, stream=True):
                found += event.choices[0].delta.content or ""
            return found

    assert asyncio.run(run()) == "One two."


def test_model_list_shows_only_what_the_agent_may_use(client: openai.OpenAI, gateway: Running) -> None:
    assert [model.id for model in client.models.list()] == ["demo-a", "demo-b", "own-name"]
    assert client.models.retrieve("demo-a").id == "demo-a"
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.keys["stranger"], max_retries=0) as stranger:
        assert list(stranger.models.list()) == []
        with pytest.raises(openai.NotFoundError):
            stranger.models.retrieve("demo-a")


def test_the_callers_own_key_goes_up_where_the_operator_allows_it(gateway: Running, upstream: ModelUpstream) -> None:
    upstream.on("upstream-name", whole(completion()))
    assert post(gateway, ask("own-name"), **{"x-upstream-key": "my-own"}).status_code == 200
    assert upstream.seen[-1].headers["authorization"] == "Bearer my-own"
    assert upstream.seen[-1].json["model"] == "upstream-name"
    missing = post(gateway, ask("own-name"))
    assert missing.status_code == 401 and missing.json()["error"]["code"] == "upstream_key_missing"
    upstream.on("demo-a", whole(completion()))
    post(gateway, ask("demo-a"), **{"x-upstream-key": "my-own"})
    assert upstream.seen[-1].headers["authorization"] == f"Bearer {SECRET_KEY}", "a caller must not choose the key"


def test_listed_paths_pass_and_every_string_is_inspected(gateway: Running, upstream: ModelUpstream) -> None:
    upstream.on("demo-e", whole({"object": "list", "data": [{"embedding": [0.5, 1]}]}))

    def embed(text: str) -> httpx2.Response:
        return httpx2.post(
            f"{gateway.url}/v1/embeddings", json={"model": "demo-e", "input": [text]}, headers=gateway.headers()
        )

    assert embed("plain words").json()["data"][0]["embedding"] == [0.5, 1]
    embed("write to jane.doe@example.org")
    assert upstream.seen[-1].json["input"] == ["write to <EMAIL>"]
    count = len(upstream.seen)
    assert httpx2.post(f"{gateway.url}/v1/files", json={}, headers=gateway.headers()).status_code == 404
    assert httpx2.get(f"{gateway.url}/v1/embeddings", headers=gateway.headers()).status_code == 404
    assert len(upstream.seen) == count


# -- tool calls


def test_allowed_call_passes_unchanged_denied_one_never_reaches_the_agent(
    client: openai.OpenAI, upstream: ModelUpstream
) -> None:
    calls = [function_call("search", {"q": "x"}, "c1"), function_call("shell", {"cmd": "rm -rf /"}, "c2")]
    upstream.on("demo-c", whole(completion(None, calls)))
    choice = client.chat.completions.create(model="demo-c", messages=MESSAGES).choices[0]
    assert [call.function.name for call in choice.message.tool_calls or []] == ["search"]  # type: ignore[union-attr]
    assert "NOT EXECUTED" in (choice.message.content or "") and "testers/never" in (choice.message.content or "")
    assert "rm -rf" not in str(choice)


def test_calls_of_every_choice_are_decided(gateway: Running, upstream: ModelUpstream) -> None:
    body = completion()
    body["choices"] = [
        {
            "index": n,
            "message": {"role": "assistant", "content": None, "tool_calls": [function_call("shell", {"n": n})]},
            "finish_reason": "tool_calls",
        }
        for n in range(3)
    ]
    upstream.on("demo-c", whole(body))
    answer = post(gateway, ask("demo-c", n=3)).json()
    assert [choice["finish_reason"] for choice in answer["choices"]] == ["stop"] * 3
    assert all("tool_calls" not in choice["message"] for choice in answer["choices"])


@pytest.mark.parametrize("streamed", [False, True])
def test_held_call_is_parked_then_released_once(gateway: Running, upstream: ModelUpstream, streamed: bool) -> None:
    arguments = {"title": f"news {streamed}"}
    if streamed:
        call = function_call("publish", arguments)
        deltas = [
            {"role": "assistant", "content": None},
            {"tool_calls": [{"index": 0, "id": "call_1", "type": "function",
                             "function": {"name": "publish", "arguments": ""}}]},
            *({"tool_calls": [{"index": 0, "function": {"arguments": c}}]} for c in call["function"]["arguments"]),
        ]  # fmt: skip
        upstream.on("demo-h", *stream(*events(*deltas, finish="tool_calls")))
    else:
        upstream.on("demo-h", whole(completion(None, [function_call("publish", arguments)])))

    def turn() -> httpx2.Response:
        return post(gateway, ask("demo-h", stream=streamed))

    first = turn()
    held = first.headers["x-held-action"]
    assert first.status_code == 200 and "NOT EXECUTED" in first.text and held in first.text
    assert '"tool_calls"' not in first.text
    assert turn().headers["x-held-action"] == held, "the same call joins the same action"
    decide(gateway, held, "approve")
    released = turn()
    assert '"publish"' in released.text and "NOT EXECUTED" not in released.text
    again = turn()
    assert "released to you once already" in again.text and '"tool_calls"' not in again.text
    assert state(gateway, held) == "SUCCEEDED"


def test_denied_action_tells_the_agent_the_persons_reason(gateway: Running, upstream: ModelUpstream) -> None:
    upstream.on("demo-h", whole(completion(None, [function_call("publish", {"title": "denied"})])))
    held = post(gateway, ask("demo-h")).headers["x-held-action"]
    decide(gateway, held, "deny", "not in our name")
    answer = post(gateway, ask("demo-h")).json()["choices"][0]["message"]
    assert "not in our name" in answer["content"] and "tool_calls" not in answer


def test_another_agent_or_run_does_not_share_an_approval(gateway: Running, upstream: ModelUpstream) -> None:
    upstream.on("demo-h", whole(completion(None, [function_call("publish", {"title": "runs"})])))
    one = post(gateway, ask("demo-h"), **{"x-gateway-run": "run-1"}).headers["x-held-action"]
    two = post(gateway, ask("demo-h"), **{"x-gateway-run": "run-2"}).headers["x-held-action"]
    assert one != two
    decide(gateway, one, "approve")
    other = post(gateway, ask("demo-h"), **{"x-gateway-run": "run-2"})
    assert other.headers["x-held-action"] == two and "NOT EXECUTED" in other.text


def test_a_call_that_the_gateway_executes_is_not_held_twice(client: openai.OpenAI, upstream: ModelUpstream) -> None:
    for name in ("bank__transfer", "pay"):
        upstream.on("demo-c", whole(completion(None, [function_call(name, {"amount": 5})])))
        message = client.chat.completions.create(model="demo-c", messages=MESSAGES).choices[0].message
        assert message.tool_calls and message.tool_calls[0].function.name == name  # type: ignore[union-attr]
    upstream.on("demo-c", whole(completion(None, [function_call("bank__delete_payee", {"name": "x"})])))
    assert not client.chat.completions.create(model="demo-c", messages=MESSAGES).choices[0].message.tool_calls


@pytest.mark.parametrize("arguments", ["{", "[]", '{"a":1,"a":2}', "null", '{"n": 99999999999999999999}'])
def test_arguments_without_one_reading_are_denied(
    client: openai.OpenAI, upstream: ModelUpstream, arguments: str
) -> None:
    upstream.on("demo-c", whole(completion(None, [function_call("search", arguments)])))
    message = client.chat.completions.create(model="demo-c", messages=MESSAGES).choices[0].message
    assert not message.tool_calls and "NOT EXECUTED" in (message.content or "")


def test_tools_that_the_agent_may_never_use_are_not_offered_to_the_model(
    client: openai.OpenAI, upstream: ModelUpstream
) -> None:
    upstream.on("demo-a", whole(completion()))
    tools: Any = [{"type": "function", "function": {"name": name, "parameters": {}}} for name in ("search", "shell")]
    client.chat.completions.create(model="demo-a", messages=MESSAGES, tools=tools)
    assert [tool["function"]["name"] for tool in upstream.seen[-1].json["tools"]] == ["search"]


def test_tools_that_the_provider_runs_are_refused(client: openai.OpenAI, upstream: ModelUpstream) -> None:
    count = len(upstream.seen)
    with pytest.raises(openai.PermissionDeniedError):
        client.chat.completions.create(model="demo-a", messages=MESSAGES, web_search_options={})
    assert len(upstream.seen) == count


# -- filters


def test_personal_data_is_masked_towards_the_model_and_back(client: openai.OpenAI, upstream: ModelUpstream) -> None:
    upstream.on("demo-a", whole(completion("Ask bob@example.org about it.")))
    answer = client.chat.completions.create(
        model="demo-a", messages=[{"role": "user", "content": "I am jane.doe@example.org, card 4012888888881881."}]
    )
    assert upstream.seen[-1].json["messages"][0]["content"] == "I am <EMAIL>, card <CARD>."
    assert answer.choices[0].message.content == "Ask <EMAIL> about it."


def test_personal_data_is_masked_in_streams_wherever_they_are_cut(
    client: openai.OpenAI, upstream: ModelUpstream
) -> None:
    text = "Write to bob@example.org today, please."
    for size in (1, 3, 7):
        cuts = [{"content": text[at : at + size]} for at in range(0, len(text), size)]
        upstream.on("demo-s", *stream(*events({"role": "assistant", "content": ""}, *cuts)))
        found = ""
        for event in client.chat.completions.create(model="demo-s", messages=MESSAGES, stream=True):
            found += event.choices[0].delta.content or ""
        assert found == "Write to <EMAIL> today, please."


def test_a_secret_in_the_prompt_is_refused_before_anything_is_sent(
    client: openai.OpenAI, upstream: ModelUpstream
) -> None:
    count = len(upstream.seen)
    token = "ghp_" + "a1B2" * 9
    with pytest.raises(openai.PermissionDeniedError) as refused:
        client.chat.completions.create(model="demo-a", messages=[{"role": "user", "content": f"my token is {token}"}])
    assert refused.value.code == "content_denied" and token not in str(refused.value)
    assert len(upstream.seen) == count


# -- refusals and bad input


def test_unknown_key_is_an_authentication_error_of_the_sdk(gateway: Running, upstream: ModelUpstream) -> None:
    count = len(upstream.seen)
    wrong = gateway.keys["tester"][:-4] + "AAAA"
    for key in (wrong, gateway.approver, "sk-something"):
        with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=key, max_retries=0) as client:
            with pytest.raises(openai.AuthenticationError) as refused:
                client.chat.completions.create(model="demo-a", messages=MESSAGES)
            assert key not in str(refused.value)
    assert httpx2.post(f"{gateway.url}/v1/chat/completions", json=ask("demo-a")).status_code == 401
    assert len(upstream.seen) == count


def test_a_model_that_is_not_the_agents_is_not_found(client: openai.OpenAI, gateway: Running) -> None:
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="gpt-other", messages=MESSAGES)
    assert post(gateway, ask("demo-a"), agent="stranger").status_code == 404


@pytest.mark.parametrize(
    ("body", "code", "status"),
    [
        (b"{", "invalid_json", 400),
        (b'{"model":"demo-a","model":"gpt-x","messages":[]}', "invalid_json", 400),
        (b'{"model":"demo-a","messages":[{"role":"user","content":NaN}]}', "invalid_json", 400),
        (b'{"messages":[{"role":"user","content":"x"}]}', "invalid_request", 400),
        (b'{"model":"demo-a","messages":"x"}', "invalid_request", 400),
        (b"[" * 500 + b"]" * 500, "invalid_json", 400),
        (b"", "invalid_json", 400),
    ],
)
def test_bad_bodies_are_bad_requests(
    gateway: Running, upstream: ModelUpstream, body: bytes, code: str, status: int
) -> None:
    count = len(upstream.seen)
    response = post(gateway, body)
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)
    assert len(upstream.seen) == count


def test_oversized_body_and_wrong_content_type(gateway: Running, upstream: ModelUpstream) -> None:
    count = len(upstream.seen)
    large = post(gateway, b'{"model":"demo-a","messages":[{"role":"user","content":"' + b"x" * 10_000_001 + b'"}]}')
    assert large.status_code == 413 and large.json()["error"]["code"] == "body_too_large"

    def chunks() -> Iterator[bytes]:
        for _ in range(110):
            yield b"x" * 100_000

    undeclared = httpx2.post(
        f"{gateway.url}/v1/chat/completions",
        content=chunks(),
        headers={"content-type": "application/json", **gateway.headers()},
    )
    assert undeclared.status_code == 413
    odd = post(gateway, json.dumps(ask("demo-a")).encode(), **{"content-type": "text/plain"})
    assert odd.status_code == 415 and odd.json()["error"]["code"] == "unsupported_media_type"
    packed = post(gateway, b"x", **{"content-encoding": "gzip"})
    assert packed.status_code == 415
    assert len(upstream.seen) == count


DETAIL = "host db-7.internal refused, key sk-live-123"


@pytest.mark.parametrize(
    ("writes", "error", "code"),
    [
        ([whole({"error": {"message": DETAIL}}, 500)], openai.InternalServerError, "upstream_error"),
        ([whole(DETAIL.encode(), 502, "text/html")], openai.InternalServerError, "upstream_error"),
        ([whole({"error": {"message": DETAIL}}, 401)], openai.InternalServerError, "upstream_refused"),
        ([whole({"error": {"message": DETAIL}}, 429)], openai.RateLimitError, "upstream_rate_limited"),
        ([whole(b"<html>" + DETAIL.encode(), 200, "text/html")], openai.InternalServerError, "upstream_protocol"),
        ([whole({"no": "choices"})], openai.InternalServerError, "upstream_protocol"),
        ([b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{", CUT], openai.InternalServerError, "upstream_closed"),
        ([CUT], openai.InternalServerError, "upstream_closed"),
        ([b"garbage\r\n\r\n", CUT], openai.InternalServerError, "upstream_protocol"),
    ],
)  # fmt: skip
def test_upstream_failures_are_typed_and_tell_nothing(
    client: openai.OpenAI, upstream: ModelUpstream, writes: list[Any], error: type[openai.APIStatusError], code: str
) -> None:
    upstream.on("demo-x", *writes)
    with pytest.raises(error) as failed:
        client.chat.completions.create(model="demo-x", messages=MESSAGES)
    assert failed.value.code == code
    assert DETAIL not in str(failed.value.body) + str(failed.value.response.headers)


def test_what_was_wrong_with_the_request_itself_is_passed_on(client: openai.OpenAI, upstream: ModelUpstream) -> None:
    problem = {"error": {"message": "maximum context length is 8", "code": "context_length_exceeded", "type": "x"}}
    upstream.on("demo-x", whole(problem, 400))
    with pytest.raises(openai.BadRequestError) as failed:
        client.chat.completions.create(model="demo-x", messages=MESSAGES)
    assert failed.value.code == "context_length_exceeded" and "maximum context length" in failed.value.message


def test_upstream_down_and_upstream_silent(client: openai.OpenAI, upstream: ModelUpstream) -> None:
    with pytest.raises(openai.InternalServerError) as failed:
        client.chat.completions.create(model="gone-1", messages=MESSAGES)
    assert failed.value.code == "upstream_connect" and "127.0.0.1" not in failed.value.message
    upstream.on("demo-x")  # reads the request and never answers
    with pytest.raises(openai.InternalServerError) as late:
        client.chat.completions.create(model="demo-x", messages=MESSAGES)
    assert late.value.status_code == 504 and late.value.code == "upstream_timeout"


@pytest.mark.parametrize("text_first", [True, False])
def test_truncated_stream_raises_in_the_sdk(client: openai.OpenAI, upstream: ModelUpstream, text_first: bool) -> None:
    """An answer that broke off must not read as a whole one, and a call that was never completed must not arrive."""
    first = {"content": "Some words "} if text_first else {"tool_calls": [
        {"index": 0, "id": "c", "type": "function", "function": {"name": "search", "arguments": '{"q"'}}]}  # fmt: skip
    sent = events({"role": "assistant", "content": ""}, first)[:-2]
    for end in (True, False):
        upstream.on("demo-x", *stream(*sent, end=end))
        calls = 0
        with pytest.raises(openai.APIError):
            for event in client.chat.completions.create(model="demo-x", messages=MESSAGES, stream=True):
                calls += len(event.choices[0].delta.tool_calls or []) if event.choices else 0
        assert calls == 0


def test_requests_beyond_the_limit_are_rate_limited(gateway: Running, upstream: ModelUpstream) -> None:
    upstream.on("demo-a", whole(completion()))
    count = len(upstream.seen)
    answers = [post(gateway, ask("demo-a"), agent="hasty") for _ in range(4)]
    assert [answer.status_code for answer in answers[2:]] == [429, 429]
    assert answers[-1].json()["error"]["code"] == "requests_limit" and int(answers[-1].headers["retry-after"]) <= 60
    assert len(upstream.seen) == count + 2


# -- the trace


def test_one_trace_tells_the_story_and_holds_no_secret(gateway: Running, upstream: ModelUpstream) -> None:
    upstream.on("demo-h", whole(completion("Mail bob@example.org", [function_call("shell", {"cmd": "x"})])))
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    body = ask("demo-h")
    body["messages"] = [{"role": "user", "content": "I am jane.doe@example.org"}]
    post(gateway, body, traceparent=f"00-{trace}-00f067aa0ba902b7-00")
    sent = upstream.seen[-1].headers["traceparent"].split("-")
    assert sent[1] == trace and sent[2] != "00f067aa0ba902b7" and sent[3] == "01"
    found = api(gateway, f"/api/runs/{trace}", retry=404)
    text = json.dumps(found)
    assert "local.shell" in text and "testers/never" in text and "demo-h" in text
    files = [path.read_bytes() for path in gateway.state_dir.glob("traces.db*")] + [
        (gateway.state_dir / "audit.jsonl").read_bytes()
    ]
    for hidden in (b"jane.doe@example.org", b"bob@example.org", SECRET_KEY.encode(), gateway.keys["tester"].encode()):
        assert not any(hidden in data for data in files)


def decide(gateway: Running, held: str, verdict: str, comment: str = "") -> None:
    digest = api(gateway, f"/api/actions/{held}")["digest"]
    answer = httpx2.post(
        f"{gateway.console}/api/actions/{held}/{verdict}",
        json={"digest": digest, "comment": comment},
        headers={"authorization": f"Bearer {gateway.approver}"},
    )
    assert answer.status_code == 200, answer.text


def state(gateway: Running, held: str) -> str:
    return str(api(gateway, f"/api/actions/{held}")["state"])


def api(gateway: Running, path: str, retry: int = 0) -> Any:
    headers = {"authorization": f"Bearer {gateway.approver}"}
    deadline = time.monotonic() + 10
    while True:
        answer = httpx2.get(gateway.console + path, headers=headers)
        if answer.status_code == 200:
            return answer.json()
        assert answer.status_code == retry and time.monotonic() < deadline, answer.text


def test_healthz_and_readyz_need_no_key(gateway: Running) -> None:
    assert httpx2.get(f"{gateway.url}/healthz").json() == {"status": "ok"}
    ready = httpx2.get(f"{gateway.url}/readyz")
    assert ready.status_code == 200 and ready.json()["status"] == "ready" and ready.json()["store"] == "connected"


def test_unknown_paths_and_methods(gateway: Running) -> None:
    assert httpx2.get(f"{gateway.url}/nothing", headers=gateway.headers()).status_code == 404
    assert httpx2.get(f"{gateway.url}/nothing").status_code == 401
    assert httpx2.get(f"{gateway.url}/v1/chat/completions", headers=gateway.headers()).status_code == 405
    assert Path(gateway.state_dir / "audit.jsonl").exists()


def test_a_persons_decision_is_in_the_audit_log_before_it_is_made(gateway: Running, upstream: ModelUpstream) -> None:
    upstream.on("demo-h", whole(completion(None, [function_call("publish", {"title": "audited"})])))
    held = post(gateway, ask("demo-h")).headers["x-held-action"]
    audit = gateway.state_dir / "audit.jsonl"
    decide(gateway, held, "deny", "secret words of a person")
    lines = [json.loads(line) for line in audit.read_text().splitlines()]
    mine = [line for line in lines if line.get("event") == "decision" and line["held"] == held]
    assert [(line["person"], line["verdict"]) for line in mine] == [("ana", "deny")]
    assert "secret words" not in audit.read_text()

    upstream.on("demo-h", whole(completion(None, [function_call("publish", {"title": "disk full"})])))
    other = post(gateway, ask("demo-h")).headers["x-held-action"]
    full, gateway.gateway.audit._file = gateway.gateway.audit._file, os.open("/dev/full", os.O_WRONLY)
    try:
        digest = api(gateway, f"/api/actions/{other}")["digest"]
        refused = httpx2.post(
            f"{gateway.console}/api/actions/{other}/approve",
            json={"digest": digest, "comment": ""},
            headers={"authorization": f"Bearer {gateway.approver}"},
        )
        assert refused.status_code == 503 and refused.json()["error"]["code"] == "audit_unavailable"
        assert post(gateway, ask("demo-a")).status_code == 503, "nothing is sent that was not written down"
    finally:
        gateway.gateway.audit._file = full
    assert state(gateway, other) == "PENDING"
