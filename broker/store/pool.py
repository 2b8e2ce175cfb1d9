"""Connections that are ready in time, or refused in time.

A Redis that is gone is refused within a second: half a second to connect, or 0.8 seconds for an answer on a connection
that looked alive. Whoever finds all connections in use waits in line for as long as Redis answers those who have one,
and is refused with the first of them that breaks.

Time in which this process itself was held up says nothing about Redis, whose answers may have come meanwhile.
"""

import asyncio
from collections import deque
from typing import Any, Final

from redis.asyncio import BlockingConnectionPool
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.exceptions import ConnectionError as NotConnectedError
from redis.exceptions import TimeoutError as NoAnswerError
from redis.maint_notifications import MaintNotificationsConfig

WAIT_SECONDS: Final = 5.0  # for one of the pool's connections to be free, while Redis answers
SILENT_SECONDS: Final = 0.5  # without any answer: then a connection that breaks says that Redis is gone
LAST_LOOK_SECONDS: Final = 0.02  # for answers that have come and were not read yet
CONNECT_SECONDS: Final = 0.5  # finding the primary, TLS, AUTH and all tries together
TICKS: Final = 10  # that those seconds are counted in
ANSWER_SECONDS: Final = 0.8
IDLE_SECONDS: Final = 15  # a connection unused for longer is asked PING first
CONNECT_RETRIES: Final = 2
OPENING: Final = 8  # connections opened at once: a crowd's would take each other's half second


class Pool(BlockingConnectionPool):
    """Hands out connections that are ready, or fails soon. A command on one of them is sent at most once."""

    def __init__(self, *, client_name: str, max_connections: int, **options: Any) -> None:
        super().__init__(
            **options,
            max_connections=max_connections,
            timeout=WAIT_SECONDS,
            client_name=client_name,
            driver_info=None,
            protocol=3,
            legacy_responses=False,
            decode_responses=False,
            socket_connect_timeout=CONNECT_SECONDS,
            socket_timeout=ANSWER_SECONDS,
            health_check_interval=IDLE_SECONDS,
            retry=Retry(NoBackoff(), 0),
            # With them a closed idle connection would go unnoticed, and the server could move us to another address.
            maint_notifications_config=MaintNotificationsConfig(enabled=False),
        )
        self._line: deque[asyncio.Future[None]] = deque()
        self._answered_at = float("-inf")
        self._opening = asyncio.Semaphore(OPENING)
        self._not_opened_at = float("-inf")

    async def get_connection(self, *_: Any, **__: Any) -> AbstractConnection:
        """Return a connection. Raises redis-py's ConnectionError when none is free in time, or cannot be opened."""
        is_new = True
        while (is_new and self._line) or not self.can_get_connection():
            await self._wait_in_line(first=not is_new)
            is_new = False
        connection: AbstractConnection = await super().get_connection()  # type: ignore[no-untyped-call]
        return connection

    async def release(self, connection: AbstractConnection) -> None:
        """Take a connection back, and let the next one have it; or refuse all of them, if Redis is gone."""
        loop, is_open = asyncio.get_running_loop(), connection.is_connected
        now = loop.time()
        await super().release(connection)
        if is_open:
            self._answered_at = now
        if now < self._answered_at + SILENT_SECONDS:
            self._call_next()
        elif self._line:
            loop.call_later(LAST_LOOK_SECONDS, self._judge_silence, now)

    def _judge_silence(self, broke_at: float) -> None:
        """Let the next one have what a broken connection left, if another was answered; else refuse the whole line."""
        if self._answered_at >= broke_at:
            self._call_next()
            return
        for place in self._line:
            if not place.done():
                place.set_exception(NotConnectedError("those who have a connection are not answered"))
        self._line.clear()

    async def _wait_in_line(self, *, first: bool) -> None:
        place = asyncio.get_running_loop().create_future()
        (self._line.appendleft if first else self._line.append)(place)
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await place
        except BaseException as error:
            if place in self._line:
                self._line.remove(place)
            elif place.done() and not place.cancelled() and place.exception() is None:
                self._call_next()  # it was called, and does not come
            if isinstance(error, TimeoutError):
                raise NotConnectedError("no connection was free in time") from None
            raise

    def _call_next(self) -> None:
        while self._line:
            place = self._line.popleft()
            if not place.done():
                place.set_result(None)
                return

    async def ensure_connection(self, connection: AbstractConnection) -> None:
        """Open it, or find that it is open. Raises redis-py's ConnectionError, half a second after it is its turn."""
        if connection.is_connected:
            await self._open(connection)
            return
        loop = asyncio.get_running_loop()
        came_at = loop.time()
        async with self._opening:
            if self._not_opened_at >= came_at:
                raise NotConnectedError("none could be opened a moment ago")
            try:
                await self._open(connection)
            except (NotConnectedError, OSError):
                self._not_opened_at = loop.time()
                raise

    async def _open(self, connection: AbstractConnection) -> None:
        connect = super().ensure_connection
        failures = (NotConnectedError, NoAnswerError)  # a try's own timeout knows nothing of ticks
        retry = Retry(ExponentialWithJitterBackoff(base=0.02, cap=0.2), CONNECT_RETRIES, failures)
        try:
            async with asyncio.timeout(None) as limit:
                ticks = _Ticks(limit, CONNECT_SECONDS)
                try:
                    await retry.call_with_retry(
                        lambda: connect(connection),
                        lambda _: connection.disconnect(),
                        # redis-py sends with asyncio.wait_for, which before Python 3.12 can swallow the cancellation.
                        lambda _: not limit.expired(),
                    )
                finally:
                    ticks.stop()
        except TimeoutError:
            raise NotConnectedError("no connection in time") from None


class _Ticks:
    """Ends a timeout after so many seconds in ticks: one in which the loop was held up is one, however long."""

    __slots__ = ("_limit", "_loop", "_seconds", "_timer")

    def __init__(self, limit: asyncio.Timeout, seconds: float) -> None:
        self._limit = limit
        self._loop = asyncio.get_running_loop()
        self._seconds = seconds / TICKS
        self._wait(TICKS)

    def _wait(self, left: int) -> None:
        if left:
            self._timer = self._loop.call_later(self._seconds, self._wait, left - 1)
        else:
            self._limit.reschedule(self._loop.time())

    def stop(self) -> None:
        self._timer.cancel()
