"""Notices that the files of a bundle changed. No thread and no clock of its own: the caller polls.

The last good set stays in force until a better one loads; what was wrong with the last attempt can be read.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from gateway.core.errors import PolicyLoadError
from gateway.policy.load import bundle_files, load_bundle
from gateway.policy.policyset import PolicySet

_Prints = tuple[tuple[str, int, int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchStatus:
    """What is in force, and what is wrong with the files as they are now. `problems` is empty when nothing is."""

    release: str | None = None
    loaded_at_s: float | None = None
    problems: tuple[str, ...] = ()
    failed_at_s: float | None = None

    @property
    def stale(self) -> bool:
        """Whether the files say something else than what is in force."""
        return bool(self.problems)


class BundleWatcher:
    """Polls names, sizes and times of the files; loads when they changed and then stood still for one poll, so that a
    half-written checkout is not taken for a policy. One poll costs about 40 µs a file; a load blocks (see load_bundle).
    """

    def __init__(
        self,
        path: Path,
        *,
        environment: Mapping[str, str],
        known_kinds: Collection[str] | None = None,
        known_obligations: Collection[str] | None = None,
    ) -> None:
        self._path = path
        self._environment = environment
        self._known_kinds = known_kinds
        self._known_obligations = known_obligations
        self._tried: _Prints | None = None
        self._seen: _Prints | None = None
        self.current: PolicySet | None = None
        self.status = WatchStatus()

    def start(self, now: float) -> PolicySet:
        """The first load. Raises PolicyLoadError: there is no last good set to fall back on."""
        loaded = self.reload(now)
        if loaded is None:
            raise PolicyLoadError(self.status.problems)
        return loaded

    def poll(self, now: float) -> PolicySet | None:
        """A new set when the files changed and are good; None when there is nothing new."""
        prints = self._look()
        still, self._seen = prints == self._seen, prints
        return self.reload(now) if still and prints != self._tried else None

    def reload(self, now: float) -> PolicySet | None:
        """Load now, whatever poll thinks (SIGHUP). None when the bundle is bad or says what is already in force."""
        self._tried = self._seen = self._look()
        try:
            loaded = load_bundle(
                self._path,
                known_kinds=self._known_kinds,
                known_obligations=self._known_obligations,
                environment=self._environment,
            )
        except PolicyLoadError as error:
            self.status = WatchStatus(
                release=self.status.release,
                loaded_at_s=self.status.loaded_at_s,
                problems=error.problems,
                failed_at_s=now,
            )
            return None
        self.status = WatchStatus(release=loaded.release, loaded_at_s=now)
        if self.current is not None and self.current.release == loaded.release:
            return None
        self.current = loaded
        return loaded

    def _look(self) -> _Prints:
        """Name, time, size and inode of every file; a file that goes away meanwhile is one that changed."""
        prints = []
        try:
            for name, file in bundle_files(self._path):
                found = file.stat()
                prints.append((name, found.st_mtime_ns, found.st_size, found.st_ino))
        except OSError:
            prints.append(("", 0, 0, 0))
        return tuple(prints)
