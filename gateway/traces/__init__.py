"""What happened: exchanges as trees, masked before they are stored; the audit log; counters."""

from gateway.traces.audit import AuditLog
from gateway.traces.record import ActionDecision, Attempt, ExchangeRecord, FilterPass, Usage
from gateway.traces.recorder import Attachments, Recorder, RecorderCounts, RecorderLimits
from gateway.traces.retention import Retention
from gateway.traces.store import TraceStore

__all__ = [
    "ActionDecision",
    "Attachments",
    "Attempt",
    "AuditLog",
    "ExchangeRecord",
    "FilterPass",
    "Recorder",
    "RecorderCounts",
    "RecorderLimits",
    "Retention",
    "TraceStore",
    "Usage",
]
