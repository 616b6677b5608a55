"""Puts the rooms together and keeps them running: one process, two listeners, one event loop.

Start: settings, bundle, keys, store, filters, recorder, listeners. Stop: listeners first, then what is in flight, then
the recorder, the store last. Nothing here decides anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn
import uvloop

from gateway.approvals import EmbeddedRedis, Queue, QueueLimits, RedisLink, connect
from gateway.console import ConsoleDeps, console_app
from gateway.core.errors import GatewayError, PolicyLoadError, StoreError
from gateway.exposition import Observed, exposition
from gateway.filters import KINDS, Scanner, mask_for_storage, mask_text
from gateway.listener import BoundedProtocol
from gateway.policy import BundleWatcher, PolicySet, load_bundle
from gateway.policy.identity import Keyring, load_keyring
from gateway.proxy.definitions import Definitions
from gateway.proxy.deps import Deps
from gateway.proxy.execution import Executor
from gateway.proxy.http_calls import Operations
from gateway.proxy.http_surface import HttpSurface
from gateway.proxy.limits import Limiter
from gateway.proxy.mcp_client import McpClient
from gateway.proxy.mcp_surface import McpSurface
from gateway.proxy.model import ModelSurface
from gateway.proxy.obligations import KNOWN_OBLIGATIONS
from gateway.proxy.plane import DataPlane
from gateway.proxy.pool import Pool, PoolLimits
from gateway.proxy.tool_calls import ToolGate
from gateway.settings import Settings
from gateway.traces import AuditLog, Metrics, Recorder, RecorderLimits, Retention, RunStore, TraceStore, attachments

log = logging.getLogger("gateway")

WATCH_S = 1.0  # how soon an edited policy or key is in force
SWITCH_S = 0.0005
GARBAGE_OBJECTS = 20_000  # young objects that start a collection: some hundred requests, a few MB
SWEEP_S = 5.0  # expiry is checked at every claim and decision; the sweep only tidies
STORE_WAIT_S = 20.0  # a store that starts beside the gateway may need a moment


def serve(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)-7s %(message)s", stream=sys.stderr)
    for chatty in ("presidio-analyzer", "opentelemetry", "tldextract"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    try:
        return uvloop.run(_serve(settings))
    except PolicyLoadError as error:
        for problem in error.problems:
            print(problem, file=sys.stderr)
        print(f"the bundle {settings.bundle} was not loaded", file=sys.stderr)
    except GatewayError as error:
        print(error.message, file=sys.stderr)
    return 1


def check(settings: Settings) -> int:
    """Load everything that `serve` would, reach the store, print what was found; 0 when it could serve."""
    try:
        policy = load_bundle(
            settings.bundle, known_kinds=KINDS, known_obligations=KNOWN_OBLIGATIONS, environment=os.environ
        )
        keyring = load_keyring(settings.keys_path)
        print(f"bundle   {settings.bundle}: release {policy.release[:12]}, {len(policy.agents)} agents")
        names = {entry.name for entry in keyring.credentials.values() if entry.role == "agent"}
        print(f"keys     {settings.keys_path}: {len(keyring.credentials)} ({len(names)} agents)")
        for name in sorted(names - set(policy.agents)):
            print(f"         `{name}` has a key but is not in the bundle: its calls are refused")
        print(f"store    {asyncio.run(_reach(settings))}")
    except PolicyLoadError as error:
        print("\n".join(error.problems), file=sys.stderr)
        return 1
    except GatewayError as error:
        print(error.message, file=sys.stderr)
        return 1
    return 0


async def _reach(settings: Settings) -> str:
    if settings.redis_url is None:
        return f"embedded, in {settings.state_dir / 'redis'}"
    link = connect(settings.redis_url)
    try:
        await link.command("PING")
    finally:
        await link.aclose()
    return "reached"


async def _serve(settings: Settings) -> int:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    async with AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(running(settings))
        loop.add_signal_handler(signal.SIGHUP, partial(gateway.reload, now=True))
        gateway.announce()
        failed = asyncio.ensure_future(gateway.failed.wait())
        await asyncio.wait({failed, asyncio.ensure_future(stopping.wait())}, return_when=asyncio.FIRST_COMPLETED)
        failed.cancel()
        log.info("stopping; waiting up to %s s for what is in flight", settings.shutdown_s)
    return 1 if gateway.failed.is_set() else 0


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


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Gateway]:
    """A gateway that serves until the block ends. Raises a GatewayError if it cannot start."""
    settings.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    watcher = BundleWatcher(
        settings.bundle, known_kinds=KINDS, known_obligations=KNOWN_OBLIGATIONS, environment=os.environ
    )
    gateway = Gateway(settings, watcher, load_keyring(settings.keys_path))
    async with AsyncExitStack() as stack:
        scanner = Scanner(cache_bytes_max=settings.scan_cache_bytes_max)
        warm = asyncio.create_task(asyncio.to_thread(scanner.warm))  # imports Presidio beside the rest of the start
        stack.callback(warm.cancel)
        link = gateway.link = await _store(settings, stack)
        queue = Queue(
            link,
            limits=QueueLimits(pending_per_agent_max=settings.held_per_agent_max, result_ttl_s=settings.hold_ttl_s),
        )
        stack.push_async_callback(queue.aclose)
        metrics = Metrics()
        recorder = _recorder(settings, scanner, metrics, stack)
        audit = AuditLog(settings.audit_path)
        stack.callback(audit.close)
        pool = Pool(PoolLimits(connections_max=settings.upstream_connections_max))
        stack.push_async_callback(pool.aclose)
        deps = Deps(
            policy=lambda: gateway.policy,
            scanner=scanner,
            queue=queue,
            pool=pool,
            recorder=recorder,
            audit=audit,
            definitions=Definitions(McpClient(pool), clock=time.time),
            session_key=await _shared_secret(link, "session"),
            hold_wait_s=settings.hold_wait_s,
            body_bytes_max=settings.body_bytes_max,
            response_bytes_max=settings.body_bytes_max,
        )
        stack.push_async_callback(deps.definitions.aclose)
        limiter = Limiter(link)
        stack.push_async_callback(limiter.aclose)
        plane = _plane(deps, limiter, gateway)
        data_socket = _bind(settings.host, settings.port, "GATEWAY_PORT")
        console_socket = _bind(settings.console_host, settings.console_port, "GATEWAY_CONSOLE_PORT")
        gateway.data_url = f"http://{_authority(data_socket)}"
        gateway.console_url = settings.console_url or f"http://{_authority(console_socket)}"
        observed = Observed(queue=queue, recorder=recorder, scanner=scanner, pool=pool, watcher=watcher)
        console = await _console(gateway, queue, link, scanner, exposition(metrics, observed))
        await warm
        executor = Executor(deps, drain_s=float(settings.shutdown_s))
        for work in (executor.run, partial(_watch, gateway), partial(_sweep, queue)):
            stack.push_async_callback(_stop, asyncio.create_task(_watched(work, gateway)))
        await stack.enter_async_context(
            _listener(console, console_socket, settings.shutdown_s, before_stop=console.state.live.close)
        )
        await stack.enter_async_context(_listener(plane, data_socket, settings.shutdown_s))
        _settle_memory()
        gateway.ready = True
        yield gateway
        gateway.ready = False


def _settle_memory() -> None:
    """What was loaded for good is not looked at by the collector again, and young garbage is looked at less often:
    requests make few cycles, and a full collection over a million loaded objects stops every stream for 100 ms."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE_OBJECTS, 20, 50)
    # The recorder's thread may not keep the event loop waiting for the interpreter's lock for the usual 5 ms: the loop
    # gives it up in every system call and every scan.
    sys.setswitchinterval(SWITCH_S)


