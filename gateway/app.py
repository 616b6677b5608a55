"""`gateway serve` and `gateway check`: run the assembled product until told to stop, or say whether it could run."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from contextlib import AsyncExitStack
from functools import partial

import uvloop

from gateway.approvals import connect
from gateway.assembly import running
from gateway.core.errors import GatewayError, PolicyLoadError
from gateway.filters import KINDS
from gateway.policy import load_bundle
from gateway.policy.identity import load_keyring
from gateway.proxy.obligations import KNOWN_OBLIGATIONS
from gateway.settings import Settings

log = logging.getLogger("gateway")


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
