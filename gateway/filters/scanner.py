"""The scanner: text in, findings out, remembered by content.

One scanner serves the process: it is thread-safe, and reading the same text again (agents send the whole conversation
on every turn) costs a hash.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

from gateway.core.errors import FilterError
from gateway.core.exchange import Finding
from gateway.filters.cutting import WINDOW
from gateway.filters.detection import Detection
from gateway.filters.folding import fold
from gateway.filters.formats import FORMATS
from gateway.filters.inspection import Inspection
from gateway.filters.personal import PERSONAL

CHARACTERS_MAX = 32_000_000
"""Bodies are capped far below this; a text beyond it is refused, not skipped."""
CACHE_BYTES_MAX = 16 << 20
"""About 60,000 remembered texts."""
_SHORT = 2048
"""Characters. Seeing that such a text holds nothing costs about as much as remembering that it does not."""
_GLANCE_CHARACTERS = 1_000_000
"""A longer text is not looked over in one go: that would take more than 4 ms."""
_ENTRY_BYTES, _FINDING_BYTES = 260, 180  # measured: key, slots of the dictionary, tuple; one Finding
_BREATHE_S = 0.003
"""Between two breaths of the event loop, not counting the piece at hand."""

_WARMING = """amy@example.com 4012888888881881 DE89370400440532013000 10.0.0.1 2001:db8::1 536-90-4399 +49 30 1234567
(415) 555-2671 020 7946 0958 030 1234567 06 12 34 56 78 0123 456 7890 1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa"""
"""One of each kind: libraries compile patterns and load numbering plans when they first need them (40 ms)."""

Findings = tuple[Finding, ...]


@dataclass(slots=True)
class ScanCounts:
    """What the scanner did since it was made; read by metrics."""

    scanned: int = 0
    scanned_characters: int = 0
    from_cache: int = 0
    failed: int = 0


class Scanner:
    """All built-in filters over a text. `warm()` loads them (0.3 s); so does the first text."""

    def __init__(self, *, cache_bytes_max: int = CACHE_BYTES_MAX) -> None:
        self._detection: Detection | None = None
        self._loading = threading.Lock()
        self._cache: OrderedDict[bytes, Findings] = OrderedDict()
        self._cache_lock = threading.Lock()
        self._cache_bytes = 0
        self._cache_bytes_max = cache_bytes_max
        self.counts = ScanCounts()

    @property
    def detection(self) -> Detection:
        """The detectors. Raises FilterError `filter_broken` when they cannot be loaded or do not work."""
        if self._detection is None:
            with self._loading:
                if self._detection is None:
                    self._detection = Detection()
        return self._detection

    def warm(self) -> None:
        """Load everything that is loaded at first use. Blocks; run it in a thread while other things start."""
        self.detection.find(_WARMING)

    def scan(self, text: str) -> Findings:
        """All findings in order, not overlapping; offsets are code points of `text`. Raises FilterError."""
        if len(text) <= _SHORT and text.isascii() and not self.detection.touches(text.encode()):
            self._count(text)
            return ()
        key = self._key(text)
        known = self._recall(key)
        if known is not None:
            return known
        found = tuple(finding for piece in self._steps(text) for finding in piece)
        self._remember(key, found)
        return found

    async def scan_long(self, text: str) -> Findings:
        """The same for a text of any length, letting the event loop breathe. Raises FilterError."""
        key = self._key(text)
        known = self._recall(key)
        if known is not None:
            return known
        found: list[Finding] = []
        breathed = time.monotonic()
        for piece in self._steps(text):
            found.extend(piece)
            if time.monotonic() - breathed > _BREATHE_S:
                await asyncio.sleep(0)
                breathed = time.monotonic()
        result = tuple(found)
        self._remember(key, result)
        return result

    def _steps(self, text: str) -> Iterator[list[Finding]]:
        """The findings piece by piece."""
        self._count(text)
        if len(text) > CHARACTERS_MAX:
            raise FilterError("filter_too_large", "the text is too long to be inspected; send it in parts")
        try:
            yield from self._walk(text)
        except FilterError:
            self.counts.failed += 1
            raise

    def _walk(self, text: str) -> Iterator[list[Finding]]:
        folded, origins = fold(text)
        # What a piece holds the whole holds: patterns look no further than a word boundary.
        if WINDOW < len(folded) <= _GLANCE_CHARACTERS and not self._touches(folded):
            return
        inspection = Inspection(self.detection)
        at = 0
        while at < len(folded):
            step = inspection.step(folded, at, final=True)
            assert step is not None
            found, at = step
            yield found if origins is None else [to_origin(finding, origins) for finding in found]

    def _touches(self, folded: str) -> bool:
        return self.detection.touches(folded.encode("utf-8", "surrogatepass"))

    def _count(self, text: str) -> None:
        self.counts.scanned += 1
        self.counts.scanned_characters += len(text)

    def _key(self, text: str) -> bytes:
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()

    def _recall(self, key: bytes) -> Findings | None:
        with self._cache_lock:
            known = self._cache.get(key)
            if known is not None:
                self._cache.move_to_end(key)
                self.counts.from_cache += 1
        return known

    def _remember(self, key: bytes, found: Findings) -> None:
        cost = _ENTRY_BYTES + _FINDING_BYTES * len(found)
        if cost > self._cache_bytes_max:
            return
        with self._cache_lock:
            if key not in self._cache:
                self._cache_bytes += cost
            self._cache[key] = found
            while self._cache_bytes > self._cache_bytes_max:
                _, dropped = self._cache.popitem(last=False)
                self._cache_bytes -= _ENTRY_BYTES + _FINDING_BYTES * len(dropped)


def to_origin(finding: Finding, origins: list[int]) -> Finding:
    """The finding in offsets of the text before folding."""
    return Finding(finding.filter, finding.kind, origins[finding.start], origins[finding.end - 1] + 1, finding.score)


def filter_digest() -> str:
    """Names this set of filters: changes whenever a pattern does, so that records say which filters saw a text."""
    table = "\x1e".join(f"{form.name}\x1f{form.pattern}" for form in FORMATS)
    table += "\x1e".join(f"{one.kind}\x1f{one.pattern!r}" for one in PERSONAL)
    return hashlib.sha256(table.encode()).hexdigest()
