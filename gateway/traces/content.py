"""What may be stored of an exchange: bodies and labels, masked. Runs in the recorder's thread."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Final

import zstandard

from gateway.core.filtering import Masked
from gateway.traces.record import ExchangeRecord, Fact
from gateway.traces.rows import Body

MASKED_BODY_FACTOR: Final = 4
"""A body is masked whole and cut afterwards: cutting first could halve a secret and hide the half from the filters.
Beyond this many times the cap it is not kept at all, because masking takes about 0.05 s per megabyte."""

LABELS_MAX: Final = 4096  # distinct model, tool and run names whose masked form is remembered; about 1 MB
LABEL_CHARS_MAX: Final = 1024  # names come from callers; a longer one is no name and is not worth masking
_KNOWN_ID = re.compile(r"(?:(?:chatcmpl|resp|msg|call|toolu|req)[-_])?[0-9a-f]{8}[0-9a-f-]{0,28}|\d{1,10}", re.ASCII)
"""Generated ids, unique in every exchange: masking each would cost more than all the rest of its record."""

_LABELS: Final = tuple(
    (name, attrgetter(name))
    for name in (
        "operation", "name", "run", "model", "model_responded", "response_id", "request_type", "response_type",
    )
)  # fmt: skip


class Content:
    """Masks, cuts and compresses. `failures` counts what the masker could not mask and was therefore dropped."""

    def __init__(self, masker: Callable[[bytes], Masked], *, body_bytes_max: int, ratio: float) -> None:
        self._masker = masker
        self._body_bytes_max = body_bytes_max
        self._threshold = int(ratio * 2**64)
        self._compressor = zstandard.ZstdCompressor(level=3)
        self._labels: dict[str, str] = {}
        self.failures = 0

    def sampled(self, record: ExchangeRecord, salt: bytes) -> bool:
        """Whether the content of this run belongs to the sample. Salted: a caller must not be able to choose a run id
        that stays out of it."""
        if self._threshold >= 2**64:
            return True
        drawn = hashlib.blake2b(record.trace_id.encode(), digest_size=8, key=salt).digest()
        return int.from_bytes(drawn) < self._threshold

    def body(self, raw: bytes) -> Body:
        """The body masked, cut to the cap and compressed; or a note why there is none."""
        if len(raw) > self._body_bytes_max * MASKED_BODY_FACTOR:
            return Body(None, len(raw), "too_large")
        masked = self._mask(raw)
        if masked is None:
            return Body(None, len(raw), "masking_failed")
        cut = len(masked) > self._body_bytes_max
        kept = masked[: self._body_bytes_max] if cut else masked
        return Body(self._compressor.compress(kept), len(raw), "truncated" if cut else None)

    def labels(self, record: ExchangeRecord) -> None:
        """Mask, in place, the names in a record that callers and upstreams chose."""
        label, known = self._label, self._labels
        for field, read in _LABELS:
            text = read(record)
            if text:
                masked = known.get(text) or label(text)
                if masked is not text:
                    setattr(record, field, masked)
        if record.finish_reasons:
            record.finish_reasons = tuple(map(label, record.finish_reasons))
        if record.decisions:
            record.decisions = tuple(one._replace(action=label(one.action)) for one in record.decisions)
        if record.facts:
            record.facts = self._values(record.facts)
        if record.attributes:
            record.attributes = self._values(record.attributes)

    def _values(self, values: Mapping[str, Fact]) -> dict[str, Fact]:
        return {name: self._label(value) if isinstance(value, str) else value for name, value in values.items()}

    def _label(self, text: str) -> str:
        known = self._labels.get(text)
        if known is not None:
            return known
        if len(text) > LABEL_CHARS_MAX:
            return "(too long)"
        if _KNOWN_ID.fullmatch(text):
            return text
        masked = self._mask(text.encode("utf-8", "replace"))
        label = "(masking failed)" if masked is None else masked.decode("utf-8", "replace")
        if label == text:
            label = text  # the same object, so that nothing has to be put back
        if len(self._labels) >= LABELS_MAX:
            self._labels.clear()
        self._labels[text] = label
        return label

    def _mask(self, raw: bytes) -> Masked | None:
        try:
            return self._masker(raw)
        # Whatever an injected masker raises, nothing that was not masked is kept and the thread lives on.
        except Exception:  # noqa: BLE001 - the fail-closed edge of storage
            self.failures += 1
            return None
