"""A cluster looks like one server, and a command is sent at most once, whichever node has its key."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.crc import key_slot
from redis.exceptions import ResponseError

from broker.errors import StoreUnavailable
from broker.secret import Secret
from broker.store.client import StoreClient
from broker.store.connection import Script, connect, store_errors
from broker.store.shared import SharedConnections
from broker.store.slots import slot_of
from tests.topology import Cluster

COUNT = Script("return redis.call('INCR', KEYS[1])")


@pytest.fixture
async def redis(cluster: Cluster) -> AsyncIterator[StoreClient]:
    async with connect(cluster.url()) as client:
        yield client


def keys_on_each_node(cluster: Cluster) -> list[str]:
    """Name a key for each primary."""
    found: dict[int, str] = {}
    for n in range(1000):
        found.setdefault(cluster.owner(f"sb:{{{n}}}:grant").port, f"sb:{{{n}}}:grant")
        if len(found) == len(cluster.servers):
            break
    return list(found.values())


@pytest.mark.parametrize(
    ("command", "key"),
    [
        (("GET", "sb:{tag}:grant"), b"tag"),
        (("SET", b"sb:{tag}:grant", 1, "PX", 5), b"tag"),
        (("EVALSHA", "sha", 2, "sb:{tag}:grant", "sb:{tag}:lease", 1), b"tag"),
        (("EVAL", "return 1", 0, "sb:{tag}"), None),
        (("XADD", "sb:audit", "*", "record", "{}"), b"sb:audit"),
        (("PING",), None),
        (("CONFIG GET", "maxmemory"), None),
        (("WAIT", 1, 500), None),
        (("DBSIZE",), None),
    ],
)
def test_a_command_goes_where_its_key_is(command: tuple[object, ...], key: bytes | None) -> None:
    assert slot_of(command) == (key_slot(key) if key else None)


async def test_what_lies_on_any_node_is_written_read_and_found(cluster: Cluster, redis: StoreClient) -> None:
    names = keys_on_each_node(cluster)
    assert len(names) == 3
    for name in names:
        await redis.hset(name, mapping={"state": "active"})

    async with redis.pipeline(transaction=False) as pipe:
        pipe.hgetall(names[1])
        pipe.get(names[1].replace("grant", "lease"))
        assert await pipe.execute() == [{b"state": b"active"}, None]
    assert {key.decode() async for key in redis.scan_iter(match="sb:{*}:grant")} == set(names)
    assert [await COUNT(redis, [f"{name}:count"]) for name in names] == [1, 1, 1]


async def test_a_pipeline_goes_to_all_nodes_that_it_needs_and_answers_in_order(
    cluster: Cluster, redis: StoreClient
) -> None:
    names = keys_on_each_node(cluster)

    async with redis.pipeline(transaction=False) as pipe:
        for name in (*names, *names):
            pipe.incr(name)
            pipe.set(f"{name}:as well", name)
            pipe.wait(0, 1)
        assert await pipe.execute() == [1, True, 0] * 3 + [2, True, 0] * 3
    with pytest.raises(ValueError, match="what has to be atomic is a script"):
        redis.pipeline(transaction=True)


async def test_a_script_whose_keys_share_no_slot_is_a_store_failure(redis: StoreClient) -> None:
    with pytest.raises(StoreUnavailable, match=r"^CROSSSLOT$"):
        await COUNT(redis, ["sb:{a}:grant", "sb:{b}:grant"])


async def test_a_slot_that_has_moved_is_followed_and_the_command_runs_once(
    cluster: Cluster, redis: StoreClient
) -> None:
    key = "sb:{moved}:count"
    await redis.ping()
    source = cluster.owner(key)
    target = next(server for server in cluster.servers if server is not source)
    cluster.move(key_slot(key.encode()), target)

    assert await COUNT(redis, [key]) == 1
    async with redis.pipeline(transaction=False) as pipe:
        pipe.incr(key)
        pipe.get(key)
        assert await pipe.execute() == [2, b"2"]
    assert target.ask("GET", key) == b"2"


@pytest.mark.parametrize("how", ["a script", "a command", "a pipeline"])
async def test_a_slot_that_is_on_the_move_is_asked_at_its_next_node(
    cluster: Cluster, redis: StoreClient, how: str
) -> None:
    key = f"sb:{{on the move by {how}}}:count"
    source = cluster.owner(key)
    target = next(server for server in cluster.servers if server is not source)
    cluster.move(key_slot(key.encode()), target, finish=False)
    try:
        if how == "a script":
            assert await COUNT(redis, [key]) == 1
        elif how == "a command":
            assert await redis.incr(key) == 1
        else:
            async with redis.pipeline(transaction=False) as pipe:
                pipe.incr(key)
                pipe.get(key)
                assert await pipe.execute() == [1, b"1"]
    finally:
        for server in (target, source):
            server.ask("CLUSTER", "SETSLOT", key_slot(key.encode()), "NODE", target.ask("CLUSTER", "MYID").decode())
    assert target.ask("GET", key) == b"1"


async def test_an_error_of_one_command_is_that_commands(redis: StoreClient) -> None:
    await redis.set("sb:{a}:text", "words")
    async with redis.pipeline(transaction=False) as pipe:
        pipe.hget("sb:{a}:text", "field")
        pipe.get("sb:{a}:text")
        with pytest.raises(ResponseError, match="WRONGTYPE"):
            await pipe.execute()


async def test_a_server_that_is_no_cluster_is_a_store_failure(valkey_port: int) -> None:
    async with connect(Secret(f"redis+cluster://default:topology-password@127.0.0.1:{valkey_port}")) as redis:
        with pytest.raises(StoreUnavailable, match=r"^ERR$"), store_errors():
            await redis.get("key")


async def test_a_seed_that_is_gone_is_made_up_for_by_another(cluster: Cluster) -> None:
    url = Secret(cluster.url().reveal().replace("@", "@127.0.0.1:1,"))
    async with connect(url) as redis:
        assert await redis.ping()
        assert await redis.set("sb:{a}:grant", "1")


async def test_a_cluster_that_is_gone_is_refused(cluster: Cluster) -> None:
    async with connect(Secret("redis+cluster://127.0.0.1:1,127.0.0.1:2")) as redis:
        with pytest.raises(StoreUnavailable, match=r"^ConnectionError$"), store_errors():
            await redis.ping()


async def test_lookups_go_to_the_node_of_their_slot_and_follow_it(
    cluster: Cluster, redis: StoreClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each node has a connection of its own, and a slot that has moved is found by the ordinary way."""
    tags = [f"looked up {number}" for number in range(20)]
    for tag in tags:
        await redis.set(f"sb:{{{tag}}}:a", tag)
    shared = SharedConnections(redis)
    monkeypatch.setattr(shared, "_read_otherwise", None)
    try:
        found = [await shared.read(("GET", f"sb:{{{tag}}}:a"), ("GET", f"sb:{{{tag}}}:b")) for tag in tags]
        assert found == [[tag.encode(), None] for tag in tags]

        key = f"sb:{{{tags[0]}}}:a"
        source = cluster.owner(key)
        target = next(server for server in cluster.servers if server is not source)
        cluster.move(key_slot(key.encode()), target)
        target.ask("SET", key, "moved")
        monkeypatch.undo()
        assert await shared.read(("GET", key)) == [b"moved"]
    finally:
        await shared.close()


async def test_what_is_written_over_shared_connections_goes_to_the_node_of_its_slot_and_follows_it(
    cluster: Cluster, redis: StoreClient
) -> None:
    shared = SharedConnections(redis)
    try:
        written = [f"sb:{{written {number}}}:a" for number in range(20)]
        assert await asyncio.gather(*(COUNT(shared, [key]) for key in written)) == [1] * 20
        target = next(server for server in cluster.servers if server is not cluster.owner(written[0]))
        cluster.move(key_slot(written[0].encode()), target)
        assert await COUNT(shared, [written[0]]) == 1
    finally:
        await shared.close()
