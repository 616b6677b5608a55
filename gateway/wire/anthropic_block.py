"""The parts of a guarded Messages stream: blocks, queued events, and how a released event is written when a text, a
call or a whole block was taken away."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple, cast

from gateway.core.canonical import JSON, parse
from gateway.core.errors import UpstreamError
from gateway.core.exchange import Path
from gateway.wire import anthropic_answers as answers
from gateway.wire import leaves, sse
from gateway.wire.anthropic_fields import CALL, call_name
from gateway.wire.calls import CallKind, CallVerdict, ProposedCall, read_arguments
from gateway.wire.openai_chat_choice import Channel, StreamLimits


class Segment(NamedTuple):
    """The text of one event within its channel. No channel: it needs no verdict. `spoken` is what a user reads."""

    channel: Channel | None
    path: Path
    text: str
    start: int
    end: int
    spoken: bool


class Block:
    """What is known of one content block of the stream."""

    __slots__ = (
        "_chars", "_initial", "_pieces", "channels", "closed", "dropped", "id", "index", "kind", "main", "name",
        "notice", "out", "sealed",
    )  # fmt: skip

    def __init__(self, index: int, content: dict[str, JSON], kind: str, limits: StreamLimits) -> None:
        self.index = index
        self.kind = kind
        self.sealed = False  # leaves whole or not at all
        self.channels: list[Channel] = []
        self.main: Channel | None = None
        self.closed = False
        self.dropped = False
        self.notice = ""
        self.out = index
        self.id = self.name = ""
        if kind == CALL:
            name, identifier = call_name(content), content.get("id")
            if name is None or not isinstance(identifier, str):
                raise refused()
            if max(len(name), len(identifier)) > limits.name_chars_max:
                raise UpstreamError("stream_limit", "the name of a call is too long")
            self.id, self.name = identifier, name
        self._initial = content.get("input") if kind == CALL else None
        self._pieces: list[str] = []
        self._chars = 0

    def add(self, piece: str, limits: StreamLimits) -> None:
        """The next piece of the arguments."""
        self._pieces.append(piece)
        self._chars += len(piece)
        if self._chars > limits.arguments_chars_max:
            raise UpstreamError("stream_limit", "a call is too long")

    def proposed(self) -> ProposedCall:
        text = "".join(self._pieces)
        arguments = read_arguments(CallKind.FUNCTION, text)
        if self._initial != {}:
            # Some clients keep the first object, some read the pieces: only one of both has one reading.
            initial = self._initial
            arguments = initial if isinstance(initial, dict) and not text else None
            text = text or leaves.encode(initial).decode()
        return ProposedCall(
            choice=0, index=self.index, id=self.id, name=self.name, arguments_text=text, arguments=arguments
        )

    def resolve(self, verdict: CallVerdict) -> None:
        self.dropped = not verdict.allow
        self.notice = "" if verdict.allow else verdict.text or ""


@dataclass(slots=True, eq=False)
class Entry:
    """One event in the queue."""

    event: sse.Event
    light: bool = True  # opens the stream without saying anything
    block: Block | None = None
    opens: bool = False
    closes: bool = False
    segments: list[Segment] = field(default_factory=list)
    reason: str | None = None

    def ready(self, *, resolved: bool) -> bool:
        block = self.block
        if block is not None and ((block.kind == CALL and not resolved) or (block.sealed and not block.closed)):
            return False
        return all(segment.channel is None or segment.channel.settled(segment.end) for segment in self.segments)


class Writer:
    """Writes the events that are ready, and knows what the agent has read so far."""

    __slots__ = ("_chars", "_limits", "cut", "next_index", "open_index", "reason", "released")

    def __init__(self, limits: StreamLimits) -> None:
        self._limits = limits
        self._chars = 0
        self.next_index = 0
        self.open_index: int | None = None
        self.cut = False  # calls were dropped, and none is left
        self.reason: str | None = None
        self.released: list[str] = []

    def note(self, text: str) -> None:
        """Remembers released text for the trace."""
        room = self._limits.released_chars_max - self._chars
        if text and room > 0:
            self.released.append(text[:room])
            self._chars += min(len(text), room)

    def write(self, entry: Entry) -> bytes:
        """The bytes of an event: the upstream's own, unless something in it was taken away."""
        block = entry.block
        if block is not None and block.dropped:
            return self._notice(block) if entry.opens and block.notice else b""
        changes = self._edits(entry)
        if block is not None:
            if entry.opens:
                block.out = self.open_index = self.next_index
                self.next_index += 1
            if entry.closes:
                self.open_index = None
            if block.out != block.index:
                changes["index",] = block.out
        if entry.reason is not None:
            self.reason = entry.reason
            if self.cut and entry.reason == CALL:
                changes["delta", "stop_reason"] = self.reason = "end_turn"
        if not changes:
            return entry.event.raw
        doc = parse(cast("bytes", entry.event.data))
        return sse.with_data(entry.event, leaves.encode(leaves.with_values(doc, changes)))

    def _edits(self, entry: Entry) -> dict[Path, JSON]:
        changes: dict[Path, JSON] = {}
        for channel, path, text, start, end, spoken in entry.segments:
            kept = text if channel is None else channel.rewritten(start, end, text)
            if kept != text:
                changes[path] = kept
            if spoken:
                self.note(kept)
        return changes

    def _notice(self, block: Block) -> bytes:
        self.note(f"\n\n{block.notice}" if self.released else block.notice)
        self.next_index += 1
        return answers.text_events(self.next_index - 1, block.notice)


def refused() -> UpstreamError:
    return UpstreamError("upstream_protocol", "the upstream sent an event that cannot be inspected")
