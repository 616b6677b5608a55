"""How the filters come up: fast, without spaCy, without the network, and not at all when they are broken."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest

from gateway.core.errors import FilterError
from gateway.filters import Scanner, filter_digest
from gateway.filters.detection import Detection
from gateway.filters.presidio import load

PROBE = """
import socket, sys
def refuse(*_, **__): raise AssertionError("the network was touched")
socket.socket.connect = socket.getaddrinfo = refuse
from gateway.filters import Scanner
scanner = Scanner()
scanner.warm()
found = scanner.scan("mail bob@example.co.uk or call +49 30 1234567")
assert [f.kind for f in found] == ["pii.email", "pii.phone"], found
assert "spacy" not in sys.modules, "spaCy was imported"
assert not [name for name in sys.modules if name.startswith("presidio_analyzer")], "bare packages were left behind"
"""


def test_filters_load_without_spacy_and_without_the_network() -> None:
    done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_recognizers_also_load_where_presidio_is_there_already() -> None:
    probe = (
        "import presidio_analyzer, sys\n"
        "from gateway.filters.presidio import load\n"
        "assert load().iban('DE89370400440532013000') == 1.0\n"
        "assert sys.modules['presidio_analyzer'] is presidio_analyzer\n"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_package_of_another_layout_costs_time_not_safety(monkeypatch: pytest.MonkeyPatch) -> None:
    def changed() -> dict[str, object]:
        raise ImportError("no module named `pattern_recognizer`")

    called = []
    real = {"CreditCardRecognizer": 1}
    monkeypatch.setattr("gateway.filters.presidio._import_light", changed)
    monkeypatch.setattr("gateway.filters.presidio._import_all", lambda: called.append(1) or real)
    with pytest.raises(KeyError):
        load()
    assert called


def test_a_recognizer_that_ran_out_of_time_is_an_error_and_candidates_stay_out_of_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    load()
    logger = logging.getLogger("presidio-analyzer")
    with pytest.raises(FilterError) as error:
        logger.warning("Regex pattern '%s' timed out after %s seconds, skipping.", "x", 1)
    assert error.value.code == "filter_timeout"
    logger.error("Failed to validate text %s", "DE89370400440532013000")
    assert "DE89" not in caplog.text


def test_filters_that_find_nothing_refuse_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Detection, "find", lambda *_: [])
    with pytest.raises(FilterError) as error:
        Scanner().warm()
    assert error.value.code == "filter_broken"


def test_digest_names_the_set_of_filters() -> None:
    assert filter_digest() == filter_digest()
    assert len(filter_digest()) == 64
