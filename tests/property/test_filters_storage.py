"""Any JSON, however nested and escaped: what is stored is JSON of the same shape and holds no finding."""

from __future__ import annotations

import json
from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.filters import mask_for_storage, mask_text
from gateway.filters.masking import DEPTH_MAX
from tests.filter_support import scan, scanner
from tests.property.test_filters_stream import TEXTS, TORN, WHOLE

STRINGS = st.sampled_from(WHOLE + TORN) | TEXTS | st.text(max_size=20)
LEAVES = STRINGS | st.integers(-(10**18), 10**18) | st.just(4012888888881881) | st.booleans() | st.none()
NESTED = st.builds(json.dumps, st.dictionaries(STRINGS, STRINGS, max_size=2))
VALUES = st.recursive(
    LEAVES | NESTED,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(STRINGS, inner, max_size=3),
    max_leaves=8,
)


def leaves(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, list):
        return [leaf for item in value for leaf in leaves(item)]
    if isinstance(value, dict):
        return [leaf for key, item in value.items() for leaf in (key, *leaves(item))]
    return []


def remaining(text: str) -> list[str]:
    """Findings in masked text, but for the two kinds that depend on what stood before: `1881 020 7946 0958` is a row
    of numbers until the card is gone, `1881--token x` no option."""
    return [finding.kind for finding in scan(text) if finding.kind not in ("pii.phone", "secret.password_option")]


@given(st.dictionaries(STRINGS, VALUES, max_size=3), st.booleans(), st.sampled_from([None, 1]))
@settings(max_examples=300, deadline=None)
def test_stored_json_holds_no_finding(body: dict[str, Any], ascii_only: bool, indent: int | None) -> None:
    try:
        data = json.dumps(body, ensure_ascii=ascii_only, indent=indent).encode()
        orjson.loads(data)
    except (UnicodeEncodeError, orjson.JSONDecodeError):
        return
    masked = orjson.loads(mask_for_storage(scanner(), data))
    assert DEPTH_MAX == 3
    for leaf in leaves(masked):
        assert remaining(leaf) == [], leaf
    if len({*map(str, masked)}) == len(body):  # two names may become one placeholder
        assert len(masked) == len(body)


@given(TEXTS)
@settings(max_examples=300, deadline=None)
def test_masked_text_holds_no_finding(text: str) -> None:
    masked = mask_text(scanner(), text)
    assert remaining(masked) == [], masked
