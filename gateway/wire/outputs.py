"""What a stream guard tells the proxy to do, the same for every dialect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from gateway.core.filtering import FilterRule
from gateway.wire.calls import CallVerdict, ProposedCall


@dataclass(frozen=True, slots=True)
class Release:
    """Send these bytes to the agent."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Decide:
    """All calls of a choice are here: answer with `resolve`."""

    choice: int
    calls: tuple[ProposedCall, ...]


@dataclass(frozen=True, slots=True)
class Blocked:
    """A rule forbids the text. `data` ends the stream as the dialect does (`content_filter`); nothing follows."""

    rule: FilterRule
    data: bytes


@dataclass(frozen=True, slots=True)
class Failed:
    """The stream cannot go on. `data` ends it with an error that the SDK raises; nothing follows. If nothing was
    released yet, a whole HTTP error is the better answer."""

    code: str
    data: bytes


Output: TypeAlias = Release | Decide | Blocked | Failed


class StreamGuard(Protocol):
    """One stream from its first byte to its last, in some dialect. Sans-IO: bytes of the upstream in, outputs out."""

    @property
    def finish_reasons(self) -> Mapping[int, str]: ...
    @property
    def texts(self) -> Mapping[int, str]:
        """The text of each choice as released (masked), bounded."""

    def feed(self, data: bytes) -> list[Output]: ...
    def resolve(self, choice: int, verdicts: Sequence[CallVerdict]) -> list[Output]: ...
    def finish(self) -> list[Output]: ...
