"""A bundle that changes under a running gateway."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gateway.core.errors import PolicyLoadError
from gateway.policy import BundleWatcher
from tests.policy_bundles import write_bundle

ALLOW = "applies_to: {agents: ['*']}\ndefault: allow\n"
DENY = "applies_to: {agents: ['*']}\ndefault: deny\n"


def watching(folder: Path) -> BundleWatcher:
    watcher = BundleWatcher(write_bundle(folder, {"policies/a.yaml": ALLOW}), environment={})
    watcher.start(100.0)
    return watcher


def test_nothing_new_is_nothing(tmp_path: Path) -> None:
    watcher = watching(tmp_path)
    assert watcher.poll(101.0) is None and watcher.poll(102.0) is None
    assert watcher.current is not None
    assert watcher.status.release == watcher.current.release
    assert (watcher.status.loaded_at_s, watcher.status.problems, watcher.status.stale) == (100.0, (), False)


def test_change_is_taken_once_the_files_stand_still(tmp_path: Path) -> None:
    watcher = watching(tmp_path)
    before = watcher.current
    write_bundle(tmp_path, {"policies/a.yaml": DENY})
    assert watcher.poll(101.0) is None, "it may be half of a checkout"
    write_bundle(tmp_path, {"policies/b.yaml": DENY})
    assert watcher.poll(102.0) is None, "it still moves"
    after = watcher.poll(103.0)
    assert after is not None and after is watcher.current and after is not before
    assert [policy.name for policy in after.policies] == ["a", "b"]
    assert watcher.status.loaded_at_s == 103.0
    assert watcher.poll(104.0) is None


def test_bad_change_keeps_the_last_good_set_and_says_so(tmp_path: Path) -> None:
    watcher = watching(tmp_path)
    good = watcher.current
    write_bundle(tmp_path, {"policies/a.yaml": "applies_to: {agents: ['*']}\ndefualt: deny\n"})
    watcher.poll(101.0)
    assert watcher.poll(102.0) is None
    assert watcher.current is good and good is not None
    assert watcher.status.stale and watcher.status.failed_at_s == 102.0
    assert watcher.status.release == good.release and watcher.status.loaded_at_s == 100.0
    assert "did you mean `default`?" in watcher.status.problems[0]
    assert watcher.poll(103.0) is None, "the same bad files are not read again and again"

    write_bundle(tmp_path, {"policies/a.yaml": ALLOW})
    os.utime(tmp_path / "policies" / "a.yaml", ns=(5, 5))
    watcher.poll(104.0)
    assert watcher.poll(105.0) is None, "what is in force is what the files say again"
    assert not watcher.status.stale and watcher.current is good


def test_reload_does_not_wait(tmp_path: Path) -> None:
    watcher = watching(tmp_path)
    write_bundle(tmp_path, {"policies/a.yaml": DENY})
    after = watcher.reload(101.0)
    assert after is not None and watcher.current is after
    assert watcher.poll(102.0) is None and watcher.reload(103.0) is None


def test_file_that_goes_away_and_folder_that_goes_away(tmp_path: Path) -> None:
    watcher = watching(tmp_path)
    (tmp_path / "policies" / "a.yaml").unlink()
    watcher.poll(101.0)
    after = watcher.poll(102.0)
    assert after is not None and after.policies == ()
    (tmp_path / "bundle.yaml").unlink()
    watcher.poll(103.0)
    assert watcher.poll(104.0) is None
    assert watcher.current is after and watcher.status.stale


def test_editor_leftovers_are_no_change(tmp_path: Path) -> None:
    watcher = watching(tmp_path)
    for name in (".a.yaml.swp", "a.yaml~", "#a.yaml#"):
        (tmp_path / "policies" / name).write_text("x")
    assert watcher.poll(101.0) is None and watcher.poll(102.0) is None
    assert watcher.status.problems == ()


def test_first_load_must_be_good(tmp_path: Path) -> None:
    with pytest.raises(PolicyLoadError):
        BundleWatcher(write_bundle(tmp_path, {"policies/a.yaml": "x: 1\n"}), environment={}).start(1.0)
