"""docs/settings.md tells every setting, and tells the truth."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from pydantic import ValidationError

from gateway.settings import Settings

ROOT = Path(__file__).parents[2]


def test_settings_page_is_in_step_with_the_settings() -> None:
    spec = importlib.util.spec_from_file_location("settings_doc", ROOT / "deploy" / "settings_doc.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    text = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert text == module.page(), "run `python deploy/settings_doc.py --write`"
    for name in Settings.model_fields:
        assert f"| `GATEWAY_{name.upper()}` |" in text


def test_every_setting_says_what_it_is_and_they_stay_few() -> None:
    assert all(field.description for field in Settings.model_fields.values())
    assert len(Settings.model_fields) < 50


def test_a_variable_that_is_no_setting_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_PROT", "1")
    with pytest.raises(ValidationError, match="did you mean `GATEWAY_PORT`"):
        Settings()


def test_a_known_variable_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_PORT", "9000")
    assert Settings().port == 9000
    monkeypatch.setenv("GATEWAY_PORT", "70000")
    with pytest.raises(ValidationError):
        Settings()
