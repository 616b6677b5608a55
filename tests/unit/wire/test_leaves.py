"""Strings in JSON values: finding, changing, writing."""

from __future__ import annotations

import json

import pytest

from gateway.core.errors import ClientError
from gateway.wire import leaves

VALUE = {"a": "x", "b": [1, {"c": "y", "d": None}], "e": {"f": {"g": "z"}}}


def test_leaves_come_in_document_order_with_their_paths() -> None:
    assert leaves.leaves(VALUE, ()) == [(("a",), "x"), (("b", 1, "c"), "y"), (("e", "f", "g"), "z")]


def test_edit_changes_a_copy_and_shares_the_rest() -> None:
    changed = leaves.with_values(VALUE, {("b", 1, "c"): "Y", ("b", 0): "1"})
    assert changed == {"a": "x", "b": ["1", {"c": "Y", "d": None}], "e": {"f": {"g": "z"}}}
    assert VALUE["b"] == [1, {"c": "y", "d": None}]
    assert changed["e"] is VALUE["e"]  # type: ignore[index,call-overload]


def test_path_through_a_string_is_an_error_of_the_caller() -> None:
    with pytest.raises(KeyError):
        leaves.with_values(VALUE, {("a", "b"): "c"})


def test_nesting_as_deep_as_the_parser_allows_is_walked() -> None:
    value: object = "deep"
    for _ in range(200):
        value = [value]
    assert [text for _, text in leaves.leaves(value, ())] == ["deep"]  # type: ignore[arg-type]


def test_large_integers_are_written_exactly() -> None:
    value = {"n": 2**80, "text": "é"}
    assert json.loads(leaves.encode(value)) == value


def test_infinite_number_cannot_be_written_beside_a_large_one() -> None:
    with pytest.raises(ClientError) as caught:
        leaves.encode({"n": 2**80, "x": float("inf")})
    assert caught.value.code == "not_encodable"


def test_path_is_spelled_as_people_write_it() -> None:
    assert leaves.spell(("messages", 0, "content")) == "messages[0].content"
    assert leaves.spell(()) == "the body"