async def _store(settings: Settings, stack: AsyncExitStack) -> RedisLink:
    """A link to the operator's Redis, or to a server of our own that outlives a crash of this process."""
    url = settings.redis_url
    if url is None:
        binary = str(settings.redis_binary) if settings.redis_binary else None
        embedded = EmbeddedRedis(settings.state_dir, binary=binary)
        url = await asyncio.to_thread(embedded.start)
        stack.push_async_callback(asyncio.to_thread, embedded.stop)
        stack.push_async_callback(_stop, asyncio.create_task(embedded.supervise()))
    link = connect(url)
    stack.push_async_callback(link.aclose)
    deadline = time.monotonic() + STORE_WAIT_S
    while True:
        try:
            await link.command("PING")
            return link
        except StoreError:
            if time.monotonic() > deadline:
                raise StoreError(message=f"no Redis answers at {link.endpoint}; check GATEWAY_REDIS_URL") from None
            await asyncio.sleep(0.2)


def _recorder(settings: Settings, scanner: Scanner, metrics: Metrics, stack: AsyncExitStack) -> Recorder:
    recorder = Recorder(
        TraceStore(settings.traces_path),
        partial(mask_for_storage, scanner),
        limits=RecorderLimits(body_bytes_max=settings.trace_body_bytes_max, content_ratio=settings.trace_content),
        retention=Retention(content_days=settings.trace_days, bytes_max=settings.trace_bytes_max),
        attachments=attachments(metrics),
    )
    recorder.start()
    stack.push_async_callback(asyncio.to_thread, recorder.close)
    return recorder


