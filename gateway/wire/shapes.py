"""Checks of the shape of a decoded request body. A wrong one is the caller's fault and is named by its path."""

from __future__ import annotations

from gateway.core.canonical import JSON
from gateway.core.errors import ClientError
from gateway.core.exchange import Path
from gateway.wire.leaves import spell


def object_at(value: JSON, path: Path) -> dict[str, JSON]:
    if not isinstance(value, dict):
        raise wrong(path, "an object")
    return value


def list_at(value: JSON, path: Path) -> list[JSON]:
    if not isinstance(value, list):
        raise wrong(path, "a list")
    return value


def wrong(path: Path, expected: str) -> ClientError:
    return ClientError("invalid_request", f"`{spell(path)}` must be {expected}")
