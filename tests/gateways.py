"""A whole gateway for tests: the real application on loopback ports, in a thread with an event loop of its own."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import uvloop

from gateway.approvals import EmbeddedRedis
from gateway.policy.identity import mint
from tests.servers import ask

BUNDLE = Path(__file__).parent / "e2e" / "bundle"


@dataclass
class Running:
    """Where it is, and keys for it."""

    url: str
    console: str
    keys: dict[str, str]
    approver: str
    state_dir: Path
    gateway: Any
    loop: asyncio.AbstractEventLoop

    def headers(self, agent: str = "tester") -> dict[str, str]:
        return {"authorization": f"Bearer {self.keys[agent]}"}


@contextmanager
def running_gateway(
    state_dir: Path,
    *,
    agents: tuple[str, ...] = ("tester", "stranger", "hasty"),
    bundle: Path = BUNDLE,
    **settings: Any,
) -> Iterator[Running]:
    """Started with free ports and an embedded Redis in `state_dir`; stopped at the end of the block."""
    from gateway.assembly import running
    from gateway.settings import Settings

    keys = {name: mint(state_dir / "keys.yaml", "agent", name) for name in agents}
    approver = mint(state_dir / "keys.yaml", "approver", "ana", ("testers", "finance", "approvers"))
    values = {"port": 0, "console_port": 0, "hold_wait_s": 0, "shutdown_s": 2, **settings}
    chosen = Settings(bundle=bundle, state_dir=state_dir, **values)
    ready = threading.Event()
    box: dict[str, Any] = {}

    async def main() -> None:
        box["stop"] = asyncio.Event()
        box["loop"] = asyncio.get_running_loop()
        async with running(chosen) as gateway:
            box["gateway"] = gateway
            ready.set()
            await box["stop"].wait()

    def work() -> None:
        try:
            uvloop.run(main())
        except BaseException as error:
            box["error"] = error
        finally:
            ready.set()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    assert ready.wait(30), "the gateway did not start"
    if "error" in box:
        raise box["error"]
    gateway = box["gateway"]
    try:
        yield Running(gateway.data_url, gateway.console_url, keys, approver, state_dir, gateway, box["loop"])
    finally:
        box["loop"].call_soon_threadsafe(box["stop"].set)
        thread.join(30)
        if "error" in box:
            raise box["error"]


class GatewayProcess:
    """`gateway serve` as a process of its own, on fixed free ports, so that it can be killed and started again."""

    def __init__(self, state_dir: Path, *, bundle: Path = BUNDLE, **environment: str) -> None:
        self.state_dir = state_dir
        state_dir.mkdir(parents=True, exist_ok=True)
        self.key = mint(state_dir / "keys.yaml", "agent", "tester")
        self.approver = mint(state_dir / "keys.yaml", "approver", "ana", ("testers", "finance", "approvers"))
        ports = [_free_port(), _free_port()]
        self.url, self.console = (f"http://127.0.0.1:{port}" for port in ports)
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")},
            "GATEWAY_BUNDLE": str(bundle),
            "GATEWAY_STATE_DIR": str(state_dir),
            "GATEWAY_PORT": str(ports[0]),
            "GATEWAY_CONSOLE_PORT": str(ports[1]),
            "GATEWAY_HOLD_WAIT_S": "0",
            **environment,
        }
        self.process: subprocess.Popen[bytes] | None = None
        self.log = state_dir / "gateway.log"

    def start(self) -> None:
        """Returns once it is ready."""
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gateway", "serve"], env=self.environment, stdout=output, stderr=output
            )
        deadline = time.monotonic() + 30
        while True:
            assert self.process.poll() is None and time.monotonic() < deadline, self.log.read_text()[-3000:]
            with suppress(httpx2.TransportError):
                if httpx2.get(f"{self.url}/readyz").status_code == 200:
                    return
            time.sleep(0.02)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(40)

    @property
    def server_pid(self) -> int:
        """The process id of the embedded Redis."""
        facts = ask(EmbeddedRedis(self.state_dir).url, "INFO", "server")
        assert isinstance(facts, bytes)
        return int(facts.split(b"process_id:")[1].split()[0])

    def api(self, path: str, body: dict[str, Any] | None = None) -> Any:
        headers = {"authorization": f"Bearer {self.approver}"}
        if body is None:
            answer = httpx2.get(self.console + path, headers=headers)
        else:
            answer = httpx2.post(self.console + path, headers=headers, json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])
