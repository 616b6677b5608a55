"""What the tests of the filters share: one warm scanner, rules, and ways to feed a guard."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from gateway.core.action import Surface
from gateway.core.decision import FailureMode
from gateway.core.exchange import Direction, Finding, Origin
from gateway.core.filtering import Edit, FilterAction, FilterRule, TextVerdict, apply_edits
from gateway.filters import Scanner, judge, text_guard


@cache
def scanner() -> Scanner:
    """One for the test process: loading takes a third of a second."""
    one = Scanner()
    one.warm()
    return one


def scan(text: str) -> tuple[Finding, ...]:
    return scanner().scan(text)


def rule(
    action: FilterAction = FilterAction.MASK,
    *kinds: str,
    policy: str = "base",
    name: str = "one",
    on_error: FailureMode = FailureMode.CLOSED,
    score_min: float = 0.0,
) -> FilterRule:
    return FilterRule(
        policy=policy, id=name, action=action, reason="r", kinds=kinds or ("*",), on_error=on_error, score_min=score_min
    )


MASK_ALL = (rule(),)


def verdict(text: str, rules: tuple[FilterRule, ...] = MASK_ALL, using: Scanner | None = None) -> TextVerdict:
    return judge(
        rules,
        using or scanner(),
        text,
        origin=Origin.ASSISTANT,
        direction=Direction.RESPONSE,
        surface=Surface.MODEL,
    )


class Streamed:
    """A text given to a guard piece by piece, with what a relay would have sent on meanwhile."""

    def __init__(
        self, pieces: Iterable[str], rules: tuple[FilterRule, ...] = MASK_ALL, using: Scanner | None = None
    ) -> None:
        self.guard = text_guard(
            rules,
            using or scanner(),
            origin=Origin.ASSISTANT,
            direction=Direction.RESPONSE,
            surface=Surface.MODEL,
        )
        self.text = ""
        self.sent = ""
        self.held_max = 0
        self._at = 0
        self._edits = 0
        for piece in pieces:
            self.text += piece
            self.guard.feed(piece)
            self._send()
            self.held_max = max(self.held_max, len(self.text) - self.guard.settled)
        self.guard.finish()
        self._send()

    def _send(self) -> None:
        settled = self.guard.settled
        assert self._at <= settled <= len(self.text)
        fresh = self.guard.edits[self._edits :]
        assert all(self._at <= edit.start < edit.end <= settled for edit in fresh)
        moved = [Edit(edit.start - self._at, edit.end - self._at, edit.replacement) for edit in fresh]
        self.sent += apply_edits(self.text[self._at : settled], moved)
        self._edits += len(fresh)
        self._at = settled


def cut(text: str, sizes: Iterable[int]) -> list[str]:
    """The text in pieces of these sizes, over and over."""
    pieces: list[str] = []
    wanted = list(sizes) or [1]
    at = turn = 0
    while at < len(text):
        size = max(1, wanted[turn % len(wanted)])
        pieces.append(text[at : at + size])
        at += size
        turn += 1
    return pieces
