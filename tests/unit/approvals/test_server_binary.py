"""Which server is chosen, and which is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.approvals import server_binary
from gateway.approvals.server_binary import find_server
from gateway.core.errors import StoreError


def fake(folder: Path, name: str, version: str) -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\necho 'Some server v={version} sha=0'\n")
    path.chmod(0o700)
    return path


@pytest.fixture
def on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all of PATH, and no wheel."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.setattr(server_binary, "_wheel", lambda: None)
    real = server_binary.shutil.which
    monkeypatch.setattr(server_binary.shutil, "which", lambda name: real(name, path=str(tmp_path)))
    return tmp_path


def test_the_wheel_comes_before_the_path() -> None:
    found = find_server()
    assert found.found_by == "wheel"
    assert found.version >= (9, 1, 0)


def test_the_explicit_setting_comes_first(tmp_path: Path) -> None:
    path = fake(tmp_path, "mine", "8.1.2")
    found = find_server(str(path))
    assert (found.path, found.version, found.found_by) == (path, (8, 1, 2), "setting")


def test_valkey_comes_before_redis(on_path: Path) -> None:
    fake(on_path, "redis-server", "7.0.15")
    assert find_server().found_by == "redis-server"
    fake(on_path, "valkey-server", "8.0.0")
    assert find_server().found_by == "valkey-server"


def test_an_old_one_on_the_path_is_passed_over(on_path: Path) -> None:
    fake(on_path, "valkey-server", "6.2.9")
    fake(on_path, "redis-server", "7.0.15")
    assert find_server().found_by == "redis-server"


@pytest.mark.parametrize("version", ["6.2.14", "6.99.99", "nonsense"])
def test_below_seven_is_refused(tmp_path: Path, version: str) -> None:
    with pytest.raises(StoreError) as caught:
        find_server(str(fake(tmp_path, "old", version)))
    assert caught.value.code == "store_no_server"


def test_an_explicit_one_that_does_not_run_is_refused_not_replaced() -> None:
    with pytest.raises(StoreError) as caught:
        find_server("/nonexistent/redis-server")
    assert caught.value.code == "store_no_server"


def test_none_at_all_says_what_to_do(on_path: Path) -> None:
    with pytest.raises(StoreError, match="none was found; install one or set a redis url"):
        find_server()
