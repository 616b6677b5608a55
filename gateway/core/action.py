"""One tool call, and the digest that people approve."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from gateway.core.canonical import JSON, digest
from gateway.core.decision import ApprovalTerms


class Surface(StrEnum):
    MODEL = "model"  # proposed by a model and executed by the agent itself
    MCP = "mcp"
    HTTP = "http"


LOCAL_SERVER = "local"
"""The server part of a tool that the agent itself executes and the gateway only sees proposed by a model."""

PROVIDER_SERVER = "provider"
"""The server part of a tool that the provider of a model runs by itself, such as its web search."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """A proposed tool call.

    `upstream` names the upstream in the bundle (never an address), `definition` is the digest of the tool definition as
    served to the agent (None where the surface has none), `credential` names the operator's credential, never holds it.
    """

    surface: Surface
    server: str
    tool: str
    arguments: Mapping[str, JSON]
    upstream: str = ""
    definition: str | None = None
    credential: str | None = None

    @property
    def name(self) -> str:
        return f"{self.server}.{self.tool}"


def action_digest(action: Action, *, agent: str, run: str | None, rule: str, terms: ApprovalTerms) -> str:
    """SHA-256 over RFC 8785 of everything an approver stakes their name on (DESIGN section 4).

    One object with named members, so that no two different actions share a spelling. `run` is the run that the caller
    named itself, if any: two runs may each want the same payment.
    """
    return digest(
        {
            "v": 1,
            "agent": agent,
            "run": run,
            "surface": action.surface.value,
            "upstream": action.upstream,
            "tool": action.name,
            "definition": action.definition,
            "arguments": dict(action.arguments),
            "credential": action.credential,
            "rule": rule,
            "terms": {
                "group": terms.group,
                "quorum": terms.quorum,
                "expires_s": terms.expires_s,
                "separation": terms.separation,
            },
        }
    )
