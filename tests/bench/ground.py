"""What every measurement stands on: cores, ports, processes that are started here and ended by pid, their CPU time."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv" / "bin" / "python"
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class BenchError(Exception):
    """Something is missing or did not start. The report says so in its row; the other rows go on."""


@dataclass(frozen=True, slots=True)
class Cores:
    """Which core is for the proxy under test and which for load and upstream. None: this machine has but one."""

    proxy: int | None
    load: int | None

    @staticmethod
    def of_this_machine() -> Cores:
        usable = sorted(os.sched_getaffinity(0))
        if len(usable) < 2 or shutil.which("taskset") is None:
            return Cores(None, None)
        return Cores(usable[0], usable[1])


def pinned(core: int | None, command: Sequence[str]) -> list[str]:
    return list(command) if core is None else ["taskset", "-c", str(core), *command]


def free_port() -> int:
    """A port that nobody listens on now. Somebody may take it before it is used: the start then fails and says so."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Running:
    """A process that was started here."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self.log = log

    @property
    def pid(self) -> int:
        return self.process.pid

    def last_words(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines() if self.log.exists() else []
        return lines[-1][:200] if lines else "it said nothing"


@contextmanager
def running(
    command: Sequence[str], *, log: Path, core: int | None = None, environment: Mapping[str, str] | None = None
) -> Iterator[Running]:
    """Start a process with its output in `log`; end it and whatever it started, each by its pid."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(
            pinned(core, command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", **(environment or {})},
            cwd=ROOT,
        )
    try:
        yield Running(process, log)
    finally:
        family = tree(process.pid)
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(5)
        for pid, birth in family.items():
            if started_at(pid) == birth:  # it is still the process that we saw, not another that got its number
                os.kill(pid, signal.SIGKILL)


def await_port(port: int, child: Running, seconds: float) -> float:
    """Until something listens; returns how long that took. Raises BenchError when the process ends or time is up."""
    begin = time.monotonic()
    while time.monotonic() - begin < seconds:
        if child.process.poll() is not None:
            raise BenchError(f"it ended with {child.process.returncode}: {child.last_words()}")
        with socket.socket() as sock:
            sock.settimeout(1)
            if sock.connect_ex(("127.0.0.1", port)) == 0:
                return time.monotonic() - begin
        time.sleep(0.02)
    raise BenchError(f"it did not listen within {seconds:.0f} s: {child.last_words()}")


def ticks() -> list[int]:
    """The kernel's count of what all cores did, by kind."""
    return [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]


def stolen(before: Sequence[int], after: Sequence[int]) -> float:
    """The share of time in which a core was wanted and the hypervisor had given it away."""
    spent = [late - early for early, late in zip(before, after, strict=True)]
    return spent[7] / max(sum(spent), 1)


def _stat(pid: int) -> list[str] | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text[text.rindex(")") + 2 :].split()  # from field 3, `state`, on


def started_at(pid: int) -> str | None:
    fields = _stat(pid)
    return None if fields is None else fields[19]


def tree(pid: int) -> dict[int, str]:
    """A process and its descendants, with when each was started."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))) is not None:
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found: dict[int, str] = {}
    pending = [pid]
    while pending:
        each = pending.pop()
        birth = started_at(each)
        if birth is not None and each not in found:
            found[each] = birth
            pending += children.get(each, [])
    return found


def cpu_s(pid: int) -> dict[int, float]:
    """User and system seconds of each process of the tree; what ended children took counts for their parent."""
    times: dict[int, float] = {}
    for each in tree(pid):
        fields = _stat(each)
        if fields is not None:
            times[each] = sum(int(ticks) for ticks in fields[11:15]) / TICKS_PER_S
    return times


def cpu_between(before: Mapping[int, float], after: Mapping[int, float]) -> float:
    """Seconds of CPU that the tree took between two readings."""
    return sum(seconds - before.get(pid, 0.0) for pid, seconds in after.items())


def own_rss_bytes(pid: int) -> int:
    """Resident memory of one process."""
    fields = _stat(pid)
    return 0 if fields is None else int(fields[21]) * PAGE_BYTES


def rss_bytes(pid: int) -> int:
    """Resident memory of the tree; pages that processes share count once for each."""
    return sum(own_rss_bytes(each) for each in tree(pid))
