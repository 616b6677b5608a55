"""The names of everything the queue keeps in Redis.

All of it carries one hash tag, so that in a cluster it lies in one slot and every script may touch what it must. One
slot carries thousands of durable transitions a second; people decide a few an hour. Sharding would cost exact order
and exact counts for speed that approvals cannot use.
"""

from __future__ import annotations

import re

ID = re.compile(r"ha_[a-z2-7]{26}")


class Keys:
    """Keys under `gw:{namespace}:`. `shared` and `of` come in the order that `lua/prelude.lua` reads."""

    def __init__(self, namespace: str) -> None:
        assert re.fullmatch(r"[a-z0-9_-]+", namespace)
        self._prefix = f"gw:{{{namespace}}}:"
        self.pending = self._prefix + "pending"  # sorted by expiry
        self.approved = self._prefix + "approved"  # sorted by expiry
        self.leases = self._prefix + "leases"  # executing, sorted by the end of the lease
        self.unknown = self._prefix + "unknown"  # sorted by when it became so; stays until a person has looked
        self.closed = self._prefix + "closed"  # sorted by when it ended, for removal
        self.recent = self._prefix + "recent"  # all that are no longer pending, sorted by last change
        self.results = self._prefix + "results"  # sorted by when they came, for removal
        self.digests = self._prefix + "digests"  # digest -> id
        self.agents = self._prefix + "agents"  # agent -> pending
        self.counts = self._prefix + "counts"  # state -> how many, and `changes`: the number of the last one
        self.changes = self._prefix + "changes"  # stream: n, id, state
        self.shared = (
            self.pending,
            self.approved,
            self.leases,
            self.unknown,
            self.closed,
            self.recent,
            self.results,
            self.digests,
            self.agents,
            self.counts,
            self.changes,
        )

    def action(self, action_id: str) -> str:
        return f"{self._prefix}action:{action_id}"

    def events(self, action_id: str) -> str:
        return f"{self._prefix}events:{action_id}"

    def result(self, action_id: str) -> str:
        return f"{self._prefix}result:{action_id}"

    def of(self, *action_ids: str) -> list[str]:
        """What a script on these actions declares."""
        return [
            *self.shared,
            *(key for each in action_ids for key in (self.action(each), self.events(each), self.result(each))),
        ]
