"""The connections to one FHIR server: kept open, last used first, bounded in number, opened where it is allowed."""

import asyncio
import re
import ssl
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Final, Protocol

from broker import __version__
from broker.egress.addresses import Address
from broker.egress.http1 import Http1Connection, StaleConnection
from broker.errors import EhrAnswerLost, EhrMisbehaved, EhrUnreachable

MOST_CONNECTIONS: Final = 200
"""To one origin at once, for what is fetched whole."""
MOST_STREAMS: Final = 1000
"""The same for what is streamed: the end of it. What is right for an EHR is kept in `broker/fair_use/`."""
IDLE_SECONDS: Final = 15.0
"""For how long an idle connection is used again; servers keep theirs longer, so a request seldom finds one closed."""
POOL_SECONDS: Final = 2.0
"""How long a request waits for one of the connections to be free."""
REPEATABLE: Final = frozenset({"GET", "HEAD"})
BODILESS: Final = frozenset({"GET", "HEAD", "DELETE"})
_USER_AGENT: Final = f"user-agent: smart-token-broker/{__version__}"
_HEAD: Final = re.compile(r"[\t\r\n\x20-\x7e]+")

Dial = Callable[[float], Awaitable[Http1Connection]]
"""Opens a connection within so many seconds. Raises `EhrUnreachable`, `EhrMisbehaved`."""


class Upstream:
    """Lends connections to one origin."""

    def __init__(self, dial: Dial, *, most: int = MOST_STREAMS) -> None:
        self._dial = dial
        self._most = most
        self._idle: list[Http1Connection] = []
        self._lent = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._sweep: asyncio.TimerHandle | None = None
        """Due while any connection is idle: else the last ones would stay open until another request came."""

    async def take(self, patience: float) -> Http1Connection:
        """Lend the connection that was used last, or a new one. Raises `EhrUnreachable`, `EhrMisbehaved`."""
        await self._place(min(POOL_SECONDS, patience / 2))
        try:
            return self._fresh() or await self._dial(patience / 2)
        except BaseException:
            self._free()
            raise

    async def renewed(self, patience: float) -> Http1Connection:
        """Lend a new connection in the place of one that turned out to be closed. Raises as `take`."""
        return await self._dial(patience / 2)

    def give_back(self, connection: Http1Connection) -> None:
        """Take a connection back: for the next request, if its answer was taken whole."""
        if connection.is_reusable:
            loop = asyncio.get_running_loop()
            connection.idle_since = loop.time()
            self._idle.append(connection)
            self._sweep = self._sweep or loop.call_later(IDLE_SECONDS, self._close_idle)
        else:
            connection.close()
        self._free()

    def close(self) -> None:
        """Close what is idle."""
        while self._idle:
            self._idle.pop().close()
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None

    def _close_idle(self) -> None:
        """Close what was idle for too long, and look again when the next one will have been."""
        loop = asyncio.get_running_loop()
        while self._idle and self._idle[0].idle_since + IDLE_SECONDS <= loop.time():
            self._idle.pop(0).close()
        self._sweep = None
        if self._idle:
            self._sweep = loop.call_at(self._idle[0].idle_since + IDLE_SECONDS, self._close_idle)

    async def _place(self, patience: float) -> None:
        if self._lent < self._most and not self._waiting:
            self._lent += 1
            return
        mine = asyncio.get_running_loop().create_future()
        self._waiting.append(mine)
        try:
            async with asyncio.timeout(patience):
                await mine
        except BaseException as error:
            if mine.done() and not mine.cancelled():
                self._free()  # it was mine already
            elif mine in self._waiting:  # `_free` takes those out that nobody waits for any more
                self._waiting.remove(mine)
            if isinstance(error, TimeoutError):
                raise EhrUnreachable("no connection (all are in use)") from None
            raise

    def _free(self) -> None:
        while self._waiting:
            next_one = self._waiting.popleft()
            if not next_one.done():
                next_one.set_result(None)
                return
        self._lent -= 1

    def _fresh(self) -> Http1Connection | None:
        """Return the idle connection that was used last; close those that were idle for too long."""
        oldest = asyncio.get_running_loop().time() - IDLE_SECONDS
        while self._idle:
            connection = self._idle.pop()
            if connection.is_reusable and connection.idle_since > oldest:
                return connection
            connection.close()
        return None


