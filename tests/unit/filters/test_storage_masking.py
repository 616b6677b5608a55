"""What is stored: masked whatever the rules say, JSON still JSON, and the same bytes where nothing was found."""

from __future__ import annotations

import json
import random

import pytest

from gateway.filters import mask_for_storage, mask_text
from tests.filter_support import scanner

CARD = "4012888888881881"


def stored(data: bytes | str) -> str:
    return mask_for_storage(scanner(), data.encode() if isinstance(data, str) else data).decode()


@pytest.mark.parametrize(
    "data",
    [
        b'{"a": 1.50, "b" :[1e3,-0], "c":"\\u0041\\n\\"q\\"", "a":2}',
        b"plain text, no findings \\n",
        b"",
        b'"\\ud83d\\ude00"',
        b'{"broken": "json',
        b'data: {"delta":"x\\n"}\n\n',
    ],
)
def test_unchanged_where_nothing_was_found(data: bytes) -> None:
    assert mask_for_storage(scanner(), data) is data


def test_values_and_keys_are_masked_and_the_rest_is_untouched() -> None:
    data = '{ "amy@example.com" : ["bob@example.com", 1.50 ,null],"x":"é\\n"}'
    assert stored(data) == '{ "<EMAIL>" : ["<EMAIL>", 1.50 ,null],"x":"é\\n"}'


def test_escapes_hide_nothing() -> None:
    assert json.loads(stored('{"a":"bob\\u0040example.com","b":"\\u0034012888888881881"}')) == {
        "a": "<EMAIL>",
        "b": "<CARD>",
    }


def test_both_of_duplicate_keys_are_masked() -> None:
    assert stored('{"a":"amy@example.com","a":"bob@example.com"}') == '{"a":"<EMAIL>","a":"<EMAIL>"}'


def test_json_in_strings_is_masked_and_stays_json() -> None:
    inner = json.dumps({"to": "amy@example.com", "deep": json.dumps({"card": CARD, "t": "a\u0000b"})})
    data = json.dumps({"arguments": inner.replace("@", "\\u0040")})
    deep = json.loads(json.loads(json.loads(stored(data))["arguments"])["deep"])
    assert json.loads(json.loads(stored(data))["arguments"])["to"] == "<EMAIL>"
    assert deep == {"card": "<CARD>", "t": "a\u0000b"}


def test_numbers_are_masked_as_strings() -> None:
    data = f'{{"n":{CARD},"phone": 4155552671,"f":-{CARD}.5e1,"ok":12345}}'
    masked = json.loads(stored(data))
    assert (masked["n"], masked["phone"], masked["ok"]) == ("<CARD>", "<PHONE>", 12345)
    assert CARD not in stored(data)


def test_value_is_masked_by_the_name_it_is_given_to() -> None:
    assert json.loads(stored('{"password": "hunter2", "api_key":"9f8e7d6c5b4a39281706"}')) == {
        "password": "<SECRET>",
        "api_key": "<SECRET>",
    }
    escaped = json.dumps({"body": json.dumps({"password": "hunter2"})})
    assert json.loads(json.loads(stored(escaped))["body"]) == {"password": "<SECRET>"}
    unusual = '{"password":"hun\\u0074er2"}'
    assert "hun" not in stored(unusual)


def test_stream_transcripts_are_masked_as_text() -> None:
    data = 'data: {"delta":"amy\\u0040example.com"}\n\ndata: {"delta":"bob@example.com"}\n\ndata: [DONE]\n\n'
    assert stored(data) == 'data: {"delta":"<EMAIL>"}\n\ndata: {"delta":"<EMAIL>"}\n\ndata: [DONE]\n\n'


def test_what_is_not_text_gives_way_to_a_note() -> None:
    note = json.loads(mask_for_storage(scanner(), b"\xff\xfe amy@example.com"))
    assert note["not_text"]["bytes"] == 18 and len(note["not_text"]["sha256"]) == 64


def test_private_key_in_json_is_masked() -> None:
    dice = random.Random(1)
    body = "\n".join("".join(dice.choices("abcdefghijklmnopqrstuvwxyzABCDEF0123456789", k=64)) for _ in range(5))
    key = "-----BEG" + f"IN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----"
    assert json.loads(stored(json.dumps({"key": f"use {key} now"}))) == {"key": "use <SECRET> now"}


def test_single_strings_are_masked() -> None:
    assert mask_text(scanner(), "mail amy@example.com") == "mail <EMAIL>"
    assert mask_text(scanner(), "mail nobody") == "mail nobody"


def test_hostile_bodies_are_masked_without_harm() -> None:
    for data in ('"' * 1000, '{"a":' * 500, '"\\' * 500, '"\\"' * 500, "[" * 1000, '"' + "\\u00" * 200 + '"'):
        assert stored(data + " amy@example.com ").endswith(" <EMAIL> ")
