"""What a bundle says, once it is known to be sound: plain immutable records. Knows no YAML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gateway.core.action import Surface
from gateway.core.canonical import JSON
from gateway.core.decision import ApprovalTerms, Effect, Obligation, Reason
from gateway.core.filtering import FilterRule
from gateway.core.globs import matches_any
from gateway.policy.conditions import Condition
from gateway.policy.problems import Place

CALLER_KEY_HEADER = "x-upstream-key"
"""Where an agent puts its own key for a model route with `credential: {passthrough: true}`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """What an upstream is shown. `name` is the reference that records and digests hold; `value` never leaves the proxy.

    With `passthrough` the value comes from the request's `x-upstream-key`; `value` is None then, and also where an
    optional variable is not set.
    """

    name: str
    header: str = "authorization"
    prefix: str = ""
    optional: bool = False  # without it, a passthrough route refuses a request that brings no key
    passthrough: bool = False
    value: str | None = field(default=None, repr=False)

    def headers(self, caller_key: str | None = None) -> tuple[tuple[bytes, bytes], ...]:
        """The header to send, as lowercase bytes; nothing where there is no value."""
        value = caller_key if self.passthrough else self.value
        return ((self.header.encode(), f"{self.prefix}{value}".encode()),) if value else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    connect_s: float = 5.0
    read_s: float = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """Something the gateway calls. `base_url` has no trailing slash, query or fragment."""

    name: str
    base_url: str
    credential: Credential | None = None
    timeouts: Timeouts = Timeouts()
    idempotency_key: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRoute(Upstream):
    """Where models of certain names are served."""

    match: tuple[str, ...]
    rename: Mapping[str, str] = field(default_factory=dict)
    offers: tuple[str, ...] = ()  # what /v1/models can list
    paths: Mapping[str, frozenset[str]] = field(default_factory=dict)  # extra path below /v1 -> methods

    def upstream_model(self, model: str) -> str:
        """The name that the upstream knows the model by."""
        return self.rename.get(model, model)


@dataclass(frozen=True, slots=True, kw_only=True)
class McpServer(Upstream):
    deny_methods: tuple[str, ...] = ()

    def denies(self, method: str) -> bool:
        """Whether the protocol method is refused."""
        return matches_any(self.deny_methods, method)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One call of an HTTP tool. `path` holds `{name}` as whole segments; `arguments` is a JSON Schema."""

    name: str
    method: str
    path: str
    query: tuple[str, ...] = ()
    arguments: Mapping[str, JSON] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpTool(Upstream):
    operations: Mapping[str, Operation]


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    name: str
    groups: frozenset[str] = frozenset()
    owner: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """None means that there is no limit."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    tokens_per_day: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Outcome:
    """What one layer says about a call. Made when the bundle is loaded; equal only to itself, so it can be a key."""

    reason: Reason
    terms: ApprovalTerms | None = None  # set exactly when the effect is hold
    obligations: tuple[Obligation, ...] = ()

    @property
    def effect(self) -> Effect:
        return self.reason.effect


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rule:
    """One rule. `failed` is what the layer says when a condition of the rule cannot be evaluated: deny."""

    id: str
    tools: tuple[str, ...]
    surfaces: frozenset[Surface]  # empty: all
    when: Condition | None
    unless: Condition | None
    outcome: Outcome
    failed: Outcome
    place: Place


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Policy:
    """One file, one layer. `fallback` is its `default`; None abstains. None for `models` or `paths` means no say."""

    name: str
    agents: tuple[str, ...]
    groups: tuple[str, ...]
    rules: tuple[Rule, ...]
    fallback: Outcome | None
    models: tuple[str, ...] | None
    paths: tuple[str, ...] | None
    limits: Limits
    filters: tuple[FilterRule, ...]
    strip_denied_tools: bool
    place: Place

    def applies(self, agent: Agent) -> bool:
        """Whether the layer decides calls of this agent: by its name, or by one of its groups."""
        return matches_any(self.agents, agent.name) or any(matches_any(self.groups, group) for group in agent.groups)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A call with what is expected of it. Exactly one of `tool` and `model` is set."""

    name: str
    agent: str
    tool: str | None
    model: str | None
    arguments: Mapping[str, JSON]
    session: Mapping[str, JSON]
    surface: Surface
    now: float
    expect: Effect
    rule: str | None
    place: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """Everything that the files of a bundle say."""

    agents: Mapping[str, Agent]
    models: tuple[ModelRoute, ...]
    servers: Mapping[str, McpServer]
    http_tools: Mapping[str, HttpTool]
    functions: Mapping[str, tuple[str, str]]
    limits: Limits
    policies: tuple[Policy, ...]
    cases: tuple[Case, ...]
