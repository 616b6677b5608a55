"""The records of the queue: what is proposed, what is held, who voted, who claimed. Pure; stores nothing."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from gateway.core.action import Action, Surface, action_digest
from gateway.core.canonical import JSON, canonical, parse
from gateway.core.decision import ApprovalTerms, Decision
from gateway.core.held import OPEN, State


def new_id() -> str:
    """`ha_` and 128 random bits in lowercase base32: nobody guesses one, and it is safe in URLs, keys and logs."""
    return "ha_" + base64.b32encode(secrets.token_bytes(16)).decode("ascii").rstrip("=").lower()


class Verdict(StrEnum):
    APPROVE = "approve"
    DENY = "deny"


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    person: str
    verdict: Verdict
    comment: str
    at_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """What a rule holds. `arguments` are the canonical bytes that will run; `digest` covers them.

    `execution` is what the executor needs beside the arguments (protocol version, trace ids); people do not approve it.
    """

    digest: str
    agent: str
    surface: Surface
    server: str
    tool: str
    arguments: bytes = field(repr=False)  # what is in it reaches no log by accident
    rule: str
    reason: str
    release: str
    terms: ApprovalTerms
    owner: str | None = None
    run: str | None = None
    upstream: str = ""
    definition: str | None = None
    credential: str | None = None
    execution: Mapping[str, JSON] = field(default_factory=dict, repr=False)
    id: str = field(default_factory=new_id)

    @classmethod
    def of(  # noqa: PLR0913 - two records and who asks
        cls,
        action: Action,
        decision: Decision,
        *,
        agent: str,
        owner: str | None = None,
        run: str | None = None,
        execution: Mapping[str, JSON] | None = None,
    ) -> Proposal:
        """The proposal of an action that a decision holds. Raises ClientError `not_canonical`."""
        assert decision.terms is not None
        return cls(
            digest=action_digest(action, agent=agent, run=run, rule=decision.rule, terms=decision.terms),
            agent=agent,
            surface=action.surface,
            server=action.server,
            tool=action.tool,
            arguments=canonical(dict(action.arguments)),
            rule=decision.rule,
            reason=decision.reason,
            release=decision.release,
            terms=decision.terms,
            owner=owner,
            run=run,
            upstream=action.upstream,
            definition=action.definition,
            credential=action.credential,
            execution=execution or {},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldAction:
    """An action in the queue, as it was when it was read. Times are unix seconds.

    `arguments` are exactly the bytes that were proposed. `result` is None until there is one, and again once it was
    dropped (`result_ttl_s`). `note` says why it was cancelled or invalidated, or holds a reconciler's evidence.
    """

    id: str
    state: State
    digest: str
    agent: str
    surface: Surface
    server: str
    tool: str
    arguments: bytes = field(repr=False)  # what is in it reaches no log by accident
    rule: str
    reason: str
    release: str
    terms: ApprovalTerms
    created_s: float
    expires_s: float
    changed_s: float
    owner: str | None = None
    run: str | None = None
    upstream: str = ""
    definition: str | None = None
    credential: str | None = None
    execution: Mapping[str, JSON] = field(default_factory=dict, repr=False)
    decisions: tuple[Vote, ...] = ()
    result: bytes | None = field(default=None, repr=False)
    result_error: bool = False
    settled_s: float | None = None
    worker: str | None = None
    note: str = ""

    @property
    def name(self) -> str:
        return f"{self.server}.{self.tool}"

    @property
    def open(self) -> bool:
        """Whether its agent should see it as still working."""
        return self.state in OPEN

    @property
    def approvals(self) -> int:
        return sum(vote.verdict is Verdict.APPROVE for vote in self.decisions)

    def action(self) -> Action:
        """The action as it was proposed, read from the stored bytes: to be decided again before it runs."""
        arguments = parse(self.arguments, "stored arguments")
        assert isinstance(arguments, dict)
        return Action(
            surface=self.surface,
            server=self.server,
            tool=self.tool,
            arguments=arguments,
            upstream=self.upstream,
            definition=self.definition,
            credential=self.credential,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """The right to run an action, once. `token` proves it; `fence` grows with every claim of the action."""

    token: str = field(repr=False)
    fence: int
    lease_s: float
    action: HeldAction


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One step in the life of an action. `source` is empty for its proposal; a vote that settles nothing stays."""

    at_s: float
    who: str
    source: State | None
    target: State
    digest: str
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Some held actions, and the cursor of the next page if there is one."""

    actions: tuple[HeldAction, ...]
    next: str | None
