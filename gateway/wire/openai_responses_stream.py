"""Guards one Responses stream: nothing leaves before its verdict, and what nothing touches leaves unchanged.

Sans-IO: bytes of the upstream in, outputs out. Every event stands in one queue and leaves it in its turn, when its
texts are settled and the call it belongs to is decided. This dialect says everything several times (piece by piece,
then whole, then again in the last event): every repetition carries the same verdict, because a text is judged once
and remembered. The verdicts and the bytes do not depend on how the stream was cut into chunks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias, cast

from gateway.core.canonical import JSON
from gateway.core.errors import GatewayError, UpstreamError
from gateway.core.exchange import Path
from gateway.core.filtering import FilterRule, TextGuard, apply_edits
from gateway.wire import leaves, sse
from gateway.wire import openai_responses_events as events
from gateway.wire import openai_responses_items as items
from gateway.wire.calls import CallVerdict, check_verdicts
from gateway.wire.openai_chat_choice import Channel, StreamLimits
from gateway.wire.openai_chat_fields import Usage
from gateway.wire.openai_responses_events import Call, Entry, Segment, refused
from gateway.wire.openai_responses_response import UPSTREAM_FAILED
from gateway.wire.outputs import Blocked, Decide, Failed, Output, Release

RESPONSE = -1
"""The `choice` of a Decide about calls that only the whole response at the end has; others have their output index."""

ChannelKey: TypeAlias = tuple[int, str, tuple[int, ...]]
"""Output index (-1 where there is none), field, and what else tells one text from another."""

_OVERHEAD_BYTES = 256  # what a queued event costs beside its bytes
_REMEMBERED_CHARS_MAX = 4 * 1024 * 1024  # verdicts on whole texts; beyond it a repetition is judged anew
_ITEMS_MAX = 1024  # of one response
_CUT_OFF = "A call of a tool was NOT EXECUTED: the model's answer broke off before the call was complete."
_PLAIN_KEYS = frozenset(
    {
        "type", "sequence_number", "output_index", "content_index", "summary_index", "item_id", "delta", "logprobs",
        "obfuscation",
    }
)  # fmt: skip
_MESSAGES = {
    "upstream_truncated": "the upstream ended the stream early; try again",
    "upstream_error": "the upstream reported an error in its stream; try again",
    "upstream_protocol": "the upstream sent an event that cannot be inspected",
    "stream_limit": "the stream is larger than the gateway inspects; ask for a shorter answer",
}


class ResponsesStreamGuard:
    """One stream from its first byte to its last.

    `text_guard` makes the guard of one text; it is given the output index (-1 where there is none) and a field such as
    `response.output_text.delta`. Without it texts are released at once and only calls are withheld. A call that is not
    allowed is replaced by a message at the same output index, in the events and in the last response alike.
    `provider_runs` tells whether the request let the provider run tools: without it, no trace of one is expected.
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
        self._backlog: deque[sse.Event] = deque()
        self._backlog_bytes = 0
        self._queue: deque[Entry] = deque()
        self._queued_bytes = 0
        self._pending: list[bytes] = []
        self._outputs: list[Output] = []
        self._asking: dict[int, list[Call]] = {}
        self._items: dict[int, str] = {}  # type of each item that was opened
        self._calls: dict[int, Call] = {}
        self._channels: dict[ChannelKey, tuple[Channel, list[str]]] = {}
        self._closed_channels: set[ChannelKey] = set()
        self._known: dict[str, str] = {}
        self._known_chars = 0
        self._base: dict[str, JSON] | None = None
        self._shown: dict[int, JSON] = {}
        self._said: dict[int, list[str]] = {}
        self._said_chars = 0
        self._denied: FilterRule | None = None
        self._offset = 0
        self._last = -1
        self._closed = False
        self._done = False
        self.ended = False
        self.started = False
        self.usage: Usage | None = None
        self.response_id: str | None = None
        self.model: str | None = None
        self._reason: str | None = None

    @property
    def finish_reasons(self) -> dict[int, str]:
        """How the response ended, as released: its status, or why it is incomplete."""
        return {0: self._reason} if self._reason else {}

    @property
    def texts(self) -> dict[int, str]:
        """The text of each output item as released (masked), up to the limit."""
        return {index: "".join(pieces) for index, pieces in self._said.items()}

    @property
    def next_number(self) -> int:
        """The sequence number of an event that follows what was released."""
        return self._last + 1

    def feed(self, data: bytes) -> list[Output]:
        """Takes the next bytes of the upstream. Between a `Decide` and its `resolve` they are only kept."""
        if self.ended:
            return []
        found = self._parser.feed(data)
        if self._asking:
            self._backlog_bytes += len(data) + _OVERHEAD_BYTES * len(found)
            if self._backlog_bytes > self._limits.withheld_bytes_max:
                self._fail("stream_limit")
        self._backlog.extend(found)
        self._run()
        return self._take()

    def resolve(self, choice: int, verdicts: Sequence[CallVerdict]) -> list[Output]:
        """Gives the verdicts on a `Decide`, in the order of its calls."""
        if self.ended:
            return []
        calls = self._asking.get(choice)
        if calls is None:
            raise ValueError("a verdict that was not asked for")
        check_verdicts([call.call for call in calls if call.call is not None], verdicts)
        del self._asking[choice]
        for call, verdict in zip(calls, verdicts, strict=True):
            call.verdict = verdict
        try:
            self._flush()
        except GatewayError as error:
            self._fail(error.code)
        self._run()
        return self._take()

    def finish(self) -> list[Output]:
        """The upstream has closed. Without a last response before, the stream was cut off and fails."""
        if self.ended:
            return []
        self._closed = True
        self._run()
        return self._take()

    def _run(self) -> None:
        while self._backlog and not self._asking and not self.ended:
            self._event(self._backlog.popleft())
        if self._asking or self.ended:
            return
        self._backlog_bytes = 0
        if self._parser.overflow:
            self._fail("stream_limit")
        elif self._closed:
            rest = self._parser.finish()
            if rest is not None and self._done and (rest.data is None or rest.data.rstrip() == b"[DONE]"):
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
            self._push(Entry(event, light=True))
            return
        if data.rstrip() == b"[DONE]":
            if not self._done:
                raise UpstreamError("upstream_truncated", "the stream has no end")
            self._push(Entry(event))
            return
        if self._done:
            return
        doc = events.read(data)
        kind = doc.get("type")
        if doc.get("error") or event.name == "error" or kind == "error":
            raise UpstreamError("upstream_error", "the upstream reported an error")
        if not isinstance(kind, str) or event.name not in ("", kind):
            raise refused()  # clients go by either
        items.refuse_misspelt({key: value for key, value in doc.items() if key != "response"})
        number = doc.get("sequence_number")
        entry = Entry(event, kind, number if isinstance(number, int) and not isinstance(number, bool) else None)
        self._read(entry, kind, doc)
        if self._denied is not None:
            self._block(self._denied)
            return
        self._push(entry)
        for choice, calls in self._asking.items():
            self._drain()
            self._outputs.append(Decide(choice, tuple(call.call for call in calls if call.call is not None)))

    def _read(self, entry: Entry, kind: str, doc: dict[str, JSON]) -> None:
        if kind in events.LIFECYCLE:
            self._read_response(entry, kind, doc)
            return
        index = events.index_of(doc)
        if kind in ("response.output_item.added", "response.output_item.done"):
            if index is None:
                raise refused()
            self._read_item(entry, kind, index, doc)
            return
        call = self._calls.get(index) if index is not None else None
        if call is not None:
            if call.call is not None:
                raise refused()  # its verdict is given
            call.add(kind, doc, self._limits)
            entry.call = call
            call.last = entry
            return
        if kind.rpartition(".")[0] in events.CALL_PIECES:
            raise refused()
        if kind in events.DELTAS:
            self._read_delta(entry, kind, index, doc)
            return
        self._close(kind, doc)
        found = list(events.event_words(kind, doc))
        self._judge(entry, doc, found)
        entry.light = kind == "response.content_part.added" and not found

    def _read_item(self, entry: Entry, kind: str, index: int, doc: dict[str, JSON]) -> None:
        item = doc.get("item")
        name = items.type_of(item)
        assert isinstance(item, dict)
        opened = self._items.get(index)
        call = self._calls.get(index)
        if kind.endswith("added"):
            if opened is not None or len(self._items) >= _ITEMS_MAX:
                raise refused()
            self._items[index] = name
            if items.is_call(item):
                call = self._calls[index] = Call(index, item)
        elif call is not None and call.call is not None:
            raise refused()
        else:
            if items.is_call(item) != (call is not None) and opened is not None:
                raise refused()
            self._items[index] = name
            self._finish_channels(index)
            if items.is_call(item):
                call = call or self._calls.setdefault(index, Call(index, None))
                call.complete(item, self._limits)
                self._asking[index] = [call]
            entry.item, entry.index = item, index
        entry.call = call
        if call is not None:
            call.last = entry
        found = list(self._item_words(item, ("item",)))
        found.extend(events.event_words(kind, doc, ("item",)))
        self._judge(entry, doc, found)
        entry.light = kind.endswith("added") and call is None and not found

    def _item_words(self, item: Mapping[str, JSON], path: Path) -> Iterable[tuple[Path, str]]:
        items.refuse_unexpected(item, self._provider_runs)
        if not items.is_call(item):
            items.refuse_hidden_calls({key: value for key, value in item.items() if key != "tools"})
        return items.item_words(item, path)

    def _read_delta(self, entry: Entry, kind: str, index: int | None, doc: dict[str, JSON]) -> None:
        text = doc.get("delta")
        if not isinstance(text, str):
            raise refused()
        if kind == "response.output_text.delta":
            entry.spoken = (index or 0, text)
        named = all(items.is_identifier(str(doc.get(key, "-"))) for key in ("item_id", "obfuscation"))
        if not named or not doc.keys() <= _PLAIN_KEYS:
            self._judge(entry, doc, events.event_words(kind, doc, ("delta", "logprobs")))
        if self._text_guard is None:
            return
        place = tuple(events.index_of(doc, key) or 0 for key in events.DELTAS[kind])
        key = (-1 if index is None else index, kind, place)
        self._feed(entry, key, ("delta",), text)
        for path, token in events.tokens(doc.get("logprobs")):
            self._feed(entry, (key[0], f"{kind}.logprobs", place), path, token)

    def _feed(self, entry: Entry, key: ChannelKey, path: Path, text: str) -> None:
        if key in self._closed_channels:
            raise refused()  # its guard has given its last verdict
        known = self._channels.get(key)
        if known is None:
            if len(self._channels) + len(self._closed_channels) >= self._limits.fields_max:
                raise UpstreamError("stream_limit", "too many texts")
            assert self._text_guard is not None
            known = self._channels[key] = (Channel(self._text_guard(key[0], key[1])), [])
        channel, pieces = known
        start = channel.length
        channel.feed(text)
        pieces.append(text)
        entry.segments.append(Segment(channel, path, start, channel.length, text))
        self._check(channel.guard)

    def _close(self, kind: str, doc: dict[str, JSON]) -> None:
        """The end of one text: its guard gives the last verdict before the repetition of the whole is judged."""
        name, _, end = kind.rpartition(".")
        delta = f"{name}.delta"
        if end != "done" or delta not in events.DELTAS:
            return
        index = events.index_of(doc)
        place = tuple(events.index_of(doc, key) or 0 for key in events.DELTAS[delta])
        for field in (delta, f"{delta}.logprobs"):
            self._finish_channel((-1 if index is None else index, field, place))

    def _finish_channels(self, index: int | None = None) -> None:
        for key in [key for key in self._channels if index is None or key[0] == index]:
            self._finish_channel(key)

    def _finish_channel(self, key: ChannelKey) -> None:
        known = self._channels.pop(key, None)
        if known is None:
            return
        self._closed_channels.add(key)
        channel, pieces = known
        channel.finish()
        self._check(channel.guard)
        if self._denied is None:
            text = "".join(pieces)
            self._remember(text, apply_edits(text, channel.guard.edits))

    def _judge(self, entry: Entry, doc: JSON, found: Iterable[tuple[Path, str]]) -> None:
        """The verdicts on whole texts of an event."""
        if self._text_guard is None:
            for _ in found:  # the search refuses what may hide something
                pass
            return
        changed: dict[Path, JSON] = {}
        for path, text in found:
            masked = self._masked(text)
            if masked != text:
                changed[path] = masked
        entry.changes.update(changed)
        entry.changes.update(items.bare_logprobs(doc, list(changed)))

    def _masked(self, text: str) -> str:
        known = self._known.get(text)
        if known is None:
            assert self._text_guard is not None
            guard = self._text_guard(-1, "whole")
            guard.feed(text)
            guard.finish()
            self._check(guard)
            known = apply_edits(text, guard.edits)
            self._remember(text, known)
        return known

    def _remember(self, text: str, masked: str) -> None:
        if self._known_chars + len(text) <= _REMEMBERED_CHARS_MAX:
            self._known_chars += len(text)
            self._known[text] = masked

    def _check(self, guard: TextGuard) -> None:
        if self._denied is None and guard.denied is not None:
            self._denied = guard.denied

    def _read_response(self, entry: Entry, kind: str, doc: dict[str, JSON]) -> None:
        response = doc.get("response")
        output = response.get("output") if isinstance(response, dict) else None
        if not isinstance(response, dict) or not isinstance(output, list | None) or response.get("choices"):
            raise refused()
        items.refuse_misspelt({key: value for key, value in response.items() if key not in items.ECHO})
        if kind in events.FINAL:
            self._finish_channels()
            for call in self._calls.values():
                if call.call is None:
                    call.verdict = CallVerdict(False, _CUT_OFF)
        found = list(events.event_words(kind, doc, ("response",)))
        asked: list[Call] = []
        for position, item in enumerate(output or []):
            items.type_of(item)
            assert isinstance(item, dict)
            if items.is_call(item):
                entry.repeats.append((position, self._repeated(item, position, asked)))
            found.extend(self._item_words(item, ("response", "output", position)))
        found.extend(items.echo_words(response, ("response",)))
        self._judge(entry, doc, found)
        if items.silent_error(response):
            entry.changes["response", "error", "message"] = UPSTREAM_FAILED
        if asked:
            self._asking[RESPONSE] = asked
        self._remember_response(entry, response)
        entry.light = kind not in events.FINAL and not output
        if kind in events.FINAL:
            entry.reason = items.finish_reason(response) or kind.removeprefix("response.")
            self._done = True

    def _repeated(self, item: Mapping[str, JSON], position: int, asked: list[Call]) -> Call:
        """The call of which this item is the repetition, or a new one that needs a verdict."""
        for call in self._calls.values():
            first = call.item or call.added or {}
            if first.get("call_id") != item.get("call_id") or not (item.get("call_id") or first.get("id")):
                continue
            if call.denied:
                return call
            own = items.CALL_TEXTS.get(str(item.get("type")))
            keys = ("type", "name", "namespace", own) if own else tuple((first.keys() | item.keys()) - {"status"})
            judged = call.item if call.call is not None and call.call.arguments is not None else None
            if judged is not None and all(judged.get(key) == item.get(key) for key in keys):
                return call
        fresh = Call(position, None)
        fresh.complete(item, self._limits)
        if len(asked) >= self._limits.calls_max:
            raise UpstreamError("stream_limit", "too many calls")
        asked.append(fresh)
        return fresh

    def _remember_response(self, entry: Entry, response: dict[str, JSON]) -> None:
        usage = items.read_usage(response.get("usage"))
        self.usage = usage or self.usage
        identifier, model = response.get("id"), response.get("model")
        self.response_id = identifier if isinstance(identifier, str) else self.response_id
        self.model = model if isinstance(model, str) else self.model
        if self._base is None and self._denied is None:
            changes = {path[1:]: value for path, value in entry.changes.items() if path[:2] != ("response", "output")}
            base = leaves.with_values(cast("JSON", response), {path: value for path, value in changes.items() if path})
            self._base = {**cast("dict[str, JSON]", base), "output": []}

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
            self._queued_bytes -= len(entry.event.raw) + _OVERHEAD_BYTES
            self._pending.append(self._render(entry))
            self.started = self.started or not entry.light

    def _render(self, entry: Entry) -> bytes:
        """The bytes of an event that is ready: the upstream's own, unless something in it was taken away."""
        call, changes = entry.call, entry.changes
        if call is not None and (call.denied or not call.declared):
            if call.denied or not entry.kind.startswith("response.output_item."):
                return self._replaced(entry, call)
            if entry.kind.endswith("added"):
                changes = {("item",): cast("JSON", dict(call.item or {}))}
        self._change(entry, changes)
        if entry.spoken is not None:
            self._note(entry.spoken[0], cast("str", changes.get(("delta",), entry.spoken[1])))
        self._reason = entry.reason or self._reason
        self._show(entry, changes)
        if entry.number is not None:
            self._last = entry.number + self._offset
            if self._offset:
                changes["sequence_number",] = self._last
        if not changes:
            return entry.event.raw
        assert entry.event.data is not None
        doc = leaves.with_values(events.read(entry.event.data), changes)
        return sse.with_data(entry.event, leaves.encode(doc))

    def _replaced(self, entry: Entry, call: Call) -> bytes:
        """A message in the place of the last event of a call; the other events of it are not shown."""
        if entry.number is not None:
            self._offset -= 1
        if entry is not call.last or not call.denied:
            return b""
        notice = call.notice()
        self._shown[call.index] = notice
        self._note(call.index, call.text)
        return b"".join(self._numbered(each) for each in events.message_events(notice, call.index))

    def _change(self, entry: Entry, changes: dict[Path, JSON]) -> None:
        """Adds what the verdicts on its pieces of text, and on the calls that it repeats, change in an event."""
        for segment in entry.segments:
            text = segment.channel.rewritten(segment.start, segment.end, segment.text)
            if text == segment.text:
                continue
            if b'"logprobs"' in entry.event.raw:
                changes["logprobs",] = []
            if segment.path == ("delta",):
                changes[segment.path] = text
        taken = {("response", "output", position): each for position, each in entry.repeats if each.denied}
        for path in [path for path in changes if path[:3] in taken]:
            del changes[path]
        changes.update({path: each.notice() for path, each in taken.items()})

    def _show(self, entry: Entry, changes: Mapping[Path, JSON]) -> None:
        if entry.item is not None and self._text_guard is not None:
            inner = {path[1:]: value for path, value in changes.items() if path[0] == "item" and len(path) > 1}
            self._shown[entry.index] = leaves.with_values(cast("JSON", entry.item), inner)

    def _numbered(self, doc: dict[str, JSON]) -> bytes:
        """An event of the gateway's own, numbered after the one before."""
        self._last += 1
        self._offset += 1
        return events.encode({**doc, "sequence_number": self._last})

    def _note(self, index: int, text: str) -> None:
        room = self._limits.released_chars_max - self._said_chars
        if room > 0:
            self._said.setdefault(index, []).append(text[:room])
            self._said_chars += min(len(text), room)

    def _drain(self) -> None:
        if self._pending and self.started:
            data = b"".join(self._pending)
            self._pending.clear()
            if data:
                self._outputs.append(Release(data))

    def _fail(self, code: str) -> None:
        message = _MESSAGES.get(code, "the answer could not be inspected; try again")
        self._stop(Failed(code, events.error_event(code, message, number=self.next_number)))

    def _block(self, rule: FilterRule) -> None:
        """Ends as the dialect does: a message that says so, and a response that is incomplete by `content_filter`."""
        self._drain()
        pieces = list(self._pending)  # what opened the stream, if nothing was released yet
        index = max(self._items, default=-1) + 1
        notice = items.message(self._blocked_text, index, self.response_id or "")
        base = self._base
        if base is None:
            base = {"id": "resp_gateway", "object": "response", "created_at": 0, "model": "", "output": []}
            pieces.append(self._numbered({"type": "response.created", "response": {**base, "status": "in_progress"}}))
        pieces.extend(self._numbered(each) for each in events.message_events(notice, index))
        self._note(index, self._blocked_text)
        response: JSON = {
            **base,
            "status": "incomplete",
            "incomplete_details": {"reason": "content_filter"},
            "output": [*self._shown.values(), cast("JSON", notice)],
        }
        pieces.append(self._numbered({"type": "response.incomplete", "response": response}))
        self._reason = "content_filter"
        self._stop(Blocked(rule, b"".join(pieces)))

    def _stop(self, output: Blocked | Failed) -> None:
        self._drain()
        self._pending.clear()
        self._queue.clear()
        self._backlog.clear()
        self._channels.clear()
        self._asking.clear()
        self.ended = True
        self._outputs.append(output)

    def _take(self) -> list[Output]:
        self._drain()
        outputs, self._outputs = self._outputs, []
        return outputs
