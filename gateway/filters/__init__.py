"""What is found in texts, and what becomes of it: secrets and personal data, masked or denied, streamed or not."""

from gateway.filters.judging import RulePlan, judge, judge_async, plan
from gateway.filters.kinds import KINDS
from gateway.filters.masking import mask_for_storage, mask_text
from gateway.filters.scanner import Scanner, filter_digest
from gateway.filters.streaming import text_guard

__all__ = [
    "KINDS",
    "RulePlan",
    "Scanner",
    "filter_digest",
    "judge",
    "judge_async",
    "mask_for_storage",
    "mask_text",
    "plan",
    "text_guard",
]
