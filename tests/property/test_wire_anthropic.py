"""Messages: any cut of a stream gives the same verdicts and bytes, what nobody touched is unchanged, and no string of a
body escapes inspection."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import ClientError, UpstreamError
from gateway.wire.anthropic import AnthropicStreamGuard, decode_request, decode_response, replace_calls, rewrite
from gateway.wire.calls import CallVerdict
from gateway.wire.outputs import Decide, Failed, Release
from tests.anthropic_support import (
    END,
    PING,
    SIGNATURE,
    accumulate,
    call,
    drive,
    ending,
    event,
    opening,
    text,
    thinking,
)
from tests.property.test_wire_chat_cover import KEYS, MARKED, OBJECTS, VALUES, edited, extended, strings
from tests.property.test_wire_sse_splits import CUTS, cut
from tests.wire_support import dumps, refuse, word_guards

WORDS = st.sampled_from(["SEC", "RET", "SECRET", "S", "ECRET", "é", "😀 ", " plain text ", ""])
PIECES = st.lists(WORDS, max_size=5)
ARGUMENTS = st.sampled_from([(), ("{}",), ('{"a":', "1}"), ('{"a',)])
NAMES = st.sampled_from(["pay", "read"])
KINDS = (
    st.tuples(st.just("text"), PIECES)
    | st.tuples(st.just("thinking"), PIECES)
    | st.tuples(NAMES, ARGUMENTS)
    | st.tuples(st.just("noise"), st.sampled_from([PING, b": keep-alive\n\n", b": crlf\r\n\r\n", b"\n\n"]))
)
BROKEN = st.sampled_from(
    [b"data: {\n\n", event({"type": "error", "error": {"message": "x"}}), event({"type": "new"}), b"data: x", END]
)


def built(blocks: list[tuple[str, Any]], tail: bytes) -> bytes:
    """A stream of these blocks in a row."""
    pieces, index = [opening()], 0
    for kind, content in blocks:
        if kind == "noise":
            pieces.append(content)
            continue
        make = {"text": text, "thinking": thinking}.get(kind)
        pieces.extend(make(index, *content) if make else call(index, kind, *content))
        index += 1
    return b"".join([*pieces, tail])


BLOCKS = st.lists(KINDS, max_size=7)
SOUND = st.builds(lambda blocks: built(blocks, ending("tool_use")), BLOCKS)
DENIED = st.tuples(st.just("text"), st.just(["FORBID", "DEN"]))
STREAMS = st.builds(built, st.lists(KINDS | DENIED, max_size=7), st.just(ending()) | BROKEN | st.just(b""))


def outcome(chunks: list[bytes], guarded: bool) -> Any:
    guard = AnthropicStreamGuard(word_guards() if guarded else None)
    sent, told = drive(guard, chunks, refuse("pay"))
    assert guard.ended or not any(isinstance(output, Failed) for output in told)
    return sent, told, guard.texts, guard.finish_reasons, guard.usage


@given(STREAMS, CUTS, st.booleans())
def test_any_cut_gives_the_same_verdicts_and_the_same_bytes(stream: bytes, places: list[int], guarded: bool) -> None:
    whole = outcome([stream], guarded)
    assert outcome(cut(stream, [place * 37 for place in places]), guarded) == whole
    assert outcome([stream[at : at + 7] for at in range(0, len(stream), 7)], guarded) == whole


@given(SOUND, CUTS, st.booleans())
def test_stream_in_which_nothing_is_touched_is_the_upstreams_bytes(
    stream: bytes, places: list[int], guarded: bool
) -> None:
    guard = AnthropicStreamGuard(word_guards() if guarded else None)
    sent, told = drive(guard, cut(stream, [place * 37 for place in places]))
    assert all(isinstance(output, Decide) for output in told)
    readable = all(each.arguments is not None for output in told if isinstance(output, Decide) for each in output.calls)
    if readable and not (guarded and ("SECRET" in guard.texts[0] or b"<WORD>" in sent or b"RET" in stream)):
        assert sent == stream


@given(st.lists(PIECES, min_size=1, max_size=4))
def test_masked_text_is_the_mask_of_each_block(blocks: list[list[str]]) -> None:
    stream = built([("text", pieces) for pieces in blocks], ending())
    guard = AnthropicStreamGuard(word_guards())
    sent, told = drive(guard, [stream])
    masked = ["".join(pieces).replace("SECRET", "<WORD>") for pieces in blocks]
    assert told == [] and guard.texts == {0: "".join(masked)}
    assert [block.text for block in accumulate(sent).content] == masked  # type: ignore[union-attr]


@given(SOUND, st.booleans())
def test_refused_call_never_leaves_and_what_is_left_is_a_message(stream: bytes, guarded: bool) -> None:
    guard = AnthropicStreamGuard(word_guards() if guarded else None)
    sent, told = drive(guard, [stream], refuse("pay"))
    assert b'"pay"' not in sent and not any(isinstance(output, Failed) for output in told)
    message = accumulate(sent)
    for block in message.content:
        assert block.type != "thinking" or (
            block.signature == SIGNATURE and not (guarded and "SECRET" in block.thinking)
        )
    if guarded:  # each block is a text of its own
        assert all("SECRET" not in block.text for block in message.content if block.type == "text")


@given(STREAMS, st.booleans())
def test_nothing_of_a_call_leaves_before_it_is_asked_about(stream: bytes, guarded: bool) -> None:
    guard = AnthropicStreamGuard(word_guards() if guarded else None)
    for output in [output for piece in cut(stream, list(range(0, len(stream), 50))) for output in guard.feed(piece)]:
        if isinstance(output, Decide):
            return
        assert not isinstance(output, Release) or b'"tool_use"' not in output.data


# -- bodies

BLOCK = (
    extended({"type": st.just("text"), "text": MARKED}, citations=VALUES, cache_control=VALUES)
    | extended({"type": st.just("thinking"), "thinking": MARKED, "signature": st.just(SIGNATURE) | MARKED})
    | extended({"type": st.just("tool_use"), "id": MARKED, "name": MARKED, "input": OBJECTS})
)
REQUEST_BLOCK = (
    BLOCK
    | extended(
        {
            "type": st.just("tool_result"),
            "tool_use_id": MARKED,
            "content": MARKED | st.lists(BLOCK | VALUES, max_size=2),
        }
    )
    | extended(
        {
            "type": st.sampled_from(["image", "document"]),
            "source": extended({"type": st.sampled_from(["base64", "text", "url", "file", "content"])}, content=VALUES),
        }
    )
    | extended({"type": MARKED | KEYS})
)
MESSAGES = extended(
    {
        "role": st.sampled_from(["user", "assistant", "system"]) | MARKED,
        "content": MARKED | st.lists(REQUEST_BLOCK, max_size=3),
    }
)
REQUESTS = extended(
    {"model": st.just("m"), "messages": st.lists(MESSAGES, min_size=1, max_size=3)},
    system=MARKED | st.lists(REQUEST_BLOCK, max_size=2),
    tools=st.lists(extended({"name": MARKED}, type=st.just("custom") | MARKED, input_schema=OBJECTS), max_size=2),
    tool_choice=VALUES,
    metadata=OBJECTS,
    mcp_servers=VALUES,
    output_config=VALUES,
)
RESPONSES = extended({"type": st.just("message"), "content": st.lists(BLOCK, max_size=3)}, stop_sequence=MARKED)


@given(REQUESTS)
def test_every_string_of_a_request_is_a_part_or_excluded_by_name(raw: dict[str, Any]) -> None:
    try:
        request = decode_request(dumps(raw))
    except ClientError as error:
        assert error.code in ("invalid_request", "alike_names")
        return
    parts = {part.path: part.text for part in request.parts}
    marked = {path: words for path, words in strings(raw).items() if "§" in words}
    assert {path: parts.get(path) for path in marked} == marked
    assert len(parts) == len(request.parts)
    sealed = {path[:4] for path in parts if path[0] == "messages" and path[2:3] == ("content",) and len(path) > 4}
    edits = {path: "masked" for path in parts if path[:4] not in sealed}
    assert json.loads(rewrite(request.raw, edits)) == edited(raw, edits)
    assert request.raw == raw and request.body == dumps(raw)
    everything = json.loads(rewrite(request.raw, dict.fromkeys(parts, "masked")))
    assert not any("§" in words for words in strings(everything).values())


@given(RESPONSES, st.randoms())
def test_every_string_of_a_response_is_a_part_or_belongs_to_a_call(raw: dict[str, Any], random: Any) -> None:
    try:
        response = decode_response(dumps(raw))
    except UpstreamError:
        return
    parts = {part.path: part.text for part in response.parts}
    for path, words in strings(raw).items():
        if "§" in words and path not in parts:
            assert raw["content"][path[1]]["type"] == "tool_use" and path[2:] in (("id",), ("name",))
    verdicts = [CallVerdict(random.random() < 0.5, "no") for _ in response.calls]
    body = replace_calls(response, verdicts)
    kept = [each for each, verdict in zip(response.calls, verdicts, strict=True) if verdict.allow]
    assert [(each.name, each.arguments_text) for each in decode_response(body).calls] == [
        (each.name, each.arguments_text) for each in kept
    ]
    if len(kept) == len(response.calls):
        assert body is response.body
