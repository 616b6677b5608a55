"""Every key of bundle.yaml, literally: shape, meaning, example, default.

Validation, the JSON Schema for editors and the tables of docs/policy.md are all read from here.
"""

from __future__ import annotations

from collections.abc import Mapping

from gateway.policy.leaves import GLOB, Address, ArgumentsSchema, Duration, choices
from gateway.policy.shape import Flag, Key, ListOf, MapOf, Record, Text, Whole
from gateway.policy.words import (
    ARGUMENT,
    EXTRA_PATH,
    FUNCTION,
    HEADER,
    METHODS,
    MODEL,
    NAME,
    PERSON,
    SERVER_NAME,
    TEMPLATE,
    TOOL,
    VARIABLE,
)

TIMEOUTS = Record(
    "timeouts",
    {
        "connect": Key(Duration(maximum_s=60), "How long opening a connection may take.", "5s", default="`5s`"),
        "read": Key(
            Duration(maximum_s=3600),
            "How long the upstream may stay silent, before its answer and between pieces of it.",
            "2m",
            default="`2m`",
        ),
    },
)

_CREDENTIAL: Mapping[str, Key] = {
    "env": Key(VARIABLE, "Environment variable that holds the secret. The bundle never does.", "CRM_TOKEN"),
    "header": Key(HEADER, "Header that carries it.", "x-api-key", default="`authorization`"),
    "prefix": Key(
        Text(words="text before the secret", pattern=r"[\x20-\x7e]{0,40}"),
        "What stands before the secret in the header.",
        "'Token '",
        default="`'Bearer '` for `authorization`, else nothing",
    ),
    "optional": Key(
        Flag(),
        "Start without the secret when the variable is not set. Otherwise that is a load error.",
        "true",
        default="`false`",
    ),
}
CREDENTIAL = Record("credential", _CREDENTIAL)
MODEL_CREDENTIAL = Record(
    "credential of a model",
    {
        **_CREDENTIAL,
        "passthrough": Key(
            Flag(),
            "Send the caller's own key, which it puts into the header `x-upstream-key`. Instead of `env`.",
            "true",
            default="`false`",
        ),
    },
)

AGENT = Record(
    "agent",
    {
        "groups": Key(ListOf(NAME), "Groups that policies can apply to.", "[finance]"),
        "owner": Key(
            PERSON,
            "The person who answers for the agent; does not count as an approver where a rule asks for separation.",
            "dana",
        ),
    },
)

EXTRA = Record(
    "extra path",
    {
        "path": Key(EXTRA_PATH, "Path below `/v1`.", "/embeddings", required=True),
        "methods": Key(ListOf(choices(METHODS)), "Methods that are forwarded.", "[POST]", default="`[POST]`"),
    },
)

MODEL_ROUTE = Record(
    "model route",
    {
        "name": Key(NAME, "Name of the route in records and traces.", "openai", required=True),
        "match": Key(
            ListOf(GLOB),
            "Model names that go this way. The first route that matches is taken.",
            "['gpt-*', 'o4-*']",
            required=True,
        ),
        "url": Key(Address(), "Base URL, usually ending in `/v1`.", "https://api.openai.com/v1", required=True),
        "credential": Key(
            MODEL_CREDENTIAL, "What the upstream is shown. Without it: nothing.", "{env: OPENAI_API_KEY}"
        ),
        "rename": Key(
            MapOf(MODEL, MODEL),
            "Model names that the upstream knows under another name.",
            "{gpt-house: gpt-5-mini}",
        ),
        "offers": Key(
            ListOf(MODEL),
            "Names that `/v1/models` lists, beside those in `match` and `rename` that have no `*` or `?`.",
            "[gpt-5-mini]",
        ),
        "paths": Key(
            ListOf(EXTRA),
            "Other paths below `/v1` that are forwarded: JSON only, every string filtered. Others are denied.",
            "[{path: /embeddings}]",
        ),
        "timeouts": Key(TIMEOUTS, "How long to wait.", "{read: 5m}"),
    },
)

