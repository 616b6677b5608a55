"""What happened: exchanges as trees, masked before they are stored; the audit log; counters."""

from gateway.traces.attach import attachments
from gateway.traces.audit import AuditLog
from gateway.traces.metrics import Metrics
from gateway.traces.preparing import Attachments
from gateway.traces.query import BodyView, ExchangeView, RunStore, RunSummary, RunTree
from gateway.traces.record import ActionDecision, Attempt, ExchangeRecord, FilterPass, Usage
from gateway.traces.recorder import Recorder, RecorderCounts, RecorderLimits
from gateway.traces.retention import Retention
from gateway.traces.store import TraceStore
from gateway.traces.tree import Node, Step, StepKind, flatten

__all__ = [
    "ActionDecision",
    "Attachments",
    "Attempt",
    "AuditLog",
    "BodyView",
    "ExchangeRecord",
    "ExchangeView",
    "FilterPass",
    "Metrics",
    "Node",
    "Recorder",
    "RecorderCounts",
    "RecorderLimits",
    "Retention",
    "RunStore",
    "RunSummary",
    "RunTree",
    "Step",
    "StepKind",
    "TraceStore",
    "Usage",
    "attachments",
    "flatten",
]
