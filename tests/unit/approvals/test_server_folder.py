"""The embedded server's folder: modes, socket paths that are too long, locks."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from gateway.approvals.server_folder import SOCKET_PATH_BYTES_MAX, ServerFolder, StateLock
from gateway.core.errors import StoreError


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def long_folder(tmp_path: Path) -> ServerFolder:
    folder = ServerFolder(tmp_path / ("x" * SOCKET_PATH_BYTES_MAX) / "redis")
    folder.make()
    return folder


def test_the_folder_is_private_also_when_it_was_not(tmp_path: Path) -> None:
    path = tmp_path / "state" / "redis"
    path.mkdir(parents=True, mode=0o755)
    ServerFolder(path).make()
    assert mode(path) == 0o700


def test_a_folder_that_cannot_be_made_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    with pytest.raises(StoreError) as caught:
        ServerFolder(tmp_path / "state" / "redis").make()
    assert caught.value.code == "store_start_failed"


def test_the_socket_is_in_the_folder_when_its_path_is_short(tmp_path: Path) -> None:
    folder = ServerFolder(tmp_path / "redis")
    folder.make()
    folder.choose_socket()
    assert folder.socket_path() == tmp_path / "redis" / "redis.sock"


def test_a_long_path_gets_a_short_private_folder_that_is_found_again(tmp_path: Path) -> None:
    folder = long_folder(tmp_path)
    folder.choose_socket()
    at = folder.socket_path()
    assert len(bytes(at)) <= SOCKET_PATH_BYTES_MAX
    assert mode(at.parent) == 0o700
    again = ServerFolder(folder.path)
    again.choose_socket()
    assert again.socket_path() == at
    again.clear_socket()
    assert not at.parent.exists()


def test_a_noted_folder_that_others_may_enter_is_not_used_again(tmp_path: Path) -> None:
    folder = long_folder(tmp_path)
    folder.choose_socket()
    first = folder.socket_path().parent
    first.chmod(0o777)
    folder.choose_socket()
    second = folder.socket_path().parent
    assert second != first
    first.rmdir()
    folder.clear_socket()


def test_a_lock_has_one_holder(tmp_path: Path) -> None:
    one, two = StateLock(tmp_path / "lock"), StateLock(tmp_path / "lock")
    assert one.take()
    assert one.take()
    assert not two.take()
    one.release()
    assert two.take()
    two.release()


def test_a_lock_file_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError):
        StateLock(tmp_path / "lock").take()
    assert not (tmp_path / "elsewhere").exists()
