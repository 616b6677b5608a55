"""Time grows with the length of a text and not with its malice. Ratios with room to spare: machines are shared."""

from __future__ import annotations

import time

import pytest

from gateway.filters import Scanner
from tests.filter_support import scanner

SIZE = 100_000
PROSE = "The committee met Anna Smith on 2026-11-05 at 10:30 and approved 1,250.75 EUR for order 4711; see page 12. "
HOSTILE = {
    "dots": ".",
    "digits": "1",
    "one digit words": "1 ",
    "a.": "a.",
    "a@": "a@",
    "http": "http://",
    "http with users": "http://a:",
    "brackets": "[",
    "nested brackets": "[]{}()",
    "combining marks": "a\u0301",
    "colons": "::",
    "backslashes": "\\",
    "quotes": '"',
    "spaces": " ",
    "prefixes": "sk-ghp_AKIAeyJxoxb-",
    "plus": "+49 ",
}
NEAR_MISSES = {
    "addresses": "a@a.aa ",
    "cards": "4012888888881882 ",
    "account numbers": "DE89 ",
    "names": "token: password=",
    "names given to names": "password=",
    "key heads": "-----BEGIN PRIVATE KEY-----\n",
    "hidden": "a\u200b",
    "schemes": "Bearer Basic ",
    "full width": "\uff11",
}


def cpu_s(text: str) -> float:
    one = Scanner(cache_bytes_max=0)
    one._detection = scanner().detection
    best = 1e9
    for _ in range(3):
        start = time.process_time()
        one.scan(text)
        best = min(best, time.process_time() - start)
    return best


def sized(unit: str) -> str:
    return (unit * (SIZE // len(unit) + 1))[:SIZE]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_costs_like_prose(name: str) -> None:
    assert cpu_s(sized(HOSTILE[name])) < 3 * max(cpu_s(sized(PROSE)), 0.0005)


@pytest.mark.parametrize("name", NEAR_MISSES)
def test_near_misses_cost_time_in_proportion_to_length(name: str) -> None:
    text = sized(NEAR_MISSES[name])
    assert cpu_s(text) < 6 * max(cpu_s(text[: SIZE // 4]), 0.001)
    assert cpu_s(text) < 1.5


def test_fresh_text_without_findings_costs_microseconds() -> None:
    one = scanner()
    texts = [f"{number}: {PROSE * 9}"[:1024] for number in range(500)]
    start = time.process_time()
    for text in texts:
        one.scan(text)
    assert (time.process_time() - start) / len(texts) < 60e-6  # 5 µs on an idle machine
