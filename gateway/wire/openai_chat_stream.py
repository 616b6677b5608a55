"""Guards one Chat Completions stream: nothing leaves before its verdict, and what nothing touches leaves unchanged.

Sans-IO: bytes of the upstream in, outputs out. Every event stands in one queue and leaves it in its turn, when each of
its texts is settled and the calls it belongs to are decided. So the order of events is the upstream's, also between
choices: while the calls of one choice are withheld, what came later waits behind them, and while a verdict is awaited
nothing more is read.

The verdicts and the bytes do not depend on how the stream was cut into chunks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from gateway.core.canonical import JSON, parse
from gateway.core.errors import GatewayError, UpstreamError
from gateway.core.filtering import FilterRule, TextGuard
from gateway.wire import openai_chat_answers as answers
from gateway.wire import sse
from gateway.wire.calls import CallVerdict
from gateway.wire.openai_chat_choice import Channel, Choice, Entry, Segment, StreamLimits, render
from gateway.wire.openai_chat_delta import Reading, TextDelta, read, refused
from gateway.wire.openai_chat_fields import Usage, read_usage
from gateway.wire.outputs import Blocked, Decide, Failed, Output, Release

_PLAIN_KEYS = frozenset({"index", "delta", "logprobs", "finish_reason"})
_PLAIN_TOP = frozenset(
    {"id", "object", "created", "model", "service_tier", "system_fingerprint", "choices", "obfuscation", "usage"}
)
_PLAIN_PATH = ("choices", 0, "delta", "content")
_OVERHEAD_BYTES = 256  # what a queued event costs beside its bytes; an empty comment is three bytes long

_MESSAGES = {
    "upstream_truncated": "the upstream ended the stream early; try again",
    "upstream_error": "the upstream reported an error in its stream; try again",
    "upstream_protocol": "the upstream sent an event that cannot be inspected",
    "stream_limit": "the stream is larger than the gateway inspects; ask for a shorter answer",
}


class ChatStreamGuard:
    """One stream from its first byte to its last.

    `text_guard` makes the guard of the texts of one (choice, field); the field is a dotted path below `delta` such as
    `content`; texts that do not come in pieces have a guard each, and choice -1 where they belong to none. Without
    it texts are released at once and only calls are withheld.

    After `feed`, `resolve` and `finish` these tell about what was let through: `usage`, `finish_reasons`, `texts`;
    `started` says whether any byte was released, `ended` that no output will follow.
    """

    def __init__(
        self,
        text_guard: Callable[[int, str], TextGuard] | None,
        *,
        limits: StreamLimits | None = None,
        blocked_text: str = "[The rest of this answer is withheld by a policy of the gateway.]",
    ) -> None:
        self._text_guard = text_guard
        self._limits = limits or StreamLimits()
        self._blocked_text = blocked_text
        self._parser = sse.Parser(self._limits.event_bytes_max)
        self._queue: deque[Entry] = deque()
        self._queued_bytes = 0
        self._prelude_bytes = 0
        self._channels: dict[tuple[int, str], Channel] = {}
        self._choices: dict[int, Choice] = {}
        self._head: answers.Head | None = None
        self._pending: list[bytes] = []
        self._outputs: list[Output] = []
        self._backlog: deque[sse.Event] = deque()
        self._backlog_bytes = 0
        self._asking: set[int] = set()
        self._closed = False
        self._denied: tuple[FilterRule, int] | None = None
        self._done = False
        self.ended = False
        self.started = False
        self.usage: Usage | None = None

    @property
    def finish_reasons(self) -> dict[int, str]:
        """Per choice, as released."""
        return {index: choice.reason for index, choice in self._choices.items() if choice.closed and choice.reason}

    @property
    def texts(self) -> dict[int, str]:
        """The content of each choice as released (masked), up to the limit."""
        return {index: "".join(choice.released) for index, choice in self._choices.items()}

    def feed(self, data: bytes) -> list[Output]:
        """Takes the next bytes of the upstream. Between a `Decide` and its `resolve` they are only kept."""
        if self.ended:
            return []
        events = self._parser.feed(data)
        if self._asking:
            self._backlog_bytes += len(data) + _OVERHEAD_BYTES * len(events)
            if self._backlog_bytes > self._limits.withheld_bytes_max:
                self._fail("stream_limit")
        self._backlog.extend(events)
        self._run()
        return self._take()

    def resolve(self, choice: int, verdicts: Sequence[CallVerdict]) -> list[Output]:
        """Gives the verdicts on a `Decide`, in the order of its calls."""
        if self.ended:
            return []
        self._choices[choice].resolve(verdicts)
        self._asking.discard(choice)
        for entry in self._queue:
            entry.waits.discard(choice)
        try:
            self._flush()
        except GatewayError as error:
            self._fail(error.code)
        self._run()
        return self._take()

    def finish(self) -> list[Output]:
        """The upstream has closed. Without `[DONE]` before, the stream was cut off and fails."""
        if self.ended:
            return []
        self._closed = True
        self._run()
        return self._take()

    def _run(self) -> None:
        """Reads events until a verdict is needed: what comes after must not overtake it, or the bytes that leave would
        depend on how much had arrived by then."""
        while self._backlog:
            if self._asking or self.ended:
                return
            self._event(self._backlog.popleft())
        if self._asking or self.ended:
            return
        self._backlog_bytes = 0
        if self._parser.overflow:
            self._fail("stream_limit")
        elif self._closed:
            rest = self._parser.finish()
            if rest is not None and (rest.data is None or rest.data.rstrip() == b"[DONE]"):
                self._event(rest)
            if not self._done:
                self._fail("upstream_truncated")

    def _event(self, event: sse.Event) -> None:
        try:
            self._ingest(event)
        except GatewayError as error:
            self._fail(error.code)

    def _ingest(self, event: sse.Event) -> None:
        data = event.data
        if data is None:
            self._push(Entry(event))
            return
        if self._done:
            return  # clients do not read past the end
        if data.rstrip() == b"[DONE]":
            self._end(event)
            return
        doc = _parse(data)
        plain = self._plain(doc)
        if plain is not None and self._text_guard is None and not self._queue and self.started:
            self._choices[plain.choice].note(plain.text, self._limits)
            self._pending.append(event.raw)
            return
        if doc.get("error") or event.name == "error":
            raise UpstreamError("upstream_error", "the upstream reported an error")
        reading = read(doc) if plain is None else Reading(texts=[plain])
        self._remember(doc)
        self._ingest_reading(event, reading)

    def _ingest_reading(self, event: sse.Event, reading: Reading) -> None:
        says = reading.calls or reading.finishes or any(not text.whole for text in reading.texts)
        entry = Entry(event, light=not says, finishes=reading.finishes)
        for index in reading.choices:
            self._choice(index)
        self._read_texts(reading, entry)
        for piece in reading.calls:
            self._choices[piece.choice].add(piece, self._limits)
            entry.calls_of.add(piece.choice)
        for index, reason in reading.finishes.items():
            self._read_finish(index, reason, entry)
        entry.waits |= {index for index in entry.calls_of if not self._choices[index].resolved}
        if self._denied is not None:
            self._block(*self._denied)
            return
        self._push(entry)
        for index in reading.finishes:
            self._ask(index)

    def _plain(self, doc: dict[str, JSON]) -> TextDelta | None:
        """The text of an event that carries one piece of content of a known choice and nothing else: nearly all are
        like that, and this reads them in a third of the time."""
        choices = doc.get("choices")
        if not isinstance(choices, list) or len(choices) != 1 or not doc.keys() <= _PLAIN_TOP or doc.get("usage"):
            return None
        choice = choices[0]
        if not isinstance(choice, dict) or not choice.keys() <= _PLAIN_KEYS:
            return None
        if choice.get("finish_reason") is not None or choice.get("logprobs") is not None:
            return None
        delta, index = choice.get("delta"), choice.get("index")
        if not isinstance(delta, dict) or len(delta) != 1 or type(index) is not int or index not in self._choices:
            return None
        text = delta.get("content")
        return TextDelta(index, "content", _PLAIN_PATH, text) if isinstance(text, str) and text else None

    def _remember(self, doc: dict[str, JSON]) -> None:
        usage = read_usage(doc.get("usage"))
        if usage is not None:
            self.usage = usage
        identifier, model, created = doc.get("id"), doc.get("model"), doc.get("created")
        if self._head is None and isinstance(identifier, str) and identifier:
            self._head = answers.Head(
                id=identifier,
                model=model if isinstance(model, str) else "",
                created=created if isinstance(created, int) else 0,
            )

    def _read_texts(self, reading: Reading, entry: Entry) -> None:
        for delta in reading.texts:
            if self._text_guard is None:
                entry.segments.append(Segment(None, delta, 0, 0))
                continue
            state = self._choices.get(delta.choice)
            if delta.whole:
                channel = Channel(self._text_guard(delta.choice, delta.field))
            elif state is not None and state.reason is not None:
                raise refused()  # its guards have given their last verdict
            else:
                channel = self._channel(delta.choice, delta.field)
            start = channel.length
            channel.feed(delta.text)
            if delta.whole:
                channel.finish()
            entry.segments.append(Segment(channel, delta, start, channel.length))
            self._check(channel, delta.choice)

    def _read_finish(self, index: int, reason: str, entry: Entry) -> None:
        state = self._choices[index]
        for (choice, _), channel in self._channels.items():
            if choice == index:
                channel.finish()
                self._check(channel, index)
        if state.reason is None:
            state.reason = reason
            state.last = entry
        if state.calls:
            entry.calls_of.add(index)

    def _end(self, event: sse.Event) -> None:
        entry = Entry(event, light=False)
        for (index, _), channel in self._channels.items():
            channel.finish()
            self._check(channel, index)
        for index, state in self._choices.items():
            if state.calls and not state.asked:  # the upstream gave no end, or calls after it
                state.last = entry
                entry.waits.add(index)
                entry.calls_of.add(index)
        self._done = True
        if self._denied is not None:
            self._block(*self._denied)
            return
        self._push(entry)
        for index in self._choices:
            self._ask(index)

    def _ask(self, index: int) -> None:
        state = self._choices[index]
        if self.ended or state.asked or not state.calls:
            return
        state.asked = True
        self._asking.add(index)
        self._drain()
        self._outputs.append(Decide(index, state.proposed()))

    def _check(self, channel: Channel, choice: int) -> None:
        if self._denied is None and channel.guard.denied is not None:
            self._denied = (channel.guard.denied, choice)

    def _choice(self, index: int) -> Choice:
        state = self._choices.get(index)
        if state is None:
            if len(self._choices) >= self._limits.choices_max:
                raise UpstreamError("stream_limit", "too many choices")
            state = self._choices[index] = Choice(index)
        return state

    def _channel(self, choice: int, field: str) -> Channel:
        channel = self._channels.get((choice, field))
        if channel is None:
            if len(self._channels) >= self._limits.fields_max:
                raise UpstreamError("stream_limit", "too many text fields")
            assert self._text_guard is not None
            channel = self._channels[(choice, field)] = Channel(self._text_guard(choice, field))
        return channel

    def _push(self, entry: Entry) -> None:
        self._queue.append(entry)
        self._queued_bytes += len(entry.event.raw) + _OVERHEAD_BYTES
        self._flush()
        if self._queued_bytes > self._limits.withheld_bytes_max:
            raise UpstreamError("stream_limit", "too much withheld")

    def _flush(self) -> None:
        """Releases from the head of the queue what is ready. Until an event of substance is ready, the ones that only
        open the stream are kept back: the proxy can still choose status and headers."""
        while self._queue and self._queue[0].ready():
            entry = self._queue.popleft()
            data = render(entry, self._choices, self._head or _HEAD, self._limits)
            self._pending.append(data)
            if self.started or not entry.light:
                self.started = True
                self._queued_bytes -= self._prelude_bytes + len(entry.event.raw) + _OVERHEAD_BYTES
                self._prelude_bytes = 0
            else:
                self._prelude_bytes += len(entry.event.raw) + _OVERHEAD_BYTES

    def _drain(self) -> None:
        if self._pending and self.started:
            data = b"".join(self._pending)
            self._pending.clear()
            if data:
                self._outputs.append(Release(data))

    def _fail(self, code: str) -> None:
        message = _MESSAGES.get(code, "the answer could not be inspected; try again")
        self._stop(Failed(code, answers.error_event(code, message)))

    def _block(self, rule: FilterRule, choice: int) -> None:
        head = self._head or _HEAD
        open_choices = sorted(index for index, state in self._choices.items() if not state.closed)
        pieces: list[bytes] = []
        if max(choice, 0) in open_choices:
            state = self._choices[max(choice, 0)]
            text = f"\n\n{self._blocked_text}" if state.released else self._blocked_text
            state.note(text, self._limits)
            pieces.append(answers.notice(head, state.index, text, opens=not self.started))
        for index in open_choices:
            self._choices[index].reason, self._choices[index].closed = "content_filter", True
        if open_choices:
            pieces.append(answers.ending(head, open_choices, "content_filter"))
        self._stop(Blocked(rule, b"".join([*pieces, answers.DONE])))

    def _stop(self, output: Blocked | Failed) -> None:
        self._drain()
        self._pending.clear()
        self._queue.clear()
        self._backlog.clear()
        self._channels.clear()
        self.ended = True
        self._outputs.append(output)

    def _take(self) -> list[Output]:
        self._drain()
        outputs, self._outputs = self._outputs, []
        return outputs


_HEAD = answers.Head(id="chatcmpl-gateway", model="", created=0)


def _parse(data: bytes) -> dict[str, JSON]:
    try:
        doc = parse(data, "event of the upstream")
    except GatewayError:
        raise refused() from None
    if not isinstance(doc, dict):
        raise refused()
    return doc
