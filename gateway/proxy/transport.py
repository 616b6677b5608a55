"""The pool behind httpx2's transport interface, for client libraries that take a transport (SDKs, test doubles).

The gateway's own hot path calls `Pool.request`: building httpx2's Request and Response costs more than the exchange.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from math import inf

import httpx2

from gateway.core.errors import ClientError
from gateway.proxy.pool import Pool
from gateway.proxy.response import Response
from gateway.proxy.upstream import Phase, Target, Timeouts, UpstreamFailure

_EXCEPTIONS: dict[tuple[str, Phase], type[httpx2.TransportError]] = {
    ("upstream_connect", Phase.CONNECT): httpx2.ConnectError,
    ("upstream_timeout", Phase.CONNECT): httpx2.ConnectTimeout,
    ("upstream_timeout", Phase.WRITE): httpx2.WriteTimeout,
    ("upstream_timeout", Phase.READ): httpx2.ReadTimeout,
    ("upstream_pool", Phase.POOL): httpx2.PoolTimeout,
    ("upstream_protocol", Phase.READ): httpx2.RemoteProtocolError,
    ("upstream_closed", Phase.READ): httpx2.RemoteProtocolError,
}


class PooledTransport(httpx2.AsyncBaseTransport):
    """`Pool` as an httpx2 transport. Request bodies are gathered before they are sent; closing it closes the pool."""

    def __init__(self, pool: Pool | None = None) -> None:
        self.pool = pool or Pool()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        url = request.url
        if url.scheme not in ("http", "https"):
            raise httpx2.UnsupportedProtocol("the URL of an upstream starts with http:// or https://", request=request)
        tls = url.scheme == "https"
        target = Target(tls, url.raw_host.decode("ascii"), url.port or (443 if tls else 80))
        body = await request.aread()
        try:
            response = await self.pool.request(
                target,
                request.method,
                url.raw_path,
                [(name.lower(), value) for name, value in request.headers.raw],
                body,
                timeouts=_timeouts(request),
            )
        except UpstreamFailure as failure:
            raise _translate(failure, request) from failure
        except ClientError as error:
            raise httpx2.LocalProtocolError(error.message, request=request) from error
        return httpx2.Response(
            response.status,
            headers=response.headers,
            stream=_Body(response, request),
            extensions={"http_version": b"HTTP/1.1"},
            request=request,
        )

    async def aclose(self) -> None:
        await self.pool.aclose()


class _Body(httpx2.AsyncByteStream):
    def __init__(self, response: Response, request: httpx2.Request) -> None:
        self._response = response
        self._request = request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._response.chunks():
                yield chunk
        except UpstreamFailure as failure:
            raise _translate(failure, self._request) from failure

    async def aclose(self) -> None:
        await self._response.aclose()


def _translate(failure: UpstreamFailure, request: httpx2.Request) -> httpx2.TransportError:
    kind = _EXCEPTIONS.get((failure.code, failure.phase), httpx2.RemoteProtocolError)
    return kind(failure.message, request=request)


def _timeouts(request: httpx2.Request) -> Timeouts:
    given = request.extensions.get("timeout") or {}

    def seconds(name: str) -> float:
        value = given.get(name)
        return inf if value is None else value

    return Timeouts(
        connect_s=seconds("connect"), write_s=seconds("write"), read_s=seconds("read"), pool_s=seconds("pool")
    )