_UPSTREAM: Mapping[str, Key] = {
    "url": Key(Address(), "Address.", "'${BANK_URL:-http://127.0.0.1:9101/mcp}'", required=True),
    "credential": Key(CREDENTIAL, "What the upstream is shown. The agent never sees it.", "{env: BANK_TOKEN}"),
    "idempotency_key": Key(
        Flag(),
        "The upstream takes an `Idempotency-Key` header; approved actions are sent with one.",
        "true",
        default="`false`",
    ),
    "timeouts": Key(TIMEOUTS, "How long to wait.", "{read: 30s}"),
}

SERVER = Record(
    "MCP server",
    {
        **_UPSTREAM,
        "deny_methods": Key(
            ListOf(GLOB),
            "Protocol methods that are refused in either direction. Tools are for rules, not for this list.",
            "['sampling/*', 'resources/*']",
        ),
    },
)

OPERATION = Record(
    "operation",
    {
        "method": Key(choices(METHODS), "HTTP method.", "DELETE", required=True),
        "path": Key(
            TEMPLATE,
            "Path below the tool's `url`. `{name}` is an argument.",
            "'/contacts/{id}'",
            required=True,
        ),
        "query": Key(ListOf(ARGUMENT), "Arguments that travel in the query. Others are refused there.", "[expand]"),
        "arguments": Key(
            ArgumentsSchema(),
            "JSON Schema of all arguments: path, query and JSON body together. Calls that do not fit are refused.",
            "{type: object, properties: {id: {type: string}}, required: [id]}",
        ),
    },
)

HTTP_TOOL = Record(
    "HTTP tool",
    {
        **_UPSTREAM,
        "operations": Key(
            MapOf(NAME, OPERATION),
            "What can be called, by name. Requests that match none are refused.",
            "{get_contact: {method: GET, path: '/contacts/{id}'}}",
            required=True,
        ),
    },
)

_COUNT = Whole(minimum=1, maximum=10**12)
LIMITS = Record(
    "limits",
    {
        "requests_per_minute": Key(_COUNT, "Model and tool requests per agent and minute.", "120"),
        "tokens_per_minute": Key(_COUNT, "Model tokens, in and out, per agent and minute.", "100000"),
        "tokens_per_day": Key(_COUNT, "Model tokens, in and out, per agent and day (UTC).", "2000000"),
    },
)

BUNDLE = Record(
    "bundle.yaml",
    {
        "agents": Key(
            MapOf(PERSON, AGENT),
            "Who may call. Keys for them are made with `gateway keys create NAME`.",
            "{bookkeeper: {groups: [finance], owner: dana}}",
            required=True,
        ),
        "models": Key(
            ListOf(MODEL_ROUTE),
            "Routes of model names to upstreams, in order.",
            "[{name: openai, match: ['gpt-*'], url: 'https://api.openai.com/v1'}]",
        ),
        "servers": Key(
            MapOf(SERVER_NAME, SERVER),
            "MCP servers, served at `/mcp/NAME`. Their tools are `NAME.tool`.",
            "{bank: {url: 'http://127.0.0.1:9101/mcp'}}",
        ),
        "http_tools": Key(
            MapOf(SERVER_NAME, HTTP_TOOL),
            "HTTP tools, served at `/tools/NAME`. Their tools are `NAME.operation`.",
            "{crm: {url: 'https://crm.example', operations: {list: {method: GET, path: /contacts}}}}",
        ),
        "functions": Key(
            MapOf(FUNCTION, TOOL),
            "Tools that function names in a model's tool list stand for; see [function names](#function-names).",
            "{pay: bank.transfer}",
        ),
        "limits": Key(
            LIMITS,
            "Limits for agents whose policies name none.",
            "{requests_per_minute: 120}",
            default="no limit",
        ),
    },
)
