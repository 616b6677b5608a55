"""The tool surfaces as they run in the product: the real data plane under real uvicorn on loopback, a real Redis, the
real pool and executor, a bundle in a folder. Only the recorder is a list, so that tests can read it at once."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import uvicorn

from gateway.approvals import HeldAction, Queue, QueueLimits, connect
from gateway.core.held import State
from gateway.filters import KINDS, Scanner
from gateway.policy import PolicySet, load_bundle
from gateway.policy.identity import Keyring, load_keyring, mint
from gateway.proxy.definitions import Definitions
from gateway.proxy.deps import Deps
from gateway.proxy.execution import Executor
from gateway.proxy.http_calls import Operations
from gateway.proxy.http_surface import HttpSurface
from gateway.proxy.limits import Limiter
from gateway.proxy.mcp_client import McpClient
from gateway.proxy.mcp_surface import McpSurface
from gateway.proxy.plane import DataPlane
from gateway.proxy.pool import Pool
from gateway.proxy.tool_calls import ToolGate
from gateway.traces import AuditLog
from gateway.traces.record import ExchangeRecord

BUNDLE = """\
agents:
  bob: {{groups: [finance], owner: dana}}
  eve: {{groups: [finance]}}
  mal: {{groups: [interns]}}
servers:
  bank: {{url: '{upstream}/mcp', credential: {{env: BANK_TOKEN, optional: true}}, timeouts: {{connect: 2s, read: 5s}}}}
http_tools:
  crm:
    url: '{upstream}/api'
    credential: {{env: CRM_TOKEN, header: x-api-key, optional: true}}
    idempotency_key: true
    timeouts: {{connect: 2s, read: 5s}}
    operations:
      list: {{method: GET, path: /contacts, query: [name, page]}}
      read: {{method: GET, path: '/contacts/{{id}}'}}
      update: {{method: PUT, path: '/contacts/{{id}}', query: [dry]}}
      delete: {{method: DELETE, path: '/contacts/{{id}}'}}
      note:
        method: POST
        path: '/contacts/{{id}}/notes'
        arguments: {{type: object, properties: {{id: {{type: string}}, text: {{type: string}}}}, required: [id, text]}}
"""

POLICY = """\
applies_to: {agents: [bob, eve]}
approval: {group: finance}
rules:
  - {id: transfers, tools: [bank.transfer], effect: hold, reason: money leaves the house}
  - {id: fees, tools: [bank.fee], effect: deny, reason: nobody charges fees}
  - {id: small, tools: [bank.pay], when: args.amount <= 10, effect: allow, reason: small change}
  - {id: reads, tools: ['bank.*', crm.list, crm.read, crm.note], effect: allow, reason: harmless}
  - {id: updates, tools: [crm.update, crm.delete], effect: hold, reason: contacts matter}
