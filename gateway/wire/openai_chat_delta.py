"""Reads one event of a Chat Completions stream: which texts, pieces of calls and ends of choices it carries."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from gateway.core.canonical import JSON
from gateway.core.errors import UpstreamError
from gateway.core.exchange import Path
from gateway.wire import leaves
from gateway.wire.calls import CallKind
from gateway.wire.openai_chat_fields import CHOICE_SKIPPED, TOP_SKIPPED, hides_calls, is_misspelt, is_text

LEGACY_INDEX = -1
NO_CHOICE = -1
_DELTA_DEPTH = 3  # `choices`, position, `delta`: fields are named from there


class TextDelta(NamedTuple):
    """Text at `path`. Pieces of one (choice, field) are read one after the other; a `whole` text stands for itself."""

    choice: int
    field: str
    path: Path
    text: str
    whole: bool = False


class CallDelta(NamedTuple):
    """A piece of a call. Its `kind` is None where the piece does not say."""

    choice: int
    number: int  # the `index` of the call
    id: str
    name: str
    arguments: str
    kind: CallKind | None


@dataclass(slots=True)
class Reading:
    texts: list[TextDelta] = field(default_factory=list)
    calls: list[CallDelta] = field(default_factory=list)
    finishes: dict[int, str] = field(default_factory=dict)
    choices: set[int] = field(default_factory=set)


def read(doc: dict[str, JSON]) -> Reading:
    """Raises UpstreamError `upstream_protocol` for a shape in which a call or a text could go unseen."""
    if is_misspelt(doc):
        raise refused()
    reading = Reading()
    for key, value in doc.items():
        if key == "choices":
            if value is None:
                continue
            if not isinstance(value, list):
                raise refused()
            for position, choice in enumerate(value):
                _read_choice(choice, position, reading)
        elif key not in TOP_SKIPPED:
            _read_whole(value, (key,), NO_CHOICE, reading)
    return reading


def choice_index(choice: JSON, position: int) -> int:
    """The index that a choice of an event claims for itself; its position where it claims none."""
    index = choice.get("index", position) if isinstance(choice, dict) else None
    if not isinstance(index, int) or isinstance(index, bool) or index < 0:
        raise refused()
    return index


def refused() -> UpstreamError:
    return UpstreamError("upstream_protocol", "the upstream sent an event that cannot be inspected")


def _read_choice(choice: JSON, position: int, reading: Reading) -> None:
    index = choice_index(choice, position)
    assert isinstance(choice, dict)
    if index in reading.choices:
        raise refused()  # one choice twice in an event: clients disagree on which counts
    reading.choices.add(index)
    path: Path = ("choices", position)
    for key, value in choice.items():
        if value is None:
            continue
        if key == "delta":
            if not isinstance(value, dict):
                raise refused()
            _read_delta(value, index, (*path, "delta"), reading)
        elif key == "error" and value:
            raise UpstreamError("upstream_error", "the upstream reported an error")
        elif key == "logprobs":
            _read_logprobs(value, index, (*path, "logprobs"), reading)
        elif key == "finish_reason":
            if not isinstance(value, str):
                raise refused()
            if value:
                reading.finishes[index] = value
        elif key not in CHOICE_SKIPPED:
            _read_whole(value, (*path, key), index, reading)


def _read_delta(delta: dict[str, JSON], index: int, path: Path, reading: Reading) -> None:
    for key, value in delta.items():
        if not value:
            continue
        at = (*path, key)
        if isinstance(value, str):
            if key in ("tool_calls", "function_call"):
                raise refused()
            if key != "role" or is_text(at, value):
                reading.texts.append(TextDelta(index, key, at, value))
        elif key == "tool_calls":
            if not isinstance(value, list):
                raise refused()
            for number, entry in enumerate(value):
                _read_call(entry, index, (*at, number), reading)
        elif key == "function_call":
            reading.calls.append(_piece(value, index, LEGACY_INDEX, "", CallKind.LEGACY))
            _read_unknown(value, at, ("name", "arguments"), index, reading)
        elif key == "annotations":
            _read_whole(value, at, index, reading)
        else:
            _read_pieces(value, at, index, reading)


def _read_call(entry: JSON, choice: int, path: Path, reading: Reading) -> None:
    if not isinstance(entry, dict):
        raise refused()
    number = entry.get("index")
    identifier = entry.get("id") or ""
    if not isinstance(number, int) or isinstance(number, bool) or number < 0 or not isinstance(identifier, str):
        raise refused()
    kinds = [kind for kind in (CallKind.FUNCTION, CallKind.CUSTOM) if entry.get(kind.value) is not None]
    if len(kinds) > 1:
        raise refused()
    if kinds:
        reading.calls.append(_piece(entry[kinds[0].value], choice, number, identifier, kinds[0]))
    else:
        reading.calls.append(CallDelta(choice, number, identifier, "", "", None))
    for kind in kinds:
        _read_unknown(entry[kind.value], (*path, kind.value), ("name", "arguments", "input"), choice, reading)
    _read_unknown(entry, path, ("index", "id", "type", "function", "custom"), choice, reading)


def _read_unknown(value: JSON, path: Path, known: tuple[str, ...], choice: int, reading: Reading) -> None:
    for key, inner in value.items() if isinstance(value, dict) else ():
        if key not in known:
            _read_pieces(inner, (*path, key), choice, reading)


def _piece(payload: JSON, choice: int, index: int, identifier: str, kind: CallKind) -> CallDelta:
    if not isinstance(payload, dict):
        raise refused()
    name = payload.get("name") or ""
    arguments = payload.get("input" if kind is CallKind.CUSTOM else "arguments") or ""
    if not isinstance(name, str) or not isinstance(arguments, str):
        raise refused()
    return CallDelta(choice, index, identifier, name, arguments, kind)


def _read_logprobs(value: JSON, index: int, path: Path, reading: Reading) -> None:
    """Tokens spell the text a second time: they are judged as one text of their own."""
    if not isinstance(value, dict):
        raise refused()
    for key, entries in value.items():
        for number, entry in enumerate(entries if isinstance(entries, list) else ()):
            token = entry.get("token") if isinstance(entry, dict) else None
            if isinstance(token, str) and token:
                reading.texts.append(TextDelta(index, f"logprobs.{key}", (*path, key, number, "token"), token))


def _read_whole(value: JSON, path: Path, index: int, reading: Reading) -> None:
    if value is None or isinstance(value, (bool, int, float)):
        return
    if hides_calls({str(path[-1]): value}):
        raise refused()
    for at, text in leaves.leaves(value, path):
        if is_text(at, text):
            reading.texts.append(TextDelta(index, leaves.spell(at), at, text, True))


def _read_pieces(value: JSON, path: Path, index: int, reading: Reading) -> None:
    """Strings in a structure that clients merge: list entries by their `index`, strings by joining."""
    if isinstance(value, (bool, int, float)) or value is None:
        return
    if hides_calls(value):
        raise refused()
    for at, text in leaves.leaves(value, path):
        if is_text(at, text):
            reading.texts.append(TextDelta(index, _field(value, path, at), at, text))


def _field(value: JSON, path: Path, at: Path) -> str:
    names = [str(step) for step in path[_DELTA_DEPTH:]]
    for step in at[len(path) :]:
        value = leaves.get(value, (step,))
        number = value.get("index") if isinstance(value, dict) and isinstance(step, int) else None
        names.append(str(number if isinstance(number, int) else step))
    return ".".join(names)
