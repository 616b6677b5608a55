"""Anthropic Messages through the whole gateway: official SDK as client, a byte-exact endpoint as upstream."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Iterator
from typing import Any

import anthropic
import httpx2
import pytest

from tests.anthropic_support import END, PING, SIGNATURE, answer, call, opening, text, thinking, tool_use
from tests.anthropic_support import event as sse_event
from tests.anthropic_support import whole as whole_stream
from tests.gateways import Running, running_gateway
from tests.upstreams import CUT, ModelUpstream, model_upstream, stream, whole

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
        with running_gateway(tmp_path_factory.mktemp("anthropic")) as running:
            yield running
    finally:
        del os.environ["MODEL_URL"], os.environ["MODEL_API_KEY"]


@pytest.fixture
def client(gateway: Running) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=gateway.url, api_key=gateway.keys["tester"], max_retries=0) as client:
        yield client


def create(client: anthropic.Anthropic, model: str, **more: Any) -> anthropic.types.Message:
    return client.messages.create(**{"model": model, "max_tokens": 99, "messages": MESSAGES, **more})


def ask(model: str, **more: Any) -> dict[str, Any]:
    return {"model": model, "max_tokens": 99, "messages": MESSAGES, **more}


def post(gateway: Running, body: bytes | dict[str, Any], agent: str = "tester", **headers: str) -> httpx2.Response:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return httpx2.post(
        f"{gateway.url}/v1/messages",
        content=data,
        headers={"content-type": "application/json", "x-api-key": gateway.keys[agent], **headers},
        timeout=20,
    )


def words(message: anthropic.types.Message) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


# -- what passes


def test_sync_sdk_gets_the_answer_and_each_side_only_its_own_credential(
    client: anthropic.Anthropic, upstream: ModelUpstream, gateway: Running
) -> None:
    upstream.on("claude-a", whole(answer("Good day.")))
    message = create(client, "claude-a", extra_headers={"anthropic-beta": "some-beta-2026-01-01"})
    assert words(message) == "Good day." and message.usage.output_tokens == 12
    seen = upstream.seen[-1]
    assert seen.line.startswith("POST /v1/messages ")
    assert seen.headers["x-api-key"] == SECRET_KEY and "authorization" not in seen.headers
    assert seen.headers["anthropic-version"] == str(client.default_headers["anthropic-version"])
    assert seen.headers["anthropic-beta"] == "some-beta-2026-01-01"
    assert gateway.keys["tester"] not in str(seen.headers) + seen.body.decode()
    raw = client.messages.with_raw_response.create(model="claude-a", max_tokens=9, messages=MESSAGES)
    assert SECRET_KEY not in str(raw.headers) and "x-internal" not in raw.headers


def test_bearer_tokens_work_too(gateway: Running, upstream: ModelUpstream) -> None:
    upstream.on("claude-a", whole(answer("Hi.")))
    with anthropic.Anthropic(base_url=gateway.url, auth_token=gateway.keys["tester"], max_retries=0) as client:
        assert words(create(client, "claude-a")) == "Hi."


def test_unguarded_bodies_are_forwarded_byte_for_byte(gateway: Running, upstream: ModelUpstream) -> None:
    body = (
        b'{ "messages":[{"content":[ {"text":"caf\\u00e9 \xc3\xa9","type":"text"}],"role":"user"}],\n'
        b' "x_unknown": {"a":[1, 2.50]}, "model":"claude-a", "max_tokens":9}'
    )
    sent = (
        b'{"type": "message", "content":[ {"type":"thinking","thinking":"h\\u00e9","signature":"'
        + SIGNATURE.encode()
        + b'"},{"text":"\\u00e9","type":"text"}], "stop_reason":"end_turn", "z":1.0}'
    )
    upstream.on("claude-a", whole(sent))
    response = post(gateway, body)
    assert upstream.seen[-1].body == body
    assert response.status_code == 200 and response.content == sent


def test_streams_that_nothing_touches_are_forwarded_byte_for_byte(gateway: Running, upstream: ModelUpstream) -> None:
    sent = whole_stream(
        thinking(0, "Let me ", "see."), text(1, "Hi ", "you "), call(2, "search", '{"q":', '"x"}'), reason="tool_use"
    )
    upstream.on("claude-s", *stream(*sent))
    response = post(gateway, ask("claude-s", stream=True))
    assert response.content == b"".join(sent)
    assert response.headers["content-type"].startswith("text/event-stream")


def test_async_sdk_and_streaming_helpers(gateway: Running, upstream: ModelUpstream) -> None:
    upstream.on("claude-s", *stream(*whole_stream(thinking(0, "Hm."), text(1, "One ", "two."))))

    async def run() -> tuple[str, anthropic.types.Message]:
        async with anthropic.AsyncAnthropic(base_url=gateway.url, api_key=gateway.keys["tester"]) as client:
            async with client.messages.stream(model="claude-s", max_tokens=9, messages=MESSAGES) as events:
                found = "".join([piece async for piece in events.text_stream])
                return found, await events.get_final_message()

    found, message = asyncio.run(run())
    assert found == "One two." and [block.type for block in message.content] == ["thinking", "text"]
    assert message.content[0].signature == SIGNATURE  # type: ignore[union-attr]
    assert (message.usage.input_tokens, message.usage.output_tokens) == (25, 15)


def test_beta_client_of_the_sdk_works_too(client: anthropic.Anthropic, upstream: ModelUpstream) -> None:
    upstream.on("claude-a", whole(answer("Hi.")))
    message = client.beta.messages.create(model="claude-a", max_tokens=9, messages=MESSAGES, betas=["x-2026-01-01"])
    assert message.content[0].text == "Hi."  # type: ignore[union-attr]
    assert upstream.seen[-1].headers["anthropic-beta"] == "x-2026-01-01"


def test_tokens_are_counted_by_the_provider_after_filtering(
    client: anthropic.Anthropic, upstream: ModelUpstream
) -> None:
    upstream.on("claude-a", whole({"input_tokens": 14}))
    messages: Any = [{"role": "user", "content": "I am jane.doe@example.org"}]
    assert client.messages.count_tokens(model="claude-a", messages=messages).input_tokens == 14
    assert upstream.seen[-1].line.startswith("POST /v1/messages/count_tokens ")
    assert upstream.seen[-1].json["messages"][0]["content"] == "I am <EMAIL>"
    upstream.on("claude-a", whole({"input_tokens": 14, "note": "not a number"}))
    with pytest.raises(anthropic.InternalServerError):
        client.messages.count_tokens(model="claude-a", messages=messages)


# -- tool calls


@pytest.mark.parametrize("streamed", [False, True])
def test_allowed_call_passes_denied_one_never_reaches_the_agent(
    client: anthropic.Anthropic, upstream: ModelUpstream, streamed: bool
) -> None:
    if streamed:
        calls = [call(0, "search", '{"q": "x"}'), call(1, "shell", '{"cmd":', '"rm -rf /"}')]
        upstream.on("claude-c", *stream(*whole_stream(*calls, reason="tool_use")))
        with client.messages.stream(model="claude-c", max_tokens=9, messages=MESSAGES) as events:
            message: anthropic.types.Message = events.get_final_message()
    else:
        body = answer(tool_use("search", {"q": "x"}), tool_use("shell", {"cmd": "rm -rf /"}, "toolu_2"))
        upstream.on("claude-c", whole(body))
        message = create(client, "claude-c")
    assert [block.type for block in message.content] == ["tool_use", "text"]
    assert message.content[0].input == {"q": "x"}  # type: ignore[union-attr]
    assert "NOT EXECUTED" in words(message) and "testers/never" in words(message)
    assert "rm -rf" not in str(message) and message.stop_reason == "tool_use"


@pytest.mark.parametrize("streamed", [False, True])
def test_held_call_is_parked_then_released_once(gateway: Running, upstream: ModelUpstream, streamed: bool) -> None:
    arguments = {"title": f"news of anthropic {streamed}"}
    if streamed:
        pieces = call(0, "publish", *json.dumps(arguments))
        upstream.on("claude-h", *stream(*whole_stream(pieces, reason="tool_use")))
    else:
        upstream.on("claude-h", whole(answer(tool_use("publish", arguments))))

    def turn() -> httpx2.Response:
        return post(gateway, ask("claude-h", stream=streamed))

    first = turn()
    held = first.headers["x-held-action"]
    assert first.status_code == 200 and "NOT EXECUTED" in first.text and held in first.text
    assert '"tool_use"' not in first.text and '"end_turn"' in first.text
    assert turn().headers["x-held-action"] == held, "the same call joins the same action"
    approve(gateway, held)
    released = turn()
    assert '"publish"' in released.text and "NOT EXECUTED" not in released.text
    again = turn()
    assert "released to you once already" in again.text and '"tool_use"' not in again.text
    assert api(gateway, f"/api/actions/{held}")["state"] == "SUCCEEDED"


def test_a_call_that_the_gateway_executes_is_not_held_twice(
    client: anthropic.Anthropic, upstream: ModelUpstream
) -> None:
    upstream.on("claude-c", whole(answer(tool_use("bank__transfer", {"amount": 5}))))
    assert create(client, "claude-c").stop_reason == "tool_use"
    upstream.on("claude-c", whole(answer(tool_use("bank__delete_payee", {"name": "x"}))))
    assert create(client, "claude-c").stop_reason == "end_turn"


def test_tools_of_the_agent_that_it_may_never_use_are_not_offered(
    client: anthropic.Anthropic, upstream: ModelUpstream
) -> None:
    upstream.on("claude-a", whole(answer("Hi.")))
    tools: Any = [{"name": name, "input_schema": {"type": "object"}} for name in ("search", "shell")]
    tools.append({"type": "bash_20250124", "name": "bash"})
    create(client, "claude-a", tools=tools)
    assert [tool["name"] for tool in upstream.seen[-1].json["tools"]] == ["search"]
    with pytest.raises(anthropic.PermissionDeniedError) as refused:
        create(client, "claude-a", tools=tools, tool_choice={"type": "tool", "name": "shell"})
    assert refused.value.error_code == "tool_denied"


def test_tools_that_the_provider_runs_need_a_rule(client: anthropic.Anthropic, upstream: ModelUpstream) -> None:
    count = len(upstream.seen)
    for more in (
        {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
        {"tools": [{"type": "code_execution_20250825", "name": "code_execution"}]},
        {"extra_body": {"mcp_servers": [{"type": "url", "name": "x", "url": "https://mcp.example.org"}]}},
        {"container": "container_011CPR5CNjB747bTd36fQLFk"},
    ):
        with pytest.raises(anthropic.PermissionDeniedError) as refused:
            create(client, "claude-a", **more)
        assert refused.value.error_code == "tool_denied"
    assert len(upstream.seen) == count
    ran = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_fetch", "input": {"url": "https://a.example"}}
    upstream.on("claude-a", whole(answer(ran, "Read it.")))
    fetch: Any = [{"type": "web_fetch_20250910", "name": "web_fetch"}]
    assert create(client, "claude-a", tools=fetch).content[0].type == "server_tool_use"
    with pytest.raises(anthropic.InternalServerError) as unasked:
        create(client, "claude-a")
    assert unasked.value.error_code == "upstream_protocol"


def test_another_model_that_the_provider_may_fall_back_to_must_be_allowed(
    client: anthropic.Anthropic, upstream: ModelUpstream
) -> None:
    upstream.on("claude-a", whole(answer("Hi.")))
    create(client, "claude-a", extra_body={"fallbacks": [{"model": "claude-b"}]})
    for fallbacks in ([{"model": "other"}], "default"):
        with pytest.raises(anthropic.NotFoundError):
            create(client, "claude-a", extra_body={"fallbacks": fallbacks})


# -- filters


def test_personal_data_is_masked_towards_the_model_and_back(
    client: anthropic.Anthropic, upstream: ModelUpstream
) -> None:
    upstream.on("claude-a", whole(answer("Ask bob@example.org about it.")))
    turns: Any = [
        {"role": "user", "content": [{"type": "text", "text": "I am jane.doe@example.org."}]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "It is jane.doe@example.org.", "signature": SIGNATURE},
                tool_use("search", {"who": "jane.doe@example.org"}),
            ],
        },
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "card 4012888888881881."}],
        },
    ]
    message = create(client, "claude-a", messages=turns, system="Boss: ceo@example.org")
    sent = upstream.seen[-1].json
    assert sent["system"] == "Boss: <EMAIL>"
    assert sent["messages"][0]["content"][0]["text"] == "I am <EMAIL>."
    assert sent["messages"][1]["content"] == [tool_use("search", {"who": "<EMAIL>"})], "thinking is never edited"
    assert sent["messages"][2]["content"][0]["content"] == "card <CARD>."
    assert words(message) == "Ask <EMAIL> about it."


def test_personal_data_is_masked_in_streams_wherever_they_are_cut(
    client: anthropic.Anthropic, upstream: ModelUpstream
) -> None:
    said = "Write to bob@example.org today, please."
    for size in (1, 3, 7):
        cuts = [said[at : at + size] for at in range(0, len(said), size)]
        upstream.on("claude-s", *stream(*whole_stream(thinking(0, *cuts), text(1, *cuts))))
        with client.messages.stream(model="claude-s", max_tokens=9, messages=MESSAGES) as events:
            message = events.get_final_message()
        assert [block.type for block in message.content] == ["text"], "thinking leaves whole or not at all"
        assert words(message) == "Write to <EMAIL> today, please."


def test_a_secret_in_the_prompt_is_refused_before_anything_is_sent(
    client: anthropic.Anthropic, upstream: ModelUpstream
) -> None:
    count = len(upstream.seen)
    token = "ghp_" + "a1B2" * 9
    with pytest.raises(anthropic.PermissionDeniedError) as refused:
        create(client, "claude-a", messages=[{"role": "user", "content": f"my token is {token}"}])
    assert refused.value.error_code == "content_denied" and token not in str(refused.value)
    assert refused.value.type == "permission_error"
    assert len(upstream.seen) == count


# -- refusals and failures


def test_errors_of_the_gateway_are_typed_errors_of_the_sdk(gateway: Running, upstream: ModelUpstream) -> None:
    count = len(upstream.seen)
    with anthropic.Anthropic(base_url=gateway.url, api_key="sk-ant-x", max_retries=0) as stranger:
        with pytest.raises(anthropic.AuthenticationError) as refused:
            create(stranger, "claude-a")
        assert (refused.value.type, refused.value.error_code) == ("authentication_error", "unknown_key")
    with anthropic.Anthropic(base_url=gateway.url, api_key=gateway.keys["tester"], max_retries=0) as client:
        with pytest.raises(anthropic.NotFoundError) as missing:
            create(client, "gpt-other")
        assert missing.value.error_code == "model_not_found"
        with pytest.raises(anthropic.BadRequestError) as wrong:
            create(client, "claude-a", messages=[{"role": "user", "content": [{"text": "no type"}]}])
        assert wrong.value.api_message == "`messages[0].content[0].type` must be a string"
        with pytest.raises(anthropic.NotFoundError):
            client.messages.batches.list()
    assert post(gateway, b"{").json()["error"]["details"]["error_code"] == "invalid_json"
    assert len(upstream.seen) == count


DETAIL = "host db-7.internal refused, key sk-live-123"
PROBLEM = {"type": "error", "error": {"type": "api_error", "message": DETAIL}}


@pytest.mark.parametrize(
    ("writes", "error", "code"),
    [
        ([whole(PROBLEM, 500)], anthropic.InternalServerError, "upstream_error"),
        ([whole(PROBLEM, 529)], anthropic.InternalServerError, "upstream_error"),
        ([whole(PROBLEM, 401)], anthropic.InternalServerError, "upstream_refused"),
        ([whole(PROBLEM, 429)], anthropic.RateLimitError, "upstream_rate_limited"),
        ([whole({"type": "message", "no": "content"})], anthropic.InternalServerError, "upstream_protocol"),
        ([whole(answer({"type": "new_block", "x": DETAIL}))], anthropic.InternalServerError, "upstream_protocol"),
        ([CUT], anthropic.InternalServerError, "upstream_closed"),
    ],
)  # fmt: skip
def test_upstream_failures_are_typed_and_tell_nothing(
    client: anthropic.Anthropic,
    upstream: ModelUpstream,
    writes: list[Any],
    error: type[anthropic.APIStatusError],
    code: str,
) -> None:
    upstream.on("claude-x", *writes)
    with pytest.raises(error) as failed:
        create(client, "claude-x")
    assert failed.value.error_code == code
    assert DETAIL not in str(failed.value.body) + str(failed.value.response.headers)


def test_what_was_wrong_with_the_request_itself_is_passed_on(
    client: anthropic.Anthropic, upstream: ModelUpstream
) -> None:
    problem = {"type": "error", "error": {"type": "invalid_request_error", "message": "prompt is too long"}}
    upstream.on("claude-x", whole(problem, 400))
    with pytest.raises(anthropic.BadRequestError) as failed:
        create(client, "claude-x")
    assert failed.value.api_message == "prompt is too long" and failed.value.type == "invalid_request_error"


@pytest.mark.parametrize("text_first", [True, False])
def test_truncated_stream_raises_in_the_sdk(
    client: anthropic.Anthropic, upstream: ModelUpstream, text_first: bool
) -> None:
    """An answer that broke off must not read as a whole one, and its calls must not arrive, complete or not."""
    sent = [opening(), PING, *(text(0, "Some words ") if text_first else call(0, "search", '{"q":1}'))]
    for end in (True, False):
        upstream.on("claude-x", *stream(*sent, end=end))
        seen = []
        with pytest.raises(anthropic.APIStatusError):
            with client.messages.stream(model="claude-x", max_tokens=9, messages=MESSAGES) as events:
                seen = [each.type for each in events]
        assert "input_json" not in seen


def test_error_in_the_stream_raises_and_tells_nothing(client: anthropic.Anthropic, upstream: ModelUpstream) -> None:
    problem = sse_event({"type": "error", "error": {"type": "overloaded_error", "message": DETAIL}})
    upstream.on("claude-x", *stream(opening(), *text(0, "Some words "), problem, END))
    with pytest.raises(anthropic.APIStatusError) as failed:
        with client.messages.stream(model="claude-x", max_tokens=9, messages=MESSAGES) as events:
            events.until_done()
    assert failed.value.error_code == "upstream_error" and DETAIL not in str(failed.value.body)


# -- the trace


def test_one_trace_tells_the_story_and_holds_no_secret(gateway: Running, upstream: ModelUpstream) -> None:
    body = answer("Mail bob@example.org", tool_use("shell", {"cmd": "x"}))
    body["usage"] = {"input_tokens": 5, "cache_read_input_tokens": 100, "cache_creation_input_tokens": 20,
                     "output_tokens": 7, "output_tokens_details": {"thinking_tokens": 3}}  # fmt: skip
    upstream.on("claude-h", whole(body))
    trace = "5bf92f3577b34da6a3ce929d0e0e4736"
    sent = ask("claude-h", messages=[{"role": "user", "content": "I am jane.doe@example.org"}])
    post(gateway, sent, traceparent=f"00-{trace}-00f067aa0ba902b7-00")
    found = json.dumps(api(gateway, f"/api/runs/{trace}", retry=404))
    assert "local.shell" in found and "testers/never" in found and "claude-h" in found
    files = [path.read_bytes() for path in gateway.state_dir.glob("traces.db*")] + [
        (gateway.state_dir / "audit.jsonl").read_bytes()
    ]
    for hidden in (b"jane.doe@example.org", b"bob@example.org", SECRET_KEY.encode(), gateway.keys["tester"].encode()):
        assert not any(hidden in data for data in files)


def approve(gateway: Running, held: str) -> None:
    reply = httpx2.post(
        f"{gateway.console}/api/actions/{held}/approve",
        json={"digest": api(gateway, f"/api/actions/{held}")["digest"], "comment": ""},
        headers={"authorization": f"Bearer {gateway.approver}"},
    )
    assert reply.status_code == 200, reply.text


def api(gateway: Running, path: str, retry: int = 0) -> Any:
    deadline = time.monotonic() + 10
    while True:
        reply = httpx2.get(gateway.console + path, headers={"authorization": f"Bearer {gateway.approver}"})
        if reply.status_code == 200:
            return reply.json()
        assert reply.status_code == retry and time.monotonic() < deadline, reply.text