class CheckedAddresses(Protocol):
    """Looks a host up, and looks at what it found."""

    async def addresses(self, host: str, port: int, timeout: float) -> Sequence[Address]:
        """Return where a host may be connected to. Raises `EhrUnreachable`, `EhrMisbehaved`."""
        ...


def dialling(checked: CheckedAddresses, host: str, port: int, tls: Callable[[], ssl.SSLContext] | None) -> Dial:
    """Return what connects to one of a host's allowed addresses; TLS, done as `tls` says by then, checks the name."""

    async def dial(patience: float) -> Http1Connection:
        loop = asyncio.get_running_loop()
        give_up = loop.time() + patience
        addresses, context = await checked.addresses(host, port, patience), tls() if tls else None
        for left in range(len(addresses), 0, -1):
            try:
                async with asyncio.timeout((give_up - loop.time()) / left):
                    _, connection = await loop.create_connection(
                        Http1Connection, str(addresses[-left]), port, ssl=context, server_hostname=host if tls else None
                    )
            except (OSError, TimeoutError) as error:  # `ssl.SSLError` is an OSError
                if left == 1:
                    raise EhrUnreachable(f"no connection ({type(error).__name__})") from None
            else:
                return connection
        raise EhrUnreachable("no connection (the host has no address)")

    return dial


async def exchange(
    upstream: Upstream,
    method: str,
    target: str,
    host: str,
    headers: Mapping[str, str],
    content: bytes | AsyncIterator[bytes] | None,
    timeout: float,
) -> tuple[int, Mapping[str, str], Http1Connection]:
    """Send one request, and return status and headers of its answer, with the connection to take its body from.

    Whoever gets that gives it back. `timeout` seconds is the longest silence. A request that an idle connection did not
    take is sent once more on a new one, if it may be repeated at all (RFC 9110 §9.2.2). Raises `EhrUnreachable` when it
    certainly was not processed, `EhrAnswerLost` when it may have been, and `EhrMisbehaved`.
    """
    length = body_length(headers, content)
    head = request_head(method, target, host, headers, length=length)
    connection, is_head = await upstream.take(timeout), method == "HEAD"
    try:
        try:
            status, got = await connection.exchange(head, content, length=length, silence=timeout, is_head=is_head)
        except StaleConnection:
            if method not in REPEATABLE or content:
                raise EhrAnswerLost("no answer (the connection closed)") from None
            connection.close()
            connection = await upstream.renewed(timeout)
            status, got = await connection.exchange(head, content, length=length, silence=timeout, is_head=is_head)
    except BaseException:
        upstream.give_back(connection)
        raise
    return status, got, connection


def body_length(headers: Mapping[str, str], content: bytes | AsyncIterator[bytes] | None) -> int | None:
    """Return the length of a request's body in bytes; None where nobody knows it yet."""
    if content is None or isinstance(content, bytes):
        return len(content or b"")
    return int(headers["content-length"]) if "content-length" in headers else None


async def body_of(connection: Http1Connection) -> AsyncIterator[bytes]:
    """Give the body as it arrives. Raises `EhrAnswerLost`."""
    while piece := await connection.chunk():
        yield piece


def request_head(method: str, target: str, host: str, headers: Mapping[str, str], *, length: int | None) -> bytes:
    """Return the head of a request; `length` of its body in bytes, None for one that is sent in pieces.

    Raises `EhrMisbehaved` for what cannot stand in one: a line that holds a line break would be two (RFC 9112 §11.2).
    """
    lines = [f"{method} {target} HTTP/1.1", f"host: {host}", _USER_AGENT]
    lines += [f"{name}: {value}" for name, value in headers.items() if name != "content-length"]
    if length or length is None or method not in BODILESS:
        lines.append("transfer-encoding: chunked" if length is None else f"content-length: {length}")
    head, breaks = "\r\n".join(lines), len(lines) - 1
    if " " in target or head.count("\r") != breaks or head.count("\n") != breaks or not _HEAD.fullmatch(head):
        raise EhrMisbehaved("the request could not be made (a line break, NUL or letter that no head may hold)")
    return f"{head}\r\n\r\n".encode("ascii")