def _plane(deps: Deps, limiter: Limiter, gateway: Gateway) -> DataPlane:
    gate = ToolGate(deps)
    http = HttpSurface(gate, Operations())
    return DataPlane(
        deps,
        keyring=lambda: gateway.keyring,
        limiter=limiter,
        handlers={
            "/v1/": ModelSurface(deps, limiter),
            "/mcp/": McpSurface(gate),
            "/tools/": http,
            "/held/": http.held,
        },
        ready=gateway.report,
    )


async def _console(
    gateway: Gateway, queue: Queue, link: RedisLink, scanner: Scanner, metrics: Callable[[], Awaitable[bytes]]
) -> Any:
    settings = gateway.settings
    token = secrets.token_urlsafe(32) if settings.redis_url is None else None
    deps = ConsoleDeps(
        queue=queue,
        runs=RunStore(settings.traces_path),
        status=gateway.status,
        keyring=lambda: gateway.keyring,
        secret=await _shared_secret(link, "console"),
        public_url=gateway.console_url,
        sign_in_token=token,
        mask_text=partial(mask_text, scanner),
        metrics=metrics,
    )
    if token is not None:
        gateway.sign_in_url = deps.sign_in_url
        path = settings.state_dir / "sign-in-link"
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as stream:
            stream.write(deps.sign_in_url + "\n")
    return console_app(deps)


async def _shared_secret(link: RedisLink, name: str) -> bytes:
    """A secret that was drawn once and is shared by all processes of the store: what signs sessions."""
    await link.command("SET", f"gw:secret:{name}", secrets.token_bytes(32), "NX")
    found: bytes = await link.command("GET", f"gw:secret:{name}")
    return found


async def _watch(gateway: Gateway) -> None:
    while True:
        await asyncio.sleep(WATCH_S)
        gateway.reload()


async def _sweep(queue: Queue) -> None:
    while True:
        await asyncio.sleep(SWEEP_S * (0.5 + secrets.randbelow(1000) / 1000))
        try:
            await queue.sweep(now=time.time())
        except StoreError:
            continue  # the store is away; what is due is due again next time


async def _watched(work: Callable[[], Awaitable[None]], gateway: Gateway) -> None:
    """Background work that must not end. If it does, the process stops loudly rather than serve without it."""
    try:
        await work()
    except asyncio.CancelledError:
        raise
    except BaseException as error:
        log.critical("stopping: background work failed with %s", type(error).__name__, exc_info=True)
        gateway.failed.set()
        raise


async def _stop(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError, Exception):
        await task


def _bind(host: str, port: int, setting: str) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise StoreError(
            "address_in_use", f"cannot listen on {host}:{port} ({error.strerror}); set {setting} to another port"
        ) from None


def _authority(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - shown, not bound
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # the gateway has two servers and handles the signals once for both


@asynccontextmanager
async def _listener(
    app: Any, listener: socket.socket, shutdown_s: int, *, before_stop: Callable[[], None] | None = None
) -> AsyncIterator[None]:
    config = uvicorn.Config(
        app,
        http=BoundedProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=shutdown_s,
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started:
        await asyncio.sleep(0.001)
        if task.done():
            await task
    try:
        yield
    finally:
        if before_stop is not None:
            before_stop()  # open event streams would keep the server waiting
        server.should_exit = True
        await task


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
