"""HTTP tool calls as flat arguments: the way back is exact, and what two servers could read in two ways is refused."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.canonical import parse
from gateway.core.errors import ClientError
from gateway.wire.http_tool import BODY_METHODS, Operation, decode, encode, operation

OPERATIONS = [
    operation("list", "GET", "/contacts", ["name", "page"]),
    operation("read", "GET", "/contacts/{id}"),
    operation("mine", "GET", "/contacts/me"),
    operation("archive", "POST", "/contacts/{id}:archive"),
    operation("note", "PUT", "/contacts/{id}/notes/{note}", ["dry"]),
    operation("delete", "DELETE", "/contacts/{id}"),
    operation("root", "GET", "/"),
]
BY_NAME = {entry.name: entry for entry in OPERATIONS}

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
words = texts | st.sampled_from(["..", ".", "", "a/b", "%2e%2e", "%252e", "a;b", "..;x", "a b", "ü", "100%", "\\", "+"])
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)


def read(method: str, target: str, body: bytes = b"") -> tuple[Operation, dict[str, Any]]:
    path, _, query = target.partition("?")
    return decode(OPERATIONS, method, path.encode(), query.encode(), body)


@given(st.sampled_from(OPERATIONS), st.data())
def test_encoding_is_the_exact_inverse(chosen: Operation, data: st.DataObject) -> None:
    arguments: dict[str, Any] = {name: data.draw(words) for name in sorted(chosen.variables)}
    arguments |= data.draw(st.dictionaries(st.sampled_from([*chosen.query, "\0"]), words, max_size=2))
    arguments.pop("\0", None)
    if chosen.method in BODY_METHODS:
        taken = {*chosen.variables, *chosen.query}
        arguments |= data.draw(st.dictionaries(texts.filter(lambda name: name not in taken), values, max_size=3))
    try:
        wire = encode(chosen, arguments)
    except ClientError as error:
        assert error.code == "not_encodable"
        return
    assert wire.target.isascii() and ".." not in wire.target.split("?")[0].split("/")
    found, decoded = read(wire.method, wire.target, wire.body or b"")
    assert decoded == arguments or found.name != chosen.name  # a value may spell a more specific template
    if found.name == chosen.name:
        assert encode(found, decoded) == wire


@given(st.sampled_from(["GET", "PUT", "DELETE", "POST"]), st.binary(max_size=40), st.binary(max_size=30))
def test_any_bytes_are_read_or_refused(method: str, path: bytes, query: bytes) -> None:
    try:
        found, arguments = decode(OPERATIONS, method, b"/" + path, query, b"")
    except ClientError as error:
        assert error.status in {400, 404}
        return
    wire = encode(found, arguments)
    assert read(wire.method, wire.target) == (found, arguments)


@given(words)
def test_a_path_value_is_one_segment_whatever_it_holds(value: str) -> None:
    try:
        wire = encode(BY_NAME["read"], {"id": value})
    except ClientError:
        return
    assert wire.target.count("/") == 2
    assert "?" not in wire.target and "#" not in wire.target


@pytest.mark.parametrize(
    "target",
    [
        "/contacts/..",
        "/contacts/%2e%2e",
        "/contacts/.%2E",
        "/contacts/%252e%252e",
        "/contacts/%25252e%25252e",
        "/contacts/a%2Fb",
        "/contacts/a%5Cb",
        "/contacts/a%252Fb",
        "/contacts//",
        "//contacts",
        "/contacts/",
        "/contacts/..;x",
        "/contacts/%00",
        "/contacts/%0d%0a",
        "/contacts/%zz",
        "/contacts/%ff",
        "/./contacts",
        "/" + "a/" * 70,
    ],
)
def test_path_tricks_are_refused(target: str) -> None:
    with pytest.raises(ClientError) as refused:
        read("GET", target)
    assert refused.value.code in {"bad_path", "operation_unknown"}


@pytest.mark.parametrize(
    ("method", "target", "body", "code"),
    [
        ("GET", "/contacts?unknown=1", b"", "query_undeclared"),
        ("GET", "/contacts?page=1&page=2", b"", "argument_twice"),
        ("PUT", "/contacts/1/notes/2?dry=1", b'{"dry":"0"}', "argument_twice"),
        ("PUT", "/contacts/1/notes/2", b'{"id":"9"}', "argument_twice"),
        ("PUT", "/contacts/1/notes/2", b'{"dry":"0"}', "argument_twice"),
        ("PUT", "/contacts/1/notes/2", b"[1]", "body_not_object"),
        ("PUT", "/contacts/1/notes/2", b'{"a":1,"a":2}', "invalid_json"),
        ("GET", "/contacts/1", b"{}", "body_unexpected"),
        ("PATCH", "/contacts/1", b"", "operation_unknown"),
        ("GET", "/contacts?page=%zz", b"", "bad_query"),
        ("GET", "/nothing", b"", "operation_unknown"),
    ],
)
def test_refusals_have_their_codes(method: str, target: str, body: bytes, code: str) -> None:
    with pytest.raises(ClientError) as refused:
        read(method, target, body)
    assert refused.value.code == code


def test_more_literal_templates_win() -> None:
    assert read("GET", "/contacts/me")[0].name == "mine"
    assert read("GET", "/contacts/you") == (BY_NAME["read"], {"id": "you"})
    assert read("POST", "/contacts/7:archive") == (BY_NAME["archive"], {"id": "7"})
    assert read("GET", "/")[0].name == "root"


def test_spellings_of_one_path_become_one() -> None:
    found, arguments = read("GET", "/cont%61cts/%75s%65r%40x")
    assert encode(found, arguments).target == "/contacts/" + quote("user@x", safe="")


def test_query_plus_is_a_space_and_order_is_the_declared_one() -> None:
    found, arguments = read("GET", "/contacts?page=2&name=a+b")
    assert arguments == {"page": "2", "name": "a b"}
    assert encode(found, arguments).target == "/contacts?name=a%20b&page=2"


def test_body_arguments_go_back_into_the_body() -> None:
    wire = encode(BY_NAME["note"], {"id": "1", "note": "2", "dry": "1", "text": "hi", "n": 3})
    assert wire.target == "/contacts/1/notes/2?dry=1"
    assert parse(wire.body or b"") == {"text": "hi", "n": 3}


@pytest.mark.parametrize("arguments", [{}, {"id": 7}, {"id": ""}, {"id": "a/b"}, {"id": ".."}, {"id": "1", "x": "1"}])
def test_arguments_that_no_request_spells_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ClientError) as refused:
        encode(BY_NAME["read"], arguments)
    assert refused.value.code == "not_encodable"


@pytest.mark.parametrize("path", ["contacts", "/a//b", "/a/{x}{y}", "/a/{x", "/a/{x}/{x}", "/a/..", "/a/"])
def test_bad_templates_are_refused(path: str) -> None:
    with pytest.raises(ClientError):
        operation("x", "GET", path)
