"""What is in force now: policy release, keys, addresses. Reloads files; a mistake in them changes nothing."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from gateway.approvals import RedisLink
from gateway.core.errors import PolicyLoadError
from gateway.policy import BundleWatcher, PolicySet
from gateway.policy.identity import Keyring, load_keyring
from gateway.settings import Settings
from gateway.traces import AuditLog

log = logging.getLogger("gateway")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsoleStatus:
    """Which release is in force, since when, and what is wrong with the files as they are now."""

    release: str
    loaded_at: float
    problems: tuple[str, ...]


class Gateway:
    """The running product: what is in force now, and its addresses."""

    def __init__(self, settings: Settings, watcher: BundleWatcher, keyring: Keyring) -> None:
        self.settings = settings
        self.watcher = watcher
        self.keyring = keyring
        self.policy: PolicySet = watcher.start(time.time())
        self.ready = False
        self.failed = asyncio.Event()
        self.link: RedisLink | None = None
        self.audit: AuditLog | None = None
        self.data_url = ""
        self.console_url = ""
        self.sign_in_url: str | None = None
        self._keys_seen = _stamp(settings.keys_path)

    def status(self) -> ConsoleStatus:
        """What the console shows of the bundle."""
        status = self.watcher.status
        return ConsoleStatus(release=self.policy.release, loaded_at=status.loaded_at_s or 0.0, problems=status.problems)

    def reload(self, *, now: bool = False) -> None:
        """Look at the files; `now` loads them even if they seem unchanged. A bundle or keys file with a mistake changes
        nothing but the status."""
        known = self.watcher.status.problems
        loaded = self.watcher.reload(time.time()) if now else self.watcher.poll(time.time())
        if loaded is not None:
            self.policy = loaded
            log.info("bundle reloaded: release %s is in force", loaded.release[:12])
        problems = self.watcher.status.problems
        if problems and problems != known:
            log.error("bundle NOT reloaded, release %s stays in force", self.policy.release[:12])
            for problem in problems:
                log.error("  %s", problem)
        seen = _stamp(self.settings.keys_path)
        if seen != self._keys_seen:
            self._keys_seen = seen
            try:
                self.keyring = load_keyring(self.settings.keys_path)
                log.info("keys reloaded")
            except PolicyLoadError as error:
                log.error("keys NOT reloaded: %s", error.message)

    def report(self) -> tuple[bool, dict[str, object]]:
        """What `/readyz` says: it is open to agents, so it counts problems and does not quote files."""
        problems = self.watcher.status.problems
        return self.ready, {
            "status": "ready" if self.ready else "starting",
            "release": self.policy.release,
            "bundle": "reload_failed" if problems else "in_force",
            "bundle_problems": len(problems),
            "store": "connected" if self.link is not None and self.link.connected else "away",
        }

    def announce(self) -> None:
        """Tell the operator where everything is, once it answers."""
        lines = [
            f"agents    {self.data_url}   (OpenAI: {self.data_url}/v1, MCP: {self.data_url}/mcp/<server>)",
            f"console   {self.console_url}",
            f"bundle    {self.settings.bundle} (release {self.policy.release[:12]})",
        ]
        if self.sign_in_url:
            lines.append(f"sign in   {self.sign_in_url}")
        if not any(role == "agent" for role, _ in self.keyring.credentials):
            agent = next(iter(self.policy.agents), "NAME")
            lines.append(f"next      no agent has a key yet: gateway keys create {agent}")
        print("\n".join(["", *lines, ""]), file=sys.stderr, flush=True)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
