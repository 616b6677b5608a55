"""The Responses stream guard: calls withheld until decided, texts masked in every repetition, valid ends."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from gateway.wire.calls import CallVerdict
from gateway.wire.openai_chat_choice import StreamLimits
from gateway.wire.openai_responses import RESPONSE, ResponsesStreamGuard
from gateway.wire.outputs import Blocked, Decide, Failed, Release
from tests.responses_support import BASE, Script, accumulate, data_of, function_call, message, read_events
from tests.wire_support import DENY, allow, drive, refuse, word_guards

LONG = "a harmless text that is longer than the guard holds back"


def run(stream: list[bytes], *denied: str, guarded: bool = True) -> tuple[bytes, list[Any], ResponsesStreamGuard]:
    guard = ResponsesStreamGuard(word_guards() if guarded else None)
    sent, told = drive(guard, stream, refuse(*denied))
    return sent, told, guard


def failures(told: list[Any]) -> list[str]:
    return [output.code for output in told if isinstance(output, Failed)]


def numbers(sent: bytes) -> list[int]:
    return [doc["sequence_number"] for doc in data_of(sent)]


def test_untouched_stream_keeps_its_bytes() -> None:
    stream = Script().reasoning("one ", "two").text("Hi", " you", LONG).call("read", '{"a":', "1}").text("bye").end()
    for guarded in (False, True):
        sent, told, guard = run([*stream, b"data: [DONE]\n\n"], guarded=guarded)
        assert sent == b"".join(stream) + b"data: [DONE]\n\n"
        assert [type(output) for output in told] == [Decide]
    assert guard.texts == {1: f"Hi you{LONG}", 3: "bye"}
    assert guard.finish_reasons == {0: "completed"}
    assert guard.usage is not None and guard.usage.completion_tokens == 87
    assert (guard.response_id, guard.model) == (BASE["id"], BASE["model"])


def test_opening_is_kept_back_until_something_is_said() -> None:
    guard = ResponsesStreamGuard(None)
    stream = Script().text("a", "b").end()
    assert [guard.feed(event) for event in stream[:4]] == [[]] * 4 and not guard.started
    assert guard.feed(stream[4]) == [Release(b"".join(stream[:5]))]
    assert guard.feed(stream[5]) == [Release(stream[5])]


def test_call_is_withheld_from_its_first_event_to_its_verdict() -> None:
    stream = Script().call("read", "{", "}").end()
    guard = ResponsesStreamGuard(None)
    for event in stream[:6]:
        assert guard.feed(event) == []
    asked = guard.feed(stream[6])
    assert [type(output) for output in asked] == [Decide]
    assert isinstance(asked[0], Decide) and asked[0].calls[0].arguments == {} and asked[0].choice == 0
    assert guard.feed(stream[7]) == []  # kept until the verdict
    assert guard.resolve(0, [CallVerdict(True)]) == [Release(b"".join(stream))]


def test_message_takes_the_place_of_a_call_in_the_events_and_at_the_end() -> None:
    stream = Script().text("first").call("pay", '{"a":', "1}").call("read", "{}").text("last").end()
    sent, told, _ = run(stream, "pay")
    assert [output.calls[0].name for output in told] == ["pay", "read"]
    assert b'"pay"' not in sent
    assert numbers(sent) == list(range(len(numbers(sent))))
    found = accumulate(sent)
    assert [item.type for item in found.output] == ["message", "message", "function_call", "message"]
    assert found.output[1].content[0].text == "NOT EXECUTED: pay"
    done = [doc["item"] for doc in data_of(sent) if doc["type"] == "response.output_item.done"]
    assert done == data_of(sent)[-1]["response"]["output"]
    assert found.status == "completed"


def test_every_call_may_be_taken_away_and_a_verdict_may_be_silent() -> None:
    stream = Script().call("pay", *"{}").call("pay", "{}", custom=True).end()
    silent, _ = drive(
        ResponsesStreamGuard(None),
        stream,
        lambda decide: [CallVerdict(False)] * len(decide.calls),
    )
    assert [item.type for item in accumulate(silent).output] == ["message", "message"]
    assert numbers(silent) == list(range(len(numbers(silent)))) and b"NOT EXECUTED" in silent


@pytest.mark.parametrize("pieces", [("SECRET",), tuple("it is SECRET"), ("SECRETSEC", "RETx"), ("é SEC", "RET 😀")])
def test_masks_stand_in_every_repetition(pieces: tuple[str, ...]) -> None:
    sent, told, guard = run(Script().reasoning(*pieces).text(*pieces).end())
    expected = "".join(pieces).replace("SECRET", "<WORD>")
    assert told == [] and b"SECRET" not in sent and guard.texts == {1: expected}
    docs = data_of(sent)
    for kind in ("output_text", "reasoning_summary_text"):
        deltas = [doc["delta"] for doc in docs if doc["type"] == f"response.{kind}.delta"]
        assert "".join(deltas) == expected
        assert [doc["text"] for doc in docs if doc["type"] == f"response.{kind}.done"] == [expected]
    parts = [doc["part"]["text"] for doc in docs if doc["type"].endswith("part.done")]
    assert parts == [expected, expected]
    items = [doc["item"] for doc in docs if doc["type"] == "response.output_item.done"]
    assert items == docs[-1]["response"]["output"]
    assert items[1]["content"][0]["text"] == items[0]["summary"][0]["text"] == expected
    assert accumulate(sent).output_text == expected


def test_text_that_only_a_repetition_has_is_judged() -> None:
    script = Script().text("plain")
    script.output[0] = message("SECRET", "msg_0")
    assert b"SECRET" not in run(script.end())[0]
    late = Script().text("plain").end(output=[message("x FORBIDDEN", "msg_0")])
    sent, told, _ = run(late)
    assert [type(output) for output in told] == [Blocked] and b"FORBIDDEN" not in sent


def test_token_probabilities_do_not_spell_what_was_masked() -> None:
    script = Script()
    at = {"item_id": "m", "output_index": 0, "content_index": 0}
    script.add("response.output_item.added", output_index=0, item={**message("", "m"), "content": []})
    tokens = [{"token": piece, "logprob": -0.1, "top_logprobs": []} for piece in ("SEC", "RET")]
    for token in tokens:
        script.add("response.output_text.delta", **at, delta=token["token"], logprobs=[token])
    script.add("response.output_text.done", **at, text="SECRET", logprobs=tokens)
    script.done(0, {**message("SECRET", "m"), "content": [{"type": "output_text", "text": "SECRET",
                                                            "annotations": [], "logprobs": tokens}]})  # fmt: skip
    sent, told, _ = run(script.end())
    assert told == [] and b"SEC" not in sent and b'"token"' not in sent


def test_the_repeated_request_is_masked_too() -> None:
    script = Script(opened=False)
    script.add("response.created", response={**BASE, "instructions": "SECRET"})
    sent, told, _ = run(script.text("hi").end(instructions="SECRET", metadata={"k": "SECRET"}))
    assert told == [] and b"SECRET" not in sent and sent.count(b"<WORD>") == 3


def test_forbidden_text_ends_the_stream_as_the_dialect_does() -> None:
    sent, told, guard = run(Script().text("before").call("pay", "{}").text(LONG, " and FORBID", "DEN").end(), "pay")
    assert [output.rule for output in told if isinstance(output, Blocked)] == [DENY]
    assert b"FORBID" not in sent and numbers(sent) == list(range(len(numbers(sent))))
    events = read_events(sent)
    last = events[-1]
    assert last.type == "response.incomplete"
    assert last.response.incomplete_details.reason == "content_filter"
    texts = [item.content[0].text for item in last.response.output]
    assert texts == ["before", "NOT EXECUTED: pay", "[The rest of this answer is withheld by a policy of the gateway.]"]
    assert guard.finish_reasons == {0: "content_filter"} and guard.feed(b"x") == []


def test_stream_that_is_forbidden_from_its_first_word_is_whole() -> None:
    for stream in (Script().text("FORBIDDEN").end(), [Script().events[0], *Script().text("FORBIDDEN").end()[2:]]):
        sent, told, guard = run(stream)
        assert [type(output) for output in told] == [Blocked] and not guard.started
        kinds = [event.type for event in read_events(sent)]
        assert kinds[-1] == "response.incomplete" and kinds.count("response.created") == 1


@pytest.mark.parametrize("status", ["incomplete", "failed"])
def test_other_ends_are_ends(status: str) -> None:
    more: dict[str, Any] = (
        {"incomplete_details": {"reason": "max_output_tokens"}}
        if status == "incomplete"
        else {"error": {"code": "server_error", "message": "host db-7 is down"}}
    )
    sent, told, guard = run(Script().text("hi").end(status, **more))
    assert told == [] and b"db-7" not in sent
    assert guard.finish_reasons == {0: "max_output_tokens" if status == "incomplete" else "failed"}
    assert read_events(sent)[-1].response.status == status


def test_call_that_was_never_finished_does_not_leave() -> None:
    for repeated in (False, True):
        script = Script()
        half = function_call("pay", '{"a"', "c")
        script.add("response.output_item.added", output_index=0, item={**half, "arguments": ""})
        script.add("response.function_call_arguments.delta", item_id="fc_c", output_index=0, delta='{"a"')
        script.output = [{**half, "status": "incomplete"}] if repeated else []
        sent, told, _ = run(script.end("incomplete", incomplete_details={"reason": "max_output_tokens"}))
        assert told == [] and b'"pay"' not in sent and b"NOT EXECUTED" in sent
        assert numbers(sent) == list(range(len(numbers(sent))))


def test_call_that_only_the_end_has_needs_a_verdict() -> None:
    stream = (
        Script().text("hi").end(output=[message("hi", "msg_0"), function_call("pay", {}), function_call("read", {})])
    )
    sent, told, _ = run(stream, "pay")
    assert [(output.choice, [call.name for call in output.calls]) for output in told] == [(RESPONSE, ["pay", "read"])]
    assert [item.get("name") for item in data_of(sent)[-1]["response"]["output"]] == [None, None, "read"]
    assert b'"pay"' not in sent


def test_call_that_is_repeated_with_other_arguments_needs_another_verdict() -> None:
    changed = function_call("read", {"all": True}, "call_0")
    _, told, _ = run(Script().call("read", "{}").end(output=[changed]))
    assert [output.choice for output in told] == [0, RESPONSE]
    assert [call.arguments for output in told for call in output.calls] == [{}, {"all": True}]
    again = run(Script().call("pay", "{}").end(output=[function_call("read", {}, "call_0")]), "pay")
    assert b"function_call" not in again[0].replace(b"function_call_", b""), "a denied id stays denied"


@pytest.mark.parametrize(
    "events",
    [
        [("delta", {"delta": '{"b":2}'}), ("done", {"arguments": '{"b":2}'})],
        [("done", {"arguments": '{"b":2}'})],
        [("delta", {"delta": "{}"}), ("done", {"arguments": "{}", "name": "other"})],
    ],
)
def test_call_that_says_two_things_cannot_be_allowed(events: list[Any]) -> None:
    script = Script()
    item = function_call("read", "{}", "c")
    script.add("response.output_item.added", output_index=0, item={**item, "arguments": ""})
    for kind, fields in events:
        script.add(f"response.function_call_arguments.{kind}", item_id="fc_c", output_index=0, **fields)
    sent, told, _ = run(script.done(0, item).end())
    assert told[0].calls[0].arguments is None and b'"read"' not in sent


def test_call_whose_first_event_names_another_tool_cannot_be_allowed() -> None:
    script = Script()
    item = function_call("read", "{}", "c")
    script.add("response.output_item.added", output_index=0, item={**item, "name": "shell", "arguments": ""})
    sent, told, _ = run(script.done(0, item).end())
    assert told[0].calls[0].arguments is None and b'"shell"' not in sent


def test_of_another_kind_of_call_only_the_judged_item_is_shown() -> None:
    shell = {"id": "sh_1", "type": "shell_call", "call_id": "c", "action": {"commands": ["ls"]}, "status": "completed"}
    script = Script()
    script.add("response.output_item.added", output_index=0, item={**shell, "action": {"commands": ["rm"]}})
    script.add("response.shell_call_command.delta", output_index=0, command_index=0, delta="rm -rf")
    stream = script.done(0, shell).text("done").end()
    sent, told, _ = run(stream)
    assert [call.name for output in told for call in output.calls] == ["shell"]
    assert b"rm" not in sent.replace(b"format", b"") and sent.count(b'"commands":["ls"]') == 3
    assert numbers(sent) == list(range(len(numbers(sent))))
    assert b"commands" not in run(stream, "shell")[0]


def test_item_that_comes_in_one_piece_is_judged_all_the_same() -> None:
    script = Script(opened=True)
    sent, told, _ = run(script.done(0, function_call("pay", {})).end(), "pay")
    assert [type(output) for output in told] == [Decide] and b'"pay"' not in sent


@pytest.mark.parametrize(
    "events",
    [
        [("response.of.the.future", {"words": "anything at all"})],
        [("response.function_call_arguments.delta", {"output_index": 4, "delta": "{}"})],
        [("response.output_text.delta", {"output_index": -1, "delta": "x"})],
        [("response.output_text.delta", {"output_index": 0, "delta": {"x": 1}})],
        [("response.output_text.delta", {"output_index": 0, "delta": "x", "logprobs": {"x": "y"}})],
        [("response.output_text.done", {"output_index": 0, "content_index": 0, "text": "x"}),
         ("response.output_text.delta", {"output_index": 0, "content_index": 0, "delta": "x"}),
         ("response.output_text.done", {"output_index": 0, "content_index": 0, "text": "x"}),
         ("response.output_text.delta", {"output_index": 0, "content_index": 0, "delta": "x"})],
        [("response.output_item.added", {"item": message("x")})],
        [("response.output_item.added", {"output_index": 0, "item": {"id": "x"}})],
        [("response.output_item.added", {"output_index": 0, "item": message("x")})] * 2,
        [("response.output_item.added", {"output_index": 0, "item": message("x")}),
         ("response.output_item.done", {"output_index": 0, "item": function_call("pay", {})})],
        [("response.content_part.added", {"output_index": 0, "part": {"type": "function_call", "name": "x"}})],
        [("response.completed", {"response": {"output": {}}})],
        [("response.completed", {"response": []})],
        [("response.in_progress", {"response": {"output": [], "Output": [function_call("pay", {})]}})],
    ],
)  # fmt: skip
def test_events_that_may_hide_something_end_the_stream(events: list[Any]) -> None:
    script = Script()
    for kind, fields in events:
        script.add(kind, **fields)
    sent, told, _ = run(script.events)
    assert failures(told) == ["upstream_protocol"]
    with pytest.raises(openai.APIError):
        read_events(sent)


@pytest.mark.parametrize(
    "raw", [b"data: {\n\n", b"data: []\n\n", b'data: {"x":1}\n\n', b'event: a\ndata: {"type":"response.created"}\n\n']
)
def test_what_is_no_event_ends_the_stream(raw: bytes) -> None:
    assert failures(run([raw])[1]) == ["upstream_protocol"]


def test_trace_of_a_tool_that_the_provider_may_not_run_ends_the_stream() -> None:
    search = {
        "id": "ws_1",
        "type": "web_search_call",
        "status": "completed",
        "action": {"type": "search", "query": "q"},
    }
    for stream in (Script().whole(search).end(), Script().end(output=[search])):
        assert failures(run(stream)[1]) == ["upstream_protocol"]
        assert drive(ResponsesStreamGuard(word_guards(), provider_runs=True), stream) == (b"".join(stream), [])


def test_events_without_words_pass_whatever_their_name() -> None:
    script = Script().add("response.web_search_call.searching", output_index=0, item_id="ws_1")
    script.add("response.of.the.future", output_index=0, item_id="x_1", count=3)
    stream = script.text("hi").end()
    assert run(stream)[0] == b"".join(stream)


def test_errors_of_the_upstream_keep_their_details() -> None:
    for raw in (
        b'event: error\ndata: {"type":"error","message":"db-7"}\n\n',
        b'data: {"error":{"message":"db-7"}}\n\n',
    ):
        sent, told, _ = run([*Script().text(LONG).events, raw])
        assert failures(told) == ["upstream_error"] and b"db-7" not in sent
        with pytest.raises(openai.APIError) as caught:
            read_events(sent)
        assert caught.value.code == "upstream_error"


@pytest.mark.parametrize("guarded", [False, True])
@pytest.mark.parametrize("kept", range(0, 9, 2))
def test_stream_that_is_cut_off_raises_in_the_sdk(kept: int, guarded: bool) -> None:
    for stream in (Script().text("a", "b").end(), Script().call("read", "{}").text("x").end()):
        for tail in (b"", b"data: [DONE]\n\n", stream[kept][:20]):
            guard = ResponsesStreamGuard(word_guards() if guarded else None)
            sent, told = drive(guard, [*stream[:kept], tail], allow)
            assert failures(told) == ["upstream_truncated"]
            with pytest.raises(openai.APIError) as caught:
                read_events(sent)
            assert caught.value.code == "upstream_truncated"


def test_what_follows_the_end_is_dropped() -> None:
    stream = Script().text("a").end()
    sent, told, _ = run([*stream, *Script().text("b").call("pay", "{}").end(), b": bye\n\n"])
    assert (sent, told) == (b"".join(stream) + b": bye\n\n", [])


def test_limits_end_the_stream() -> None:
    limits = StreamLimits(arguments_chars_max=10, withheld_bytes_max=4000, event_bytes_max=3000, fields_max=2)
    streams = [
        Script().call("read", "x" * 6, "x" * 6).end(),
        Script(opened=False).call("read", *"{      }").text("a" * 500).end(),
        Script().text("a" * 5000).end(),
        Script(opened=False).text("a").text("b").text("c").end(),
    ]
    for stream in streams:
        guard = ResponsesStreamGuard(word_guards(), limits=limits)
        _, told = drive(guard, stream, allow)
        assert failures(told) == ["stream_limit"]


def test_verdict_that_was_not_asked_for_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="not asked"):
        ResponsesStreamGuard(None).resolve(0, [])
