"""A write counts when who the policy names has it."""

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from broker.errors import StoreUnavailable
from broker.secret import Secret
from broker.store.client import Durability, StoreClient
from broker.store.connection import UNACKNOWLEDGED, Script, connect
from tests.topology import Server, rights, running_server
from tests.topology.server import PASSWORD, USER, await_true

COUNT = Script("return redis.call('INCR', KEYS[1])")
KEY = "sb:{tag}:count"


@pytest.fixture
def primary(tmp_path: Path) -> Iterator[Server]:
    with running_server(tmp_path / "primary", rights.broker(rights.REPLICA, rights.DISK)) as server:
        yield server


@pytest.fixture
def replica(tmp_path: Path, primary: Server) -> Iterator[Server]:
    with running_server(tmp_path / "replica", f"replicaof 127.0.0.1 {primary.port}") as server:
        await_true(lambda: server.replication()["master_link_status"] == "up", server.said)
        await_true(lambda: primary.ask("WAIT", 1, 500) == 1, primary.said)
        yield server


def url(server: Server, user: str = USER, password: str = PASSWORD) -> Secret:
    return Secret(f"redis://{user}:{password}@127.0.0.1:{server.port}/0")


@pytest.fixture
async def redis(primary: Server) -> AsyncIterator[StoreClient]:
    async with connect(url(primary), durability="replica") as client:
        yield client


async def test_a_replica_has_what_is_durable(redis: StoreClient, primary: Server, replica: Server) -> None:
    for n in range(1, 11):
        assert await COUNT(redis, [KEY], durable=True) == n
        assert int(replica.ask("GET", KEY)) == n


async def test_without_a_replica_a_durable_write_is_refused_after_it_was_made(redis: StoreClient) -> None:
    with pytest.raises(StoreUnavailable, match=f"^{UNACKNOWLEDGED}$"):
        await COUNT(redis, [KEY], durable=True)

    assert await redis.get(KEY) == b"1"
    assert await COUNT(redis, [KEY]) == 2, "what is not durable waits for nobody"


async def test_a_replica_that_is_frozen_is_not_waited_for_longer_than_an_answer(
    redis: StoreClient, primary: Server, replica: Server
) -> None:
    replica.freeze()
    with pytest.raises(StoreUnavailable, match=f"^{UNACKNOWLEDGED}$"):
        await COUNT(redis, [KEY], durable=True)
    replica.thaw()

    assert await COUNT(redis, [KEY], durable=True) == 2


async def test_what_is_on_disk_outlives_a_power_cut(primary: Server) -> None:
    async with connect(url(primary), durability="disk") as redis:
        assert await COUNT(redis, [KEY], durable=True) == 1
    primary.kill()
    primary.start()
    primary.await_answer()

    assert primary.ask("GET", KEY) == b"1"


async def test_a_disk_policy_without_an_append_only_file_is_refused(primary: Server) -> None:
    primary.ask("CONFIG", "SET", "appendonly", "no")
    async with connect(url(primary), durability="disk") as redis:
        with pytest.raises(StoreUnavailable, match=r"^ERR$"):
            await COUNT(redis, [KEY], durable=True)


@pytest.mark.parametrize("durability", ["replica", "disk"])
async def test_the_documented_rights_are_enough_for_a_policy(
    primary: Server, replica: Server, durability: Durability
) -> None:
    async with connect(url(primary, "broker", rights.PASSWORD), durability=durability) as redis:
        assert await Script("return redis.call('SET', KEYS[1], 1)['ok']")(redis, [KEY], durable=True) == b"OK"


async def test_a_script_that_the_server_does_not_know_yet_waits_too(redis: StoreClient, replica: Server) -> None:
    text = f"redis.call('SET', KEYS[1], '{os.getpid()}') return 'new'"

    assert await Script(text)(redis, [KEY], durable=True) == b"new"
    assert replica.ask("GET", KEY) == str(os.getpid()).encode()
