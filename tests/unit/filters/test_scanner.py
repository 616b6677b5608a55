"""The scanner: offsets, precedence, memory, limits, and failures that never read as "nothing found"."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time

import pytest

from gateway.core.errors import FilterError
from gateway.core.exchange import Finding
from gateway.filters import Scanner
from gateway.filters import scanner as scanner_module
from gateway.filters.detection import Detection
from tests.filter_support import scan

MAIL = "mail amy@example.com now"


def spans(text: str) -> list[tuple[str, str]]:
    return [(finding.kind, text[finding.start : finding.end]) for finding in scan(text)]


def test_offsets_are_code_points() -> None:
    text = "😀é漢 amy@example.com \u200b\u200b bob@exam\u200bple.com 4012 8888 8888 1881"
    assert spans(text) == [
        ("pii.email", "amy@example.com"),
        ("pii.email", "bob@exam\u200bple.com"),
        ("pii.card", "4012 8888 8888 1881"),
    ]


def test_lone_surrogates_are_text_like_any_other() -> None:
    text = "\ud800 amy@example.com \udfff"
    assert spans(text) == [("pii.email", "amy@example.com")]


def test_documented_format_wins_over_generic_form() -> None:
    token = "gh" + "p_" + "a1B2" * 9
    assert spans(f"token={token}") == [("secret.github_token", token)]


def test_secret_wins_over_personal_data_inside_of_it() -> None:
    assert spans("https://ci:k3y4you@example.com/x") == [("secret.url_password", "k3y4you")]


def test_card_wins_over_phone() -> None:
    assert spans("+4012 8888 8888 1881")[0][0] in ("pii.card", "pii.phone")
    assert spans("4012 8888 8888 1881") == [("pii.card", "4012 8888 8888 1881")]


def test_findings_are_ordered_and_do_not_overlap() -> None:
    text = " ".join([MAIL, "password: hunter2", "4012888888881881", "+49 30 1234567"] * 200)
    found = scan(text)
    assert len(found) == 800
    assert all(one.end <= other.start for one, other in itertools.pairwise(found))


def test_the_same_text_is_inspected_once() -> None:
    one = Scanner()
    first = one.scan(MAIL)
    assert one.scan(MAIL) is first
    assert (one.counts.scanned, one.counts.from_cache) == (1, 1)


def test_memory_is_bounded_in_bytes() -> None:
    one = Scanner(cache_bytes_max=5000)
    for number in range(200):
        one.scan(f"{number} {MAIL}")
    assert 0 < len(one._cache) <= 5000 // 400
    assert one._cache_bytes <= 5000
    one.scan(" ".join(f"user{number}@example.com" for number in range(100)))
    assert one._cache_bytes <= 5000


def test_threads_share_a_scanner() -> None:
    one = Scanner(cache_bytes_max=20_000)
    failures: list[object] = []

    def work(seed: int) -> None:
        for number in range(200):
            if len(one.scan(f"{(number * seed) % 50} {MAIL}")) != 1:
                failures.append(number)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_defect_in_a_recognizer_is_an_error_not_an_empty_result(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> float:
        raise IndexError("amy@example.com")

    one = Scanner()
    detection = one.detection
    monkeypatch.setattr(detection, "_recognizers", type("Broken", (), {"email": broken, "top_level_domains": {"com"}}))
    with pytest.raises(FilterError) as error:
        one.scan(MAIL)
    assert error.value.code == "filter_failed"
    assert "amy" not in str(error.value) and error.value.__cause__ is None
    assert one.counts.failed == 1


def test_failure_is_not_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> list[Finding]:
        raise FilterError("filter_failed", "a filter failed")

    one = Scanner()
    one.warm()
    real = Detection.find
    monkeypatch.setattr(Detection, "find", broken)
    with pytest.raises(FilterError):
        one.scan(MAIL)
    monkeypatch.setattr(Detection, "find", real)
    assert len(one.scan(MAIL)) == 1


def test_text_beyond_the_cap_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scanner_module, "CHARACTERS_MAX", 5000)
    with pytest.raises(FilterError) as error:
        scan("x " * 3000)
    assert error.value.code == "filter_too_large"


def test_long_text_is_inspected_with_pauses_and_finds_the_same() -> None:
    text = " ".join(f"from 10.0.{n % 250}.{n % 200} user{n}@example.com" for n in range(4000))
    one = Scanner(cache_bytes_max=0)
    one.warm()
    gaps: list[float] = []

    async def heartbeat(stop: asyncio.Event) -> None:
        last = time.perf_counter()
        while not stop.is_set():
            await asyncio.sleep(0)
            now = time.perf_counter()
            gaps.append(now - last)
            last = now

    async def story() -> tuple[Finding, ...]:
        stop = asyncio.Event()
        beat = asyncio.create_task(heartbeat(stop))
        found = await one.scan_long(text)
        stop.set()
        await beat
        return found

    assert asyncio.run(story()) == one.scan(text)
    gaps.sort()
    assert gaps[int(len(gaps) * 0.9)] < 0.03  # 5 ms on an idle machine


def test_token_longer_than_a_window_is_masked_to_its_end() -> None:
    token = "eyJhbGciOiJIUzI1NiJ9." + "aB3_" * 2500 + ".c2ln"
    found = scan(f"jwt {token} end")
    assert {finding.kind for finding in found} == {"secret.jwt"}
    assert (found[0].start, found[-1].end) == (4, 4 + len(token))
    assert all(one.end == other.start for one, other in itertools.pairwise(found))


def test_token_at_any_place_of_a_long_word_is_found() -> None:
    token = "gh" + "p_" + "a1B2" * 9
    for at in range(0, 5000, 61):
        text = "x" * at + "/" + token + "/" + "y" * 3000
        assert [(f.kind, f.start) for f in scan(text)] == [("secret.github_token", at + 1)], at
