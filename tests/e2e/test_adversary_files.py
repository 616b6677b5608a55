"""What another user of the machine could read, whatever the umask and the folder that the operator prepared."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from tests.gateways import running_gateway


def test_every_file_of_the_state_folder_is_for_its_user_alone(tmp_path: Path) -> None:
    state = tmp_path / "state"
    before = os.umask(0)
    try:
        state.mkdir(mode=0o755)  # by the operator, before
        with running_gateway(state):
            modes = {path.relative_to(state): stat.S_IMODE(path.lstat().st_mode) for path in state.rglob("*")}
    finally:
        os.umask(before)
    assert len(modes) > 8
    assert {str(path): oct(mode) for path, mode in modes.items() if mode & 0o077} == {}
