"""Server-sent events, read in pieces, with the exact bytes of each event kept.

Owns the framing of `text/event-stream` (WHATWG HTML 9.2) and nothing above it: what stands in `data` is the dialect's.
The events, and their raw bytes, are the same however the stream was cut into chunks. A stream is the concatenation of
`Event.raw` of all its events and of `Parser.rest`.
"""

from __future__ import annotations

import re
from typing import NamedTuple

# Two line ends in a row. Atomic, so that the two characters of one CRLF are never taken for two line ends.
_EVENT_END = re.compile(rb"(?>(?>\r\n|\n|\r){2})")
_LINE_END = re.compile(rb"\r\n|\n|\r")
_BOM = b"\xef\xbb\xbf"

EVENT_BYTES_MAX = 1024 * 1024
"""An event of a model stream is 0.3 KB; a whole answer or a sound clip, as some upstreams send, is far below."""


class Event(NamedTuple):
    """One event. `data` is None where the event has no data line: a comment, an `id` or blank lines alone."""

    raw: bytes
    data: bytes | None
    name: str = ""
    id: str | None = None


class Parser:
    """Bytes in, whole events out.

    An event ends where its blank line ends. After a CR at the end of a chunk it cannot be known whether an LF still
    belongs to that line end, so the event is given out with the next byte (or never delayed, if lines end in LF).
    """

    __slots__ = ("_bytes_max", "_first", "_rest", "overflow")

    def __init__(self, event_bytes_max: int = EVENT_BYTES_MAX) -> None:
        self._bytes_max = event_bytes_max
        self._rest = bytearray()
        self._first = True
        self.overflow = False
        """An event was longer than the limit: nothing after it is parsed, the stream cannot be trusted any more."""

    @property
    def rest(self) -> bytes:
        """The bytes that do not make an event yet."""
        return bytes(self._rest)

    def feed(self, chunk: bytes) -> list[Event]:
        """The events that `chunk` completes, in order. Empty from the moment that `overflow` is set."""
        if self.overflow or not chunk:
            return []
        if self._rest:
            known = len(self._rest)
            self._rest += chunk
            # The end of an event is at most four bytes long: earlier bytes were searched when they came.
            if _EVENT_END.search(self._rest, max(0, known - 3)) is None:
                self.overflow = len(self._rest) > self._bytes_max
                return []
            chunk = bytes(self._rest)
            self._rest.clear()
        return self._split(chunk)

    def finish(self) -> Event | None:
        """What is left when the stream has ended, read as if its blank line had come, or None. The standard drops
        such an event; a caller decides for itself."""
        if not self._rest:
            return None
        event = self._event(bytes(self._rest))
        self._rest.clear()
        return event

    def _split(self, buffer: bytes) -> list[Event]:
        events: list[Event] = []
        if b"\r" not in buffer:
            pieces = buffer.split(b"\n\n")
            self._rest += pieces.pop()
            for piece in pieces:
                if len(piece) + 2 > self._bytes_max:
                    return self._overflow(events)
                events.append(self._event(piece + b"\n\n"))
        else:
            start = 0
            for match in _EVENT_END.finditer(buffer):
                end = match.end()
                if end == len(buffer) and buffer[end - 1] == 0x0D:
                    break
                if end - start > self._bytes_max:
                    return self._overflow(events)
                events.append(self._event(buffer[start:end]))
                start = end
            self._rest += buffer[start:]
        if len(self._rest) > self._bytes_max:
            self._overflow(events)
        return events

    def _overflow(self, events: list[Event]) -> list[Event]:
        self.overflow = True
        self._rest.clear()
        return events

    def _event(self, raw: bytes) -> Event:
        if raw.startswith(b"data: ") and raw.find(b"\n") == len(raw) - 2 and b"\r" not in raw:
            self._first = False
            return Event(raw, raw[6:-2])
        text = raw
        if self._first:
            self._first = False
            text = text.removeprefix(_BOM)
        return _read(raw, text)


def _read(raw: bytes, text: bytes) -> Event:
    data: list[bytes] = []
    name = ""
    identifier: str | None = None
    for line in _LINE_END.split(text):
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value.decode("utf-8", "replace")
        elif field == b"id" and b"\0" not in value:
            identifier = value.decode("utf-8", "replace")
    return Event(raw, b"\n".join(data) if data else None, name, identifier)


def with_data(event: Event, data: bytes) -> bytes:
    """The bytes of `event` with other data (one line), its other fields, comments and kind of line end kept."""
    if event.data is not None and event.raw == b"data: " + event.data + b"\n\n":
        return b"data: " + data + b"\n\n"
    end = b"\r\n" if b"\r\n" in event.raw else b"\n"
    lines = [line for line in _LINE_END.split(event.raw) if line and not _is_data(line)]
    return end.join([*lines, b"data: " + data, b"", b""])


def encode(data: bytes) -> bytes:
    """One event with `data`, which must not contain a line end."""
    return b"data: " + data + b"\n\n"


def _is_data(line: bytes) -> bool:
    line = line.removeprefix(_BOM)
    return line == b"data" or line.startswith(b"data:")
