"""Every secret format finds random values of its shape in the places where secrets stand, and clean text finds nothing.

The examples are made at test time: a repository full of strings that look like secrets sets off everybody's scanners.
A new format is a row in `formats.json`, a false alarm a row in `personal.json`.
"""

from __future__ import annotations

import base64
import json
import random
import zlib
from pathlib import Path
from typing import Any

import pytest

from gateway.filters import KINDS
from gateway.filters.formats import FORMATS
from tests.filter_support import scan, scanner

HERE = Path(__file__).parent
SAMPLES: dict[str, list[list[Any]]] = json.loads((HERE / "formats.json").read_bytes())
PERSONAL: dict[str, list[Any]] = json.loads((HERE / "personal.json").read_bytes())
DIGITS, LOWER = "0123456789", "abcdefghijklmnopqrstuvwxyz"
ALPHABETS = {
    "digits": DIGITS,
    "hex": DIGITS + "abcdef",
    "letters": LOWER + LOWER.upper(),
    "base32": LOWER.upper() + "234567",
    "base36": DIGITS + LOWER,
    "base36upper": DIGITS + LOWER.upper(),
    "base62": DIGITS + LOWER.upper() + LOWER,
    "base64": DIGITS + LOWER + LOWER.upper() + "+/",
    "base64url": DIGITS + LOWER + LOWER.upper() + "-_",
    "bech32upper": "QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L",
}
PLACES = (
    "{}",
    "the key is {} and it works",
    "line one\n{}\nline three",
    "see ({}), then",
    'export KEY="{}"',
    '{{"k":"{}","n":1}}',
    "x={};y=2",
    "ключ: {} конец",
)


def example(sample: list[Any], dice: random.Random) -> str:
    """A value of a format: literal pieces, and random characters of an alphabet."""
    text = last = ""
    for part in sample:
        if isinstance(part, str):
            text += part
            continue
        ((alphabet, size),) = part.items()
        if alphabet == "crc32":
            number, digits = zlib.crc32(last.encode()), ""
            while number:
                number, digit = divmod(number, 62)
                digits = ALPHABETS["base62"][digit] + digits
            text += digits.rjust(size, "0")
            continue
        last = "".join(dice.choices(ALPHABETS[alphabet], k=size - 1)) + dice.choice(ALPHABETS[alphabet].rstrip("-_"))
        text += last
    return text


def test_every_format_has_examples() -> None:
    assert set(SAMPLES) == {form.name for form in FORMATS}
    assert {f"secret.{form.name}" for form in FORMATS} < set(KINDS)
    assert len(FORMATS) >= 60


@pytest.mark.parametrize("name", SAMPLES)
def test_format_is_found_wherever_it_stands(name: str) -> None:
    dice = random.Random(name)
    generic = {form.name for form in FORMATS if form.generic}
    missed = []
    for sample in SAMPLES[name]:
        for round_ in range(20):
            value = example(sample, dice)
            place = PLACES[round_ % len(PLACES)] if name not in generic else ("{}", "run {}\n")[round_ % 2]
            text = place.format(value)
            kinds = {finding.kind for finding in scan(text)}
            if f"secret.{name}" not in kinds:
                missed.append((place, sample, kinds))
    assert len(missed) <= 0.02 * 20 * len(SAMPLES[name]), missed[:3]


@pytest.mark.parametrize(
    "name", [form.name for form in FORMATS if not form.generic and form.name not in ("private_key", "jwt")]
)
def test_too_short_a_value_is_not_that_format(name: str) -> None:
    dice = random.Random(name)
    for sample in SAMPLES[name]:
        shortened = [
            {key: max(1, size // 10) for key, size in part.items()} if isinstance(part, dict) else part
            for part in sample
        ]
        text = example(shortened, dice)
        assert f"secret.{name}" not in {finding.kind for finding in scan(f"see {text} there")}


@pytest.mark.parametrize("name", SAMPLES)
def test_value_is_masked_from_end_to_end(name: str) -> None:
    """No random part of the value is left over once the findings are cut out."""
    dice = random.Random(f"mask {name}")
    for sample in SAMPLES[name]:
        value = example(sample, dice)
        rest = value
        for finding in reversed(scan(value)):
            rest = rest[: finding.start] + "\x00" + rest[finding.end :]
        parts = [part for part in sample if isinstance(part, dict)]
        if parts and max(max(part.values()) for part in parts) >= 16:
            longest = max(len(piece) for piece in rest.split("\x00"))
            assert longest < 40, rest


@pytest.mark.parametrize(("kind", "text", "span"), PERSONAL["found"])
def test_personal_data_is_found_with_its_span(kind: str, text: str, span: str) -> None:
    found = [(finding.kind, text[finding.start : finding.end]) for finding in scan(text)]
    assert found == [(kind, span)]


@pytest.mark.parametrize("text", PERSONAL["clean"])
def test_clean_text_has_no_findings(text: str) -> None:
    assert [(finding.kind, text[finding.start : finding.end]) for finding in scan(text)] == []


def test_clean_sentences_in_any_order_have_no_findings() -> None:
    dice = random.Random(5)
    alarms = []
    for _ in range(1000):
        text = dice.choice([" ", "\n", ", "]).join(dice.sample(PERSONAL["clean"], 6))
        alarms += [(finding.kind, text[finding.start : finding.end]) for finding in scan(text)]
    assert len(alarms) <= 1, alarms[:5]


def test_images_in_base64_have_no_findings() -> None:
    dice = random.Random(6)
    for _ in range(20):
        text = "data:image/png;base64," + base64.b64encode(dice.randbytes(30_000)).decode()
        assert scan(text) == ()


def test_a_wrong_checksum_lowers_the_score_only() -> None:
    dice = random.Random(7)
    good, loose = SAMPLES["github_token"][0], SAMPLES["github_token"][1]
    assert scanner().scan(example(good, dice))[0].score == 1.0
    assert 0.5 < scanner().scan(example(loose, dice))[0].score < 1.0
