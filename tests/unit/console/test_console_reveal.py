"""What could mislead a reader is boxed; honest text of any language is left alone; nothing becomes markup."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.console.reveal import decode, reveal, suspicions

BOX = re.compile(r'<span class="mark mark-(\w+)"[^>]*>([^<]*)</span>')


def boxes(text: str) -> list[tuple[str, str]]:
    return BOX.findall(reveal(text))


@pytest.mark.parametrize(
    ("text", "kind", "label"),
    [
        ("pay\u202egnp.exe", "bidi", "RLO"),
        ("a\u2066b", "bidi", "LRI"),
        ("acme\u200bcorp", "hidden", "ZWSP"),
        ("soft\u00adhyphen", "hidden", "SOFT HYPHEN"),
        ("\ufeffbom", "hidden", "BOM"),
        ("x\u3164y", "hidden", "FILLER"),
        ("x\U000e0148y", "hidden", "U+E0148"),
        ("null\x00byte", "control", "NUL"),
        ("\x1b[31mred", "control", "ESC"),
        ("c1\x9b", "control", "U+009B"),
        ("p\u0430ypal", "look", "\u0430"),
        ("\u0430\u0440\u0440\u04cf\u0435", "look", "\u0430"),
        ("\uff21\uff22\uff23", "look", "\uff21"),
        ("https://evil\u2215good", "look", "\u2215"),
        ("\u0261oogle", "look", "\u0261"),
        ("bad\ufffd", "broken", "UNDECODABLE"),
        ("private\ue000", "broken", "U+E000"),
        ("z" + "\u0301" * 5, "broken", "U+0301"),
        ("\u0301x", "broken", "U+0301"),
        ("a" + " " * 30 + "b", "space", "␣ by 30"),
        ("a" + "\n" * 50 + "b", "space", "↵ by 50"),
        ("trailing ", "space", "␣"),
        ("non\u00a0break", "space", "NBSP"),
        ("tab\there", "space", "TAB"),
    ],
)
def test_misleading_characters_become_labelled_boxes(text: str, kind: str, label: str) -> None:
    assert (kind, label) in boxes(text)


def test_hidden_tag_text_is_read_out() -> None:
    hidden = "".join(chr(0xE0000 + ord(c)) for c in "approve <all>")
    assert ("hidden", "HIDDEN TEXT: approve &lt;all&gt;") in boxes("fine" + hidden)


@pytest.mark.parametrize(
    "text",
    [
        "Overdue invoice 2026-4711, 1,840.50 EUR (net)",
        "naïve café, Straße, Łódź, İstanbul, ångström",
        "русский текст и числа 123",
        "ελληνικά γράμματα",
        "日本語テキストとLatin、テスト。",
        "한국어와 漢字",
        "हिन्दी में पाठ",
        "שלום עולם",
        "مرحبا بالعالم",
        "ไทย ภาษา",
        "👩\u200d💻 ❤\ufe0f 👩🏽\u200d🚀",
        "£5 \u2013 “quoted” … € ½ x²",
        "12 µm at 5 Ω",
    ],
)
def test_honest_text_is_left_alone(text: str) -> None:
    assert boxes(text) == []


def test_line_breaks_are_visible_and_kept() -> None:
    assert reveal("a\nb") == 'a<span class="eol" aria-hidden="true">↵</span>\nb'


def test_right_to_left_letters_beside_digits_are_warned_about() -> None:
    assert any("right-to-left" in one.phrase for one in suspicions("pay \u05d0 100 to 200"))
    assert suspicions("שלום") == ()


def test_bytes_that_are_not_utf8_are_drawn_as_undecodable() -> None:
    assert ("broken", "UNDECODABLE") in boxes(decode(b"ok \xff\xfe"))


@given(st.text(alphabet=st.characters(exclude_categories=()), max_size=200))
def test_no_text_becomes_markup_of_its_own(text: str) -> None:
    html = str(reveal(text))
    rest = re.sub(r'<span class="(mark mark-\w+" title="[^"<>]*|eol" aria-hidden="true)">([^<>]*)</span>', "", html)
    assert "<" not in rest and ">" not in rest and '"' not in rest


@given(st.text(alphabet=st.characters(categories=("Cc", "Cf", "Co", "Zl", "Zp")), min_size=1, max_size=20))
def test_nothing_invisible_survives_outside_of_a_box(text: str) -> None:
    bare = BOX.sub("", str(reveal(f"x{text}y")))
    bare = re.sub(r'<span class="eol"[^>]*>↵</span>', "", bare)
    assert re.fullmatch(r"x[\n\t]*y", bare)


@pytest.mark.parametrize("text", ["a" * 10**6, " " * 10**6 + "x", "ж" * 10**5, "a\u0301" * 50_000, "\u202e" * 50_000])
def test_large_hostile_text_is_quick(text: str) -> None:
    started = time.perf_counter()
    reveal(text)
    assert time.perf_counter() - started < 5
