"""One HTTP/1.1 connection to an upstream, and the response that is being read from it.

A connection carries one exchange at a time. It hands itself back to its lane the moment a response is complete and
clean; whatever is doubtful (surplus bytes, an unsent rest of the request, an abandoned body) closes it. Knows nothing
of routing, retries or limits: that is `pool`. There are no timers here: `deadline` is read by the pool's sweep.
"""

from __future__ import annotations

import asyncio
import re
import select
import ssl
from math import inf
from typing import Protocol, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from gateway.proxy.response import Response
from gateway.proxy.upstream import Phase, PoolLimits, Timeouts, UpstreamFailure

INTERIM_MAX = 16
"""1xx answers before the final one. Each restarts the wait for the head, so there must be an end to them."""

_KEEP_ALIVE = re.compile(rb"timeout=([0-9]{1,6})", re.IGNORECASE)
_FRAMING = frozenset({b"content-length", b"transfer-encoding", b"keep-alive"})


class Keeper(Protocol):
    """Who a connection belongs to. `free`: ready for the next exchange; `gone`: will carry no other; `lost`: its socket
    is closed."""

    limits: PoolLimits

    def free(self, connection: Connection) -> None: ...
    def gone(self, connection: Connection) -> None: ...
    def lost(self, connection: Connection) -> None: ...


class _RefusedError(Exception):
    """Raised inside a parser callback: stops the parser at an answer that is well-formed but not acceptable."""


