"""A real console in a thread: real queue on a throwaway Redis, real trace store, uvicorn on a loopback port."""

from __future__ import annotations

import asyncio
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import uvicorn
from starlette.applications import Starlette

from gateway.approvals.held_action import HeldAction, Proposal
from gateway.approvals.link import RedisLink, connect
from gateway.approvals.queue import Queue
from gateway.console import ConsoleDeps, console_app
from gateway.core.action import Action, Surface
from gateway.core.canonical import JSON
from gateway.core.decision import ApprovalTerms, Decision, Effect, Reason
from gateway.core.filtering import Masked
from gateway.policy.identity import Keyring, load_keyring, mint
from gateway.traces import Recorder, TraceStore
from gateway.traces.query import RunStore

T = TypeVar("T")
LINK_TOKEN = "link-token-of-this-test-run-0123456789"


class Clock:
    """Wall time that a test may move."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead_s


@dataclass
class Status:
    release: str = "5f2a" * 16
    loaded_at: float = field(default_factory=time.time)
    problems: tuple[str, ...] = ()


def held_proposal(
    arguments: Mapping[str, JSON],
    *,
    agent: str = "bookkeeper",
    tool: str = "bank.transfer",
    reason: str = "Transfers need a person",
    terms: ApprovalTerms | None = None,
    **more: Any,
) -> Proposal:
    server, _, name = tool.partition(".")
    surface = Surface.MODEL if server == "local" else Surface.MCP
    action = Action(
        surface=surface, server=server, tool=name, arguments=arguments, upstream=server, definition="d1" * 32,
        credential=None if server == "local" else f"{server}-key",
    )  # fmt: skip
    decision = Decision(
        effect=Effect.HOLD,
        reasons=(Reason(policy="payments", rule="transfers", effect=Effect.HOLD, text=reason),),
        release="5f2a" * 16,
        terms=terms or ApprovalTerms(group="finance"),
    )
    return Proposal.of(action, decision, agent=agent, **more)


class RunningConsole:
    """The console and the rooms behind it. Calls to the queue run on its own loop."""

    def __init__(self, redis_url: str, folder: Path, *, link_token: str | None, public_url: str | None) -> None:
        self.folder = folder
        self.clock = Clock()
        self.status = Status()
        self.policy: Callable[[], Status] = lambda: self.status
        self.mask: Callable[[str], str] = lambda text: text
        self.metrics = b"gateway_store_up 1\n"
        self.keys_path = folder / "keys.yaml"
        self.redis_url = redis_url
        self._link_token = link_token
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self.public_url = public_url or self.url
        self.recorder = Recorder(TraceStore(folder / "traces.db"), Masked)
        self.runs = RunStore(folder / "traces.db")
        self.app: Starlette
        self.queue: Queue
        self._link: RedisLink
        self._server: uvicorn.Server
        self._thread = threading.Thread(target=self._run, name="console-under-test", daemon=True)

    @property
    def sign_in_url(self) -> str:
        return f"{self.url}/sign-in?token={LINK_TOKEN}"

    def keyring(self) -> Keyring:
        return load_keyring(self.keys_path)

    def approver(self, name: str, *groups: str) -> str:
        return mint(self.keys_path, "approver", name, groups)

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def propose(self, arguments: Mapping[str, JSON], *, now: float | None = None, **more: Any) -> HeldAction:
        proposal = held_proposal(arguments, **more)
        held, _ = self.call(self.queue.propose(proposal, now=self.clock() if now is None else now))
        return held

    def get(self, id: str) -> HeldAction:  # noqa: A002 - the word of the glossary
        held = self.call(self.queue.get(id))
        assert held is not None
        return held

    def start(self) -> None:
        self.recorder.start()
        self._thread.start()
        assert self._started.wait(20)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._close)
        self._thread.join(20)
        self.recorder.close()
        assert not self._thread.is_alive()

    def _close(self) -> None:
        self.app.state.live.close()
        self._server.should_exit = True

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _scraped(self) -> bytes:
        return self.metrics

    async def _serve(self) -> None:
        self._link = connect(self.redis_url)
        self.queue = Queue(self._link)
        deps = ConsoleDeps(
            queue=self.queue,
            runs=self.runs,
            status=lambda: self.policy(),  # noqa: PLW0108 - tests replace it later
            keyring=self.keyring,
            secret=b"s" * 32,
            public_url=self.public_url,
            sign_in_token=self._link_token,
            mask_text=lambda text: self.mask(text),  # noqa: PLW0108 - tests replace it later
            metrics=self._scraped,
            clock=self.clock,
        )
        self.app = console_app(deps)
        config = uvicorn.Config(self.app, log_level="warning", lifespan="off", ws="none", timeout_graceful_shutdown=2)
        self._server = uvicorn.Server(config)
        self._server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
        serving = asyncio.create_task(self._server.serve(sockets=[self._socket]))
        while not self._server.started:
            await asyncio.sleep(0)
        self._started.set()
        await serving
        await self.queue.aclose()
        await self._link.aclose()


@contextmanager
def running_console(
    redis_url: str, *, link_token: str | None = LINK_TOKEN, public_url: str | None = None
) -> Iterator[RunningConsole]:
    with tempfile.TemporaryDirectory(prefix="gw-console-") as folder:
        console = RunningConsole(redis_url, Path(folder), link_token=link_token, public_url=public_url)
        console.start()
        try:
            yield console
        finally:
            console.stop()
