"""Server-sent events: that something changed, to people who are signed in, until the server stops."""

from __future__ import annotations

from collections.abc import Iterator

import httpx2
import orjson
import pytest

from gateway.console import live
from tests.consoles import RunningConsole
from tests.unit.console.conftest import csrf_of


def events(lines: Iterator[str]) -> Iterator[tuple[str, dict[str, object]]]:
    name = ""
    for line in lines:
        if line.startswith("event: "):
            name = line[7:]
        elif line.startswith("data: "):
            yield name, orjson.loads(line[6:])


def test_changes_reach_an_open_page(console: RunningConsole, operator: httpx2.Client) -> None:
    with operator.stream("GET", "/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        assert stream.headers["cache-control"] == "no-store"
        found = events(stream.iter_lines())
        assert next(found) == ("ready", {})
        held = console.propose({"amount": 4711, "secret": "not in the stream"})
        assert next(found) == ("held", {"id": held.id, "state": "PENDING"})
        console.call(
            console.queue.deny(held.id, "ana", ["finance"], digest=held.digest, comment="no", now=console.clock())
        )
        assert next(found) == ("held", {"id": held.id, "state": "DENIED"})


def test_nobody_listens_without_signing_in(anonymous: httpx2.Client) -> None:
    assert anonymous.get("/events").status_code == 303


def test_a_stop_ends_open_streams(console: RunningConsole, operator: httpx2.Client) -> None:
    with operator.stream("GET", "/events") as stream:
        lines = stream.iter_lines()
        assert next(events(lines))[0] == "ready"
        console.app.state.live.close()
        assert [line for line in lines if line.startswith("event")] == []


def test_streams_are_bounded(console: RunningConsole, operator: httpx2.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "STREAMS_MAX", 1)
    with operator.stream("GET", "/events") as stream:
        lines = stream.iter_lines()  # kept: an iterator that is dropped closes the stream
        assert next(events(lines))[0] == "ready"
        assert operator.get("/events").status_code == 503


def test_signing_out_ends_the_stream(console: RunningConsole, operator: httpx2.Client) -> None:
    page = operator.get("/approvals")
    with operator.stream("GET", "/events") as stream:
        lines = stream.iter_lines()
        found = events(lines)
        assert next(found)[0] == "ready"
        with httpx2.Client(base_url=console.url, cookies=dict(operator.cookies)) as other:
            assert other.post("/sign-out", data={"csrf": csrf_of(page)}).status_code == 303
        console.propose({"amount": 1})
        assert list(found) == []
