"""What the rules that spoke oblige the gateway to do with a call that runs: headers to send, the answer that may pass.

Owns which kinds can be met. Imports nothing that is slow to load: `gateway policy check` asks it too.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from gateway.core.decision import Obligation

KNOWN_OBLIGATIONS: Final = frozenset({"add_header", "cap_result"})
"""Obligations that the tool surfaces can meet. Anything else denies."""

RESULT_TOO_LARGE: Final = "result_too_large"


@dataclass(frozen=True, slots=True, kw_only=True)
class Duties:
    """Obligations of one decision, ready to be met. `result_bytes_max` counts the answer as the tool sent it: the body
    of an HTTP tool, the JSON-RPC response of an MCP server. None: the decision sets no bound."""

    headers: tuple[tuple[bytes, bytes], ...] = ()
    result_bytes_max: int | None = None

    def permits(self, size: int) -> bool:
        """Whether an answer of so many bytes may be handed on."""
        return self.result_bytes_max is None or size <= self.result_bytes_max

    def bound(self, bytes_max: int) -> int:
        """The lower of the caller's own bound and that of the decision."""
        return bytes_max if self.result_bytes_max is None else min(bytes_max, self.result_bytes_max)

    @property
    def too_large(self) -> str:
        """Why nothing of an answer beyond the bound is handed on."""
        return f"it is longer than the {self.result_bytes_max} bytes that the policy lets through; ask for less"


NO_DUTIES: Final = Duties()


def duties_of(obligations: Iterable[Obligation]) -> Duties | None:
    """What must be done, or None where an obligation is of a kind that nobody here can meet: the call is denied then.

    Several layers add up: every header is sent, also two of one name, and the smallest bound holds. Names that the
    gateway writes itself were refused when the bundle was loaded.
    """
    headers: list[tuple[bytes, bytes]] = []
    bounds: list[int] = []
    for obligation in obligations:
        given = dict(obligation.parameters)
        if obligation.kind == "add_header":
            headers.append((given["name"].lower().encode(), given["value"].encode()))
        elif obligation.kind == "cap_result":
            bounds.append(int(given["bytes"]))
        else:
            return None
    if not headers and not bounds:
        return NO_DUTIES
    return Duties(headers=tuple(headers), result_bytes_max=min(bounds, default=None))
