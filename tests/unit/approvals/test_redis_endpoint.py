"""URLs of Redis: what is read, what is refused, and that passwords stay in."""

from __future__ import annotations

import pytest

from gateway.approvals.endpoint import Endpoint, parse_url
from gateway.core.errors import ClientError


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://cache", Endpoint(host="cache")),
        ("redis://cache:7000/3", Endpoint(host="cache", port=7000, db=3)),
        ("redis://[::1]:7000/", Endpoint(host="::1", port=7000)),
        ("redis://cache?db=4", Endpoint(host="cache", db=4)),
        ("redis://:s%40cret@cache", Endpoint(host="cache", password="s@cret")),
        ("rediss://ann:pw@cache:1", Endpoint(host="cache", port=1, tls=True, username="ann", password="pw")),
        ("unix:///run/r.sock", Endpoint(path="/run/r.sock")),
        ("unix:///run/a%20b.sock?db=2", Endpoint(path="/run/a b.sock", db=2)),
    ],
)
def test_a_url_is_taken_apart(url: str, expected: Endpoint) -> None:
    assert parse_url(url) == expected


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://cache",
        "redis://",
        "redis://cache:99999",
        "redis://cache:port",
        "redis://cache/name",
        "redis://cache/-1",
        "redis://cache/1/2",
        "redis://cache?ssl_cert_reqs=none",
        "rediss://cache?ca_file=/does/not/exist",
        "redis://cache?ca_file=/etc/hostname",
        "unix://relative.sock",
        "redis+sentinel://cache",
    ],
)
def test_a_url_that_is_not_understood_is_refused(url: str) -> None:
    with pytest.raises(ClientError) as caught:
        parse_url(url)
    assert caught.value.code == "redis_url"


def test_a_password_reaches_neither_repr_nor_message() -> None:
    endpoint = parse_url("redis://ann:hunter2@cache/1")
    assert "hunter2" not in repr(endpoint)
    assert "hunter2" not in str(endpoint)
    with pytest.raises(ClientError) as caught:
        parse_url("redis://ann:hunter2@cache:none")
    assert "hunter2" not in str(caught.value)


def test_tls_always_verifies() -> None:
    context = parse_url("rediss://cache").ssl_context()
    assert context is not None
    assert context.check_hostname
    assert parse_url("redis://cache").ssl_context() is None
