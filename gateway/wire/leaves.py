"""Strings inside JSON values: find them all, change some of them, write the value again.

Shared by the dialects. Knows nothing of what a body means: a codec says which leaves need no inspection.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import cast

import orjson

from gateway.core.canonical import JSON
from gateway.core.errors import ClientError
from gateway.core.exchange import Path


def leaves(value: JSON, path: Path) -> list[tuple[Path, str]]:
    """Every string in `value`, in document order, with its path. The parser allows 200 levels, so this may recurse."""
    found: list[tuple[Path, str]] = []
    if isinstance(value, str):
        found.append((path, value))
    elif isinstance(value, (dict, list)):
        _collect(value, path, found)
    return found


def _collect(node: dict[str, JSON] | list[JSON], path: Path, found: list[tuple[Path, str]]) -> None:
    for step, value in node.items() if isinstance(node, dict) else enumerate(node):
        if isinstance(value, str):
            found.append(((*path, step), value))
        elif isinstance(value, (dict, list)):
            _collect(value, (*path, step), found)


def get(value: JSON, path: Path) -> JSON:
    """The value at `path`. Raises LookupError or TypeError where the path does not lead to one."""
    for step in path:
        value = value[step]  # type: ignore[index]
    return value


def with_values(value: JSON, edits: Mapping[Path, JSON]) -> JSON:
    """A copy with other values at these paths; what is not on a path is shared with the original, not copied."""
    copied: dict[Path, JSON] = {(): _shallow(value)}
    for path, replacement in edits.items():
        for depth in range(1, len(path)):
            prefix = path[:depth]
            if prefix not in copied:
                fresh = _shallow(get(copied[prefix[:-1]], prefix[-1:]))
                copied[prefix] = fresh
                _put(copied[prefix[:-1]], prefix[-1], fresh)
        _put(copied[path[:-1]], path[-1], replacement)
    return copied[()]


def encode(value: JSON) -> bytes:
    """Compact JSON in the order of the keys. Raises ClientError `not_encodable` for an infinite number."""
    try:
        return orjson.dumps(value)
    except (TypeError, orjson.JSONEncodeError):  # an integer of more than 64 bits: slower, but exact
        pass
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (ValueError, RecursionError):
        raise ClientError("not_encodable", "the body has a number that JSON cannot hold") from None


def spell(path: Path) -> str:
    """The path as people write it: `messages[0].content`."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return text.removeprefix(".") or "the body"


def _shallow(value: JSON) -> JSON:
    if isinstance(value, dict):
        return dict(value)
    if isinstance(value, list):
        return list(value)
    raise KeyError("a path leads through a value that is no object or array")


def _put(container: JSON, step: str | int, value: JSON) -> None:
    if isinstance(container, dict):
        container[cast("str", step)] = value
    elif isinstance(container, list):
        container[cast("int", step)] = value
