"""Pieces of text with their origin, and what filters found in them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple


class Origin(StrEnum):
    """Where a part comes from. Policies select on it."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL_RESULT = "tool_result"
    TOOL_ARGS = "tool_args"


class Direction(StrEnum):
    REQUEST = "request"  # agent -> model or tool
    RESPONSE = "response"  # model or tool -> agent


Path = tuple[str | int, ...]


class Part(NamedTuple):
    """A piece of text at `path` in the decoded body, so that a rewrite touches that value alone."""

    origin: Origin
    text: str
    path: Path


@dataclass(frozen=True, slots=True)
class Finding:
    """What a filter found: `kind` such as `pii.email` or `secret.github_token`, a span in code points, a score in
    0..1. Never the matched text."""

    filter: str
    kind: str
    start: int
    end: int
    score: float = 1.0
