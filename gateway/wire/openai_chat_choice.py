"""The parts of a guarded Chat Completions stream: text channels, buffered calls, queued events, and how a released
event is written when a text or a call in it was taken away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, cast

from gateway.core.canonical import JSON, parse
from gateway.core.errors import UpstreamError
from gateway.core.exchange import Path
from gateway.core.filtering import TextGuard
from gateway.wire import leaves, sse
from gateway.wire import openai_chat_answers as answers
from gateway.wire.calls import CallKind, CallVerdict, ProposedCall, check_verdicts, read_arguments
from gateway.wire.openai_chat_delta import LEGACY_INDEX, CallDelta, TextDelta, choice_index, refused

_CALL_REASONS = ("tool_calls", "function_call")


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamLimits:
    """What one stream may make the gateway keep in memory."""

    event_bytes_max: int = sse.EVENT_BYTES_MAX
    withheld_bytes_max: int = 16 * 1024 * 1024  # 128 KB of arguments are some 30,000 events of 350 bytes: 10 MB
    choices_max: int = 128  # the API's own limit of `n`
    fields_max: int = 512  # text fields of all choices: content, refusal, reasoning, logprobs
    calls_max: int = 128  # per choice; the API takes 128 tools
    name_chars_max: int = 256  # the API's own limit is 64
    arguments_chars_max: int = 1024 * 1024  # per call; the arguments of an action that a person can read
    released_chars_max: int = 64 * 1024  # per choice, kept for the trace


class Channel:
    """The texts of one (choice, field) in a row, and the guard that judges them."""

    __slots__ = ("_cursor", "_finished", "guard", "length")

    def __init__(self, guard: TextGuard) -> None:
        self.guard = guard
        self.length = 0
        self._cursor = 0
        self._finished = False

    def feed(self, text: str) -> None:
        self.length += len(text)
        self.guard.feed(text)

    def finish(self) -> None:
        if not self._finished:
            self._finished = True
            self.guard.finish()

    def settled(self, end: int) -> bool:
        return self._finished or self.guard.settled >= end

    def rewritten(self, start: int, end: int, text: str) -> str:
        """The text of this span after the edits: a replacement stands where its match begins, and the rest of the
        match is gone from the spans that follow. Spans must be asked for in order."""
        edits = self.guard.edits
        while self._cursor < len(edits) and edits[self._cursor].end <= start:
            self._cursor += 1
        pieces: list[str] = []
        at = start
        for number in range(self._cursor, len(edits)):
            edit = edits[number]
            if edit.start >= end:
                break
            if edit.start >= start:
                pieces.append(text[at - start : edit.start - start])
                pieces.append(edit.replacement)
            at = min(edit.end, end)
        if at == start and not pieces:
            return text
        pieces.append(text[at - start :])
        return "".join(pieces)


class Segment(NamedTuple):
    """The text of one event within its channel. No channel: it needs no verdict."""

    channel: Channel | None
    delta: TextDelta
    start: int
    end: int


@dataclass(slots=True, eq=False)
class Entry:
    """One event in the queue."""

    event: sse.Event
    light: bool = True  # opens a stream without saying anything
    segments: list[Segment] = field(default_factory=list)
    waits: set[int] = field(default_factory=set)  # choices whose calls must be decided first
    calls_of: set[int] = field(default_factory=set)  # choices whose calls, or end after calls, it carries
    finishes: Mapping[int, str] = field(default_factory=dict)

    def ready(self) -> bool:
        if self.waits:
            return False
        return all(channel is None or channel.settled(end) for channel, _, _, end in self.segments)


@dataclass(slots=True)
class _CallBuffer:
    id: str = ""
    name: str = ""
    kind: CallKind | None = None
    pieces: list[str] = field(default_factory=list)
    chars: int = 0
    clear: bool = True  # every client reads the same name and kind out of the pieces


class Choice:
    """What is known of one choice of the stream."""

    __slots__ = (
        "asked", "calls", "chars", "closed", "dropped", "index", "kept", "last", "notice", "reason", "released",
        "resolved",
    )  # fmt: skip

    def __init__(self, index: int) -> None:
        self.index = index
        self.calls: dict[int, _CallBuffer] = {}
        self.asked = False
        self.resolved = False
        self.dropped = False
        self.kept: dict[int, int] = {}  # old index of an allowed call -> new index
        self.notice = ""
        self.reason: str | None = None
        self.last: Entry | None = None  # the event that ends the choice
        self.closed = False  # that event was released
        self.released: list[str] = []
        self.chars = 0

    def note(self, text: str, limits: StreamLimits) -> None:
        """Remembers released content for the trace."""
        room = limits.released_chars_max - self.chars
        if text and room > 0:
            self.released.append(text if len(text) <= room else text[:room])
            self.chars += len(text)

    def add(self, piece: CallDelta, limits: StreamLimits) -> None:
        if self.asked:
            raise refused()  # a call after the end of the calls would escape the verdict
        call = self.calls.get(piece.number)
        if call is None:
            if len(self.calls) >= limits.calls_max:
                raise UpstreamError("stream_limit", "too many calls")
            call = self.calls[piece.number] = _CallBuffer()
        if piece.kind is not None:
            call.clear = call.clear and call.kind in (None, piece.kind)
            call.kind = piece.kind
        if piece.id and piece.id != call.id:
            call.clear = call.clear and not call.id
            call.id = call.id or piece.id
        if piece.name:
            # Some clients join names, some keep the first, some the last: only a name in one piece has one reading.
            call.clear = call.clear and not call.name
            call.name += piece.name
        if piece.arguments:
            call.pieces.append(piece.arguments)
            call.chars += len(piece.arguments)
        if max(len(call.name), len(call.id)) > limits.name_chars_max or call.chars > limits.arguments_chars_max:
            raise UpstreamError("stream_limit", "a call is too long")

    def proposed(self) -> tuple[ProposedCall, ...]:
        return tuple(self._call(index, call) for index, call in sorted(self.calls.items()))

    def _call(self, index: int, call: _CallBuffer) -> ProposedCall:
        kind = call.kind or CallKind.FUNCTION
        text = "".join(call.pieces)
        return ProposedCall(
            choice=self.index,
            index=index,
            id=call.id,
            name=call.name,
            arguments_text=text,
            arguments=read_arguments(kind, text) if call.clear else None,
            kind=kind,
        )

    def resolve(self, verdicts: Sequence[CallVerdict]) -> None:
        if not self.asked or self.resolved:
            raise ValueError("a choice is resolved once, after it was asked about")
        indexes = sorted(self.calls)
        check_verdicts(self.proposed(), verdicts)
        self.resolved = True
        allowed = [index for index, verdict in zip(indexes, verdicts, strict=True) if verdict.allow]
        self.dropped = len(allowed) < len(indexes)
        tools = [index for index in allowed if index != LEGACY_INDEX]
        self.kept = {index: number for number, index in enumerate(tools)}
        if LEGACY_INDEX in allowed:
            self.kept[LEGACY_INDEX] = LEGACY_INDEX
        self.notice = "\n\n".join(verdict.text for verdict in verdicts if verdict.text and not verdict.allow)


def render(entry: Entry, choices: Mapping[int, Choice], head: answers.Head, limits: StreamLimits) -> bytes:
    """The bytes of an event that is ready: the upstream's own, unless something in it was taken away."""
    changes = _edits(entry, choices, limits)
    cut = [choices[index] for index in sorted(entry.calls_of) if choices[index].dropped]
    for index, reason in entry.finishes.items():
        choices[index].closed = True
        choices[index].reason = reason
    if not changes and not cut:
        return entry.event.raw
    assert entry.event.data is not None
    if entry.event.data.rstrip() == b"[DONE]":
        before = [answers.notice(head, choice.index, _notice(choice, limits)) for choice in cut if choice.notice]
        return b"".join([*before, _late_ending(cut, head), entry.event.raw])
    doc = cast("dict[str, JSON]", leaves.with_values(parse(entry.event.data), changes))
    for path in changes:
        _without_logprobs(doc, path)
    before = []
    for choice in cut:
        text = _notice(choice, limits) if choice.last is entry and choice.notice else ""
        if not _cut_calls(doc, choice, text) and text:
            before.append(answers.notice(head, choice.index, text))
    body = b"" if cut and _says_nothing(doc) else sse.with_data(entry.event, leaves.encode(doc))
    return b"".join([*before, body])


