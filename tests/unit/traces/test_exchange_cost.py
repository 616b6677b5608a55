"""Prices: the library's own, only faster; and no price is not zero."""

from __future__ import annotations

import socket
import sys
import warnings
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from genai_prices import Usage as Tokens
from genai_prices import calc_price, types
from genai_prices.data_snapshot import get_snapshot

from gateway.traces import Usage, cost
from gateway.traces.cost import Pricer
from tests.trace_records import STARTED_S, chat, exchange


def price(model: str | None, usage: Usage | None, provider: str | None = "openai") -> float | None:
    return Pricer().price(chat(model=model, model_responded=None, provider=provider, usage=usage))


def test_cached_tokens_are_not_priced_twice() -> None:
    plain, cached = price("gpt-4o", Usage(1_000, 0)), price("gpt-4o", Usage(1_000, 0, cached=1_000))
    assert plain is not None and cached is not None
    assert cached == pytest.approx(plain / 2)


@pytest.mark.parametrize("model", ["my-own-llama", "", "gpt-4o\n", "x" * 10_000])
def test_unknown_model_has_no_price(model: str) -> None:
    assert price(model, Usage(1_000, 1_000)) is None


def test_no_usage_has_no_price() -> None:
    assert price("gpt-4o", None) is None
    assert Pricer().price(exchange(model=None, usage=Usage(1, 1))) is None


def test_counts_that_contradict_each_other_have_no_price() -> None:
    assert price("gpt-4o", Usage(10, 10, cached=11)) is None
    assert price("gpt-4o", Usage(10, 10, reasoning=11)) is None


def test_model_that_answered_counts_before_the_one_asked_for() -> None:
    asked = chat(model="gpt-4o", model_responded="gpt-4o-mini-2024-07-18", usage=Usage(10_000, 0))
    unknown = chat(model="gpt-4o", model_responded="house-blend", usage=Usage(10_000, 0))
    mini, whole = price("gpt-4o-mini", Usage(10_000, 0)), price("gpt-4o", Usage(10_000, 0))
    assert Pricer().price(asked) == mini != whole
    assert Pricer().price(unknown) == whole


def test_provider_that_the_table_does_not_know_leaves_the_model_name() -> None:
    assert price("gpt-4o", Usage(1_000, 1_000), "azure.ai.inference") == price("gpt-4o", Usage(1_000, 1_000))
    assert price("gpt-4o", Usage(1_000, 1_000), None) == price("gpt-4o", Usage(1_000, 1_000))


def test_every_price_is_the_librarys() -> None:
    """All models of the table, on usages with every kind of token; tiered ones are asked, the others derived."""
    at = datetime.fromtimestamp(STARTED_S // cost.RATES_S * cost.RATES_S, UTC)
    pricer, tiered, linear = Pricer(), 0, 0
    usages = [Usage(300_001, 1_234, 77, 33, 11), Usage(5_000, 500), Usage(0, 0)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        for provider in get_snapshot().providers:
            for model in provider.models:
                found = pricer.price(chat(provider=provider.id, model=model.id, model_responded=None))
                if found is None:
                    continue
                rates = pricer._rates(provider.id, model.id, int(STARTED_S // cost.RATES_S))
                tiered, linear = tiered + isinstance(rates, types.ModelPrice), linear + isinstance(rates, cost._Rates)
                for usage in usages:
                    expected = calc_price(_tokens(usage), model.id, provider_id=provider.id, genai_request_timestamp=at)
                    record = chat(provider=provider.id, model=model.id, model_responded=None, usage=usage)
                    assert pricer.price(record) == pytest.approx(float(expected.total_price), rel=1e-9, abs=1e-12)
                    assert isinstance(expected.total_price, Decimal)
    assert tiered > 50
    assert linear > 1_500


def _tokens(usage: Usage) -> Tokens:
    return Tokens(
        input_tokens=usage.input,
        output_tokens=usage.output,
        cache_read_tokens=usage.cached or None,
        cache_write_tokens=usage.cache_written or None,
        output_reasoning_tokens=usage.reasoning or None,
    )


def test_names_of_models_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "MODELS_MAX", 10)
    pricer = Pricer()
    for i in range(100):
        assert pricer.price(chat(model=f"unknown-{i}", model_responded=None)) is None
    assert len(pricer._cache) <= 10
    assert pricer._snapshot is not None
    assert len(pricer._snapshot._provider_misses) + len(pricer._snapshot._provider_cache) <= 20


def test_nothing_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the price table must not call home")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert price("gpt-4o", Usage(1_000, 1_000)) is not None


def test_library_is_not_loaded_before_it_is_needed() -> None:
    import subprocess

    program = (
        "import sys, gateway.traces; sys.exit('genai_prices' in sys.modules or 'opentelemetry.sdk' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