"""


class Records(list[ExchangeRecord]):
    """A recorder that keeps everything."""

    def __init__(self) -> None:
        super().__init__()
        self._put = asyncio.Event()

    def put(self, record: ExchangeRecord) -> None:
        self.append(record)
        self._put.set()

    async def found(self, operation: str, number: int = 1) -> ExchangeRecord:
        """The `number`th record of this operation, as soon as it is there: an answer is sent before it is recorded."""
        while len(found := [record for record in self if record.operation == operation]) < number:
            self._put.clear()
            await asyncio.wait_for(self._put.wait(), 10)
        return found[number - 1]


@dataclass(slots=True, kw_only=True)
class Running:
    """The gateway that runs, and what tests turn and look at."""

    url: str
    deps: Deps
    queue: Queue
    records: Records
    tokens: Mapping[str, str]
    audit_path: Path
    folder: Path
    upstream: str
    policies: list[PolicySet] = field(default_factory=list)

    def headers(self, agent: str = "bob", **more: str) -> dict[str, str]:
        return {"authorization": f"Bearer {self.tokens[agent]}", **more}

    def audit(self) -> list[dict[str, Any]]:
        return [orjson.loads(line) for line in self.audit_path.read_bytes().splitlines()]

    def reload(self, policy: str, *, bundle: str = BUNDLE) -> None:
        """Put another release in force."""
        self.policies.append(_load(self.folder, policy, bundle, self.upstream))

    async def pending(self) -> HeldAction:
        """The one action that waits, as soon as there is one."""
        with await self.queue.changes() as changes:
            while not (page := await self.queue.pending()).actions:
                await anext(changes)
        assert len(page.actions) == 1
        return page.actions[0]

    async def approve(self, held: HeldAction) -> HeldAction:
        return await self.queue.approve(held.id, "ann", {"finance"}, digest=held.digest, now=time.time())

    async def over(self, held: HeldAction) -> HeldAction:
        """The action once nothing more happens to it."""
        until = frozenset(State) - {State.PENDING, State.APPROVED, State.EXECUTING}
        return await self.queue.wait(held.id, until=until, timeout_s=20)


@asynccontextmanager
async def tool_gateway(
    folder: Path,
    redis_url: str | None,
    upstream: str,
    *,
    policy: str = POLICY,
    bundle: str = BUNDLE,
    hold_wait_s: float = 0.2,
    execute: bool = True,
    **deps_changes: Any,
) -> AsyncIterator[Running]:
    """Serve the tool surfaces in front of `upstream` (`http://127.0.0.1:port`)."""
    policies = [_load(folder, policy, bundle, upstream)]
    tokens = {name: mint(folder / "keys.yaml", "agent", name) for name in ("bob", "eve", "mal")}
    keyring: Keyring = load_keyring(folder / "keys.yaml")
    link = connect(redis_url) if redis_url else connect(f"unix://{folder}/nowhere.sock")
    queue, pool, records = Queue(link, limits=QueueLimits()), Pool(), Records()
    audit = AuditLog(folder / "audit.jsonl")
    deps = Deps(
        policy=lambda: running.policies[-1],
        scanner=Scanner(),
        queue=queue,
        pool=pool,
        recorder=records,  # type: ignore[arg-type]
        audit=audit,
        definitions=Definitions(McpClient(pool), clock=time.time),
        hold_wait_s=hold_wait_s,
        **deps_changes,
    )
    gate = ToolGate(deps)
    http = HttpSurface(gate, Operations())
    plane = DataPlane(
        deps,
        keyring=lambda: keyring,
        limiter=Limiter(link),
        handlers={"/mcp/": McpSurface(gate), "/tools/": http, "/held/": http.held},
        ready=lambda: (True, {}),
    )
    executor = asyncio.create_task(Executor(deps, drain_s=2).run()) if execute else None
    try:
        async with served(plane) as url:
            running = Running(
                url=url,
                deps=deps,
                queue=queue,
                records=records,
                tokens=tokens,
                audit_path=folder / "audit.jsonl",
                folder=folder,
                upstream=upstream,
                policies=policies,
            )
            yield running
    finally:
        if executor is not None:
            executor.cancel()
            await asyncio.gather(executor, return_exceptions=True)
        await deps.definitions.aclose()
        await queue.aclose()
        await link.aclose()
        await pool.aclose()
        audit.close()


def _load(folder: Path, policy: str, bundle: str, upstream: str) -> PolicySet:
    (folder / "policies").mkdir(exist_ok=True)
    (folder / "policies" / "tools.yaml").write_text(policy)
    (folder / "bundle.yaml").write_text(bundle.format(upstream=upstream))
    environment = {"BANK_TOKEN": "operator-secret-bank", "CRM_TOKEN": "operator-secret-crm"}
    (folder / "keys.yaml").touch()
    return load_bundle(_only_bundle(folder), known_kinds=KINDS, environment=environment)


def _only_bundle(folder: Path) -> Path:
    """The bundle in a folder of its own: keys and logs are no part of it."""
    bundle = folder / "bundle"
    (bundle / "policies").mkdir(parents=True, exist_ok=True)
    (bundle / "bundle.yaml").write_text((folder / "bundle.yaml").read_text())
    (bundle / "policies" / "tools.yaml").write_text((folder / "policies" / "tools.yaml").read_text())
    return bundle


@asynccontextmanager
async def served(app: Any) -> AsyncIterator[str]:
    """An ASGI application under uvicorn on a free port of loopback, in this event loop."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_level="error", ws="none", timeout_graceful_shutdown=1, access_log=False)
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    await server.begun.wait()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task
        listener.close()


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.begun = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.begun.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
