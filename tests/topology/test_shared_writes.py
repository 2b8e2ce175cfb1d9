"""What is written over the connection that many share: at most once, whatever happens to the connection."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.exceptions import ResponseError

from broker.errors import StoreUnavailable
from broker.store.client import StoreClient
from broker.store.connection import Script, store_errors
from broker.store.shared import SharedConnections
from tests.topology.server import Server

COUNT = "return redis.call('INCR', KEYS[1])"
MANY = 50


@pytest.fixture
async def shared(client: StoreClient) -> AsyncIterator[SharedConnections]:
    shared = SharedConnections(client)
    yield shared
    await shared.close()


async def test_a_crowd_runs_a_script_that_the_server_does_not_know_yet(
    shared: SharedConnections, server: Server
) -> None:
    count = Script(COUNT)
    server.ask("SCRIPT", "FLUSH")

    answers = await asyncio.gather(*(count(shared, ["counted"]) for _ in range(MANY)))
    assert sorted(answers) == list(range(1, MANY + 1))


async def test_scripts_and_reads_of_many_callers_are_each_given_their_own_answer(shared: SharedConnections) -> None:
    count = Script(COUNT)
    counts = [count(shared, [f"counted {number}"]) for number in range(MANY)]
    answers = await asyncio.gather(*counts, *(shared.read(("GET", "none")) for _ in range(MANY)))
    assert answers == [1] * MANY + [[None]] * MANY


async def test_a_write_whose_connection_is_cut_is_refused_and_not_sent_again(
    shared: SharedConnections, server: Server
) -> None:
    """The server may have done it: a second sending of what spends a code or a use would be taken for a replay."""
    count = Script(COUNT)
    await count(shared, ["counted"])
    (line,) = shared._lines.values()

    counting = asyncio.ensure_future(count(shared, ["counted"]))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    line._transport.abort()
    with pytest.raises(StoreUnavailable, match=r"^ConnectionError$"):
        await counting
    assert int(server.ask("GET", "counted")) <= 2
    assert await count(shared, ["another"]) == 1


async def test_a_write_that_is_not_answered_is_refused_in_time_and_not_sent_again(
    shared: SharedConnections, server: Server
) -> None:
    count = Script(COUNT)
    await count(shared, ["counted"])
    server.freeze()
    with pytest.raises(StoreUnavailable, match=r"^TimeoutError$"):
        await count(shared, ["counted"])
    server.thaw()
    assert int(server.ask("GET", "counted")) <= 2


async def test_a_write_that_others_must_have_is_not_sent_where_nobody_would_wait_for_them(
    shared: SharedConnections, server: Server
) -> None:
    with pytest.raises(TypeError, match="until others have a write"):
        await Script(COUNT)(shared, ["counted"], durable=True)
    assert server.ask("GET", "counted") is None


async def test_an_error_is_the_one_callers_alone(shared: SharedConnections, client: StoreClient) -> None:
    await client.set("text", "words")
    counts = asyncio.gather(
        *(shared.execute_command("INCR", key) for key in ("a", "text", "b")), return_exceptions=True
    )
    one, error, two = await counts
    assert (one, two) == (1, 1)
    assert isinstance(error, ResponseError)
    with pytest.raises(StoreUnavailable, match=r"^WRONGTYPE$"), store_errors():
        await shared.execute_command("HGET", "text", "field")


async def test_a_primary_that_became_a_replica_is_left_at_its_first_refusal(
    shared: SharedConnections, server: Server
) -> None:
    await shared.read(("GET", "counted"))
    (former,) = shared._lines.values()
    server.ask("REPLICAOF", "127.0.0.1", "1")
    try:
        with pytest.raises(StoreUnavailable, match=r"^READONLY$|^ReadOnlyError$"):
            await Script(COUNT)(shared, ["counted"])
        assert not former.is_fit
    finally:
        server.ask("REPLICAOF", "NO", "ONE")
    assert await Script(COUNT)(shared, ["counted"]) == 1
