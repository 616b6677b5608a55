"""What becomes of a record before it is stored: masked, priced, counted, encoded. In the recorder's thread."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from gateway.core.filtering import Masked
from gateway.traces.content import Content
from gateway.traces.record import ExchangeRecord, is_notable
from gateway.traces.rows import Body, Row, encode

logger = logging.getLogger(__name__)

YIELD_ROWS: Final = 16  # 0.2 ms of work between two chances for the event loop


class Exporter(Protocol):
    """Where masked records go after they were stored. `offer` must not block."""

    def offer(self, rows: Sequence[Row]) -> None: ...
    def close(self, timeout_s: float) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachments:
    """What else happens to a masked record, in the recorder's thread: `price` gives its cost in US dollars or None,
    `observe` counts it, `exporter` sends it elsewhere."""

    price: Callable[[ExchangeRecord], float | None] | None = None
    observe: Callable[[ExchangeRecord, float | None], None] | None = None
    exporter: Exporter | None = None


class Preparation:
    """Makes rows of records. `failures` counts what could not be masked and was therefore left out."""

    def __init__(
        self, masker: Callable[[bytes], Masked], attachments: Attachments, *, body_bytes_max: int, content_ratio: float
    ) -> None:
        self._content = Content(masker, body_bytes_max=body_bytes_max, ratio=content_ratio)
        self._price = attachments.price
        self._observe = attachments.observe

    @property
    def failures(self) -> int:
        return self._content.failures

    def rows(self, batch: Sequence[ExchangeRecord], salt: bytes) -> list[Row]:
        """The rows of a batch, without those of records that could not be read."""
        rows = []
        for index, record in enumerate(batch):
            if index % YIELD_ROWS == 0:
                time.sleep(0)  # lets go of Python's lock: the event loop would else wait 5 ms for it
            row = self._row(record, salt)
            if row is not None:
                rows.append(row)
        return rows

    def _row(self, record: ExchangeRecord, salt: bytes) -> Row | None:
        try:
            self._content.labels(record)
            keep = is_notable(record) or self._content.sampled(record, salt)
            request, response = self._body(record.request, record, keep), self._body(record.response, record, keep)
            record.request = record.response = None
            cost = self._price(record) if self._price is not None else None
            row = encode(record, cost, request, response)
            if self._observe is not None:
                self._observe(record, cost)
        # One record that a bug made unreadable must not end the record of everything else.
        except Exception as error:  # noqa: BLE001 - the outer edge of the thread
            logger.error("an exchange could not be recorded (%s)", type(error).__name__)
            return None
        return row

    def _body(self, raw: bytes | None, record: ExchangeRecord, keep: bool) -> Body | None:
        if raw is None:
            return Body(None, 0, record.content_note) if record.content_note is not None else None
        return self._content.body(raw) if keep else Body(None, len(raw), "not_sampled")
