"""One HTTP/1.1 connection to an EHR's FHIR server: one exchange at a time, both bodies streamed, memory bounded.

This is the data plane's own client, because a general one costs more than all else that a request takes (ADR 0010).
What it knows of HTTP is llhttp's, Node's parser: framing, chunks, keep-alive. Whatever makes it doubtful whose answer
something is ends the connection: bytes that nobody asked for, a second answer, an answer cut short (RFC 9112 §11).
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping
from typing import Final, cast

import httptools

from broker.egress.closing import is_closed_by_peer
from broker.errors import EhrAnswerLost, EhrError

HEAD_BYTES: Final = 64 << 10
"""Most that may arrive without any of the body among it: a head, trailers, what is said of a chunk."""
HELD_BYTES: Final = 128 << 10
"""An answer is read ahead of whoever takes it by no more than this, and one read of the loop's."""
AT_ONCE_BYTES: Final = 64 << 10
"""Most that is given whole: whoever looks into it does so in one go, and others wait."""
SLOW_SECONDS: Final = 300.0
LEAST_BYTES_PER_SECOND: Final = 1024
"""How long an answer's body may be waited for in all: so many seconds, and one more for each KiB that came."""
_CHUNKED: Final = "chunked"


class StaleConnection(Exception):
    """An idle connection turned out to be closed: of this request the EHR answered nothing."""


