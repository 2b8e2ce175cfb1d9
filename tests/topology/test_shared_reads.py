"""Reads of many callers on one connection: each gets its own answer, whatever happens to the connection."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from broker.errors import StoreUnavailable
from broker.secret import Secret
from broker.store import shared as module
from broker.store.client import StoreClient
from broker.store.connection import connect
from broker.store.pool import ANSWER_SECONDS
from broker.store.shared import SharedConnections
from tests.topology.server import Server

MANY = 200


@pytest.fixture
async def shared(client: StoreClient) -> AsyncIterator[SharedConnections]:
    for number in range(MANY):
        await client.set(f"n{number}", str(number))
    found = SharedConnections(client)
    yield found
    await found.close()


def connections(server: Server) -> set[str]:
    """Return the ids of the broker's connections."""
    with server.client() as client:
        return {one["id"] for one in client.client_list() if one["name"] == "broker"}


async def value(shared: SharedConnections, number: int) -> bytes:
    (answer,) = await shared.read(("GET", f"n{number}"))
    assert isinstance(answer, bytes)
    return answer


async def test_each_of_many_callers_gets_its_own_answer(shared: SharedConnections) -> None:
    """Also across the borders of what arrives at once."""
    answers = await asyncio.gather(*(value(shared, number) for number in range(MANY)))
    assert answers == [str(number).encode() for number in range(MANY)]


async def test_many_callers_take_one_connection(shared: SharedConnections, server: Server) -> None:
    before = connections(server)
    await asyncio.gather(*(value(shared, number) for number in range(MANY)))
    assert len(connections(server) - before) == 1


async def test_several_commands_are_answered_together(shared: SharedConnections, client: StoreClient) -> None:
    await client.hset("h", mapping={"a": "1", "b": "2"})
    assert await shared.read(("GET", "n7"), ("HGETALL", "h"), ("GET", "none")) == [
        b"7",
        {b"a": b"1", b"b": b"2"},
        None,
    ]


async def test_a_caller_that_goes_away_takes_nobody_elses_answer(shared: SharedConnections) -> None:
    await value(shared, 0)
    leaving = [asyncio.create_task(value(shared, number)) for number in range(0, MANY, 2)]
    staying = [asyncio.create_task(value(shared, number)) for number in range(1, MANY, 2)]
    await asyncio.sleep(0)
    for task in leaving:
        task.cancel()

    assert await asyncio.gather(*staying) == [str(number).encode() for number in range(1, MANY, 2)]
    assert await value(shared, 3) == b"3"


async def test_a_connection_that_is_cut_loses_no_read(shared: SharedConnections, server: Server) -> None:
    await value(shared, 0)
    reads = [asyncio.create_task(value(shared, number)) for number in range(MANY)]
    await asyncio.sleep(0)
    server.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    assert await asyncio.gather(*reads) == [str(number).encode() for number in range(MANY)]
    assert await value(shared, 5) == b"5"


async def test_a_read_is_asked_again_where_the_idle_connections_were_cut_too(
    shared: SharedConnections, server: Server
) -> None:
    """And their end has not arrived yet."""
    server.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    assert await shared._read_otherwise([("GET", "n1")]) == [b"1"]


async def test_what_the_store_refuses_is_a_store_failure(shared: SharedConnections) -> None:
    with pytest.raises(StoreUnavailable, match=r"^ResponseError$"):
        await shared.read(("HGETALL", "n1"))
    assert await value(shared, 1) == b"1"


async def test_a_store_that_does_not_answer_is_refused_in_time_and_used_again(
    shared: SharedConnections, server: Server
) -> None:
    """It fails closed: nobody is served by what was read before (blueprint §5.3)."""
    await value(shared, 0)
    server.freeze()

    reads = await asyncio.gather(*(value(shared, number) for number in range(3)), return_exceptions=True)
    server.thaw()
    assert [getattr(error, "detail", error) for error in reads] == ["TimeoutError"] * 3
    assert await value(shared, 4) == b"4"


class HoldingUp(asyncio.Protocol):
    """Takes the loop's time with whatever arrives, before it has come to look at other sockets and at the clock."""

    def data_received(self, _data: bytes) -> None:
        time.sleep(ANSWER_SECONDS + 0.2)


async def test_a_loop_that_was_held_up_takes_no_answer_for_none(shared: SharedConnections) -> None:
    await value(shared, 0)
    ours, theirs = socket.socketpair()
    transport, _ = await asyncio.get_running_loop().create_unix_connection(HoldingUp, sock=ours)
    read = asyncio.ensure_future(shared.read(("BLPOP", "none", "0.2")))
    for _ in range(3):
        await asyncio.sleep(0)  # it is sent
    theirs.send(b"now")

    assert await read == [None]
    transport.abort()
    theirs.close()


async def test_a_connection_that_was_idle_for_long_is_replaced(
    shared: SharedConnections, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The way to the store may have forgotten it, and then a read would wait for an answer that never comes."""
    await value(shared, 0)
    before = connections(server)
    monkeypatch.setattr(module, "IDLE_SECONDS", 0.0)

    assert await value(shared, 1) == b"1"
    assert len(connections(server) - before) == 1


async def test_a_store_that_is_gone_is_refused() -> None:
    async with connect(Secret("redis://127.0.0.1:1/0")) as client:
        gone = SharedConnections(client)
        with pytest.raises(StoreUnavailable):
            await gone.read(("GET", "a"))
        await gone.close()


async def test_a_connection_that_is_closed_as_soon_as_it_is_opened_is_not_asked(
    shared: SharedConnections, client: StoreClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = client.connection_pool.ensure_connection

    async def opened_and_closed(connection: Any) -> None:
        await opened(connection)
        connection._reader.feed_eof()

    monkeypatch.setattr(client.connection_pool, "ensure_connection", opened_and_closed)
    with pytest.raises(StoreUnavailable, match=r"^ConnectionError$"):
        await value(shared, 0)


async def test_what_is_asked_of_a_connection_that_has_just_ended_is_to_be_asked_otherwise(
    shared: SharedConnections,
) -> None:
    await value(shared, 0)
    (line,) = shared._lines.values()
    line.close()
    await asyncio.sleep(0.01)  # it has been told of its end by then

    assert await line.ask(b"PING\r\n", 1) is None


async def test_what_the_store_pushes_is_nobodys_answer(shared: SharedConnections, server: Server) -> None:
    """A message that nobody asked for shifts no answers (RESP3)."""
    await value(shared, 0)
    (line,) = shared._lines.values()
    line._transport.write(b"CLIENT TRACKING ON\r\n")
    asked = line.ask(b"", 1)  # its answer
    assert await asked == [b"OK"]
    await value(shared, 7)
    server.ask("SET", "n7", "seven")

    answers = await asyncio.gather(*(value(shared, number) for number in (7, 8, 9)))
    assert answers == [b"seven", b"8", b"9"]
    assert list(shared._lines.values()) == [line]
