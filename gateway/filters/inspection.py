"""Walks a text piece by piece and yields findings. The one walk, for whole texts and for streams."""

from __future__ import annotations

import re

from gateway.core.exchange import Finding
from gateway.filters.cutting import SEPARATORS, WINDOW, Chain, next_piece
from gateway.filters.detection import Detection

_TOKEN = re.compile(r"[A-Za-z0-9_.~+/=%-]*")
"""What tokens are made of. One that is longer than a window goes on as long as these do."""


class Inspection:
    """The state between two pieces of one folded text. Offsets given and returned are those of the text passed in; who
    cuts the text at its beginning keeps one character before `at` and calls `moved`."""

    __slots__ = ("_chain", "_detection", "_inside", "_open")

    def __init__(self, detection: Detection) -> None:
        self._detection = detection
        self._chain = Chain()
        self._inside = False  # the next piece begins inside of a chain: the character before it is context
        self._open = ""  # the kind of a token that reached the end of its window

    def moved(self) -> None:
        """The text was cut at its beginning."""
        self._chain.forget()

    def step(self, text: str, at: int, final: bool) -> tuple[list[Finding], int] | None:
        """Findings of the next piece from `at` on, and where the piece after it begins. None: more text is needed.

        Raises FilterError.
        """
        if self._open:
            return self._go_on(text, at, final)
        if self._inside and at < len(text) and text[at] in SEPARATORS:
            return [], at + 1  # the word that was cut into ended here: what follows is not inside of anything
        piece = next_piece(text, at, final, self._chain)
        if piece is None:
            return None
        self._chain.forget()
        if piece.armour:
            self._inside = False
            return [Finding("secrets", "secret.private_key", at, piece.end)], piece.end
        # Context on either side, so that a word boundary is one only where the whole text has one.
        before = 1 if self._inside and at else 0
        is_window = piece.owned < piece.end
        unit = text[at - before : piece.end + is_window]
        found = self._detection.find(unit, before)
        if at > before:
            shift = at - before
            found = [Finding(f.filter, f.kind, f.start + shift, f.end + shift, f.score) for f in found]
        self._inside = is_window
        if not is_window:
            return found, piece.end
        return self._owned(found, piece.end, piece.owned)

    def _owned(self, found: list[Finding], end: int, owned: int) -> tuple[list[Finding], int]:
        mine = [f for f in found if f.start < owned]
        if mine and mine[-1].end >= end:
            last = mine.pop()
            mine.append(Finding(last.filter, last.kind, last.start, end, last.score))
            self._open = last.kind
        return mine, max(owned, mine[-1].end) if mine else owned

    def _go_on(self, text: str, at: int, final: bool) -> tuple[list[Finding], int] | None:
        run = _TOKEN.match(text, at, at + WINDOW)
        end = run.end() if run else at
        if end == len(text) and end < at + WINDOW and not final:
            return None
        kind = self._open
        if end < at + WINDOW:
            self._open = ""
        if end == at:
            return [], at
        return [Finding("secrets" if kind.startswith("secret.") else "personal", kind, at, end)], end
