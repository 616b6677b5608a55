"""Who is calling, as every surface of the data plane knows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.policy import AgentView


@dataclass(slots=True, kw_only=True, eq=False)  # not frozen: made once or twice a request
class Caller:
    """An authenticated agent and the trace its request belongs to.

    `run` is only what the caller names itself (header `x-gateway-run` or MCP `_meta["gateway/run"]`); it is part of
    what people approve. `trace_id` is the tree of the run: 32 hex digits. `span` is the gateway's own span for this
    request, 16 hex digits, sent on to upstreams; `parent_span` is the caller's span where it sent one.
    """

    agent: AgentView
    trace_id: str
    span: str
    run: str | None = None
    parent_span: str | None = None

    @property
    def traceparent(self) -> str:
        """W3C trace context naming the gateway's own span. Always sampled: a caller cannot switch the trace off."""
        return f"00-{self.trace_id}-{self.span}-01"
