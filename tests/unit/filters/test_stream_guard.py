"""Streams: what is released when, what is held back and how much, denials and failures."""

from __future__ import annotations

import random
import string

import pytest

from gateway.core.decision import FailureMode
from gateway.core.errors import FilterError
from gateway.core.filtering import FilterAction
from gateway.filters import Scanner
from gateway.filters.cutting import _ARMOUR_OPEN, ARMOUR_MAX, LOOKAHEAD, WINDOW, joins
from gateway.filters.detection import Detection
from tests.filter_support import MASK_ALL, Streamed, cut, rule, scanner


def armour(lines: int = 6, end: bool = True) -> str:
    dice = random.Random(lines)
    body = "\n".join("".join(dice.choices(string.ascii_letters + string.digits + "+/", k=64)) for _ in range(lines))
    return "-----BEG" + f"IN RSA PRIVATE KEY-----\n{body}\nabc=" + ("\n-----END RSA PRIVATE KEY-----" if end else "")


def settled_after(*pieces: str) -> int:
    one = Streamed([])
    guard = one.guard
    for piece in pieces:
        guard.feed(piece)
    return guard.settled


def test_ordinary_word_is_released_when_the_next_space_arrives() -> None:
    text = "Well, the quick (brown) fox; didn't jump over: it sat. And “said” nothing!"
    for at, character in enumerate(text):
        if character == " ":
            assert settled_after(*text[: at + 1]) == at + 1, text[: at + 1]


def test_word_is_held_back_while_it_may_still_grow() -> None:
    assert settled_after("hello wor") == 6
    assert settled_after("hello ", "wor", "ld") == 6


@pytest.mark.parametrize(
    ("text", "held"),
    [
        ("call +49 30 ", "+49 30 "),
        ("card 4012 8888 ", "4012 8888 "),
        ("to DE89 3704 NWBK ", "DE89 3704 NWBK "),
        ("the password ", "password "),
        ("the password = ", "password = "),
        ('{"password": ', 'password": '),
        ("use Bearer ", "Bearer "),
        ("run --token ", "--token "),
        ("an API key: ", "API key: "),
    ],
)
def test_beginning_of_what_spans_words_is_held_back(text: str, held: str) -> None:
    assert settled_after(text) == len(text) - len(held)
    assert settled_after(text, "and then ") == len(text + "and then ") or "password =" in text or ": " in text


def test_line_break_ends_every_hold_but_that_of_a_key() -> None:
    for text in ("card 4012 8888\n", "password:\n", "Bearer\n"):
        assert settled_after(text) == len(text)
    assert settled_after("x -----BEG" + "IN RSA PRIVATE KEY-----\n") == 2


def test_hold_is_bounded_for_a_word_without_end() -> None:
    for unit in ("x", "1 ", "a.", "4012 8888 ", "password=", "="):
        streamed = Streamed(cut(unit * 20_000, [7]))
        assert streamed.held_max <= WINDOW + LOOKAHEAD + 16, unit


def test_private_key_is_masked_as_it_streams() -> None:
    text = f"Here: {armour()}\nthat is all of it"
    streamed = Streamed(cut(text, [3]))
    assert streamed.sent == "Here: <SECRET>\nthat is all of it"


def test_private_key_without_end_is_masked_as_far_as_it_goes() -> None:
    assert Streamed(cut(f"Here: {armour(end=False)}", [5])).sent == "Here: <SECRET>"


def test_private_key_beyond_the_cap_does_not_hold_the_stream_for_ever() -> None:
    streamed = Streamed(cut(armour(400), [50]))
    assert streamed.held_max <= ARMOUR_MAX + 50
    assert streamed.sent.startswith("<SECRET>")


def test_every_beginning_of_a_key_is_held_back() -> None:
    key = armour(3)
    for head in ("", "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00FF\n\n"):
        text = key.replace("-----\n", f"-----\n{head}", 1)
        for newline in ("\n", "\\n", "\r\n", " "):
            whole = text.replace("\n", newline)
            for end in range(10, len(whole) + 1):
                assert _ARMOUR_OPEN.fullmatch(whole[:end]), whole[:end][-60:]


def test_mention_of_a_key_is_released() -> None:
    text = "-----BEG" + "IN PRIVATE KEY----- is how it starts and then "
    assert settled_after(text) == len(text)


def test_denial_settles_nothing_from_the_finding_on() -> None:
    deny = rule(FilterAction.DENY, "pii.card")
    guard = Streamed([], (deny, rule(policy="b"))).guard
    for piece in cut("mail amy@example.com then 4012 8888 8888 1881 and bob@example.com more words", [4]):
        guard.feed(piece)
    assert guard.denied is deny
    assert guard.settled == len("mail amy@example.com then ")
    assert [edit.replacement for edit in guard.edits] == ["<EMAIL>"]
    guard.finish()
    assert guard.settled == len("mail amy@example.com then ")


def test_without_rules_everything_is_settled_at_once() -> None:
    guard = Streamed([], ()).guard
    guard.feed("password = hunter2 4012 ")
    assert guard.settled == 24 and not guard.edits


def test_failure_stops_the_stream_or_passes_as_the_rules_declare(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> list[object]:
        raise FilterError("filter_failed", "a filter failed")

    own = Scanner()
    own._detection = scanner().detection
    closed = Streamed([], MASK_ALL, own).guard
    open_ = Streamed([], (rule(on_error=FailureMode.OPEN),), own).guard
    monkeypatch.setattr(Detection, "find", broken)
    with pytest.raises(FilterError):
        closed.feed("hello world ")
    assert closed.settled == 0
    open_.feed("hello world ")
    open_.feed("and more")
    open_.finish()
    assert open_.settled == len("hello world and more")
    assert open_.failed_open  # type: ignore[attr-defined]
    assert own.counts.failed == 2


def test_invisible_characters_keep_their_place() -> None:
    text = "a\u200b b\u200bob@example.com\u200b \u200b4012\u200b8888888\u200b81881\u200b x\u00ad"
    for size in (1, 2, 3, 50):
        assert Streamed(cut(text, [size])).sent == "a\u200b <EMAIL>\u200b \u200b<CARD>\u200b x\u00ad"


def test_more_of_a_word_never_ties_what_was_not_tied() -> None:
    lefts = ["1", "12.", "DE89", "NWBK", "password", "api", "Bearer", "=", "x:", "pwd:", "]", "--token", "word", "A"]
    rights = ["key", "kez", "12", "The", "THE", "A1B2", "=", ":x", "(4", "-", "]", "x", "K", "Key:", "é"]
    for left in lefts:
        for right in rights:
            for size in range(len(right)):
                assert joins(left, " ", right[:size]) >= joins(left, " ", right[: size + 1]), (left, right)
