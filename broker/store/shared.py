"""What every FHIR request reads, and what makes a handle, on one connection: many callers' commands written together.

redis-py opens the connection, with all that belongs to it, and hands over its socket: by its own way a command takes
ten times as long (ADR 0013). A read that this connection did not answer is asked again by the ordinary client, which
follows redirections and says what is wrong: reading twice does no harm. What may write is sent again only where it was
refused before it began.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, Final

import hiredis
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as NotConnectedError
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as NoAnswerError

from broker.store.client import StoreClient
from broker.store.cluster import ClusterClient
from broker.store.connection import Value, store_errors
from broker.store.pool import ANSWER_SECONDS, IDLE_SECONDS, LAST_LOOK_SECONDS
from broker.store.slots import slot_of

Command = tuple[str, ...]
"""What to do, the key, and what else the command takes."""
_NOT_YET: Final = object()
_READ_ONLY: Final = "READONLY "
_NOT_BEGUN: Final = (_READ_ONLY, "NOSCRIPT ", "MOVED ", "ASK ", "TRYAGAIN ", "CLUSTERDOWN ", "LOADING ", "MASTERDOWN ")
"""Errors after which nothing was written, and from which the ordinary client knows how to go on."""


class SharedConnections:
    """One connection to each server of the store, which all callers share."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._lines: dict[StoreClient, _Line] = {}
        self._opening: dict[StoreClient, asyncio.Task[_Line]] = {}

    async def read(self, *commands: Command) -> Sequence[Any]:
        """Return the answers to commands on keys of one slot, in one round trip. Raises `StoreUnavailable`.

        They may be sent a second time, so it must not matter whether they are.
        """
        with store_errors():
            line = await self._line_for(commands[0])
            answers = await line.ask(b"".join([_pack(one) for one in commands]), len(commands)) if line else None
            if answers is None or any(isinstance(answer, hiredis.ReplyError) for answer in answers):
                return await self._read_otherwise(commands)
            return answers

    async def execute_command(self, *command: Value) -> Any:
        """Send one command as redis-py's clients do, and at most once, whatever it is; return its answer.

        Raises redis-py's errors: ConnectionError and TimeoutError where nobody knows whether it was done.
        """
        line = await self._line_for(command)
        if line is None:
            return await self._redis.execute_command(*command)  # type: ignore[no-untyped-call]
        answers = await line.ask(_pack(command), 1)
        if answers is None:
            raise NotConnectedError("the connection was cut")
        if not isinstance(answers[0], hiredis.ReplyError):
            return answers[0]
        said = str(answers[0])
        if not said.startswith(_NOT_BEGUN):
            raise ResponseError(said)
        if said.startswith(_READ_ONLY):  # it was made a replica under us
            line.close()
        return await self._redis.execute_command(*command)  # type: ignore[no-untyped-call]

    async def close(self) -> None:
        """Close the connections."""
        for opening in list(self._opening.values()):
            opening.cancel()
        for line in self._lines.values():
            line.close()

    async def _line_for(self, command: Sequence[Value]) -> "_Line | None":
        """Return the connection to the server that has a command's key; None where the client is not one of ours."""
        redis = self._redis
        client = redis.node(await redis.owner(slot_of(command))) if isinstance(redis, ClusterClient) else redis
        if not isinstance(client, StoreClient):
            return None
        line = self._lines.get(client)
        if line is not None and line.is_fit:
            return line
        with redis.noticing() if isinstance(redis, ClusterClient) else nullcontext():  # its node may be another by now
            return await self._open(client)

    async def _open(self, client: StoreClient) -> "_Line":
        """Open one connection, whoever asks meanwhile."""
        if client not in self._opening:
            opening = asyncio.create_task(_opened(client.connection_pool), name="shared")
            self._opening[client] = opening
            opening.add_done_callback(lambda task: self._keep(client, task))
        return await asyncio.shield(self._opening[client])

    def _keep(self, client: StoreClient, opening: "asyncio.Task[_Line]") -> None:
        del self._opening[client]
        if (former := self._lines.pop(client, None)) is not None:
            former.close()
        if not opening.cancelled() and opening.exception() is None:
            self._lines[client] = opening.result()

    async def _read_otherwise(self, commands: Sequence[Command]) -> Sequence[Any]:
        try:
            return await self._read_once(commands)
        except NotConnectedError:  # what cut one connection has cut the idle ones too, and the end may be yet to arrive
            return await self._read_once(commands)

    async def _read_once(self, commands: Sequence[Command]) -> Sequence[Any]:
        async with self._redis.pipeline(transaction=False) as pipe:
            for command in commands:
                pipe.execute_command(*command)
            return await pipe.execute()


