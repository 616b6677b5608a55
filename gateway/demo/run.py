"""`gateway demo`: start the gateway, a bank and a model; let an agent work; show what passes and what is parked."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import uvicorn

from gateway.demo.agent import TASK, run_agent
from gateway.demo.bank import Ledger, bank_server
from gateway.demo.model import ScriptedModel
from gateway.policy.identity import mint

READY_S = 30
STARTS_MAX = 3
DECIDE_S_MAX = 1800  # a person may have gone for coffee; the parked call itself expires by the rule's own term
BILL = {
    "payee": "Stadtwerke Musterstadt",
    "to_iban": "DE89370400440532013000",
    "amount": 480.0,
    "currency": "EUR",
    "reference": "INV-2041",
}

_COLOURS = {"pass": "32", "park": "33", "decided": "36", "agent": "90", "you": "1", "bad": "31"}
_LABELS = {"pass": "passes", "park": "PARKED", "decided": "decided", "agent": "agent", "you": "you", "bad": "WRONG"}


def say(kind: str, text: str) -> None:
    """One line of the story; coloured on a terminal."""
    label = f"{_LABELS[kind]:>8}"
    if sys.stdout.isatty() and "NO_COLOR" not in os.environ:
        label = f"\x1b[{_COLOURS[kind]}m{label}\x1b[0m"
    print(f"{label}  {text}", flush=True)


@dataclass(slots=True)
class Story:
    """What the demo saw, to be checked at the end."""

    parked: list[str] = field(default_factory=list)
    passed: list[str] = field(default_factory=list)

    def tell(self, kind: str, text: str) -> None:
        if kind == "park":
            self.parked.append(text)
        elif kind == "pass":
            self.passed.append(text)
        say(kind, text)


def demo(*, auto: bool, bundle: Path) -> int:
    """Run the demo; 0 when everything went as it should. `auto` decides by itself, through the same HTTP API."""
    try:
        return asyncio.run(_demo(auto=auto, bundle=bundle))
    except KeyboardInterrupt:
        return 130


async def _demo(*, auto: bool, bundle: Path) -> int:
    ledger, model, story = Ledger(), ScriptedModel(), Story()
    with tempfile.TemporaryDirectory(prefix="gateway-demo-") as folder:
        state = Path(folder)
        key = mint(state / "keys.yaml", "agent", "bookkeeper")
        approver = mint(state / "keys.yaml", "approver", "demo-approver", ("finance", "approvers"))
        async with (
            _serve(bank_server(ledger).streamable_http_app()) as bank_url,
            _serve(model.app()) as model_url,
            _gateway(bundle, state, key, bank_url, model_url) as (data_url, console_url),
            httpx2.AsyncClient(base_url=console_url, headers={"authorization": f"Bearer {approver}"}) as console,
        ):
            print(f"\nThe agent's task: {TASK}\n")
            run = f"demo-{secrets.token_hex(4)}"
            helper = asyncio.create_task(_decide_all(console, story) if auto else _show_link(state, console_url))
            try:
                last = await asyncio.wait_for(run_agent(data_url, key, run, story.tell), DECIDE_S_MAX)
            finally:
                helper.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await helper
            say("agent", f"says: {last}")
            trace = await _trace(console, console_url)
            problems = _check(story, ledger, model, trace) if auto else []
            for problem in problems:
                say("bad", problem)
            if auto and not problems:
                print("\nAll as it should be: the bill was paid once, the injected transfer never left.")
            if not auto:
                print("\nThe gateway keeps running so that you can look at the run. Ctrl-C ends it.")
                await asyncio.Event().wait()
            return 1 if problems else 0


async def _decide_all(console: httpx2.AsyncClient, story: Story) -> None:
    """Approve the bill and deny everything else, as a person would who reads the arguments. What the agent was told is
    parked comes first, so that the story reads in order."""
    while True:
        waiting = (await console.get("/api/actions", params={"state": "PENDING"})).raise_for_status().json()
        for item in waiting["items"]:
            if not any(item["id"] in line for line in story.parked):
                continue
            verdict = "approve" if item["arguments"] == BILL else "deny"
            comment = "matches the invoice" if verdict == "approve" else "not an invoice of ours"
            answer = await console.post(
                f"/api/actions/{item['id']}/{verdict}", json={"digest": item["digest"], "comment": comment}
            )
            answer.raise_for_status()
            say("you", f"{verdict} {item['id']} ({comment})")
        await asyncio.sleep(0.2)


async def _show_link(state: Path, console_url: str) -> None:
    link = (
        (state / "sign-in-link").read_text(encoding="utf-8").strip()
        if (state / "sign-in-link").exists()
        else console_url
    )
    print(f"Approve or deny here: {link}\n", flush=True)


async def _trace(console: httpx2.AsyncClient, console_url: str) -> dict[str, Any]:
    """The newest run, once the recorder has written it."""
    for _ in range(50):
        runs = (await console.get("/api/runs", params={"agent": "bookkeeper"})).raise_for_status().json()["items"]
        if runs:
            trace: dict[str, Any] = (await console.get(f"/api/runs/{runs[0]['run']}")).raise_for_status().json()
            print(f"\nThe whole story as one trace: {console_url}/runs/{runs[0]['run']}")
            return trace
        await asyncio.sleep(0.1)
    return {}


def _check(story: Story, ledger: Ledger, model: ScriptedModel, trace: dict[str, Any]) -> list[str]:
    """What went wrong, in sentences; empty when nothing did."""
    problems = []
    if ledger.transfers[:1] != [BILL]:
        problems.append("the approved bill was not paid exactly as approved")
    if any("VERIFY" in str(transfer["reference"]) for transfer in ledger.transfers):
        problems.append("the injected transfer reached the bank")
    if sum(transfer == BILL for transfer in ledger.transfers) > 1:
        problems.append("the bill was paid more than once")
    if not any("VERIFY-77" in line for line in story.parked):
        problems.append("the injected transfer was not parked")
    if not any("INV-2041" in line for line in story.parked):
        problems.append("the bill was paid without being parked")
    if not any(line.startswith("read_invoice") for line in story.passed):
        problems.append("a harmless call did not pass")
    if any("billing@stadtwerke" in body for body in model.seen):
        problems.append("an e-mail address reached the model in the clear")
    if "transfer" not in str(trace):
        problems.append("the trace does not tell of the transfer")
    return problems


@contextlib.asynccontextmanager
async def _serve(app: Any) -> AsyncIterator[str]:
    """An ASGI app on a free loopback port of this process; yields its base URL."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = _QuietServer(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1, ws="none"))
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


