"""Every key of policies/*.yaml and tests/*.yaml, literally; see bundle_keys.py."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.core.decision import FailureMode
from gateway.core.exchange import Direction, Origin
from gateway.core.filtering import FilterAction
from gateway.policy.bundle_keys import BUNDLE, LIMITS
from gateway.policy.leaves import GLOB, TOOL_GLOB, ConditionText, Duration, JsonObject, Moment, choices
from gateway.policy.shape import Flag, Fraction, Key, ListOf, Record, Tagged, Text, Whole
from gateway.policy.words import (
    ABSTAIN,
    EFFECTS,
    HEADER,
    MODEL,
    NAME,
    PERSON,
    RULE_ID,
    SENTENCE,
    SURFACES,
    TOOL,
)

APPLIES_TO = Record(
    "applies_to",
    {
        "agents": Key(ListOf(GLOB), "Names of agents.", "[bookkeeper, 'intern-*']"),
        "groups": Key(ListOf(GLOB), "Groups; one match is enough, also beside `agents`.", "[finance]"),
    },
)

APPROVAL = Record(
    "approval",
    {
        "group": Key(NAME, "Whose members may decide.", "finance", default="`approvers`"),
        "quorum": Key(
            Whole(minimum=1, maximum=10),
            "How many different people must approve.",
            "2",
            default="`1`",
        ),
        "expires": Key(
            Duration(minimum_s=10, maximum_s=14 * 86_400),
            "How long the action waits. Then it expires and never runs.",
            "30m",
            default="`1h`",
        ),
        "separation": Key(Flag(), "The owner of the agent does not count as an approver.", "true", default="`false`"),
    },
)

OBLIGATION_KINDS: Mapping[str, Mapping[str, Key]] = {
    "add_header": {
        "name": Key(
            HEADER,
            "Header that goes to the upstream. Not one that HTTP, a credential or the gateway itself uses.",
            "x-cost-centre",
            required=True,
        ),
        "value": Key(
            Text(words="printable ASCII", pattern=r"[\x21-\x7e](?:[\x20-\x7e]{0,198}[\x21-\x7e])?"),
            "Its value.",
            "'4711'",
            required=True,
        ),
    },
    "cap_result": {
        "bytes": Key(
            Whole(minimum=1, maximum=2**31),
            "Largest answer that is handed on. Of a larger one nothing is: the agent gets an error.",
            "65536",
            required=True,
        ),
    },
}
OBLIGATION = Tagged(
    "kind",
    {
        kind: Record(
            f"obligation {kind}",
            {"kind": Key(choices((kind,)), "Which obligation.", kind, required=True), **keys},
        )
        for kind, keys in OBLIGATION_KINDS.items()
    },
)

RULE = Record(
    "rule",
    {
        "id": Key(RULE_ID, "Name in decisions, traces and test cases.", "large-transfer", required=True),
        "tools": Key(ListOf(TOOL_GLOB), "Tools it speaks about.", "[bank.transfer, '*.delete_*']", required=True),
        "surfaces": Key(
            ListOf(choices(SURFACES)),
            "Where: proposed by a model, called over MCP, or over HTTP.",
            "[mcp]",
            default="all",
        ),
        "when": Key(ConditionText(), "The rule matches only if this is true.", "'args.amount > 1000'"),
        "unless": Key(
            ConditionText(),
            "The rule does not match if this is true.",
            "\"args.currency in ['EUR', 'CHF']\"",
        ),
        "effect": Key(choices(EFFECTS), "What happens when it matches.", "hold", required=True),
        "reason": Key(SENTENCE, "What an approver and the agent read.", "A transfer cannot be undone.", required=True),
        "approval": Key(
            APPROVAL,
            "Terms of a `hold`.",
            "{group: finance, expires: 30m}",
            default="the policy's `approval`",
        ),
        "obligations": Key(
            ListOf(OBLIGATION),
            "What must be done with the call when it runs.",
            "[{kind: cap_result, bytes: 65536}]",
        ),
    },
)

FILTER = Record(
    "filter",
    {
        "id": Key(RULE_ID, "Name in records.", "mask-personal-data", required=True),
        "kinds": Key(ListOf(GLOB), "Kinds of findings.", "[pii.email, 'secret.*']", required=True),
        "action": Key(
            choices(tuple(action.value for action in FilterAction)),
            "`record` it, `mask` it, or `deny` the exchange.",
            "mask",
            required=True,
        ),
        "reason": Key(SENTENCE, "Why; shown when it denies.", "Personal data stays in the house.", required=True),
        "origins": Key(
            ListOf(choices(tuple(origin.value for origin in Origin))),
            "Where the text comes from.",
            "[user, tool_result]",
            default="all",
        ),
        "directions": Key(
            ListOf(choices(tuple(direction.value for direction in Direction))),
            "`request`: from the agent; `response`: to the agent.",
            "[request]",
            default="both",
        ),
        "surfaces": Key(ListOf(choices(SURFACES)), "Which surfaces.", "[model]", default="all"),
        "tools": Key(
            ListOf(TOOL_GLOB),
            "Only arguments and results of these tools.",
            "[bank.list_payees]",
            default="all tools, and text that belongs to none",
        ),
        "score_min": Key(Fraction(), "Findings with a lower score are left alone.", "0.6", default="`0`"),
        "on_error": Key(
            choices(tuple(mode.value for mode in FailureMode)),
            "When the filter fails: `closed` denies; `open` lets pass and records `allowed_failed_open`.",
            "closed",
            default="`closed`",
        ),
    },
)

POLICY = Record(
    "policy",
    {
        "applies_to": Key(APPLIES_TO, "Whose calls this layer decides.", "{groups: [finance]}", required=True),
        "default": Key(
            choices((ABSTAIN, *EFFECTS)),
            "What the layer says when no rule matches. When all layers abstain, the call is denied.",
            "deny",
            default="`abstain`",
        ),
        "rules": Key(
            ListOf(RULE),
            "Rules about tools. The first that matches decides.",
            "[{id: read, tools: [bank.get_balance], effect: allow, reason: Reading is harmless.}]",
        ),
        "approval": Key(
            APPROVAL,
            "Terms for holds that name none.",
            "{group: finance}",
            default="`{group: approvers, quorum: 1, expires: 1h}`",
        ),
        "models": Key(
            ListOf(GLOB),
            "Models that may be used. Every layer that has this list must agree, and at least one must.",
            "['demo-*']",
        ),
        "paths": Key(ListOf(GLOB), "Extra paths of model routes that may be used, in the same way.", "[/embeddings]"),
        "limits": Key(LIMITS, "Limits; of several layers the lowest holds.", "{requests_per_minute: 60}"),
        "filters": Key(
            ListOf(FILTER),
            "What to do with findings in text. The strictest action wins.",
            "[{id: no-secrets, kinds: ['secret.*'], action: deny, reason: Secrets stay here.}]",
        ),
        "strip_denied_tools": Key(
            Flag(),
            "Remove tools that would be denied whatever the arguments from the tool list of model requests.",
            "true",
            default="`false`",
        ),
    },
)

CASE = Record(
    "case",
    {
        "name": Key(SENTENCE, "What is expected, as a sentence.", "a large transfer waits for finance", required=True),
        "agent": Key(PERSON, "Who calls.", "bookkeeper", required=True),
        "tool": Key(TOOL, "Which tool is called.", "bank.transfer"),
        "model": Key(MODEL, "Instead of `tool`: which model is asked for.", "demo-accountant"),
        "args": Key(JsonObject(), "Arguments of the call.", "{amount: 4900}", default="`{}`"),
        "session": Key(JsonObject(), "Session facts.", "{}", default="`{}`"),
        "surface": Key(
            choices(SURFACES),
            "Where the call comes in.",
            "mcp",
            default="the one that serves the tool; `model` for `local`",
        ),
        "now": Key(
            Moment(), "The time of the call.", "'2026-11-23T09:30:00Z'", default="`2026-01-05T12:00:00Z`, a Monday"
        ),
        "expect": Key(choices(EFFECTS), "The effect.", "hold", required=True),
        "rule": Key(
            Text(words="`policy/rule`, or `default`", pattern=rf"{NAME.pattern}/{NAME.pattern}|default"),
            "The rule that must decide.",
            "payments/large-transfer",
        ),
    },
)

TESTS = Record(
    "tests",
    {
        "cases": Key(
            ListOf(CASE),
            "Calls with what is expected of them.",
            "[{name: balance is free, agent: bookkeeper, tool: bank.get_balance, expect: allow}]",
            required=True,
        )
    },
)

FILES: Mapping[str, tuple[Record, str]] = {
    "bundle": (BUNDLE, "bundle.yaml"),
    "policy": (POLICY, "policies/*.yaml"),
    "tests": (TESTS, "tests/*.yaml"),
}
"""The kinds of files of a bundle, by the name of their schema."""
