"""Arguments drawn from the stored bytes: typed, complete or visibly cut, and compared with last time."""

from __future__ import annotations

import time

import pytest

from gateway.console import values
from gateway.console.values import compare, draw, key_arguments, suspicious
from gateway.core.canonical import JSON, canonical


def drawn(value: JSON) -> values.Node:
    root = draw(canonical(value)).root
    assert root is not None
    return root


def test_every_type_is_named() -> None:
    root = drawn({"a": "250", "b": 250, "c": True, "d": None, "e": [1], "f": {"g": ""}, "h": [], "i": 1.5})
    assert [(row.label, row.kind, row.text) for row in root.rows] == [
        ("a", "text", "250"),
        ("b", "number", "250"),
        ("c", "yes/no", "true"),
        ("d", "nothing", "null"),
        ("e", "list", ""),
        ("f", "object", ""),
        ("h", "list", "[]"),
        ("i", "number", "1.5"),
    ]
    assert root.rows[0].size == "3 characters" and root.rows[4].rows[0].index


@pytest.mark.parametrize("data", [b"", b"\xff", b'{"a":1,"a":2}', b'{"b":1, "a":2}', b"[1e999]", b'{"a":1} '])
def test_bytes_that_are_not_canonical_json_cannot_be_drawn(data: bytes) -> None:
    drawing = draw(data)
    assert drawing.root is None and drawing.problem


def test_deep_nesting_is_shown_as_json_and_not_lost() -> None:
    value: JSON = "core"
    for _ in range(150):
        value = [value]
    root = drawn({"deep": value})
    node = root.rows[0]
    while node.rows:
        node = node.rows[0]
    assert "core" in node.text and node.size == "as JSON"


def test_what_does_not_fit_is_counted_and_marked() -> None:
    many = draw(canonical({"rows": list(range(values.NODES_MAX * 2))}))
    assert many.root is not None and not many.complete
    assert many.root.rows[0].cut == values.NODES_MAX * 2 - len(many.root.rows[0].rows)
    long = draw(canonical({"text": "x" * (values.CHARS_MAX + 7)}))
    assert long.root is not None and not long.complete and long.root.rows[0].cut == 7


def test_long_values_are_folded_with_a_preview() -> None:
    node = drawn({"note": "line\n" * 40}).rows[0]
    assert node.long and len(node.preview) < len(node.text)
    assert not drawn({"note": "short"}).rows[0].long


def test_differences_are_found_by_path() -> None:
    before: JSON = {"amount": 10, "to": {"iban": "A", "bic": "X"}, "tags": ["a", "b"]}
    now: JSON = {"amount": "10", "to": {"iban": "B"}, "tags": ["a", "b", "c"]}
    found = {change.path: (change.was, change.now) for change in compare(before, now).values()}
    assert found == {
        "amount": ("10", '"10"'),
        "to.iban": ('"A"', '"B"'),
        "tags[2]": (None, '"c"'),
        "to.bic": ('"X"', None),
    }
    drawing = draw(canonical(now), canonical(before))
    assert drawing.changed == 4 and [change.path for change in drawing.removed] == ["to.bic"]
    assert compare(now, now) == {}


def test_key_arguments_are_those_that_say_most() -> None:
    arguments: JSON = {"memo": "m", "zeta": 1, "to": {"iban": "DE1", "name": "ACME"}, "amount": 250}
    assert key_arguments(canonical(arguments)) == (("amount", "250"), ("to.iban", "DE1"), ("to.name", "ACME"))
    assert key_arguments(canonical({})) == ()
    assert len(key_arguments(canonical({"amount": "9" * 500}))[0][1]) == 60


def test_misleading_characters_are_noticed_in_keys_and_values() -> None:
    assert suspicious(canonical({"to": "p\u0430ypal"}))
    assert suspicious(canonical({"am\u200bount": 1}))
    assert suspicious(canonical({"x": "\x00"}))
    assert not suspicious(canonical({"to": "paypal", "note": "two\nlines"}))
    assert draw(canonical({"a": "\u202e", "b": "\u202e"})).suspicions[0].count == 2


def test_a_glance_at_large_arguments_is_quick_and_still_finds_what_is_invisible() -> None:
    large = canonical({"text": "\u0436" * 100_000})
    started = time.perf_counter()
    assert not suspicious(large)
    assert time.perf_counter() - started < 0.5
    assert suspicious(canonical({"text": "\u0436" * 100_000 + "\u202e"}))
