"""Any text, cut anywhere: the stream's verdict, findings and text are those of the whole. Holds `cutting`'s table."""

from __future__ import annotations

import random

from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.core.filtering import FilterAction, apply_edits
from gateway.filters.cutting import ARMOUR_MAX
from tests.filter_support import MASK_ALL, Streamed, cut, rule, verdict

BEGIN, END = "-----BEG" + "IN RSA PRIVATE KEY-----", "-----END RSA PRIVATE KEY-----"
WHOLE = (
    *("4012 8888 8888 1881", "4012888888881881", "3782 822463 10005", "DE89 3704 0044 0532 0130 00"),
    *("GB29 NWBK 6016 1331 9268 19", "MT84 MALT 0110 0001 2345 MTLC AST0 01S", "bob@example.com"),
    *("+49 30 1234567", "+1 (415) 555-2671", "415-555-2671", "020 7946 0958", "0171 - 1234567", "536-90-4399"),
    *("192.168.1.17", "2001:db8::8a2e:370:7334", "password: hunter2", '"password": "hunter2"', "pwd='x1y2z3!'"),
    *('config["password"] = "hunter22"', "api key: a8f5f167f44f4964e6c998dee827110c", "Bearer abcdef0123456789ghij"),
    *("Basic dXNlcjpwYXNzd29yZA==", "--token s3cr3t!!pw", "gh" + "p_" + "a1B2" * 9, "postgres://u:p4ss@h/db"),
    *("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.abcDEF123_-", "https://x.y/?email=a@b.com"),
    *("1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa", "phone: 4155552671", f"{BEGIN}\n{'aB3/' * 16}\n{'cD4+' * 9}\n{END}"),
)
TORN = (
    *("4012", "8888", "DE89", "NWBK", "+49", "(415)", "password", "token", "api", "key", "=", ":", "Bearer", "Basic"),
    *(
        "@",
        "example.com",
        "Authorization:",
        "--token",
        "]",
        ")",
        "-",
        "/",
        ".",
        "'",
        "\\",
        "\\n",
        BEGIN,
        END,
        "aB3/" * 9,
    ),
    *(
        "-----BEGIN",
        "hello",
        "the",
        "NASA",
        "2024",
        "5",
        "é",
        "漢字",
        "🙂",
        "\u200b",
        "\u00ad",
        "\uff14\uff10\uff11\uff12",
        "—",
        "\u2019",
    ),
)
GAPS = (
    " ",
    " ",
    " ",
    "",
    "",
    "\n",
    "  ",
    "    ",
    ", ",
    ". ",
    '"',
    "`",
    "<",
    ">",
    "\t",
    "\r\n",
    " " * 17,
    "\u00a0",
    ";",
)
LONG = st.builds(
    lambda unit, times: unit * times,
    st.sampled_from(
        ["1234 ", "a", "4012 8888 8888 1881 ", "x@y.com,", "A1B2 ", "=", "1.2.3.4,", "eyJhbGciOiJ9.", "aB3/"]
    ),
    st.integers(50, 1200),
)
FRAGMENTS = st.sampled_from(WHOLE) | st.sampled_from(TORN) | st.text("0123456789 -.()+ABab@:=/\"'\n", max_size=20)
TEXTS = st.lists(st.tuples(FRAGMENTS, st.sampled_from(GAPS)), max_size=12).map(
    lambda parts: "".join(map("".join, parts))
)
MIXED = st.builds(lambda before, long, after: before + long + after, TEXTS, st.just("") | st.just("") | LONG, TEXTS)
SIZES = st.lists(st.integers(1, 40) | st.integers(200, 5000), min_size=1, max_size=8)


@given(MIXED, SIZES)
@example("card 4012 8888 8888 1881 x", [1])
@example("1 " * 3000 + "4012 8888 8888 1881", [3])
@example("eyJhbGciOiJIUzI1NiJ9." + "a" * 2040 + ".sig`", [4])
@example("x" * 2100 + "=+1 (415) 555-2671;                 (", [4])
@example("<--token   1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa", [4])
@settings(max_examples=400, deadline=None)
def test_verdict_does_not_depend_on_how_the_text_was_cut(text: str, sizes: list[int]) -> None:
    whole = verdict(text)
    streamed = Streamed(cut(text, sizes))
    assert tuple(streamed.guard.findings) == whole.findings
    assert tuple(streamed.guard.edits) == whole.edits
    assert streamed.sent == apply_edits(text, whole.edits)
    assert streamed.guard.settled == len(text)
    assert streamed.held_max <= ARMOUR_MAX + 5000


@given(MIXED, SIZES)
@settings(max_examples=150, deadline=None)
def test_denial_does_not_depend_on_how_the_text_was_cut(text: str, sizes: list[int]) -> None:
    rules = (rule(FilterAction.DENY, "secret.*", "pii.card"), rule(policy="other"))
    whole = verdict(text, rules)
    streamed = Streamed(cut(text, sizes), rules)
    assert streamed.guard.denied == whole.denied
    if whole.denied is not None:
        denied = next(f.start for f in whole.findings if f.kind == "pii.card" or f.kind.startswith("secret."))
        assert streamed.guard.settled == denied
        assert streamed.sent == apply_edits(text[:denied], [edit for edit in whole.edits if edit.end <= denied])


@given(TEXTS, TEXTS)
@settings(max_examples=200, deadline=None)
def test_lines_are_inspected_apart(one: str, other: str) -> None:
    """Additivity over breaks, from which all else follows. Private keys are the one thing that spans lines."""
    if "-----BEGIN" in one:
        return
    joined = verdict(f"{one}\n{other}").findings
    shift = len(one) + 1
    apart = [(f.kind, f.start, f.end) for f in verdict(one).findings]
    apart += [(f.kind, f.start + shift, f.end + shift) for f in verdict(other).findings]
    assert [(f.kind, f.start, f.end) for f in joined] == apart


def test_long_random_texts_cut_at_random() -> None:
    dice = random.Random(11)
    for _ in range(40):
        text = "".join(dice.choice(WHOLE + TORN) + dice.choice(GAPS) for _ in range(300))
        streamed = Streamed(cut(text, [dice.randint(1, 60) for _ in range(50)]), MASK_ALL)
        assert tuple(streamed.guard.findings) == verdict(text).findings
