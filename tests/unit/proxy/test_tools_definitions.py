"""Tool definitions: what their digest covers, when they are fetched again, what a model is told of bad arguments."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.core.errors import GatewayError, UpstreamError
from gateway.proxy.definitions import (
    AGAIN_S,
    DEFINITION_BYTES_MAX,
    FRESH_S,
    STALE_S,
    Definition,
    Definitions,
    definition,
)
from gateway.proxy.endpoint import Endpoint
from gateway.proxy.upstream import Target

ENDPOINT = Endpoint(name="bank", target=Target(False, "127.0.0.1", 1), path=b"/mcp")
PAY: dict[str, Any] = {
    "name": "pay",
    "description": "pays",
    "inputSchema": {
        "type": "object",
        "properties": {
            "to": {"type": "string", "pattern": "^[a-z]+$", "maxLength": 9},
            "amount": {"type": "number", "minimum": 1},
            "kind": {"enum": ["a", "b"]},
            "lines": {"type": "array", "items": {"type": "object", "required": ["sku"]}, "maxItems": 2},
            "free": {"type": "object", "additionalProperties": {"type": "integer"}},
        },
        "required": ["to"],
        "additionalProperties": False,
    },
    "annotations": {"destructiveHint": True},
}


class Client:
    """Stands for the MCP client: answers with `tools`, or raises `error`."""

    def __init__(self) -> None:
        self.tools: list[dict[str, Any]] = [PAY]
        self.error: UpstreamError | None = None
        self.fetches = 0

    async def list_tools(self, endpoint: Endpoint) -> list[dict[str, Any]]:
        self.fetches += 1
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        return self.tools


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def known(tool: dict[str, Any]) -> Definition:
    found = definition(tool)
    assert found is not None
    return found


@pytest.mark.parametrize(
    "change",
    [{"description": "pays more"}, {"inputSchema": {"type": "object"}}, {"annotations": {"destructiveHint": False}}],
)
def test_what_a_model_reads_is_part_of_the_digest(change: dict[str, Any]) -> None:
    assert known({**PAY, **change}).digest != known(PAY).digest


@pytest.mark.parametrize("change", [{"title": "Pay"}, {"icons": []}, {"_meta": {"x": 1}}, {"outputSchema": {}}])
def test_presentation_is_not_part_of_the_digest(change: dict[str, Any]) -> None:
    assert known({**PAY, **change}).digest == known(PAY).digest


@pytest.mark.parametrize(
    "tool",
    [
        {},
        {"name": "x"},
        {"name": 7, "inputSchema": {}},
        {"name": "x", "inputSchema": []},
        {"name": "x", "inputSchema": {"maximum": 2**60}},
        {"name": "x", "description": "d" * DEFINITION_BYTES_MAX, "inputSchema": {}},
    ],
)
def test_what_is_no_usable_definition_is_none(tool: dict[str, Any]) -> None:
    assert definition(tool) is None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "the argument `to` is missing"),
        ({"to": 5}, "`to` must be of type string"),
        ({"to": "SECRET"}, "`to` does not fit pattern ^[a-z]+$"),
        ({"to": "secretsecret"}, "`to` does not fit maxLength 9"),
        ({"to": "a", "amount": 0.5}, "`amount` does not fit minimum 1"),
        ({"to": "a", "kind": "SECRET"}, "`kind` must be one of ['a', 'b']"),
        ({"to": "a", "SECRET": 1}, "unknown argument"),
        ({"to": "a", "lines": [{}]}, "`lines[0]` lacks `sku`"),
        ({"to": "a", "lines": [{"sku": 1}] * 3}, "`lines` does not fit maxItems 2"),
        ({"to": "a", "free": {"my SECRET key": "x"}}, "`free.*` must be of type integer"),
    ],
)
def test_problems_name_places_and_wishes_but_no_values(arguments: dict[str, Any], said: str) -> None:
    problem = known(PAY).problem(arguments)
    assert problem is not None and said in problem
    assert "secret" not in problem.lower()


def test_good_arguments_have_no_problem() -> None:
    assert known(PAY).problem({"to": "a", "amount": 2.5, "kind": "b", "lines": [{"sku": 1}], "free": {"x": 1}}) is None


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "nope"},
        {"$ref": "http://127.0.0.1:1/schema"},
        {"$ref": "file:///etc/passwd"},
        {"properties": {"a": {"type": "string", "pattern": "(?=x)y"}}},
        {"properties": {"a": {"type": "string", "pattern": "(a{1000}){1000}{1000}"}}},
        {"$schema": "http://127.0.0.1:1/meta"},
    ],
)
def test_schema_that_cannot_be_checked_refuses_the_call(schema: dict[str, Any]) -> None:
    with pytest.raises(GatewayError) as refused:
        known({"name": "x", "inputSchema": schema}).problem({"a": "x"})
    assert refused.value.code == "definition_unusable"


def test_patterns_run_in_linear_time() -> None:
    schema = {"properties": {"a": {"type": "string", "pattern": "^(a+)+$"}}}
    assert known({"name": "x", "inputSchema": schema}).problem({"a": "a" * 50_000 + "!"}) is not None


def test_fetched_once_for_everybody_and_again_when_stale() -> None:
    async def main() -> None:
        client, clock = Client(), Clock()
        definitions = Definitions(client, clock=clock)  # type: ignore[arg-type]
        found = await asyncio.gather(*(definitions.get(ENDPOINT, "pay") for _ in range(20)))
        assert all(entry is not None for entry in found) and client.fetches == 1
        for _ in range(50):
            assert await definitions.get(ENDPOINT, "nothing") is None
        assert client.fetches == 1  # unknown names do not flood the upstream
        clock.now += AGAIN_S + 1
        assert await definitions.get(ENDPOINT, "nothing") is None
        assert client.fetches == 2
        clock.now += STALE_S + 1
        await definitions.get(ENDPOINT, "pay")
        assert client.fetches == 3
        await definitions.aclose()

    asyncio.run(main())


def test_looked_at_again_in_the_background_while_the_known_one_serves() -> None:
    async def main() -> None:
        client, clock = Client(), Clock()
        definitions = Definitions(client, clock=clock)  # type: ignore[arg-type]
        first = await definitions.get(ENDPOINT, "pay")
        client.tools = [{**PAY, "description": "changed"}]
        clock.now += FRESH_S + 1
        assert await definitions.get(ENDPOINT, "pay") is first
        await asyncio.gather(*definitions._background)
        changed = await definitions.get(ENDPOINT, "pay")
        assert changed is not None and first is not None and changed.digest != first.digest
        client.error = UpstreamError("upstream_connect", "away")
        clock.now += FRESH_S + 1
        assert await definitions.get(ENDPOINT, "pay") is changed
        await asyncio.gather(*definitions._background)
        clock.now += STALE_S
        with pytest.raises(UpstreamError):
            await definitions.get(ENDPOINT, "pay")
        await definitions.aclose()

    asyncio.run(main())


def test_list_that_passes_and_differs_makes_the_gateway_look_itself() -> None:
    async def main() -> None:
        client, clock = Client(), Clock()
        definitions = Definitions(client, clock=clock)  # type: ignore[arg-type]
        first = await definitions.get(ENDPOINT, "pay")
        definitions.observe(ENDPOINT, [PAY])
        clock.now += AGAIN_S + 1
        assert await definitions.get(ENDPOINT, "pay") is first and client.fetches == 1
        client.tools = [{**PAY, "description": "changed"}]
        definitions.observe(ENDPOINT, client.tools)
        await definitions.get(ENDPOINT, "pay")
        await asyncio.gather(*definitions._background)
        assert client.fetches == 2
        changed = await definitions.get(ENDPOINT, "pay")
        assert changed is not None and changed.digest == known(client.tools[0]).digest
        await definitions.aclose()

    asyncio.run(main())


def test_unchanged_tools_keep_their_compiled_schema() -> None:
    definitions = Definitions(Client(), clock=Clock())  # type: ignore[arg-type]
    definitions.store(ENDPOINT, [PAY])
    first = asyncio.run(definitions.get(ENDPOINT, "pay"))
    definitions.store(ENDPOINT, [dict(PAY), {"name": "new", "inputSchema": {}}])
    assert asyncio.run(definitions.get(ENDPOINT, "pay")) is first
