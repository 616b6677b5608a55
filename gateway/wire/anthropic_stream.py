"""Guards one Messages stream: nothing leaves before its verdict, and what nothing touches leaves unchanged.

Sans-IO: bytes of the upstream in, outputs out. Every event stands in one queue and leaves it in its turn, when each of
its texts is settled. Calls are asked about together, when the model has ended its message: an agent acts on none before
that, and a message that breaks off is never acted on. What follows a call waits behind it. A thinking block waits for
its end where a rule looks at answers, because it leaves whole or not at all.

Blocks come one after the other and are numbered in a row, as the API says; anything else, and any event, block or delta
of a type that is not known here, fails. The verdicts and the bytes do not depend on how the stream was cut into chunks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence

from gateway.core.canonical import JSON, parse
from gateway.core.errors import GatewayError, UpstreamError
from gateway.core.exchange import Path
from gateway.core.filtering import FilterRule, TextGuard
from gateway.wire import anthropic_answers as answers
from gateway.wire import sse
from gateway.wire.anthropic_block import Block, Entry, Segment, Writer, refused
from gateway.wire.anthropic_fields import (
    CALL,
    DELTAS,
    Usage,
    is_expected,
    is_misspelt,
    is_sealed,
    is_text,
    read_usage,
)
from gateway.wire.anthropic_response import CALL_FIELDS, read_extras
from gateway.wire.calls import CallVerdict, check_verdicts
from gateway.wire.openai_chat_choice import Channel, StreamLimits
from gateway.wire.outputs import Blocked, Decide, Failed, Output, Release

_OVERHEAD_BYTES = 256  # what a queued event costs beside its bytes

_MAIN_FIELDS = {"text": "text", "thinking": "thinking", "compaction": "content"}
"""The field of a block that its deltas continue."""

_MESSAGES = {
    "upstream_truncated": "the upstream ended the stream early; try again",
    "upstream_error": "the upstream reported an error in its stream; try again",
    "upstream_protocol": "the upstream sent an event that cannot be inspected",
    "stream_limit": "the stream is larger than the gateway inspects; ask for a shorter answer",
}


class AnthropicStreamGuard:
    """One stream from its first byte to its last.

    `text_guard` makes the guard of one text; the field is such as `0.text`, with the index of the block. Without it
    texts are released at once and only calls are withheld. `provider_runs` tells whether the request let the provider
    run tools: without it, no trace of one is expected.

    After `feed`, `resolve` and `finish` these tell about what was let through: `usage`, `finish_reasons`, `texts`;
    `started` says whether any byte was released, `ended` that no output will follow. The one choice is number 0.
    """

    def __init__(
        self,
        text_guard: Callable[[int, str], TextGuard] | None,
        *,
        provider_runs: bool = False,
        limits: StreamLimits | None = None,
        blocked_text: str = "[The rest of this answer is withheld by a policy of the gateway.]",
    ) -> None:
        self._text_guard = text_guard
        self._provider_runs = provider_runs
        self._limits = limits or StreamLimits()
        self._blocked_text = blocked_text
        self._parser = sse.Parser(self._limits.event_bytes_max)
        self._writer = Writer(self._limits)
        self._queue: deque[Entry] = deque()
        self._queued_bytes = 0
        self._prelude_bytes = 0
        self._pending: list[bytes] = []
        self._outputs: list[Output] = []
        self._backlog: deque[sse.Event] = deque()
        self._backlog_bytes = 0
        self._head: answers.Head | None = None
        self._blocks = 0
        self._open: Block | None = None
        self._calls: list[Block] = []
        self._asking = False
        self._resolved = False
        self._ending = False
        self._done = False
        self._closed = False
        self._denied: FilterRule | None = None
        self.ended = False
        self.started = False
        self.usage: Usage | None = None
        self._readers: Mapping[str, Callable[[dict[str, JSON], Entry], None]] = {
            "message_start": self._message_start,
            "content_block_start": self._block_start,
            "content_block_delta": self._block_delta,
            "content_block_stop": self._block_stop,
            "message_delta": self._message_delta,
            "message_stop": self._message_stop,
            "ping": self._ping,
        }

    @property
    def finish_reasons(self) -> dict[int, str]:
        """As released."""
        return {0: self._writer.reason} if self._writer.reason else {}

    @property
    def texts(self) -> dict[int, str]:
        """The text blocks as released (masked), up to the limit."""
        return {0: "".join(self._writer.released)} if self._head is not None else {}

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
        if choice != 0 or not self._asking:
            raise ValueError("calls are resolved once, after they were asked about")
        check_verdicts([block.proposed() for block in self._calls], verdicts)
        for block, verdict in zip(self._calls, verdicts, strict=True):
            block.resolve(verdict)
        self._writer.cut = all(block.dropped for block in self._calls)
        self._asking, self._resolved = False, True
        try:
            self._flush()
        except GatewayError as error:
            self._fail(error.code)
        self._run()
        return self._take()

    def finish(self) -> list[Output]:
        """The upstream has closed. Without `message_stop` before, the stream was cut off and fails."""
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
            if rest is not None and rest.data is None:
                self._event(rest)
            if not self._done:
                self._fail("upstream_truncated")

    def _event(self, event: sse.Event) -> None:
        try:
            self._ingest(event)
        except GatewayError as error:
            self._fail(error.code)

    def _ingest(self, event: sse.Event) -> None:
        if event.data is None:
            self._push(Entry(event))
            return
        if self._done:
            return  # nothing belongs behind the end
        doc = _parse(event.data)
        kind = doc.get("type")
        if not isinstance(kind, str) or event.name not in ("", kind):
            raise refused()  # some clients go by the name, some by the type
        if any(isinstance(node, dict) and is_misspelt(node) for node in (doc, *doc.values())):
            raise refused()
        if kind == "error":
            raise UpstreamError("upstream_error", "the upstream reported an error")
        reader = self._readers.get(kind)
        if reader is None or (self._head is None and kind not in ("message_start", "ping")):
            raise refused()
        entry = Entry(event)
        reader(doc, entry)
        if self._denied is not None:
            self._block(self._denied)
            return
        self._push(entry)
        if self._ending:
            self._ask()

    def _message_start(self, doc: dict[str, JSON], entry: Entry) -> None:
        message = doc.get("message")
        if self._head is not None or not isinstance(message, dict) or message.get("content") != []:
            raise refused()
        identifier, model = message.get("id"), message.get("model")
        self._head = answers.Head(
            id=identifier if isinstance(identifier, str) else "", model=model if isinstance(model, str) else ""
        )
        self.usage = read_usage(message.get("usage"))
        self._wholes(read_extras(message, ("message",), ("content",)), entry)
        self._wholes(read_extras(doc, (), ("type", "message")), entry)

    def _block_start(self, doc: dict[str, JSON], entry: Entry) -> None:
        content = doc.get("content_block")
        kind = content.get("type") if isinstance(content, dict) else None
        if self._open is not None or self._ending or not isinstance(content, dict) or not isinstance(kind, str):
            raise refused()
        index = doc.get("index")
        if type(index) is not int or index != self._blocks or not is_expected(kind, self._provider_runs):
            raise refused()
        self._blocks += 1
        if self._blocks > self._limits.fields_max:
            raise UpstreamError("stream_limit", "too many blocks")
        block = self._open = entry.block = Block(index, content, kind, self._limits)
        block.sealed = self._text_guard is not None and is_sealed(content)
        entry.opens = True
        if kind == CALL:
            self._calls.append(block)
            if len(self._calls) > self._limits.calls_max:
                raise UpstreamError("stream_limit", "too many calls")
        field = _MAIN_FIELDS.get(kind, "")
        text = content.get(field)
        if isinstance(text, str):
            self._piece(text, ("content_block", field), entry)
        entry.light = kind == "text" and not text
        known = CALL_FIELDS if kind == CALL else ("type", field) if isinstance(text, str) else ("type",)
        self._wholes(read_extras(content, ("content_block",), known), entry)
        self._wholes(read_extras(doc, (), ("type", "index", "content_block")), entry)

    def _block_delta(self, doc: dict[str, JSON], entry: Entry) -> None:
        block = self._current(doc)
        delta = doc.get("delta")
        kind = delta.get("type") if isinstance(delta, dict) else None
        if not isinstance(delta, dict) or not isinstance(kind, str):
            raise refused()
        field = DELTAS.get(block.kind, {}).get(kind)
        value = delta.get(field) if field else None
        if field is None or not isinstance(value, dict if field == "citation" else str | None):
            raise refused()
        entry.block, entry.light = block, False
        known: tuple[str, ...] = ("type",)
        if isinstance(value, str) and field != "signature":
            known = ("type", field)
            if block.kind == CALL:
                block.add(value, self._limits)
            else:
                self._piece(value, ("delta", field), entry)
        self._wholes(read_extras(delta, ("delta",), known), entry)
        self._wholes(read_extras(doc, (), ("type", "index", "delta")), entry)

    def _block_stop(self, doc: dict[str, JSON], entry: Entry) -> None:
        block = entry.block = self._current(doc)
        entry.closes, entry.light = True, False
        self._open = None
        if block.main is not None:
            block.main.finish()
            self._check(block.main)
        self._wholes(read_extras(doc, (), ("type", "index")), entry)
        block.closed = True
        if block.sealed:
            block.dropped = any(channel.guard.edits for channel in block.channels)

    def _message_delta(self, doc: dict[str, JSON], entry: Entry) -> None:
        delta = doc.get("delta")
        if self._open is not None or not isinstance(delta, dict):
            raise refused()
        reason = delta.get("stop_reason")
        if not isinstance(reason, str | None) or (reason and is_text(("stop_reason",), reason)):
            raise refused()
        self.usage = read_usage(doc.get("usage"), self.usage)
        entry.reason, entry.light = reason, False
        self._ending = True
        self._wholes(read_extras(delta, ("delta",), ("stop_reason",)), entry)
        self._wholes(read_extras(doc, (), ("type", "delta")), entry)

    def _message_stop(self, doc: dict[str, JSON], entry: Entry) -> None:
        if self._open is not None:
            raise refused()
        entry.light = False
        self._ending = self._done = True
        self._wholes(read_extras(doc, (), ("type",)), entry)

    def _ping(self, doc: dict[str, JSON], entry: Entry) -> None:
        self._wholes(read_extras(doc, (), ("type",)), entry)

    def _current(self, doc: dict[str, JSON]) -> Block:
        block, index = self._open, doc.get("index")
        if block is None or type(index) is not int or index != block.index:
            raise refused()
        return block

    def _piece(self, text: str, path: Path, entry: Entry) -> None:
        """The next piece of the text that the deltas of a block make up."""
        block = entry.block
        assert block is not None
        spoken = block.kind == "text"
        if self._text_guard is None:
            entry.segments.append(Segment(None, path, text, 0, 0, spoken))
            return
        if block.main is None:
            block.main = Channel(self._text_guard(0, f"{block.index}.{path[-1]}"))
            block.channels.append(block.main)
        start = block.main.length
        block.main.feed(text)
        entry.segments.append(Segment(block.main, path, text, start, block.main.length, spoken))
        self._check(block.main)

    def _wholes(self, found: Sequence[tuple[Path, str]], entry: Entry) -> None:
        """Texts that stand for themselves."""
        if self._text_guard is None:
            return
        for path, text in found:
            channel = Channel(self._text_guard(0, ".".join(map(str, path))))
            channel.feed(text)
            channel.finish()
            if entry.block is not None and entry.block.sealed:
                entry.block.channels.append(channel)
            entry.segments.append(Segment(channel, path, text, 0, channel.length, False))
            self._check(channel)

    def _check(self, channel: Channel) -> None:
        if self._denied is None:
            self._denied = channel.guard.denied

    def _ask(self) -> None:
        if self.ended or self._asking or self._resolved or not self._calls:
            return
        self._asking = True
        self._drain()
        self._outputs.append(Decide(0, tuple(block.proposed() for block in self._calls)))

    def _push(self, entry: Entry) -> None:
        self._queue.append(entry)
        self._queued_bytes += len(entry.event.raw) + _OVERHEAD_BYTES
        self._flush()
        if self._queued_bytes > self._limits.withheld_bytes_max:
            raise UpstreamError("stream_limit", "too much withheld")

    def _flush(self) -> None:
        """Releases from the head of the queue what is ready. Until an event of substance is ready, the ones that only
        open the stream are kept back: the proxy can still choose status and headers."""
        while self._queue and self._queue[0].ready(resolved=self._resolved):
            entry = self._queue.popleft()
            self._pending.append(self._writer.write(entry))
            size = len(entry.event.raw) + _OVERHEAD_BYTES
            if self.started or not entry.light:
                self.started = True
                self._queued_bytes -= self._prelude_bytes + size
                self._prelude_bytes = 0
            else:
                self._prelude_bytes += size

    def _drain(self) -> None:
        if self._pending and self.started:
            data = b"".join(self._pending)
            self._pending.clear()
            if data:
                self._outputs.append(Release(data))

    def _fail(self, code: str) -> None:
        message = _MESSAGES.get(code, "the answer could not be inspected; try again")
        self._stop(Failed(code, answers.error_event(code, message)))

    def _block(self, rule: FilterRule) -> None:
        writer = self._writer
        pieces = [] if self.started else [answers.opening(self._head or answers.Head())]
        if writer.open_index is not None and self.started:
            stop: JSON = {"type": "content_block_stop", "index": writer.open_index}
            pieces.append(answers.event("content_block_stop", stop))
        index = writer.next_index if self.started else 0
        writer.note(f"\n\n{self._blocked_text}" if writer.released else self._blocked_text)
        writer.reason = "refusal"
        pieces.append(answers.text_events(index, self._blocked_text))
        pieces.append(answers.ending("refusal", self.usage.output_tokens if self.usage else 0))
        self._stop(Blocked(rule, b"".join(pieces)))

    def _stop(self, output: Blocked | Failed) -> None:
        self._drain()
        self._pending.clear()
        self._queue.clear()
        self._backlog.clear()
        self.ended = True
        self._outputs.append(output)

    def _take(self) -> list[Output]:
        self._drain()
        outputs, self._outputs = self._outputs, []
        return outputs


def _parse(data: bytes) -> dict[str, JSON]:
    try:
        doc = parse(data, "event of the upstream")
    except GatewayError:
        raise refused() from None
    if not isinstance(doc, dict):
        raise refused()
    return doc
