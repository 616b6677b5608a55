"""The benchmark's own promises: text is never repeated, its bundle loads, a bar is judged as it is written."""

from __future__ import annotations

from itertools import islice

from gateway.core.canonical import parse
from gateway.policy import load_bundle
from tests.bench import report, wire
from tests.bench.ground import ROOT
from tests.bench.measure import Requests
from tests.bench.soak import slope


def test_every_request_carries_a_kilobyte_of_text_not_seen_before() -> None:
    bodies = list(islice(wire.unseen_bodies("m", stream=True, seed=1), 500))
    assert len(set(bodies)) == 500
    for body in bodies:
        decoded = parse(body)
        assert isinstance(decoded, dict) and decoded["stream"] is True
        assert 700 < len(body) < 1500
        assert not any(48 <= byte <= 57 for byte in body)  # no digit: nothing that a filter would have to look at twice


def test_bundle_of_the_benchmark_loads_and_routes_both_models() -> None:
    policy = load_bundle(ROOT / "tests" / "bench" / "bundle", environment={})
    for name, filtered in (("plain", False), ("guarded", True)):
        agent = policy.agent(name)
        assert agent is not None
        assert bool(agent.filter_rules) is filtered
        for model in (wire.JSON_MODEL, wire.STREAM_MODEL):
            assert policy.route(agent, model) is not None


def test_upstream_streams_as_many_events_as_it_says() -> None:
    assert b"".join(wire.events(50)).count(b"data: {") == 50


def row(name: str, cpu_us: float) -> report.Row:
    found = Requests(connections=16, requests=1, failed=0, per_s=1, cpu_us=cpu_us, p50_us=1, p99_us=1)
    return report.Row(name, requests={16: found})


def test_bars_are_judged_in_their_own_direction_and_missing_figures_are_no_verdict() -> None:
    rows = {each.name: each for each in (row("nginx", 20), row(report.PLAIN, 161), row("litellm", 9660))}
    verdicts = {bar.text: bar.verdict for bar in report.bars(rows)}
    assert verdicts[f"CPU per request at 16: {report.PLAIN} / nginx"] == "MISSED"
    assert verdicts[f"CPU per request at 16: LiteLLM / {report.PLAIN}"] == "met"
    assert verdicts[f"CPU per request at 16: {report.PLAIN} / Envoy"] == "not measured"


def test_contender_that_is_missing_says_why_in_its_row() -> None:
    text = report.markdown([report.Row("envoy", problem="it cannot be installed here")], {})
    assert "| envoy | | | | | | | it cannot be installed here |" in text


def test_slope_looks_at_the_later_half() -> None:
    assert slope([(0, 0), (1, 50), (2, 100), (3, 100), (4, 100), (5, 100)]) == 0
    assert round(slope([(0, 0), (1, 2), (2, 4), (3, 6)]), 6) == 2
