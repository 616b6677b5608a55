"""OpenAI Responses through the whole gateway: official SDK as client, a byte-exact endpoint as upstream."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import Iterator
from typing import Any

import httpx2
import openai
import pytest

from tests.gateways import BUNDLE, Running, running_gateway
from tests.responses_support import Script, answer, custom_call, function_call, message
from tests.upstreams import ModelUpstream, model_upstream, stream, whole

KEEPER = """\
applies_to: {groups: [keepers]}
models: ['demo-*']
rules:
  - {id: stored, tools: [provider.stored_context, provider.web_search], effect: allow, reason: This team may.}
"""


@pytest.fixture(scope="module")
def upstream() -> Iterator[ModelUpstream]:
    with model_upstream() as running:
        yield running


@pytest.fixture(scope="module")
def gateway(upstream: ModelUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    bundle = tmp_path_factory.mktemp("bundle") / "bundle"
    shutil.copytree(BUNDLE, bundle)
    main = bundle / "bundle.yaml"
    main.write_text(main.read_text().replace("agents:\n", "agents:\n  keeper: {groups: [keepers]}\n"))
    (bundle / "policies" / "keepers.yaml").write_text(KEEPER)
    os.environ["MODEL_URL"], os.environ["MODEL_API_KEY"] = upstream.url, "upstream-secret-value"
    try:
        with running_gateway(
            tmp_path_factory.mktemp("responses"), agents=("tester", "stranger", "keeper"), bundle=bundle
        ) as running:
            yield running
    finally:
        del os.environ["MODEL_URL"], os.environ["MODEL_API_KEY"]


@pytest.fixture
def client(gateway: Running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.keys["tester"], max_retries=0) as client:
        yield client


def post(gateway: Running, body: bytes | dict[str, Any], agent: str = "tester") -> httpx2.Response:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"content-type": "application/json", **gateway.headers(agent)}
    return httpx2.post(f"{gateway.url}/v1/responses", content=data, headers=headers, timeout=20)


def api(gateway: Running, path: str, body: dict[str, Any] | None = None) -> Any:
    headers = {"authorization": f"Bearer {gateway.approver}"}
    found = httpx2.request("POST" if body else "GET", gateway.console + path, headers=headers, json=body)
    assert found.status_code == 200, found.text
    return found.json()


# -- what passes


def test_sync_sdk_gets_the_answer(client: openai.OpenAI, upstream: ModelUpstream) -> None:
    upstream.on("demo-a", whole(answer(message("Good day."))))
    found = client.responses.create(model="demo-a", input="Hello there")
    assert found.output_text == "Good day." and found.usage is not None and found.usage.total_tokens == 123
    assert upstream.seen[-1].line.startswith("POST /v1/responses ")
    assert upstream.seen[-1].headers["authorization"] == "Bearer upstream-secret-value"


def test_unguarded_bodies_and_streams_are_forwarded_byte_for_byte(gateway: Running, upstream: ModelUpstream) -> None:
    body = b'{ "input":"caf\\u00e9 \xc3\xa9",\n "x_unknown": {"a":[1, 2.50]}, "model":"demo-a"}'
    sent = (
        b'{"output": [ {"type":"message","id":"msg_1","content":[{"type":"output_text","text":"\\u00e9"}]}], "z":1.0}'
    )
    upstream.on("demo-a", whole(sent))
    found = post(gateway, body)
    assert upstream.seen[-1].body == body and found.content == sent
    events = Script().reasoning("so ", "and so").text("Hi ", "you").call("search", "{", "}").end()
    upstream.on("demo-s", *stream(*events))
    streamed = post(gateway, {"model": "demo-s", "input": "x", "stream": True})
    assert streamed.content == b"".join(events)


def test_async_sdk_whole_and_streamed(gateway: Running, upstream: ModelUpstream) -> None:
    upstream.on("demo-a", whole(answer(message("Good day."))))
    upstream.on("demo-s", *stream(*Script().text("One ", "two.").end()))

    async def run() -> tuple[str, str, str]:
        async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.keys["tester"]) as client:
            one = await client.responses.create(model="demo-a", input="x")
            two = ""
            async for event in await client.responses.create(model="demo-s", input="x", stream=True):
                two += event.delta if event.type == "response.output_text.delta" else ""
            async with client.responses.stream(model="demo-s", input="x") as helper:
                return one.output_text, two, (await helper.get_final_response()).output_text

    assert asyncio.run(run()) == ("Good day.", "One two.", "One two.")


# -- tool calls


@pytest.mark.parametrize("streamed", [False, True])
def test_allowed_call_passes_denied_one_never_reaches_the_agent(
    client: openai.OpenAI, upstream: ModelUpstream, streamed: bool
) -> None:
    if streamed:
        script = Script().call("search", '{"q":', '"x"}').call("shell", '{"cmd":"rm -rf /"}')
        upstream.on("demo-c", *stream(*script.end()))
        with client.responses.stream(model="demo-c", input="x") as helper:
            kinds = [event.type for event in helper]
            found: Any = helper.get_final_response()
        assert kinds.count("response.function_call_arguments.delta") == 2
    else:
        calls = [function_call("search", {"q": "x"}, "c1"), function_call("shell", {"cmd": "rm -rf /"}, "c2")]
        upstream.on("demo-c", whole(answer(*calls)))
        found = client.responses.create(model="demo-c", input="x")
    assert [item.type for item in found.output] == ["function_call", "message"] and found.status == "completed"
    assert "NOT EXECUTED" in found.output_text and "testers/never" in found.output_text
    assert "rm -rf" not in found.model_dump_json()


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("custom", [False, True])
def test_held_call_is_parked_then_released_once(
    gateway: Running, upstream: ModelUpstream, streamed: bool, custom: bool
) -> None:
    text = f"news {streamed}" if custom else json.dumps({"title": f"news {streamed}"})
    if streamed:
        events = Script().call("publish", *text, custom=custom).end()
        upstream.on("demo-h", *stream(*events))
    else:
        upstream.on("demo-h", whole(answer((custom_call if custom else function_call)("publish", text))))

    def turn() -> httpx2.Response:
        return post(gateway, {"model": "demo-h", "input": "x", "stream": streamed})

    first = turn()
    held = first.headers["x-held-action"]
    assert first.status_code == 200 and "NOT EXECUTED" in first.text and held in first.text
    assert '"publish"' not in first.text
    assert turn().headers["x-held-action"] == held, "the same call joins the same action"
    digest = api(gateway, f"/api/actions/{held}")["digest"]
    api(gateway, f"/api/actions/{held}/approve", {"digest": digest, "comment": ""})
    released = turn()
    assert '"publish"' in released.text and "NOT EXECUTED" not in released.text
    if streamed:
        assert released.content == b"".join(events)
    again = turn()
    assert "released to you once already" in again.text and '"publish"' not in again.text
    assert api(gateway, f"/api/actions/{held}")["state"] == "SUCCEEDED"


def test_what_the_agent_would_run_is_a_call_whatever_its_type(client: openai.OpenAI, upstream: ModelUpstream) -> None:
    action = {"type": "exec", "command": ["rm", "-rf"], "env": {}}
    item = {"id": "lsh_1", "type": "local_shell_call", "call_id": "c", "action": action, "status": "completed"}
    upstream.on("demo-c", whole(answer(item)))
    found = client.responses.create(model="demo-c", input="x")
    assert [item.type for item in found.output] == ["message"] and "local.local_shell" in found.output_text


def test_tools_that_the_agent_may_never_use_are_not_offered(client: openai.OpenAI, upstream: ModelUpstream) -> None:
    upstream.on("demo-a", whole(answer(message("ok"))))
    tools: Any = [{"type": "function", "name": name, "parameters": {}, "strict": False} for name in ("search", "shell")]
    client.responses.create(model="demo-a", input="x", tools=tools)
    assert [tool["name"] for tool in upstream.seen[-1].json["tools"]] == ["search"]


@pytest.mark.parametrize(
    "tool", [{"type": "web_search"}, {"type": "mcp", "server_label": "x", "server_url": "https://x"}]
)
def test_tools_that_the_provider_runs_are_refused(
    client: openai.OpenAI, upstream: ModelUpstream, tool: dict[str, Any]
) -> None:
    count = len(upstream.seen)
    with pytest.raises(openai.PermissionDeniedError) as refused:
        client.responses.create(model="demo-a", input="x", tools=[tool])  # type: ignore[list-item]
    assert refused.value.code == "tool_denied" and len(upstream.seen) == count


UNSEEN: list[dict[str, Any]] = [
    {"previous_response_id": "resp_1"},
    {"conversation": "conv_1"},
    {"conversation": {"id": "conv_1"}},
    {"prompt": {"id": "pmpt_1"}},
    {"input": [{"type": "item_reference", "id": "msg_1"}]},
]


@pytest.mark.parametrize("body", UNSEEN)
def test_content_that_nobody_has_seen_needs_a_rule(
    gateway: Running, upstream: ModelUpstream, body: dict[str, Any]
) -> None:
    upstream.on("demo-a", whole(answer(message("ok"))))
    count = len(upstream.seen)
    refused = post(gateway, {"model": "demo-a", "input": "x", **body})
    assert refused.status_code == 403 and refused.json()["error"]["code"] == "unseen_context"
    assert len(upstream.seen) == count
    assert post(gateway, {"model": "demo-a", "input": "x", **body}, agent="keeper").status_code == 200


def test_a_rule_may_allow_a_tool_of_the_provider(gateway: Running, upstream: ModelUpstream) -> None:
    upstream.on("demo-a", whole(answer(message("ok"))))
    body = {"model": "demo-a", "input": "x", "tools": [{"type": "web_search_preview_2025_03_11"}]}
    assert post(gateway, body, agent="keeper").status_code == 200
    assert upstream.seen[-1].json == body


def test_background_is_refused(client: openai.OpenAI, upstream: ModelUpstream) -> None:
    count = len(upstream.seen)
    with pytest.raises(openai.BadRequestError) as refused:
        client.responses.create(model="demo-a", input="x", background=True)
    assert refused.value.code == "background_not_supported" and len(upstream.seen) == count


# -- filters


def test_personal_data_is_masked_towards_the_model_and_back(client: openai.OpenAI, upstream: ModelUpstream) -> None:
    upstream.on("demo-a", whole(answer(message("Ask bob@example.org about it."))))
    items: Any = [{"role": "user", "content": [{"type": "input_text", "text": "I am jane.doe@example.org"}]},
                  {"type": "function_call_output", "call_id": "c", "output": "card 4012888888881881"}]  # fmt: skip
    found = client.responses.create(model="demo-a", input=items, instructions="Write to ann@example.org")
    sent = upstream.seen[-1].json
    assert sent["instructions"] == "Write to <EMAIL>"
    assert sent["input"][0]["content"][0]["text"] == "I am <EMAIL>" and sent["input"][1]["output"] == "card <CARD>"
    assert found.output_text == "Ask <EMAIL> about it."


@pytest.mark.parametrize("size", [1, 3, 7])
def test_masks_in_streams_stand_in_every_repetition(
    gateway: Running, client: openai.OpenAI, upstream: ModelUpstream, size: int
) -> None:
    text = "Write to bob@example.org today, please."
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    upstream.on("demo-s", *stream(*Script().reasoning(*pieces).text(*pieces).end()))
    with client.responses.stream(model="demo-s", input="x") as helper:
        found = "".join(event.delta for event in helper if event.type == "response.output_text.delta")
        assert found == helper.get_final_response().output_text == "Write to <EMAIL> today, please."
    raw = post(gateway, {"model": "demo-s", "input": "x", "stream": True}).text
    assert "bob@" not in raw and "example.org" not in raw and raw.count("<EMAIL>") == 10


def test_a_secret_in_the_input_is_refused_before_anything_is_sent(
    client: openai.OpenAI, upstream: ModelUpstream
) -> None:
    count, token = len(upstream.seen), "ghp_" + "a1B2" * 9
    with pytest.raises(openai.PermissionDeniedError) as refused:
        client.responses.create(model="demo-a", input=f"my token is {token}")
    assert refused.value.code == "content_denied" and token not in str(refused.value)
    assert len(upstream.seen) == count


# -- refusals, failures and what stays closed


@pytest.mark.parametrize(
    ("body", "code", "status"),
    [
        (b"{", "invalid_json", 400),
        (b'{"model":"demo-a","model":"gpt-x","input":"x"}', "invalid_json", 400),
        (b'{"input":"x"}', "invalid_request", 400),
        (b'{"model":"demo-a","input":{}}', "invalid_request", 400),
        (b'{"model":"demo-a","input":["x"]}', "invalid_request", 400),
        (b'{"model":"gpt-x","input":"x"}', "model_not_found", 404),
    ],
)
def test_bad_bodies_are_bad_requests(
    gateway: Running, upstream: ModelUpstream, body: bytes, code: str, status: int
) -> None:
    count = len(upstream.seen)
    found = post(gateway, body)
    assert (found.status_code, found.json()["error"]["code"]) == (status, code)
    assert len(upstream.seen) == count


def test_unknown_keys_and_failing_upstreams_are_typed_errors(
    gateway: Running, client: openai.OpenAI, upstream: ModelUpstream
) -> None:
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="gk_wrong", max_retries=0) as stranger:
        with pytest.raises(openai.AuthenticationError):
            stranger.responses.create(model="demo-a", input="x")
    for sent in (whole({"no": "output"}), whole({"output": [{"type": 5}]}), whole(b"<html>", 200, "text/html")):
        upstream.on("demo-x", sent)
        with pytest.raises(openai.InternalServerError) as failed:
            client.responses.create(model="demo-x", input="x")
        assert failed.value.code == "upstream_protocol"
    upstream.on("demo-x", whole({"error": {"message": "busy"}}, 429))
    with pytest.raises(openai.RateLimitError):
        client.responses.create(model="demo-x", input="x")


@pytest.mark.parametrize("kept", [1, 4, 6])
@pytest.mark.parametrize("ends", [True, False])
def test_truncated_stream_raises_in_the_sdk(
    client: openai.OpenAI, upstream: ModelUpstream, kept: int, ends: bool
) -> None:
    upstream.on("demo-x", *stream(*Script().text("Some words ", "more").end()[:kept], end=ends))
    with pytest.raises(openai.APIError):
        list(client.responses.create(model="demo-x", input="x", stream=True))
    upstream.on("demo-x", *stream(*Script().call("search", '{"q"', ":1}").end()[: kept - 1], end=ends))
    with pytest.raises(openai.APIError):
        list(client.responses.create(model="demo-x", input="x", stream=True))


def test_stored_answers_stay_closed(gateway: Running, upstream: ModelUpstream) -> None:
    """What is fetched or changed by its id would pass the guards by."""
    count = len(upstream.seen)
    for method, path, status in [
        ("GET", "/v1/responses/resp_1", 404),
        ("DELETE", "/v1/responses/resp_1", 404),
        ("POST", "/v1/responses/resp_1/cancel", 404),
        ("GET", "/v1/responses/resp_1/input_items", 404),
        ("POST", "/v1/responses/compact", 404),
        ("POST", "/v1/responses/input_tokens", 404),
        ("POST", "/v1/responses/", 404),
        ("GET", "/v1/responses", 405),
        ("DELETE", "/v1/responses", 405),
    ]:
        found = httpx2.request(method, gateway.url + path, headers=gateway.headers())
        assert found.status_code == status, (method, path)
    assert len(upstream.seen) == count
