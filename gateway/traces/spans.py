"""Records as OpenTelemetry spans: the only place that knows the attribute names.

GenAI names follow the semantic conventions of `semantic-conventions-genai`; nothing there is about gateways or cost, so
the rest is `gateway.*`. The call to a model or tool is the attempt's span, so `gen_ai.*` with its tokens stands there
and nowhere else: backends add up what they find, and a denied call was no call. Content is never exported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, TraceFlags
from opentelemetry.trace.status import Status, StatusCode

from gateway import __version__
from gateway.traces.record import ActionDecision, Attempt, ExchangeRecord, FilterPass
from gateway.traces.tree import Step, StepKind, steps

Value: TypeAlias = "str | int | float | bool | tuple[str, ...]"
Attributes: TypeAlias = dict[str, Value]

_RECORD_NAMES: tuple[tuple[str, Callable[[ExchangeRecord], Value | None]], ...] = (
    ("gateway.exchange.id", lambda r: r.id),
    ("gateway.agent", lambda r: r.agent),
    ("gateway.run", lambda r: r.run),
    ("gateway.surface", lambda r: r.surface),
    ("gateway.operation", lambda r: r.operation),
    ("gateway.action", lambda r: r.name or None),
    ("gateway.model", lambda r: r.model),
    ("gateway.effect", lambda r: r.effect),
    ("gateway.rule", lambda r: r.rule or None),
    ("gateway.reason", lambda r: r.reason or None),
    ("gateway.release", lambda r: r.release or None),
    ("gateway.held", lambda r: r.held),
    ("http.response.status_code", lambda r: r.status or None),
)
_CHAT_NAMES: tuple[tuple[str, Callable[[ExchangeRecord], Value | None]], ...] = (
    ("gen_ai.operation.name", lambda r: r.operation),
    ("gen_ai.provider.name", lambda r: r.provider),
    ("gen_ai.request.model", lambda r: r.model),
    ("gen_ai.response.model", lambda r: r.model_responded),
    ("gen_ai.response.id", lambda r: r.response_id),
    ("gen_ai.response.finish_reasons", lambda r: r.finish_reasons or None),
)
_USAGE_NAMES = (
    ("gen_ai.usage.input_tokens", "input"),
    ("gen_ai.usage.output_tokens", "output"),
    ("gen_ai.usage.cache_read.input_tokens", "cached"),
    ("gen_ai.usage.cache_write.input_tokens", "cache_written"),
    ("gen_ai.usage.reasoning.output_tokens", "reasoning"),
)
_OF_REQUEST = frozenset({"mcp.protocol.version", "mcp.session.id", "jsonrpc.request.id", "gen_ai.conversation.id"})
_OF_TOOL = frozenset({"gen_ai.tool.call.id"})
_SCOPE = InstrumentationScope("gateway", __version__)
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)  # whatever the caller asked for: the gateway's own record is not the caller's


def spans(record: ExchangeRecord, cost: float | None, resource: Resource) -> Iterator[ReadableSpan]:
    """The spans of one exchange, parents first."""
    trace_id, epoch_ns = int(record.trace_id, 16), int(record.started_s * 1e9)
    for step in steps(record):
        name, kind, attributes = _describe(step, record)
        if step.kind is StepKind.EXCHANGE and cost is not None:
            attributes["gateway.cost.usd"] = cost
        if step.error is not None:
            attributes["error.type"] = step.error
        started_ns = epoch_ns + step.started_ns
        yield ReadableSpan(
            name=name,
            context=SpanContext(trace_id, int(step.span, 16), is_remote=False, trace_flags=_SAMPLED),
            parent=_parent(step, trace_id),
            resource=resource,
            attributes=attributes,
            kind=kind,
            status=Status(StatusCode.ERROR, step.error) if step.error is not None else Status(),
            start_time=started_ns,
            end_time=started_ns + step.duration_ns,
            instrumentation_scope=_SCOPE,
        )


def _parent(step: Step, trace_id: int) -> SpanContext | None:
    if step.parent is None:
        return None
    remote = step.kind is StepKind.EXCHANGE
    return SpanContext(trace_id, int(step.parent, 16), is_remote=remote, trace_flags=_SAMPLED)


def _describe(step: Step, record: ExchangeRecord) -> tuple[str, SpanKind, Attributes]:
    source = step.source
    if isinstance(source, Attempt):
        return _attempt(source, record)
    if isinstance(source, ActionDecision):
        attributes: Attributes = {
            "gateway.action": source.action,
            "gateway.effect": source.effect,
            "gateway.rule": source.rule,
            "gateway.reason": source.reason,
        }
        if source.held is not None:
            attributes["gateway.held"] = source.held
        return step.name, SpanKind.INTERNAL, attributes
    if isinstance(source, FilterPass):
        attributes = {"gateway.filter.direction": source.direction, **_findings(source.findings)}
        if source.denied is not None:
            attributes["gateway.rule"] = source.denied
        return step.name, SpanKind.INTERNAL, attributes
    attributes = {name: value for name, read in _RECORD_NAMES if (value := read(source)) is not None}
    attributes.update(_findings(source.findings))
    if source.surface == "mcp":
        attributes["mcp.method.name"] = source.operation
    attributes.update(_given(source, _OF_REQUEST))
    return step.name, SpanKind.SERVER, attributes


def _attempt(attempt: Attempt, record: ExchangeRecord) -> tuple[str, SpanKind, Attributes]:
    """The call itself: `chat {model}`, `tools/call {tool}` or `execute_tool {tool}`."""
    attributes: Attributes = {"gateway.upstream": attempt.upstream}
    if attempt.address:
        attributes["server.address"] = attempt.address
        attributes["server.port"] = attempt.port
    if attempt.status is not None:
        attributes["http.response.status_code"] = attempt.status
    if attempt.first_byte_ns is not None:
        attributes["gateway.time_to_first_byte_s"] = attempt.first_byte_ns / 1e9
    if record.surface == "model":
        attributes.update((name, value) for name, read in _CHAT_NAMES if (value := read(record)) is not None)
        if record.usage is not None and attempt is record.attempts[-1]:
            attributes.update((name, getattr(record.usage, field)) for name, field in _USAGE_NAMES)
        return f"{record.operation} {record.model or ''}".rstrip(), SpanKind.CLIENT, attributes
    if record.name:
        attributes["gen_ai.operation.name"] = "execute_tool"
        attributes["gen_ai.tool.name"] = record.name
        attributes["gen_ai.tool.type"] = "function"
    attributes.update(_given(record, _OF_TOOL))
    if record.surface == "mcp":
        attributes["mcp.method.name"] = record.operation
        return f"{record.operation} {record.name}".rstrip(), SpanKind.CLIENT, attributes
    return f"execute_tool {record.name}".rstrip(), SpanKind.INTERNAL, attributes


def _given(record: ExchangeRecord, names: frozenset[str]) -> Attributes:
    """The standard attributes that the surface gave, as far as they belong on this span."""
    return {name: value for name, value in (record.attributes or {}).items() if name in names and value is not None}


def _findings(counts: Mapping[str, int] | None) -> Attributes:
    return {f"gateway.findings.{kind}": count for kind, count in (counts or {}).items()}