class Http1Connection(asyncio.Protocol):
    """Sends one request after the other, and gives each answer as it arrives."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._parser = httptools.HttpResponseParser(self)
        self._waiter: asyncio.Future[None] | None = None
        self._error: EhrError | StaleConnection | None = None
        self._writable = True
        self._silence = self._waited = 0.0
        self._chunks: deque[bytes] = deque()
        self._held = 0
        self._taken = 0
        self._head_bytes = 0
        self._told_bytes = 0
        """Of headers that the parser told of, however many arrived at once."""
        self._headers: dict[str, str] = {}
        self._status = 0
        self._heard = False
        self._interim = False
        self._head_only = False
        self._has_body = False
        self._whole = True
        """Whether no answer is expected, or it is complete."""
        self._sent = True
        """Whether the EHR waits for no more of a request: else it would take the next one for the rest."""
        self._exchanges = 0
        self.closed = False
        self.idle_since = 0.0
        """When it was given back last, by the loop's clock."""

    # What the loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but its class

    def data_received(self, data: bytes) -> None:
        """Parse what arrived. Nothing may arrive but the answer to the request that was sent.

        Whoever waits is woken by a whole head, by something of the body and by the end: bytes without end that bring
        none of these are as good as silence.
        """
        if self._whole:
            self.close()
            return
        self._heard, before = True, (self._status, self._held, self._whole)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._fail("what arrived is not an answer")
        self._head_bytes = self._head_bytes + len(data) if self._held == before[1] else 0
        if self._head_bytes > HEAD_BYTES and not self._whole:
            self._fail(f"more than {HEAD_BYTES} bytes that are no body")
        if self._held > HELD_BYTES:
            self._transport.pause_reading()
        if (self._status, self._held, self._whole) != before:
            self._wake()

    def eof_received(self) -> None:
        """Close: an EHR that closes its side takes no further request."""

    def connection_lost(self, exc: Exception | None) -> None:
        """End the answer, which was whole only if nothing but the EHR's end of the connection could say so."""
        self.closed = True
        if self._whole:
            return
        if exc is None and self._status and not self._is_framed() and is_closed_by_peer(self._transport):
            self._whole = True
        elif self._error is None:
            self._error = EhrAnswerLost("the answer broke off" if self._heard else "no answer (the connection closed)")
            if not self._heard and self._exchanges > 1:
                self._error = StaleConnection()
        self._wake()

    def pause_writing(self) -> None:
        """Wait with the rest of the request's body: the EHR takes it more slowly."""
        self._writable = False

    def resume_writing(self) -> None:
        """Go on with it."""
        self._writable = True
        self._wake()

    # What the parser calls

    def on_message_begin(self) -> None:
        """Close where a second answer comes along: nobody knows whose it is."""
        if self._whole:
            self.closed = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; the values of a repeated one are joined (RFC 9110 §5.3). Trailers come too late (§6.5.1)."""
        if self._whole or self._status:
            return
        self._told_bytes += len(name) + len(value) + len(": \r\n")
        if self._told_bytes > HEAD_BYTES:  # each name that is repeated makes its value longer: that takes ever longer
            raise ValueError("a head that is too long")
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        self._headers[key] = f"{self._headers[key]}, {text}" if key in self._headers else text

    def on_headers_complete(self) -> None:
        """Go on to the body, unless this is an interim answer (RFC 9110 §15.2).

        Raises ValueError for a transfer coding that nobody asked for, which would be taken for the body itself.
        """
        if self._whole:
            return
        if self._headers.get("transfer-encoding", _CHUNKED).lower() != _CHUNKED:
            raise ValueError("a Transfer-Encoding other than chunked (RFC 9112 §7)")
        status = self._parser.get_status_code()
        self._interim = status < 200  # 1xx
        if self._interim:
            self._headers = {}
            return
        self._status = status
        if self._head_only:  # of a HEAD's answer the parser expects the body that its length announces
            self._whole = True
            self.closed = True

    def on_body(self, body: bytes) -> None:
        """Keep a piece of the body until it is taken."""
        if not self._whole:
            self._chunks.append(body)
            self._held += len(body)

    def on_message_complete(self) -> None:
        """End the answer."""
        if self._interim or self._whole:
            return
        self._whole = True
        if not self._parser.should_keep_alive():
            self.closed = True

    # What the pool calls

    async def exchange(
        self,
        head: bytes,
        body: bytes | AsyncIterator[bytes] | None,
        *,
        length: int | None,
        silence: float,
        is_head: bool,
    ) -> tuple[int, Mapping[str, str]]:
        """Send a request, and return status and headers of its answer; the body is then taken by `chunk`.

        `head` ends with its blank line; a body whose `length` in bytes is not known is sent chunked. `silence` is the
        longest that may pass without anything of the answer, in seconds. Raises `EhrAnswerLost`, `StaleConnection`, and
        what the body's iterator raises.
        """
        self._parser = httptools.HttpResponseParser(self)
        self._chunks.clear()
        self._held = self._head_bytes = self._told_bytes = self._taken = self._status = 0
        self._headers, self._waited = {}, 0.0
        self._heard = self._interim = self._whole = self._sent = False
        self._head_only, self._silence, self._has_body = is_head, silence, bool(body)
        self._exchanges += 1
        if body is None or isinstance(body, bytes):
            self._transport.write(head + body if body else head)
            self._sent = True
        else:
            self._transport.write(head)
            await self._send_pieces(body, chunked=length is None)
        while not self._status:
            await self._happening()
        return self._status, self._headers

    async def chunk(self) -> bytes:
        """Return the next piece of the answer's body; empty at its end. Raises `EhrAnswerLost`."""
        while not self._chunks:
            if self._whole:
                return b""
            began = self._loop.time()
            await self._happening()
            self._waited += self._loop.time() - began
            if self._waited > SLOW_SECONDS + self._taken / LEAST_BYTES_PER_SECOND:
                self._fail("the body came too slowly")
        piece = self._chunks.popleft()
        self._held -= len(piece)
        self._taken += len(piece)
        self._read_on()
        return piece

    def whole(self) -> bytes | None:
        """Take the body at once, where all of it is here; None where it is still arriving, is long, or broke off."""
        if not self._whole or self._error is not None or self._held > AT_ONCE_BYTES:
            return None
        body = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        self._held = 0
        return body

    @property
    def is_reusable(self) -> bool:
        """Whether another request may be sent: the last one was sent and its answer taken whole, and it stays open.

        Servers are known that refuse a request without reading its body, and then take that for the next request, whose
        answer somebody else would get. So no other follows a body, unless that was taken: it was answered by a 2xx.
        """
        is_taken = not self._has_body or 200 <= self._status < 300
        return is_taken and self._sent and self._whole and not self.closed and self._error is None and not self._chunks

    def close(self) -> None:
        """Close without waiting for anything."""
        self.closed = True
        self._transport.abort()

    def _read_on(self) -> None:
        """Go on reading, once enough was taken: also for the next exchange, which would hear nothing."""
        if self._held <= HELD_BYTES and not self._transport.is_reading() and not self.closed:
            self._transport.resume_reading()

    async def _send_pieces(self, body: AsyncIterator[bytes], *, chunked: bool) -> None:
        """Send a body as it comes (RFC 9112 §7.1), until the answer is there: an EHR may have heard enough."""
        async for piece in body:
            if self._is_answered():
                return
            if piece:
                self._transport.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
            while not (self._writable or self._status):
                await self._happening()
        if self._is_answered():
            return
        if chunked:
            self._transport.write(b"0\r\n\r\n")
        self._sent = True

    def _is_answered(self) -> bool:
        """Whether the answer has begun. Raises what ended the connection meanwhile: uvloop's takes nothing then."""
        if self._error is not None:
            raise self._error
        return bool(self._status)

    async def _happening(self) -> None:
        """Wait until something happens on the connection. Raises `EhrAnswerLost`, `StaleConnection`."""
        if self._error is not None:
            raise self._error
        self._waiter = self._loop.create_future()
        timer = self._loop.call_later(self._silence, self._fail, f"nothing arrived for {self._silence:g} s")
        try:
            await self._waiter
        finally:
            timer.cancel()
            self._waiter = None
        if self._error is not None:
            raise self._error

    def _fail(self, cause: str) -> None:
        if self._error is None:
            self._error = EhrAnswerLost(cause)
        self.close()
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _is_framed(self) -> bool:
        """Whether the answer said itself where it ends."""
        return "content-length" in self._headers or "transfer-encoding" in self._headers
