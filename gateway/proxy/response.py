"""The answer of an upstream while it is being read. Knows the connection only as something to resume or to give up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Protocol, Self

from gateway.proxy.upstream import Phase, UpstreamFailure


class Source(Protocol):
    """Where a response comes from."""

    loop: asyncio.AbstractEventLoop

    def resume(self, response: Response) -> None: ...
    def abandon(self, response: Response) -> None: ...


class Response:
    """What an upstream answered: `status` and `headers` (names in lowercase), then the body, once.

    Read it to the end or call `aclose` (or use `async with`): an unfinished response keeps its connection. Body framing
    is removed, content encoding is not. Not for concurrent readers.
    """

    __slots__ = (
        "_buffered",
        "_chunks",
        "_ended",
        "_error",
        "_pause_above",
        "_source",
        "_waiter",
        "headers",
        "status",
    )

    def __init__(self, source: Source, pause_above: int, waiter: asyncio.Future[None]) -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self._source = source
        self._chunks: list[bytes] = []
        self._buffered = 0
        self._pause_above = pause_above
        self._ended = False
        self._error: UpstreamFailure | None = None
        self._waiter: asyncio.Future[None] | None = waiter

    @property
    def ended(self) -> bool:
        """Whether the last byte has arrived or will never arrive."""
        return self._ended

    @property
    def error(self) -> UpstreamFailure | None:
        """Why the body is cut short, once that is known."""
        return self._error

    async def head(self) -> None:
        """Until `status` is set or the exchange has failed. Called once, by the pool."""
        waiter = self._waiter
        assert waiter is not None
        try:
            await waiter
        except asyncio.CancelledError:
            await self.aclose()
            raise

    async def read(self, bytes_max: int) -> bytes:
        """The rest of the body. Raises UpstreamFailure, `upstream_too_large` beyond `bytes_max`."""
        self._pause_above = bytes_max  # as much as the caller takes: nothing beyond it may be buffered
        self._source.resume(self)
        while not self._ended and self._buffered <= bytes_max:
            await self._more()
        if self._error is not None:
            raise self._error
        if self._buffered > bytes_max:
            await self.aclose()
            self._chunks.clear()
            raise UpstreamFailure(
                "upstream_too_large",
                f"the upstream's answer is longer than {bytes_max} bytes",
                phase=Phase.READ,
                dispatched=True,
            )
        chunks = self._chunks
        self._buffered = 0
        self._chunks = []
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives; what came together is yielded together. Raises UpstreamFailure after the last byte
        that did arrive when the body is cut short. Leaving early closes the connection."""
        try:
            while True:
                chunks = self._chunks
                if chunks:
                    self._chunks = []
                    self._buffered = 0
                    yield chunks[0] if len(chunks) == 1 else b"".join(chunks)
                    self._source.resume(self)
                elif self._error is not None:
                    raise self._error
                elif self._ended:
                    return
                else:
                    await self._more()
        finally:
            await self.aclose()

    async def aclose(self) -> None:
        """Give the response up. Its connection is closed unless the response was complete. Safe to call again."""
        if not self._ended:
            self._source.abandon(self)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _more(self) -> None:
        """Until something happened: a byte, the end, a failure. A cancelled reader gives the response up."""
        self._waiter = waiter = self._source.loop.create_future()
        try:
            await waiter
        except asyncio.CancelledError:
            await self.aclose()
            raise

    def put(self, chunk: bytes) -> bool:
        """Take a piece of the body from the connection. True when that is more than the reader has room for."""
        self._chunks.append(chunk)
        self._buffered += len(chunk)
        if self._waiter is not None:
            self.wake()
        return self._buffered > self._pause_above

    def wake(self) -> None:
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)

    def end(self, error: UpstreamFailure | None) -> None:
        self._ended = True
        self._error = error
        self.wake()