class _QuietServer(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # Ctrl-C belongs to the demo


@contextlib.asynccontextmanager
async def _gateway(
    bundle: Path, state: Path, key: str, bank_url: str, model_url: str
) -> AsyncIterator[tuple[str, str]]:
    """The gateway as a process of its own; yields the addresses for agents and for people.

    Somebody may take a port between the look and the start, another demo for one: then it is started again on others.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    environment |= {
        "GATEWAY_BUNDLE": str(bundle),
        "GATEWAY_STATE_DIR": str(state),
        "GATEWAY_HOLD_WAIT_S": "0",  # so that the story shows what is parked
        "BANK_URL": f"{bank_url}/mcp",
        "MODEL_URL": f"{model_url}/v1",
    }
    log = state / "gateway.log"
    for _ in range(STARTS_MAX):
        ports = [_free_port(8080), _free_port(8081)]
        environment |= {"GATEWAY_PORT": str(ports[0]), "GATEWAY_CONSOLE_PORT": str(ports[1])}
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "gateway", "serve", env=environment, stdout=output, stderr=output
            )
        try:
            if await _answers(process, f"http://127.0.0.1:{ports[0]}", key):
                yield f"http://127.0.0.1:{ports[0]}", f"http://127.0.0.1:{ports[1]}"
                return
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()
    tail = log.read_text(encoding="utf-8", errors="replace")[-2000:]
    raise SystemExit(f"the gateway did not get ready:\n{tail}")


async def _answers(process: asyncio.subprocess.Process, url: str, key: str) -> bool:
    """Whether this very process serves at the address: it knows the key that was made for it."""
    async with httpx2.AsyncClient(base_url=url, headers={"authorization": f"Bearer {key}"}) as client:
        for _ in range(READY_S * 20):
            if process.returncode is not None:
                return False
            with contextlib.suppress(httpx2.TransportError):
                if (await client.get("/v1/models")).status_code == 200:
                    return True
            await asyncio.sleep(0.05)
    return False


def _free_port(wanted: int) -> int:
    """The usual port if nobody has it, so that the links look as in the README; else any free one."""
    for port in (wanted, 0):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)) as probe:
            return int(probe.getsockname()[1])
    raise SystemExit("no free port on the loopback address")
