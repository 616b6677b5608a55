"""Records as spans: the names of the conventions, each call once."""

from __future__ import annotations

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind
from opentelemetry.trace.status import StatusCode

from gateway.traces import ActionDecision, ExchangeRecord
from gateway.traces.spans import spans
from tests.trace_records import STARTED_S, chat, exchange, held_payment

RESOURCE = Resource({"service.name": "test"})


def made(record: ExchangeRecord, cost: float | None = None) -> dict[str, ReadableSpan]:
    return {span.name: span for span in spans(record, cost, RESOURCE)}


def test_model_call_has_the_conventions_names() -> None:
    record = chat(duration_ns=300_000_000)
    request, call = spans(record, 0.0035, RESOURCE)
    assert (request.name, request.kind) == ("chat gpt-4o", SpanKind.SERVER)
    assert (call.name, call.kind) == ("chat gpt-4o", SpanKind.CLIENT)
    assert dict(call.attributes or {}) == {
        "gateway.upstream": "openai",
        "server.address": "api.test",
        "server.port": 443,
        "http.response.status_code": 200,
        "gateway.time_to_first_byte_s": 0.09,
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o",
        "gen_ai.response.model": "gpt-4o-2024-08-06",
        "gen_ai.response.id": "chatcmpl-0123456789abcdef",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 1_000,
        "gen_ai.usage.output_tokens": 100,
        "gen_ai.usage.cache_read.input_tokens": 400,
        "gen_ai.usage.cache_write.input_tokens": 0,
        "gen_ai.usage.reasoning.output_tokens": 20,
    }
    given = dict(request.attributes or {})
    assert not [name for name in given if name.startswith("gen_ai.")]  # or a backend would count the tokens twice
    assert given["gateway.cost.usd"] == 0.0035
    assert given["gateway.effect"] == "allow"
    assert (request.start_time, call.start_time) == (int(STARTED_S * 1e9), int(STARTED_S * 1e9) + 1_000_000)
    assert (request.end_time or 0) - (request.start_time or 0) == 300_000_000


def test_only_the_last_attempt_carries_the_tokens() -> None:
    failed, good = chat().attempts[0]._replace(error="upstream_timeout", status=None), chat().attempts[0]
    _, first, second = spans(chat(attempts=(failed, good)), None, RESOURCE)
    assert "gen_ai.usage.input_tokens" not in (first.attributes or {})
    assert (second.attributes or {})["gen_ai.usage.input_tokens"] == 1_000
    assert (first.status.status_code, first.status.description) == (StatusCode.ERROR, "upstream_timeout")
    assert (first.attributes or {})["error.type"] == "upstream_timeout"


def test_held_tool_call_is_one_tree() -> None:
    record = held_payment(parent_span="ab" * 8)
    found = made(record)
    assert set(found) == {
        "tools/call bank.transfer",
        "filter request",
        "decide bank.transfer",
        "hold bank.transfer",
    }
    everything = list(spans(record, None, RESOURCE))
    request, filtered, decision, hold, call = everything
    assert request.parent is not None and request.parent.is_remote and request.parent.span_id == int("ab" * 8, 16)
    for child, parent in ((filtered, request), (decision, request), (hold, decision), (call, request)):
        assert child.parent is not None and parent.context is not None
        assert child.parent.span_id == parent.context.span_id
    assert {span.context.trace_id for span in everything if span.context} == {int(record.trace_id, 16)}
    assert (call.attributes or {})["gen_ai.tool.name"] == "bank.transfer"
    assert (call.attributes or {})["gen_ai.tool.call.id"] == "call-1"
    assert (call.attributes or {})["mcp.method.name"] == "tools/call"
    assert sum("gen_ai.tool.name" in (span.attributes or {}) for span in everything) == 1
    assert (request.attributes or {})["mcp.protocol.version"] == "2026-07-28"
    assert (hold.attributes or {})["gateway.held"] == "act-1"
    assert (filtered.attributes or {})["gateway.findings.pii.iban"] == 1


def test_http_tool_is_an_executed_tool() -> None:
    call = list(spans(held_payment(surface="http", operation="POST", decisions=(), filters=()), None, RESOURCE))[-1]
    assert (call.name, call.kind) == ("execute_tool bank.transfer", SpanKind.INTERNAL)
    assert (call.attributes or {})["gen_ai.operation.name"] == "execute_tool"


def test_denied_call_was_no_call() -> None:
    decision = ActionDecision("local.rm", "deny", "tools/none", "nobody may")
    record = exchange(effect="deny", error="denied", status=403, decisions=(decision,))
    everything = list(spans(record, None, RESOURCE))
    assert [span.name for span in everything] == ["chat gpt-4o", "decide local.rm"]
    assert not any(name.startswith("gen_ai.") for span in everything for name in span.attributes or {})
    assert everything[0].status.status_code is StatusCode.ERROR


def test_every_span_is_sampled_and_derived_ids_are_stable() -> None:
    record = held_payment()
    first, again = list(spans(record, None, RESOURCE)), list(spans(record, None, RESOURCE))
    contexts = [span.context for span in first if span.context]
    assert [one.span_id for one in contexts] == [span.context.span_id for span in again if span.context]
    assert len({one.span_id for one in contexts}) == len(first)
    assert all(one.trace_flags.sampled and one.is_valid for one in contexts)


def test_agent_cannot_forge_an_agent_span() -> None:
    record = exchange(operation="invoke_agent", attributes={"gen_ai.operation.name": "invoke_agent"})
    (request,) = spans(record, None, RESOURCE)
    assert (request.attributes or {})["gateway.operation"] == "invoke_agent"
    assert "gen_ai.operation.name" not in (request.attributes or {})
