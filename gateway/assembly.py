"""Puts the rooms together and keeps them running: one process, two listeners, one event loop.

Start: bundle, keys, store, filters, recorder, listeners. Stop: listeners first, then what is in flight, then the
recorder, the store last. Nothing here decides anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import secrets
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

from gateway.approvals import EmbeddedRedis, Queue, QueueLimits, RedisLink, connect
from gateway.console import ConsoleDeps, console_app
from gateway.core.errors import StoreError, places
from gateway.exposition import Observed, exposition
from gateway.filters import KINDS, Scanner, mask_for_storage, mask_text
from gateway.in_force import Gateway
from gateway.listener import authority, bind, listening
from gateway.policy import BundleWatcher
from gateway.policy.identity import load_keyring
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
        audit = gateway.audit = AuditLog(settings.audit_path)
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
        data_socket = bind(settings.host, settings.port, "GATEWAY_PORT")
        console_socket = bind(settings.console_host, settings.console_port, "GATEWAY_CONSOLE_PORT")
        gateway.data_url = f"http://{authority(data_socket)}"
        gateway.console_url = settings.console_url or f"http://{authority(console_socket)}"
        observed = Observed(queue=queue, recorder=recorder, scanner=scanner, pool=pool, watcher=watcher)
        console = await _console(gateway, link, deps, exposition(metrics, observed))
        await warm
        executor = Executor(deps, drain_s=float(settings.shutdown_s))
        for work in (executor.run, partial(_watch, gateway), partial(_sweep, queue)):
            stack.push_async_callback(_stop, asyncio.create_task(_watched(work, gateway)))
        await stack.enter_async_context(
            listening(console, console_socket, settings.shutdown_s, before_stop=console.state.live.close)
        )
        await stack.enter_async_context(listening(plane, data_socket, settings.shutdown_s))
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


async def _console(gateway: Gateway, link: RedisLink, deps: Deps, metrics: Callable[[], Awaitable[bytes]]) -> Any:
    assert deps.queue is not None
    settings = gateway.settings
    token = secrets.token_urlsafe(32) if settings.redis_url is None else None
    console = ConsoleDeps(
        queue=deps.queue,
        runs=RunStore(settings.traces_path),
        status=gateway.status,
        keyring=lambda: gateway.keyring,
        secret=await _shared_secret(link, "console"),
        public_url=gateway.console_url,
        sign_in_token=token,
        mask_text=partial(mask_text, deps.scanner),
        audit=deps.audit.write,
        metrics=metrics,
    )
    if token is not None:
        gateway.sign_in_url = console.sign_in_url
        path = settings.state_dir / "sign-in-link"
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as stream:
            stream.write(console.sign_in_url + "\n")
    return console_app(console)


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
        log.critical("stopping: background work failed: %s at %s", type(error).__name__, places(error))
        gateway.failed.set()
        raise


async def _stop(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError, Exception):
        await task
