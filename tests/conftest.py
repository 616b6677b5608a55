"""Fixtures that every room may use."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.servers import Throwaway, throwaway

# How long an example takes is the machine's affair: a slow one must not fail a build. CI tries the same examples every
# time, so that a build fails for what it changed; everybody else's runs go on searching.
settings.register_profile(
    "gateway", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize="CI" in os.environ
)
settings.load_profile("gateway")


@pytest.fixture(scope="session")
def redis_server() -> Iterator[Throwaway]:
    """The embedded server; one per test process, so that pytest-xdist's workers do not meet."""
    with throwaway() as running:
        yield running


@pytest.fixture
def redis_url(redis_server: Throwaway) -> str:
    """The URL of that server, emptied."""
    redis_server.flush()
    return redis_server.url


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
