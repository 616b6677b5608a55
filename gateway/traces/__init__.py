"""What happened: exchanges as trees, masked before they are stored; the audit log; counters."""

from gateway.traces.audit import AuditLog
from gateway.traces.record import ActionDecision, Attempt, ExchangeRecord, FilterPass, Usage

__all__ = ["ActionDecision", "Attempt", "AuditLog", "ExchangeRecord", "FilterPass", "Usage"]
