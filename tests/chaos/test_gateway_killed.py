"""`kill -9` of the real processes: what was acknowledged is still there, and nothing runs twice."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx2
import pytest

from tests.gateways import GatewayProcess
from tests.upstreams import completion, function_call, model_upstream, whole


@contextmanager
def process(state: Path, **environment: str) -> Iterator[GatewayProcess]:
    gateway = GatewayProcess(state, **environment)
    gateway.start()
    try:
        yield gateway
    finally:
        gateway.stop()


def kill_gateway(gateway: GatewayProcess) -> None:
    gateway.kill()
    gateway.start()


def kill_server(gateway: GatewayProcess) -> None:
    """The gateway lives on and starts it again by itself."""
    os.kill(gateway.server_pid, signal.SIGKILL)
    deadline = time.monotonic() + 20
    while httpx2.get(f"{gateway.url}/readyz").json()["store"] != "connected":
        assert time.monotonic() < deadline


def kill_both(gateway: GatewayProcess) -> None:
    pid = gateway.server_pid
    gateway.kill()
    os.kill(pid, signal.SIGKILL)
    gateway.start()


@pytest.mark.parametrize("kill", [kill_gateway, kill_server, kill_both])
def test_every_acknowledged_held_action_survives(tmp_path: Path, kill: Callable[[GatewayProcess], None]) -> None:
    with model_upstream() as upstream, process(tmp_path, MODEL_URL=upstream.url) as gateway:
        titles: dict[str, str] = {}

        def hold(number: int) -> None:
            upstream.on(f"demo-{number}", whole(completion(None, [function_call("publish", {"n": number})])))
            answer = httpx2.post(
                f"{gateway.url}/v1/chat/completions",
                json={"model": f"demo-{number}", "messages": [{"role": "user", "content": "x"}]},
                headers={"authorization": f"Bearer {gateway.key}"},
            )
            titles[answer.headers["x-held-action"]] = str(number)

        for number in range(20):
            hold(number)
        kill(gateway)
        waiting = {item["id"]: item for item in all_pending(gateway)}
        assert set(waiting) == set(titles)
        assert all(item["arguments"] == {"n": int(titles[identifier])} for identifier, item in waiting.items())
        first = next(iter(waiting.values()))
        gateway.api(f"/api/actions/{first['id']}/approve", {"digest": first["digest"], "comment": ""})
        hold(30)
        assert len(all_pending(gateway)) == 20


def all_pending(gateway: GatewayProcess) -> list[dict[str, object]]:
    found: list[dict[str, object]] = gateway.api("/api/actions?state=PENDING&limit=100")["items"]
    return found


class SlowTool:
    """A tool that counts requests and answers only when told to."""

    def __init__(self) -> None:
        self.requests = 0
        self.arrived = threading.Event()
        self.answer = threading.Event()
        tool = self

        class Handler(BaseHTTPRequestHandler):
            def do_DELETE(self) -> None:
                tool.requests += 1
                tool.arrived.set()
                tool.answer.wait(30)
                try:
                    self.send_response(204)
                    self.end_headers()
                except OSError:
                    return

            def log_message(self, *args: object) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.answer.set()
        self.server.shutdown()
        self.server.server_close()


def test_killed_between_claim_and_completion_is_unknown_and_never_retried(tmp_path: Path) -> None:
    tool = SlowTool()
    try:
        with process(tmp_path, CRM_URL=tool.url) as gateway:
            headers = {"authorization": f"Bearer {gateway.key}"}
            parked = httpx2.delete(f"{gateway.url}/tools/crm/contacts/42", headers=headers)
            assert parked.status_code == 202
            held = parked.json()["held_action"]
            digest = gateway.api(f"/api/actions/{held}")["digest"]
            gateway.api(f"/api/actions/{held}/approve", {"digest": digest, "comment": ""})
            assert tool.arrived.wait(20), "the approved call was not dispatched"
            gateway.kill()
            tool.answer.set()
            gateway.start()
            deadline = time.monotonic() + 60
            while (state := gateway.api(f"/api/actions/{held}")["state"]) == "EXECUTING":
                assert time.monotonic() < deadline
                time.sleep(0.1)
            assert state == "UNKNOWN"
            again = httpx2.delete(f"{gateway.url}/tools/crm/contacts/42", headers=headers)
            assert json.loads(again.content)["held_action"] == held
            assert tool.requests == 1
    finally:
        tool.close()
