"""Finds in one unit of folded text: one pass of an RE2 set over all patterns, then only those that can match.

Knows the detectors, not where a unit comes from. Time is linear in the unit: RE2 does not backtrack, and every
candidate that it yields is judged by code that looks at a bounded number of characters.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from itertools import pairwise

import re2

from gateway.core.errors import FilterError
from gateway.core.exchange import Finding
from gateway.filters.formats import FORMATS, Format
from gateway.filters.kinds import rank
from gateway.filters.personal import PERSONAL, Personal
from gateway.filters.presidio import Recognizers, load

_SET_BYTES_MAX = 64 << 20
"""Room for RE2's states, taken only as needed (a few MB for real text). With too little room a set reports no match at
all, in silence: `Detection` proves at start that it does match."""

_CHECKED_BYTES = 512
"""Plausibility shows early. A value of names given to names is rejected once for each of them."""

_LIBRARY_ERRORS = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError, MemoryError)
"""What a defect in a recognizer, or in a library beneath it, shows as. None of it may read as "nothing found"."""


class Detection:
    """All detectors, compiled. Building one takes 0.2 s (Presidio's recognizers) and some MB; share it."""

    def __init__(self) -> None:
        self._recognizers: Recognizers = load()
        options = re2.Options()
        options.encoding = re2.Options.Encoding.LATIN1  # bytes in, bytes out: UTF-8 passes through as what it is
        options.max_mem = _SET_BYTES_MAX
        options.log_errors = False
        self._set = re2.Set.SearchSet(options)
        self._detectors: list[Format | Personal] = [*FORMATS, *PERSONAL]
        self._patterns = []
        for detector in self._detectors:
            pattern = detector.pattern if isinstance(detector.pattern, bytes) else detector.pattern.encode("ascii")
            self._set.Add(pattern)
            self._patterns.append(re2.compile(pattern, options))
        self._set.Compile()
        self._match = self._set.Match
        if not self._match(b"-----BEGIN") or not self.find("mail someone@example.com"):
            raise FilterError("filter_broken", "the filters do not find what they must; reinstall the gateway")

    def touches(self, data: bytes) -> bool:
        """Whether anything could be found. False is final; True only says that it is worth looking."""
        return bool(self._match(data))

    def find(self, unit: str, skip: int = 0) -> list[Finding]:
        """Findings of a unit in order, not overlapping; offsets are those of `unit`.

        The first `skip` characters are context: what begins there is not reported. Raises FilterError.
        """
        data = unit.encode("utf-8", "surrogatepass")
        hits = self._match(data)
        if hits is None:
            return []
        try:
            found = [finding for hit in sorted(hits) for finding in self._look(hit, data)]
        except _LIBRARY_ERRORS as error:
            raise FilterError(
                "filter_failed", f"a filter failed ({type(error).__name__}); the text was not inspected"
            ) from None
        return _settle(_in_characters(found, unit, data), skip) if found else []

    def _look(self, hit: int, data: bytes) -> Iterator[Finding]:
        detector = self._detectors[hit]
        search = self._patterns[hit].search
        at = 0
        while (match := search(data, at)) is not None:
            start, end = match.span(1)
            if isinstance(detector, Format):
                if detector.name == "private_key":
                    return  # `cutting` follows these
                score = _score(detector, data, start, end)
                if score:
                    yield Finding("secrets", f"secret.{detector.name}", start, end, score)
                # What was rejected may hold another: `"password": "password: hunter2"`.
                at = max(start if detector.generic and not score else end, at + 1)
            else:
                span, at = detector.narrow(self._recognizers, data, start, end)
                if span is not None:
                    yield Finding("personal", detector.kind, *span)


def _score(form: Format, data: bytes, start: int, end: int) -> float:
    if form.generic and data[end : end + 1] == b"(":
        return 0.0  # code: `token = fetch(...)`
    if form.check is None:
        return 1.0
    return form.check(data[start : min(end, start + _CHECKED_BYTES) if form.generic else end])


def _in_characters(found: list[Finding], unit: str, data: bytes) -> list[Finding]:
    if len(unit) == len(data):
        return found
    offsets = sorted({offset for finding in found for offset in (finding.start, finding.end)})
    characters: dict[int, int] = {}
    at = count = 0
    for offset in offsets:
        count += len(data[at:offset].decode("utf-8", "surrogatepass"))
        characters[offset] = count
        at = offset
    return [Finding(f.filter, f.kind, characters[f.start], characters[f.end], f.score) for f in found]


def _settle(found: list[Finding], skip: int) -> list[Finding]:
    """Of findings that overlap keep the most specific, then the longest, then the first: always the same ones."""
    found = sorted((f for f in found if f.start >= skip), key=lambda f: (f.start, f.end))
    if all(one.end <= other.start for one, other in pairwise(found)):
        return found
    starts: list[int] = []
    kept: list[Finding] = []
    for finding in sorted(found, key=lambda f: (-rank(f.kind), f.start - f.end, f.start, f.kind)):
        place = bisect_left(starts, finding.start)
        if (place == 0 or kept[place - 1].end <= finding.start) and (
            place == len(kept) or finding.end <= kept[place].start
        ):
            starts.insert(place, finding.start)
            kept.insert(place, finding)
    return kept
