"""To which run an exchange belongs, when the agent does not say so.

An agent that only changed its base URL names no run. Its model calls are joined by how their conversation begins; its
tool calls by the proposal that a model made in that run a moment ago. Bounded process memory: a miss splits a tree.
"""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from collections.abc import Iterable
from typing import TypeVar

from gateway.core.exchange import Origin, Part

IDLE_S = 3600.0  # a conversation that rests longer than this is a new run
PROPOSAL_S = 600.0  # an agent calls the tool its model proposed within minutes
ENTRIES_MAX = 20_000  # about 4 MB


K = TypeVar("K", int, bytes)


class Runs:
    """Two bounded maps from what was seen to a trace id of 32 hex digits."""

    def __init__(self) -> None:
        self._conversations: OrderedDict[int, tuple[str, float]] = OrderedDict()
        self._proposals: OrderedDict[bytes, tuple[str, float]] = OrderedDict()

    def of_conversation(self, agent: str, opening: tuple[str, ...], *, now: float) -> str:
        """The run of the conversation that opens with these texts; a new run where none is known."""
        key = hash((agent, opening))  # of this process alone and keyed at random: two openings will not meet
        known = self._conversations.get(key)
        trace = known[0] if known and now - known[1] < IDLE_S else os.urandom(16).hex()
        _put(self._conversations, key, trace, now)
        return trace

    def proposed(self, agent: str, action: str, arguments: str, trace: str, *, now: float) -> None:
        """Remember that a model proposed this call in this run."""
        _put(self._proposals, _key(agent, action, arguments), trace, now)

    def of_call(self, agent: str, action: str, arguments: str, *, now: float) -> str | None:
        """The run in which a model proposed exactly this call a moment ago, if any."""
        known = self._proposals.get(_key(agent, action, arguments))
        return known[0] if known and now - known[1] < PROPOSAL_S else None


def opening_of(parts: Iterable[Part]) -> tuple[str, ...]:
    """What every later turn of a conversation repeats: its texts up to the first one of the user."""
    opening: list[str] = []
    for part in parts:
        opening.append(part.text)
        if part.origin is Origin.USER:
            break
    return tuple(opening)


def _key(*words: str) -> bytes:
    state = hashlib.blake2b(digest_size=16)
    for word in words:
        data = word.encode("utf-8", "surrogatepass")
        state.update(len(data).to_bytes(8, "big"))
        state.update(data)
    return state.digest()


def _put(entries: OrderedDict[K, tuple[str, float]], key: K, trace: str, now: float) -> None:
    entries[key] = (trace, now)
    entries.move_to_end(key)
    if len(entries) > ENTRIES_MAX:
        entries.popitem(last=False)
