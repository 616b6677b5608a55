"""Tool calls that a model proposes, and the verdicts on them, for every model dialect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from gateway.core.canonical import JSON, parse
from gateway.core.errors import ClientError


class CallKind(StrEnum):
    FUNCTION = "function"
    CUSTOM = "custom"  # free text input instead of JSON arguments
    LEGACY = "function_call"  # the one call per message of the API before tools


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposedCall:
    """One call as the model wrote it.

    `arguments` is None where the text has no single reading as a JSON object (invalid, duplicate keys, not an object,
    a name that came in pieces): such a call must be denied, and allowing it raises. A custom call has the arguments
    `{"input": text}`.
    """

    choice: int
    index: int  # position among the calls of the choice; a legacy call stands at -1
    id: str
    name: str
    arguments_text: str
    arguments: Mapping[str, JSON] | None
    kind: CallKind = CallKind.FUNCTION


@dataclass(frozen=True, slots=True)
class CallVerdict:
    """`text` is what the agent reads in the place of a call that is not allowed."""

    allow: bool
    text: str | None = None


def read_arguments(kind: CallKind, text: str) -> Mapping[str, JSON] | None:
    """The arguments as an object, or None. No text at all is a call without arguments, as agents read it."""
    if kind is CallKind.CUSTOM:
        return {"input": text}
    if not text.strip(" \t\r\n"):
        return {}
    try:
        value = parse(text.encode(), "arguments")
    except (ClientError, UnicodeEncodeError):
        return None
    return value if isinstance(value, dict) else None


def check_verdicts(calls: Sequence[ProposedCall], verdicts: Sequence[CallVerdict]) -> None:
    """Raises ValueError where a caller forgot a call, or allows one that nobody could have judged."""
    if len(verdicts) != len(calls):
        raise ValueError("one verdict per call")
    if any(verdict.allow and call.arguments is None for call, verdict in zip(calls, verdicts, strict=True)):
        raise ValueError("a call whose arguments have no single reading cannot be allowed")