def _edits(entry: Entry, choices: Mapping[int, Choice], limits: StreamLimits) -> dict[Path, JSON]:
    changes: dict[Path, JSON] = {}
    for channel, delta, start, end in entry.segments:
        text = delta.text if channel is None else channel.rewritten(start, end, delta.text)
        if text != delta.text:
            if delta.path[2:3] == ("logprobs",):
                changes[delta.path[:3]] = None
            else:
                changes[delta.path] = text
        if delta.field == "content" and not delta.whole:
            choices[delta.choice].note(text, limits)
    return changes


def _notice(choice: Choice, limits: StreamLimits) -> str:
    text = f"\n\n{choice.notice}" if choice.released else choice.notice
    choice.note(text, limits)
    return text


def _late_ending(cut: Sequence[Choice], head: answers.Head) -> bytes:
    """The end of choices to which the upstream gave none."""
    for choice in cut:
        choice.reason = "tool_calls" if choice.kept else "stop"
        choice.closed = True
    return b"".join(answers.ending(head, [choice.index], cast("str", choice.reason)) for choice in cut)


def _without_logprobs(doc: dict[str, JSON], path: Path) -> None:
    """Token probabilities spell the text that was masked."""
    if path[0] == "choices" and len(path) > 1:
        entry = leaves.get(doc, path[:2])
        if isinstance(entry, dict) and entry.get("logprobs") is not None:
            changed = leaves.with_values(doc, {(*path[:2], "logprobs"): None})
            doc.update(cast("dict[str, JSON]", changed))


