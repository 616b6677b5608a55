"""What an exchange cost, by the prices that ship with `genai-prices`: offline, in the recorder's thread.

A model that the table does not know has no price (None), which is not the same as costing nothing. The library takes
70 µs a call, so its answers are turned into rates per token once for each model; only models whose rate depends on the
size of the prompt are asked every time. Its updater, which would call home, is never started.
"""

from __future__ import annotations

import warnings
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NamedTuple

from gateway.traces.record import ExchangeRecord, Usage

if TYPE_CHECKING:
    from genai_prices import types
    from genai_prices.data_snapshot import DataSnapshot

RATES_S: Final = 900  # prices that depend on the time of day change at a quarter of an hour at the finest
MODELS_MAX: Final = 2_000  # names come from upstreams; beyond this the table is begun anew, the library's own too
_MILLION: Final = 1_000_000


class _Rates(NamedTuple):
    """Dollars for one request, and for one token of each kind."""

    request: float
    input: float
    cached: float
    cache_written: float
    output: float
    reasoning: float


class Pricer:
    """Prices exchanges. For one thread. The price table (4 MB) is loaded with the first exchange that has usage."""

    def __init__(self) -> None:
        self._snapshot: DataSnapshot | None = None
        self._cache: dict[tuple[str | None, str, int], _Rates | types.ModelPrice | None] = {}

    def price(self, record: ExchangeRecord) -> float | None:
        """US dollars, or None where the usage or the price is unknown."""
        usage = record.usage
        if usage is None:
            return None
        at = int(record.started_s // RATES_S)
        for model in (record.model_responded, record.model):
            if model:
                rates = self._rates(record.provider, model, at)
                if rates is not None:
                    return _linear(rates, usage) if isinstance(rates, _Rates) else _ask(rates, usage)
        return None

    def _rates(self, provider: str | None, model: str, at: int) -> _Rates | types.ModelPrice | None:
        key = (provider, model, at)
        if key in self._cache:
            return self._cache[key]
        if len(self._cache) >= MODELS_MAX:
            self._cache.clear()
            self._snapshot = None
        found = self._look_up(provider, model, at)
        self._cache[key] = found
        return found

    def _look_up(self, provider: str | None, model: str, at: int) -> _Rates | types.ModelPrice | None:
        from genai_prices import data_snapshot, types

        if self._snapshot is None:
            bundled = data_snapshot.get_snapshot().providers
            self._snapshot = data_snapshot.DataSnapshot(providers=bundled, from_auto_update=False)
        try:
            _, info = self._snapshot.find_provider_model(model, None, _known(self._snapshot, provider), None)
        except LookupError:
            return None
        prices = info.get_prices(datetime.fromtimestamp(at * RATES_S, UTC))
        if any(isinstance(value, types.TieredPrices) for value in vars(prices).values()):
            return prices
        return _derive(prices)


def _known(snapshot: DataSnapshot, provider: str | None) -> str | None:
    """The provider, if the table has it; otherwise the model's name must do."""
    if provider is None:
        return None
    try:
        return snapshot.find_provider(None, provider, None).id
    except LookupError:
        return None


def _derive(prices: types.ModelPrice) -> _Rates | None:
    """The rates of untiered prices, by asking for a million tokens of each kind."""
    request = _ask(prices, Usage(0, 0))
    asked = [
        _ask(prices, usage)
        for usage in (
            Usage(_MILLION, 0),
            Usage(_MILLION, 0, cached=_MILLION),
            Usage(_MILLION, 0, cache_written=_MILLION),
            Usage(0, _MILLION),
            Usage(0, _MILLION, reasoning=_MILLION),
        )
    ]
    if request is None:
        return None
    rates = [(price - request) / _MILLION for price in asked if price is not None]
    return _Rates(request, *rates) if len(rates) == len(asked) else None


def _linear(rates: _Rates, usage: Usage) -> float | None:
    """None for counts that contradict each other, such as more cached than read."""
    fresh, plain = usage.input - usage.cached - usage.cache_written, usage.output - usage.reasoning
    if fresh < 0 or plain < 0:
        return None
    return (
        rates.request
        + fresh * rates.input
        + usage.cached * rates.cached
        + usage.cache_written * rates.cache_written
        + plain * rates.output
        + usage.reasoning * rates.reasoning
    )


def _ask(prices: types.ModelPrice, usage: Usage) -> float | None:
    from genai_prices import Usage as Tokens

    tokens = Tokens(
        input_tokens=usage.input,
        output_tokens=usage.output,
        cache_read_tokens=usage.cached or None,
        cache_write_tokens=usage.cache_written or None,
        output_reasoning_tokens=usage.reasoning or None,
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a price of the table that the library itself cannot use
            return float(prices.calc_price(tokens)["total_price"])
    except ValueError:
        return None
