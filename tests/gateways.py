"""A whole gateway for tests: the real application on loopback ports, in a thread with an event loop of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop

from gateway.policy.identity import mint

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
    from gateway.app import running
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