class Connection(asyncio.Protocol):
    """The protocol of one connection and, at once, the callbacks of its parser."""

    __slots__ = (
        "_adopted",
        "_complete",
        "_eof_ends",
        "_framed",
        "_head",
        "_head_only",
        "_headers",
        "_interims",
        "_keeper",
        "_limits",
        "_parser",
        "_poll",
        "_reading_paused",
        "_response",
        "_reusable",
        "_timeouts",
        "_total_deadline",
        "_transport",
        "_unframed",
        "_unsent",
        "closed",
        "deadline",
        "exchanges",
        "idle_max_s",
        "loop",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, keeper: Keeper) -> None:
        self.loop = loop
        self.closed = False
        self.deadline = inf  # loop time at which `expire` is due
        self.exchanges = 0
        self.idle_max_s = keeper.limits.idle_s
        self._keeper = keeper
        self._limits = keeper.limits
        self._response: Response | None = None
        self._reading_paused = False
        self._unsent = 0  # bytes in the write buffer when writing was last seen to be stuck; 0: not stuck
        self._complete = False
        self._adopted = False
        self._head = self._head_only = False
        self._eof_ends = self._framed = self._reusable = False
        self._unframed = self._interims = 0
        self._total_deadline = inf

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are not subclasses
        self._parser = HttpResponseParser(self)
        self._poll = select.poll()
        self._poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)

    def data_received(self, data: bytes) -> None:
        if self._response is None:
            self.close()  # nobody asked: an answer to come would be mistaken for another's
            return
        self._unframed += len(data)
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade):
            if not self._complete:
                self._fail("upstream_protocol", "the upstream's answer is not valid HTTP/1.1")
                return
            self._reusable = False  # a whole answer, then rubbish
        if self._complete:
            self._finish()
        elif self._unframed > self._limits.head_bytes_max:
            self._fail("upstream_protocol", "the upstream's answer has an oversized head, trailer or chunk header")
        elif not self._head and not self._reading_paused:
            self._extend(self._timeouts.read_s)

    def eof_received(self) -> None:
        """The upstream will send nothing more: the end of a body without a length, the loss of anything else."""
        if self._response is None:
            self.close()
        elif self._eof_ends and self._orderly():
            self._reusable = False
            self._finish()
        else:
            self._fail("upstream_closed", "the upstream hung up before the end of its answer")

    def connection_lost(self, exc: Exception | None) -> None:
        if self._response is not None:
            self._fail("upstream_closed", "the connection to the upstream broke before the end of its answer")
        self.close()
        self._keeper.lost(self)

    def pause_writing(self) -> None:
        if self._response is not None:
            self._unsent = self._transport.get_write_buffer_size()
            self._extend(self._timeouts.write_s)

    def resume_writing(self) -> None:
        self._unsent = 0
        if self._response is not None:
            self._extend(self._timeouts.read_s)

    # -- what the pool asks for

    def usable(self) -> bool:
        """Whether an idle connection may carry a request: alive, and the upstream has neither spoken nor hung up.

        The socket is asked, not only the loop: an end of file that waits in the kernel is what makes a request that
        may not be sent twice fail. One poll costs 1 µs.
        """
        return not self.closed and not self._transport.is_closing() and not self._poll.poll(0)

    def send(self, request: bytes, *, head_only: bool, timeouts: Timeouts, total_deadline: float) -> Response:
        """Begin an exchange. The response is unanswered until its `status` is set or it has ended."""
        assert self._response is None and not self.closed
        self._timeouts = timeouts
        self._total_deadline = total_deadline
        self._complete = self._eof_ends = False
        self._reusable = self._framed = False
        self._head = True
        self._head_only = head_only
        self._unframed = self._interims = 0
        self.exchanges += 1
        self._response = response = Response(self, self._limits.buffer_bytes_max, self.loop.create_future())
        self._headers = response.headers
        self._extend(timeouts.read_s)
        self._transport.write(request)
        return response

    @property
    def silent(self) -> bool:
        """Whether no byte has come back for the request that was sent last."""
        return self._head and not self._unframed

    def expire(self, now: float) -> None:
        """The deadline passed: an idle connection is closed, an exchange fails unless its request still progresses."""
        if self._response is None:
            self.close()
            return
        if self._reading_paused:
            self._fail("upstream_closed", "the answer was left unread for too long")
            return
        unsent = self._transport.get_write_buffer_size() if self._unsent else 0
        if unsent and unsent < self._unsent and now < self._total_deadline:
            self._unsent = unsent
            self._extend(self._timeouts.write_s)
            return
        phase = Phase.WRITE if unsent else Phase.READ
        self._fail("upstream_timeout", "the upstream did not answer in time", phase)

    def resume(self, response: Response) -> None:
        """The reader took what there was."""
        if self._reading_paused and self._response is response:
            self._reading_paused = False
            self._extend(self._timeouts.read_s)
            self._transport.resume_reading()

    def abandon(self, response: Response) -> None:
        """The reader will not read on: what is under way cannot be told from what would come next."""
        if self._response is response:
            self._fail("upstream_closed", "the answer was given up before its end")

    def adopt(self) -> bool:
        """The keeper counts this connection from now on. False when it is closed already."""
        self._adopted = not self.closed
        return self._adopted

    def shut(self) -> None:
        """Close whatever is under way: the gateway stops."""
        if self._response is not None:
            self._fail("upstream_closed", "the gateway is stopping")
        self.close()

    def close(self) -> None:
        """Close an idle connection in good order."""
        if not self.closed:
            self._leave()
            self._transport.close()

    # -- the parser's callbacks

    def on_message_begin(self) -> None:
        if self._complete:
            raise _RefusedError  # a second answer to one request: response splitting, or a broken upstream

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._head:
            return  # trailers are dropped: nothing reads them, and forwarding would need a vetting of its own
        name = name.lower()
        self._headers.append((name, value))
        if name in _FRAMING:
            self._note(name, value)

    def on_headers_complete(self) -> None:
        response = self._response
        assert response is not None
        status = self._parser.get_status_code()
        limits = self._limits
        headers = self._headers
        if len(headers) > limits.headers_max or (
            self._unframed > limits.head_bytes_max
            and sum(len(n) + len(v) + 4 for n, v in headers) > limits.head_bytes_max
        ):
            raise _RefusedError
        if status < 200:
            self._interims += 1
            if status < 100 or status == 101 or self._interims > INTERIM_MAX:
                raise _RefusedError  # no upgrade was asked for
            headers.clear()
            self._framed = False
            self._extend(self._timeouts.read_s)
            return
        self._head = False
        self._unframed = 0
        response.status = status
        if self._head_only:
            self._complete = True
            self._reusable = self._parser.should_keep_alive()
        elif not self._framed and status not in (204, 304):
            self._eof_ends = True
        response.wake()

    def on_body(self, body: bytes) -> None:
        if self._complete:
            raise _RefusedError  # a body after the answer to HEAD
        self._unframed = 0
        response = self._response
        assert response is not None
        if response.put(body) and not self._reading_paused:
            self._reading_paused = True
            self._extend(self._timeouts.unread_s)  # our reader is slow, not the upstream
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        if self._head or self._complete:
            return  # the end of a 1xx answer
        self._complete = True
        self._reusable = self._parser.should_keep_alive()

    # -- the ends of an exchange

    def _note(self, name: bytes, value: bytes) -> None:
        """Headers that say where the answer ends, and how long the connection may stay. llhttp refuses both framings
        together, a repeated or malformed length; what it lets pass is refused here."""
        if name == b"keep-alive":
            found = _KEEP_ALIVE.search(value)
            if found:  # leave a second for the way: who closes first must not be the upstream
                self.idle_max_s = min(self.idle_max_s, max(int(found[1]) - 1.0, 0.0))
            return
        if name == b"transfer-encoding" and (
            self._framed or value.strip().lower() != b"chunked" or self._parser.get_http_version() != "1.1"
        ):
            raise _RefusedError  # other codings, and chunks where HTTP/1.0 has none: known ways to smuggle
        self._framed = True

    def _extend(self, seconds: float) -> None:
        self.deadline = min(self.loop.time() + seconds, self._total_deadline)

    def _orderly(self) -> bool:
        """Whether the end of the stream is the peer's word. Without the goodbye of TLS anybody on the way could have
        cut the body short (asyncio reports both alike; uvloop reports a loss)."""
        tls: ssl.SSLObject | None = self._transport.get_extra_info("ssl_object")
        if tls is None:
            return True
        try:
            return tls.read(1) == b""
        except ssl.SSLError:
            return False

    def _finish(self) -> None:
        """The answer is complete. The connection goes back only when nothing about it is in doubt."""
        response = self._response
        assert response is not None
        self._response = None
        if self._reading_paused:
            self._reading_paused = False
            self._transport.resume_reading()
        response.end(None)
        if not self._reusable:
            self.close()
        elif self._transport.get_write_buffer_size():
            self._abort()  # answered early: the rest of the request must not be taken for the next one
        else:
            if self._head_only:
                self._parser = HttpResponseParser(self)  # llhttp still waits for the body that the head announced
            self._keeper.free(self)

    def _fail(self, code: str, message: str, phase: Phase = Phase.READ) -> None:
        response = self._response
        assert response is not None
        self._response = None
        response.end(UpstreamFailure(code, message, phase=phase, dispatched=True))
        self._abort()

    def _abort(self) -> None:
        if not self.closed:
            self._leave()
        self._transport.abort()

    def _leave(self) -> None:
        self.closed = True
        self.deadline = inf
        del self._parser  # it holds this object's methods: a cycle that only the collector would end
        if self._adopted:
            self._keeper.gone(self)
