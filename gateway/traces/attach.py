"""What a gateway attaches to its recorder by default: prices, counters, and a collector where one is configured."""

from __future__ import annotations

import os

from gateway.traces.cost import Pricer
from gateway.traces.metrics import Metrics
from gateway.traces.otlp import otlp_exporter
from gateway.traces.preparing import Attachments


def attachments(metrics: Metrics | None = None) -> Attachments:
    """Prices by `genai-prices`, counters in `metrics`, spans by the standard OTEL_* variables."""
    return Attachments(
        price=Pricer().price,
        observe=metrics.observe if metrics is not None else None,
        exporter=otlp_exporter(os.environ),
    )
