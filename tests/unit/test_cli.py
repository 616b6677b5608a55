"""The console command: what it prints and how it exits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway.cli import main
from gateway.policy.identity import load_keyring

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GATEWAY_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("GATEWAY_BUNDLE", str(ROOT / "policies" / "starter"))
    return tmp_path


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    text = capsys.readouterr().out
    assert ended.value.code == 0
    assert all(word in text for word in ("serve", "demo", "check", "keys", "approvers", "policy", "first steps"))


def test_keys_are_shown_once_listed_without_their_secret_and_revoked(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["keys", "create", "bookkeeper"]) == 0
    token = capsys.readouterr().out.strip()
    assert load_keyring(state / "keys.yaml").agent(token) == "bookkeeper"
    assert main(["keys", "list"]) == 0
    listed = capsys.readouterr().out
    assert "bookkeeper" in listed and token not in listed and token.split("_", 2)[2] not in listed
    assert main(["keys", "revoke", "bookkeeper"]) == 0
    assert load_keyring(state / "keys.yaml").agent(token) is None
    capsys.readouterr()
    assert main(["keys", "revoke", "bookkeeper"]) == 1
    assert "nothing has the name" in capsys.readouterr().err


def test_approver_tokens_carry_groups(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["approvers", "create", "ana", "--group", "finance", "--group", "board"]) == 0
    person = load_keyring(state / "keys.yaml").approver(capsys.readouterr().out.strip())
    assert person and person.groups == {"finance", "board"}
    assert main(["keys", "create", "bad name"]) == 1
    assert "is not a name" in capsys.readouterr().err


def test_policy_commands(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["policy", "check"]) == 0
    assert main(["policy", "test"]) == 0
    assert "0 failed" in capsys.readouterr().out
    assert main(["policy", "schema", "policy"]) == 0
    assert json.loads(capsys.readouterr().out)["$schema"].startswith("https://json-schema.org/")
    call = ["policy", "explain", "--agent", "bookkeeper", "--tool", "bank.transfer"]
    assert main([*call, "--args", '{"amount": 4900, "to_iban": "X", "currency": "EUR"}']) == 0
    assert "decision hold by bookkeeping/payment" in capsys.readouterr().out
    assert main([*call, "--args", "{"]) != 0


def test_a_bad_bundle_is_told_with_its_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = tmp_path / "bundle"
    (bundle / "policies").mkdir(parents=True)
    (bundle / "bundle.yaml").write_text("agents: {a: {}}\nmodles: []\n")
    assert main(["policy", "check", "--bundle", str(bundle)]) == 1
    assert "bundle.yaml:2:1" in capsys.readouterr().out
    assert main(["serve", "--bundle", str(bundle)]) == 1
    assert "bundle.yaml:2:1" in capsys.readouterr().err


def test_check_tells_what_serve_would_find(capsys: pytest.CaptureFixture[str]) -> None:
    main(["keys", "create", "nobody"])
    capsys.readouterr()
    assert main(["check"]) == 0
    text = capsys.readouterr().out
    assert "release" in text and "`nobody` has a key but is not in the bundle" in text and "embedded" in text


def test_a_bad_setting_is_named_and_its_value_is_not_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GATEWAY_PORT", "hunter2")
    with pytest.raises(SystemExit) as ended:
        main(["check"])
    error = capsys.readouterr().err
    assert ended.value.code == 2 and "GATEWAY_PORT" in error and "hunter2" not in error


def test_an_unreachable_redis_is_told_without_its_password(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GATEWAY_REDIS_URL", "redis://:hunter2@127.0.0.1:1/0")
    assert main(["check"]) == 1
    printed = capsys.readouterr()
    assert "hunter2" not in printed.out + printed.err and printed.err