def _cut_calls(doc: dict[str, JSON], choice: Choice, text: str) -> bool:
    """Takes the dropped calls of a choice out of an event (of which this is the only holder). An event that opens or
    continues the message beside ending it gets `text` added: True then, else the text belongs before the event."""
    added = False
    for position, entry in enumerate(cast("list[JSON]", doc.get("choices") or [])):
        if not isinstance(entry, dict) or choice_index(entry, position) != choice.index:
            continue
        delta = entry.get("delta")
        if isinstance(delta, dict):
            _cut_delta(delta, choice)
            content = delta.get("content")
            if text and (delta.get("role") or content) and isinstance(content, str | None):
                delta["content"] = (content or "") + text
                added = True
        if entry.get("finish_reason") in _CALL_REASONS and not choice.kept:
            entry["finish_reason"] = choice.reason = "stop"
    return added


def _cut_delta(delta: dict[str, JSON], choice: Choice) -> None:
    pieces = delta.get("tool_calls")
    if isinstance(pieces, list):
        kept: list[JSON] = [
            {**piece, "index": choice.kept[cast("int", piece["index"])]}
            for piece in pieces
            if isinstance(piece, dict) and piece.get("index") in choice.kept
        ]
        if kept:
            delta["tool_calls"] = kept
        else:
            del delta["tool_calls"]
    if delta.get("function_call") and LEGACY_INDEX not in choice.kept:
        del delta["function_call"]


def _says_nothing(doc: dict[str, JSON]) -> bool:
    if doc.get("usage"):
        return False
    for entry in cast("list[JSON]", doc.get("choices") or []):
        if not isinstance(entry, dict) or entry.get("finish_reason"):
            return False
        delta = entry.get("delta")
        if isinstance(delta, dict) and any(value is not None for value in delta.values()):
            return False
    return True
