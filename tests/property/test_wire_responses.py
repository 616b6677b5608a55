"""The Responses dialect: no string of a request escapes inspection; verdicts and bytes of a stream do not depend on how
it was cut; what nobody touched is unchanged."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.errors import ClientError, UpstreamError
from gateway.wire.openai_responses import (
    ResponsesStreamGuard,
    decode_request,
    decode_response,
    replace_calls,
    rewrite,
    rewrite_response,
)
from gateway.wire.outputs import Decide, Failed
from tests.property.test_wire_chat_cover import MARKED, OBJECTS, VALUES, edited, extended, strings
from tests.property.test_wire_sse_splits import CUTS, cut
from tests.responses_support import Script, accumulate, data_of, read_events
from tests.wire_support import CallVerdict, drive, dumps, refuse, word_guards

CONTENTS = MARKED | st.lists(OBJECTS, max_size=3)
ITEMS = st.one_of(
    extended({"role": st.sampled_from(["user", "system", "assistant"]) | MARKED}, content=CONTENTS),
    extended({"type": st.just("function_call"), "name": MARKED, "arguments": MARKED}, call_id=MARKED),
    extended({"type": st.just("custom_tool_call"), "name": MARKED, "input": MARKED}, namespace=MARKED),
    extended({"type": st.just("function_call_output"), "output": CONTENTS}, call_id=MARKED),
    extended({"type": st.just("reasoning"), "summary": VALUES}, encrypted_content=MARKED, id=MARKED),
    extended({"type": st.just("mcp_call")}, output=VALUES, arguments=MARKED),
    extended({"type": MARKED}),
)
REQUESTS = extended(
    {"model": st.just("m")},
    input=MARKED | st.lists(ITEMS, max_size=3),
    instructions=VALUES,
    tools=st.lists(extended({"type": st.just("function"), "name": MARKED}, parameters=OBJECTS), max_size=2),
    tool_choice=VALUES,
    metadata=OBJECTS,
    conversation=VALUES,
    prompt=VALUES,
    text=VALUES,
)
CALLS = extended({"type": st.just("function_call"), "name": MARKED, "arguments": MARKED | st.just("{}")}) | extended(
    {"type": st.just("custom_tool_call"), "name": MARKED, "input": MARKED}
)
OUTPUTS = st.one_of(
    CALLS,
    extended({"type": st.just("message")}, content=CONTENTS, id=MARKED),
    extended({"type": st.just("reasoning")}, summary=VALUES, encrypted_content=MARKED),
    extended({"type": st.just("web_search_call")}, action=VALUES),
)
RESPONSES = extended({"output": st.lists(OUTPUTS, max_size=3)}, instructions=VALUES, tools=VALUES, error=VALUES)


@given(REQUESTS)
def test_every_string_of_a_request_is_a_part_or_excluded_by_name(raw: dict[str, Any]) -> None:
    try:
        request = decode_request(dumps(raw))
    except ClientError as error:
        assert error.code in ("invalid_request", "alike_names")
        return
    parts = {part.path: part.text for part in request.parts}
    marked = {path: text for path, text in strings(raw).items() if "§" in text}
    assert {path: parts.get(path) for path in marked} == marked
    assert len(parts) == len(request.parts)
    edits = {part.path: "masked" for part in request.parts[::2]}
    assert decode_request(rewrite(request.raw, edits)).raw == edited(raw, edits) and request.body == dumps(raw)


@given(RESPONSES)
def test_every_string_of_an_answer_is_a_part_or_belongs_to_a_call(raw: dict[str, Any]) -> None:
    try:
        response = decode_response(dumps(raw), provider_runs=True)
    except UpstreamError:
        return
    parts = {part.path: part.text for part in response.parts}
    for path, text in strings(raw).items():
        if "§" in text and path not in parts:
            assert path[0] in ("id", "model") or path[2:] in (("name",), ("arguments",), ("input",), ("namespace",))
    edits = dict.fromkeys(parts, "masked")
    found = decode_response(rewrite_response(response, edits), provider_runs=True)
    assert {path: text for path, text in strings(found.raw).items() if path in edits and path[:1] != ("error",)} == {
        path: "masked" for path in edits if path[:1] != ("error",)
    }
    verdicts = [CallVerdict(call.arguments is not None and call.index % 2 == 0, "no") for call in response.calls]
    kept = [call.arguments_text for call, verdict in zip(response.calls, verdicts, strict=True) if verdict.allow]
    again = decode_response(replace_calls(response, verdicts), provider_runs=True)
    assert [call.arguments_text for call in again.calls] == kept


WORDS = st.sampled_from(["SEC", "RET", "SECRET", "S", "ECRET", "é", "😀 ", " plain text ", ""])
PIECES = st.lists(WORDS, min_size=1, max_size=4)
ARGUMENTS = st.sampled_from([("{}",), ('{"a":', "1}"), ('{"a',)])
STEPS = st.one_of(
    st.tuples(st.just("text"), PIECES),
    st.tuples(st.just("reasoning"), PIECES),
    st.tuples(st.sampled_from(["pay", "read"]), ARGUMENTS),
    st.tuples(st.just("custom"), PIECES),
)
BAD = st.sampled_from([("text", ["FORBID", "DEN"]), ("raw", b"data: {\n\n"), ("raw", b"data: x"), ("stop", b"")])
NOISE = st.sampled_from([("raw", b": keep-alive\n\n"), ("raw", b"\n\n"), ("raw", b": crlf\r\n\r\n")])


def build(steps: list[Any]) -> list[bytes]:
    script = Script()
    for kind, said in steps:
        if kind == "raw":
            script.events.append(said)  # numbers have gaps then, which are kept
        elif kind in ("text", "reasoning"):
            getattr(script, kind)(*said)
        elif kind == "stop":
            return script.events
        else:
            script.call("pay" if kind == "custom" else kind, *said, custom=kind == "custom")
    return script.end()


def outcome(chunks: list[bytes], guarded: bool) -> Any:
    guard = ResponsesStreamGuard(word_guards() if guarded else None)
    sent, told = drive(guard, chunks, refuse("pay"))
    assert guard.ended or not any(isinstance(output, Failed) for output in told)
    return sent, told, guard.texts, guard.finish_reasons, guard.usage


@given(st.lists(STEPS | BAD | NOISE, max_size=6), CUTS, st.booleans())
def test_any_cut_gives_the_same_verdicts_and_the_same_bytes(steps: list[Any], places: list[int], guarded: bool) -> None:
    stream = b"".join(build(steps))
    whole = outcome([stream], guarded)
    assert outcome(cut(stream, [place * 37 for place in places]), guarded) == whole
    assert outcome([stream[at : at + 7] for at in range(0, len(stream), 7)], guarded) == whole


@given(st.lists(STEPS | NOISE, max_size=6))
def test_stream_in_which_nothing_is_touched_is_the_upstreams_bytes(steps: list[Any]) -> None:
    stream = b"".join(build(steps))
    sent, told = drive(ResponsesStreamGuard(None), [stream])
    if all(call.arguments is not None for output in told if isinstance(output, Decide) for call in output.calls):
        assert sent == stream


@settings(deadline=None)  # the SDK reads every stream
@given(st.lists(STEPS, max_size=6), st.booleans())
def test_what_leaves_is_a_stream_that_says_one_thing(steps: list[Any], guarded: bool) -> None:
    """Masked and without the refused calls, in the pieces as in the repetitions; numbers go on one by one."""
    sent, _ = drive(ResponsesStreamGuard(word_guards() if guarded else None), build(steps), refuse("pay"))
    assert b'"pay"' not in sent and not (guarded and b"SECRET" in sent)
    docs = data_of(sent)
    assert [doc["sequence_number"] for doc in docs] == list(range(len(docs)))
    done = [doc for doc in docs if doc["type"] == "response.output_item.done"]
    assert [doc["item"] for doc in done] == docs[-1]["response"]["output"]
    assert [doc["output_index"] for doc in done] == list(range(len(done)))
    for doc in docs:
        if doc["type"].endswith("text.done"):
            place = (doc["type"].replace(".done", ".delta"), doc["output_index"])
            pieces = [each["delta"] for each in docs if (each["type"], each.get("output_index")) == place]
            assert "".join(pieces) == doc["text"]
    assert len(read_events(sent)) == len(docs)
    assert len(accumulate(sent).output) == len(steps)
