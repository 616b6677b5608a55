"""Gateway keys and approver tokens: made once, stored as hashes, refused unless exact."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gateway.core.errors import ClientError, PolicyLoadError
from gateway.policy.identity import load_keyring, mint, revoke


def test_a_key_is_known_by_its_hash_and_shown_once(tmp_path: Path) -> None:
    path = tmp_path / "state" / "keys.yaml"
    token = mint(path, "agent", "bookkeeper")
    assert load_keyring(path).agent(token) == "bookkeeper"
    assert token not in path.read_text() and token.split("_", 2)[2] not in path.read_text()
    assert path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "spoil", [lambda t: t[:-1] + ("A" if t[-1] != "A" else "B"), lambda t: t + "x", lambda t: "", str.upper]
)
def test_a_key_that_is_not_exact_is_refused(tmp_path: Path, spoil) -> None:
    path = tmp_path / "keys.yaml"
    token = mint(path, "agent", "bookkeeper")
    assert load_keyring(path).agent(spoil(token)) is None


def test_roles_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    agent, approver = mint(path, "agent", "a"), mint(path, "approver", "ana", ("finance",))
    keyring = load_keyring(path)
    assert keyring.approver(agent) is None and keyring.agent(approver) is None
    assert keyring.agent("ga" + agent[2:]) is None and keyring.agent("gk" + approver[2:]) is None
    person = keyring.approver(approver)
    assert person and person.name == "ana" and person.groups == {"finance"}


def test_a_revoked_key_is_refused_and_the_others_stay(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    first, second = mint(path, "agent", "a"), mint(path, "agent", "b")
    assert revoke(path, "agent", "a") == 1 and revoke(path, "agent", "a") == 0
    assert load_keyring(path).agent(first) is None and load_keyring(path).agent(second) == "b"


def test_keys_made_at_once_are_all_kept(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    with ThreadPoolExecutor(8) as pool:
        tokens = list(pool.map(lambda n: mint(path, "agent", f"agent-{n}"), range(24)))
    keyring = load_keyring(path)
    assert [keyring.agent(token) for token in tokens] == [f"agent-{n}" for n in range(24)]


@pytest.mark.parametrize("name", ["", "a b", 'x"', "x\ny", "é", "-x", "a" * 65])
def test_a_name_that_no_policy_could_hold_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ClientError, match="is not a name"):
        mint(tmp_path / "keys.yaml", "agent", name)
    assert not (tmp_path / "keys.yaml").exists()


@pytest.mark.parametrize(
    "text",
    [
        "agents: [",
        "agent: []",
        "agents: [{id: aaaaaaaa, name: x}]",
        "agents: [{id: aaaaaaaa, name: x, sha256: abc}]",
        "agents: [{id: A, name: x, sha256: " + "0" * 64 + "}]",
        "agents: [{id: aaaaaaaa, name: x, sha256: " + "a" * 64 + ", admin: true}]",
        "- a",
        "agents: &a [*a]",
    ],
)
def test_a_keys_file_with_anything_unknown_is_refused_whole(tmp_path: Path, text: str) -> None:
    (tmp_path / "keys.yaml").write_text(text)
    with pytest.raises(PolicyLoadError, match=r"keys\.yaml"):
        load_keyring(tmp_path / "keys.yaml")


def test_no_keys_file_is_no_keys(tmp_path: Path) -> None:
    assert load_keyring(tmp_path / "keys.yaml").credentials == {}
