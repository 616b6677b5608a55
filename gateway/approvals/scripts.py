"""The queue's Lua, each script completed with the state table of `core.held`, which is written there and only there."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from gateway.approvals.link import Script
from gateway.core.held import OPEN, TERMINAL, TRANSITIONS, State

CHANGES_MAX = 10_000
"""Wake-up calls kept for readers that were away. One that missed more learns it from the hole in their numbers."""

ANSWERS = frozenset({State.SUCCEEDED, State.FAILED, State.DENIED})
"""Ends that answer the same question for as long as results are kept; any other end lets it be asked anew."""

_LUA = Path(__file__).with_name("lua")


def _set(name: str, members: Iterable[str]) -> str:
    entries = ", ".join(f"['{member}'] = true" for member in sorted(members))
    return f"local {name} = {{{entries}}}\n"


def _load(name: str) -> Script:
    tables = (
        _set("EDGES", (f"{source}>{target}" for source, targets in TRANSITIONS.items() for target in targets))
        + _set("OPEN", OPEN)
        + _set("TERMINAL", TERMINAL)
        + _set("ANSWERS", ANSWERS)
        + f"local CHANGES_MAX = {CHANGES_MAX}\n"
    )
    sources = (_LUA / "prelude.lua", _LUA / f"{name}.lua")
    return Script(name, tables + "".join(path.read_text("utf-8") for path in sources))


PROPOSE = _load("propose")
DECIDE = _load("decide")
SETTLE = _load("settle")
CLAIM = _load("claim")
RENEW = _load("renew")
COMPLETE = _load("complete")
TIDY = _load("tidy")