def _pack(command: Sequence[Value]) -> bytes:
    return bytes(hiredis.pack_command(command))  # type: ignore[arg-type]  # its stub knows commands of one word only


async def _opened(pool: Any) -> "_Line":
    connection = pool.make_connection()
    await pool.ensure_connection(connection)
    if connection._reader.at_eof():  # noqa: SLF001  # whoever takes the socket over is not told of it again
        await connection.disconnect()
        raise NotConnectedError("closed as soon as it was opened")
    return _Line(connection)


class _Asked:
    __slots__ = ("answers", "at", "count", "future")

    def __init__(self, future: "asyncio.Future[list[Any] | None]", count: int, at: float) -> None:
        self.future = future
        self.count = count
        self.at = at
        self.answers: list[Any] = []


class _Line(asyncio.Protocol):
    """A connection that has been opened by redis-py and is read and written here."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._writer, connection._writer, connection._reader = connection._writer, None, None  # noqa: SLF001  # taken over
        self._transport: asyncio.Transport = self._writer.transport
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader(notEnoughData=_NOT_YET)
        self._asked: deque[_Asked] = deque()
        self._unsent: list[bytes] = []
        self._timer: asyncio.TimerHandle | None = None
        self._heard_at = self._loop.time()
        self._transport.set_protocol(self)

    @property
    def is_fit(self) -> bool:
        """Whether it may be asked: it is open, leads where it should, and was heard of lately or is about to be."""
        leads_on = getattr(self._connection, "leads_to_primary", True)
        heard = bool(self._asked) or self._loop.time() < self._heard_at + IDLE_SECONDS
        return leads_on and heard and not self._transport.is_closing()

    def ask(self, packed: bytes, count: int) -> "asyncio.Future[list[Any] | None]":
        """Send packed commands with whatever else is asked now; gives that many answers, or None: ask otherwise.

        Raises redis-py's TimeoutError.
        """
        asked = _Asked(self._loop.create_future(), count, self._loop.time())
        if not self._unsent:
            self._loop.call_soon(self._send)
        self._unsent.append(packed)
        self._asked.append(asked)
        if self._timer is None:
            self._timer = self._loop.call_later(ANSWER_SECONDS, self._look_at_the_clock)
        return asked.future

    def close(self) -> None:
        """Close; what was asked is to be asked otherwise."""
        self._transport.abort()
        self._end(None)

    def data_received(self, data: bytes) -> None:
        """Give the answers to those who asked, in order."""
        self._heard_at = self._loop.time()
        try:
            self._reader.feed(data)
            while (answer := self._reader.gets()) is not _NOT_YET:
                if not isinstance(answer, hiredis.PushNotification):  # which is no answer to anybody (RESP3)
                    self._take(answer)
        except (hiredis.ProtocolError, IndexError):  # IndexError: an answer that nobody asked for
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Have what was asked asked otherwise."""
        del exc
        self._end(None)

    def _send(self) -> None:
        if self._transport.is_closing():  # its end may have been told of before these were asked
            self._end(None)
        else:
            self._transport.write(b"".join(self._unsent))
        self._unsent.clear()

    def _take(self, answer: Any) -> None:
        asked = self._asked[0]
        asked.answers.append(answer)
        if len(asked.answers) < asked.count:
            return
        self._asked.popleft()
        if not asked.future.done():
            asked.future.set_result(asked.answers)

    def _look_at_the_clock(self) -> None:
        self._timer = None
        if not self._asked:
            return
        left = self._asked[0].at + ANSWER_SECONDS - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._look_at_the_clock)
        else:  # where the loop was held up, answers that came meanwhile are yet to be read
            self._timer = self._loop.call_later(LAST_LOOK_SECONDS, self._look_once_more, self._asked[0])

    def _look_once_more(self, overdue: _Asked) -> None:
        if not self._asked or self._asked[0] is not overdue:
            self._look_at_the_clock()
            return
        self._transport.abort()
        self._end(NoAnswerError("no answer in time"))

    def _end(self, error: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._asked:
            future = self._asked.popleft().future
            if not future.done():
                future.set_result(None) if error is None else future.set_exception(error)
