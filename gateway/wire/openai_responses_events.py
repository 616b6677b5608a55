"""The parts of a guarded Responses stream: the calls that are withheld, queued events, the events that the gateway
writes by itself, and how an event is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from gateway.core.canonical import JSON, parse
from gateway.core.errors import GatewayError, UpstreamError
from gateway.core.exchange import Path
from gateway.wire import leaves, sse
from gateway.wire import openai_chat_answers as answers
from gateway.wire import openai_responses_items as items
from gateway.wire.calls import CallVerdict, ProposedCall
from gateway.wire.openai_chat_choice import Channel, StreamLimits

FINAL = frozenset({"response.completed", "response.incomplete", "response.failed"})
LIFECYCLE = FINAL | {"response.created", "response.queued", "response.in_progress"}
"""Events that carry the whole response."""

DELTAS: Mapping[str, tuple[str, ...]] = {
    "response.output_text.delta": ("output_index", "content_index"),
    "response.refusal.delta": ("output_index", "content_index"),
    "response.reasoning_text.delta": ("output_index", "content_index"),
    "response.reasoning_summary_text.delta": ("output_index", "summary_index"),
    "response.code_interpreter_call_code.delta": ("output_index",),
    "response.mcp_call_arguments.delta": ("output_index",),
    "response.audio.transcript.delta": (),
}
"""Events with a piece of a text, and what tells which text it continues."""

TEXTS = frozenset(
    {
        "response.content_part.added", "response.content_part.done", "response.output_text.done",
        "response.refusal.done", "response.reasoning_text.done", "response.reasoning_summary_text.done",
        "response.reasoning_summary_part.added", "response.reasoning_summary_part.done",
        "response.code_interpreter_call_code.done", "response.mcp_call_arguments.done",
        "response.output_text.annotation.added",
    }
)  # fmt: skip
"""Events with whole texts. An event that is in no list here must not carry any."""

CALL_PIECES = {
    "response.function_call_arguments": "arguments",
    "response.custom_tool_call_input": "input",
}
_OPAQUE = {
    ("response.audio.delta", "delta"),
    ("response.image_generation_call.partial_image", "partial_image_b64"),
}


class Segment(NamedTuple):
    """A piece of a text at `path` in an event."""

    channel: Channel
    path: Path
    start: int
    end: int
    text: str


class Call:
    """One item that is withheld from its first event until its verdict."""

    __slots__ = ("added", "call", "chars", "clear", "index", "item", "last", "pieces", "verdict")

    def __init__(self, index: int, added: Mapping[str, JSON] | None) -> None:
        self.index = index
        self.added = added
        self.item: Mapping[str, JSON] | None = None
        self.call: ProposedCall | None = None
        self.pieces: list[str] = []
        self.chars = 0
        self.clear = True  # every event says the same
        self.verdict: CallVerdict | None = None
        self.last: Entry | None = None

    @property
    def denied(self) -> bool:
        return self.verdict is not None and not self.verdict.allow

    @property
    def declared(self) -> bool:
        """Of a tool that the agent declared: its events are checked against each other and released as they are. Of
        another item only the judged one is shown."""
        return self.item is not None and self.item.get("type") in items.CALL_TEXTS

    @property
    def text(self) -> str:
        """What the agent reads in its place."""
        return (self.verdict.text if self.verdict else None) or items.NOT_EXECUTED

    def notice(self) -> dict[str, JSON]:
        identifier = self.call.id if self.call else str((self.added or {}).get("call_id"))
        return items.message(self.text, self.index, identifier)

    def add(self, kind: str, doc: Mapping[str, JSON], limits: StreamLimits) -> None:
        """An event between the first and the last of the item."""
        name, _, end = kind.rpartition(".")
        key = CALL_PIECES.get(name)
        own = items.CALL_TEXTS.get(str((self.added or {}).get("type")))
        if own is None:
            return  # not shown
        if key != own or end not in ("delta", "done"):
            raise refused()
        text = doc.get("delta" if end == "delta" else key)
        if not isinstance(text, str):
            raise refused()
        if end == "delta":
            self.pieces.append(text)
            self.chars += len(text)
            if self.chars > limits.arguments_chars_max:
                raise UpstreamError("stream_limit", "a call is too long")
        elif text != "".join(self.pieces):
            self.clear = False
        for name in ("name", "call_id"):  # some upstreams repeat them here
            if name in doc and doc[name] != (self.added or {}).get(name):
                self.clear = False

    def complete(self, item: Mapping[str, JSON], limits: StreamLimits) -> ProposedCall:
        """The call as the last event of the item has it. It has no single reading where other events differ."""
        call = items.call_of(item, self.index)
        if len(call.arguments_text) > limits.arguments_chars_max or len(call.name) > limits.name_chars_max:
            raise UpstreamError("stream_limit", "a call is too long")
        key = items.CALL_TEXTS.get(str(item.get("type")))
        if self.added is not None:
            same = all(self.added.get(name) == item.get(name) for name in ("type", "name", "call_id", "namespace"))
            begun = self.added.get(key) if key else None
            written = "".join(self.pieces)
            whole = key is None or (written == call.arguments_text and begun in (None, "")) or (
                not self.pieces and begun == call.arguments_text
            )  # fmt: skip
            self.clear = self.clear and same and whole
        self.item, self.call = item, call if self.clear else _unclear(call)
        return self.call


@dataclass(slots=True, eq=False)
class Entry:
    """One event in the queue."""

    event: sse.Event
    kind: str = ""
    number: int | None = None
    light: bool = False  # opens a stream without saying anything
    segments: list[Segment] = field(default_factory=list)
    changes: dict[Path, JSON] = field(default_factory=dict)
    call: Call | None = None
    repeats: list[tuple[int, Call]] = field(default_factory=list)  # position in the output of a whole response
    item: Mapping[str, JSON] | None = None  # an item that is done, and its output index
    index: int = 0
    reason: str | None = None
    spoken: tuple[int, str] | None = None  # a piece of what the agent's user reads

    def ready(self) -> bool:
        if self.call is not None and self.call.verdict is None:
            return False
        if any(call.verdict is None for _, call in self.repeats):
            return False
        return all(segment.channel.settled(segment.end) for segment in self.segments)


def refused() -> UpstreamError:
    return UpstreamError("upstream_protocol", "the upstream sent an event that cannot be inspected")


def read(data: bytes) -> dict[str, JSON]:
    """Raises UpstreamError for what is no JSON object."""
    try:
        doc = parse(data, "event of the upstream")
    except GatewayError:
        raise refused() from None
    if not isinstance(doc, dict):
        raise refused()
    return doc


def index_of(doc: Mapping[str, JSON], key: str = "output_index") -> int | None:
    value = doc.get(key)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise refused()
    return value


def tokens(logprobs: JSON) -> Iterator[tuple[Path, str]]:
    """They spell the text a second time."""
    if not isinstance(logprobs, list | None):
        raise refused()
    for number, entry in enumerate(logprobs or []):
        token = entry.get("token") if isinstance(entry, dict) else None
        if not isinstance(entry, dict) or not entry.keys() <= {"token", "logprob", "bytes", "top_logprobs"}:
            raise refused()
        if isinstance(token, str) and token:
            yield ("logprobs", number, "token"), token


def event_words(kind: str, doc: dict[str, JSON], skipped: tuple[str, ...] = ()) -> Iterator[tuple[Path, str]]:
    """The whole texts of an event outside of items. Raises UpstreamError for an event that may hide something."""
    rest: dict[str, JSON] = {}
    for key, value in doc.items():
        if key in skipped or ((kind, key) in _OPAQUE and isinstance(value, str) and items.is_base64(value)):
            continue
        rest[key] = value
    items.refuse_hidden_calls(rest)
    for path, text in items.words(rest, ()):
        if kind not in TEXTS and kind not in DELTAS:
            raise refused()
        yield path, text


def message_events(item: dict[str, JSON], index: int) -> list[dict[str, JSON]]:
    """The events with which a message is streamed, without their numbers."""
    content = item["content"]
    assert isinstance(content, list) and isinstance(content[0], dict)
    part, text = content[0], content[0]["text"]
    at: dict[str, JSON] = {"output_index": index, "item_id": item["id"], "content_index": 0}
    return [
        {
            "type": "response.output_item.added",
            "output_index": index,
            "item": {**item, "status": "in_progress", "content": []},
        },
        {"type": "response.content_part.added", **at, "part": {**part, "text": ""}},
        {"type": "response.output_text.delta", **at, "delta": text, "logprobs": []},
        {"type": "response.output_text.done", **at, "text": text, "logprobs": []},
        {"type": "response.content_part.done", **at, "part": part},
        {"type": "response.output_item.done", "output_index": index, "item": item},
    ]


def encode(doc: dict[str, JSON]) -> bytes:
    return b"event: %s\n%s" % (str(doc["type"]).encode(), sse.encode(leaves.encode(doc)))


def error_event(code: str, message: str, status: int = 502, *, number: int = 0) -> bytes:
    """The end of a stream that failed. The SDK raises at `error`; other clients read the fields beside it."""
    body = parse(answers.error(code, message, status))
    assert isinstance(body, dict)
    doc: dict[str, JSON] = {"type": "error", "code": code, "message": message, "param": None, "sequence_number": number}
    return encode({**doc, **body})


def _unclear(call: ProposedCall) -> ProposedCall:
    return ProposedCall(
        choice=call.choice,
        index=call.index,
        id=call.id,
        name=call.name,
        arguments_text=call.arguments_text,
        arguments=None,
        kind=call.kind,
    )
