"""Whoever finds all connections in use waits in line, and is not kept waiting by a Redis that is gone."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from typing import Any
from urllib.parse import urlsplit

import pytest
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as NotConnectedError

from broker.secret import Secret
from broker.store import pool
from broker.store.client import StoreClient
from broker.store.connection import connect
from broker.store.embedded import EmbeddedServer


def pool_of(client: StoreClient) -> pool.Pool:
    assert isinstance(client.connection_pool, pool.Pool)
    return client.connection_pool


@pytest.fixture
async def client(valkey: EmbeddedServer) -> AsyncIterator[StoreClient]:
    async with connect(valkey.url(), max_connections=1) as client:
        yield client


@pytest.fixture
async def taken(client: StoreClient) -> AbstractConnection:
    """The only connection there is."""
    return await pool_of(client).get_connection()


async def turns(number: int = 10) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


def hold_up(seconds: float) -> None:
    """Take the process's time, as a large garbage collection does, or a machine that has too much to do."""
    time.sleep(seconds)


async def test_a_crowd_that_is_larger_than_the_pool_is_served(valkey: EmbeddedServer) -> None:
    async with connect(valkey.url(), max_connections=2) as client:
        assert await asyncio.gather(*(client.ping() for _ in range(500))) == [True] * 500


async def test_whoever_came_first_is_served_first(client: StoreClient, taken: AbstractConnection) -> None:
    served: list[int] = []

    async def call(number: int) -> None:
        await client.ping()
        served.append(number)

    calls = [asyncio.create_task(call(number)) for number in range(5)]
    await turns()
    assert served == []
    await pool_of(client).release(taken)
    await asyncio.gather(*calls)

    assert served == [0, 1, 2, 3, 4]


async def test_all_in_line_are_refused_with_the_first_connection_that_breaks_in_silence(
    client: StoreClient, taken: AbstractConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "SILENT_SECONDS", 0.0)
    calls = [asyncio.ensure_future(client.ping()) for _ in range(3)]
    await turns()
    await taken.disconnect()
    await pool_of(client).release(taken)

    refused = await asyncio.gather(*calls, return_exceptions=True)

    assert [type(one) for one in refused] == [NotConnectedError] * 3
    assert await client.ping()


async def test_a_connection_that_breaks_while_others_are_answered_refuses_nobody(
    client: StoreClient, taken: AbstractConnection
) -> None:
    """As one does whose caller has left in the middle of a command."""
    await pool_of(client).release(taken)
    taken = await pool_of(client).get_connection()
    call = asyncio.ensure_future(client.ping())
    await turns()
    await taken.disconnect()
    await pool_of(client).release(taken)

    assert await call


async def test_answers_that_came_while_the_process_was_held_up_are_no_silence(valkey: EmbeddedServer) -> None:
    async with connect(valkey.url(), max_connections=2) as client:
        answering, breaking = [await pool_of(client).get_connection() for _ in range(2)]
        await pool_of(client).release(answering)
        answered = asyncio.ensure_future(client.blpop(["nothing"], timeout=0.2))
        await turns()
        waiting = asyncio.ensure_future(client.ping())
        await turns()

        hold_up(pool.SILENT_SECONDS + 0.1)
        await breaking.disconnect(nowait=True)
        await pool_of(client).release(breaking)

        assert await waiting
        assert await answered is None


async def test_whoever_leaves_the_line_makes_room_for_the_next(client: StoreClient, taken: AbstractConnection) -> None:
    first, second = (asyncio.ensure_future(client.ping()) for _ in range(2))
    await turns()
    first.cancel()
    await pool_of(client).release(taken)

    assert await second
    assert first.cancelled()


async def test_whoever_leaves_as_it_is_called_passes_it_on(client: StoreClient, taken: AbstractConnection) -> None:
    first, second = (asyncio.ensure_future(client.ping()) for _ in range(2))
    await turns()
    pool_of(client)._call_next()
    first.cancel()
    await pool_of(client).release(taken)

    assert await second


async def test_nobody_waits_for_ever(
    client: StoreClient, taken: AbstractConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "WAIT_SECONDS", 0.01)

    with pytest.raises(NotConnectedError):
        await client.ping()

    await pool_of(client).release(taken)


@asynccontextmanager
async def slowly_opened(valkey: EmbeddedServer, seconds: float) -> AsyncIterator[tuple[Secret, list[float]]]:
    """A way to the store on which one connection after the other is opened; gives its URL, and when each was asked for.

    So it is where a machine is busy: opening takes several steps on both sides.
    """
    gate, asked, serving = asyncio.Lock(), list[float](), set[asyncio.Task[Any] | None]()
    store = urlsplit(valkey.url().reveal())

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer):
            while data := await reader.read(1 << 16):
                writer.write(data)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.current_task())
        with closing(writer):
            asked.append(asyncio.get_running_loop().time())
            async with gate:
                await asyncio.sleep(seconds)
            from_store, to_store = await asyncio.open_unix_connection(store.path)
            await asyncio.gather(pass_on(reader, to_store), pass_on(from_store, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        port = server.sockets[0].getsockname()[1]
        yield Secret(f"redis://:{store.password}@127.0.0.1:{port}"), asked
    finally:
        server.close()
        tasks = [task for task in serving if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_crowd_does_not_take_each_other_the_time_to_open_a_connection(valkey: EmbeddedServer) -> None:
    """40 that are opened in 30 ms each, one after the other, take more than the half second that one may take."""
    async with slowly_opened(valkey, 0.03) as (url, _), connect(url) as client:
        assert await asyncio.gather(*(client.ping() for _ in range(40))) == [True] * 40


async def test_a_crowd_is_refused_together_where_none_can_be_opened(valkey: EmbeddedServer) -> None:
    """Else each turn would take half a second more."""
    async with slowly_opened(valkey, 60.0) as (url, asked), connect(url) as client:
        began = asyncio.get_running_loop().time()
        refused = await asyncio.gather(*(client.ping() for _ in range(40)), return_exceptions=True)
        took = asyncio.get_running_loop().time() - began

    assert {isinstance(one, NotConnectedError) for one in refused} == {True}
    assert len(asked) <= pool.OPENING * (1 + pool.CONNECT_RETRIES)
    assert took < 3 * pool.CONNECT_SECONDS


@pytest.mark.parametrize("after", [1, 20])
@pytest.mark.parametrize("seconds", [pool.CONNECT_SECONDS + 0.1, pool.ANSWER_SECONDS + 0.1])
async def test_a_process_that_was_held_up_takes_no_store_for_gone(
    valkey: EmbeddedServer, after: int, seconds: float
) -> None:
    """At whichever step of opening its connections it was."""
    async with connect(valkey.url()) as client:
        calls = [asyncio.ensure_future(client.ping()) for _ in range(20)]
        await turns(after)
        hold_up(seconds)

        assert await asyncio.gather(*calls) == [True] * 20
