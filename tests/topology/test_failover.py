"""A primary dies: what was kept is there, what cannot be kept is refused in time, and nobody is restarted."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from broker.errors import StoreUnavailable
from broker.store import keys
from broker.store.client import StoreClient
from broker.store.connection import Script, connect, store_errors
from broker.store.shared import SharedConnections
from tests.stage import Sandbox
from tests.stories.held import DUE, ENDED, Held, held_at, until
from tests.topology import Cluster, Server, Watched, running_cluster, running_watched
from tests.topology.server import await_true

SLACK = 3.0
"""Seconds that a busy machine may add."""
PUT = Script("redis.call('SET', KEYS[1], ARGV[1]) return 'ok'")


@pytest.fixture(params=["cluster", "sentinels"])
def topology(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster | Watched]:
    directory = tmp_path_factory.mktemp("topology")
    if request.param == "cluster":
        with running_cluster(directory, replicas=1) as cluster:
            yield cluster
    else:
        with running_watched(directory) as watched:
            yield watched


@pytest.fixture
async def redis(topology: Cluster | Watched) -> AsyncIterator[StoreClient]:
    async with connect(topology.url(), durability="replica") as client:
        yield client


def owner(topology: Cluster | Watched, key: str) -> Server:
    return topology.owner(key) if isinstance(topology, Cluster) else topology.primary()


async def until_served(redis: StoreClient, key: str) -> float:
    """Return the seconds of the longest refusal until `key` can be read again."""
    return await until_done(lambda: redis.exists(key))


async def until_done(ask: Callable[[], Awaitable[object]]) -> float:
    """Ask again and again, and return the seconds of the longest refusal until it is done."""
    longest = 0.0
    async with asyncio.timeout(30):
        while True:
            began = time.monotonic()
            try:
                with store_errors():
                    await ask()
            except StoreUnavailable:
                longest = max(longest, time.monotonic() - began)
                await asyncio.sleep(0.05)
            else:
                return longest


@pytest.mark.parametrize("how", ["killed", "frozen"])
async def test_what_a_replica_has_outlives_the_primary_and_refusals_take_a_second(
    topology: Cluster | Watched, redis: StoreClient, how: str
) -> None:
    key = "sb:{tag}:grant"
    await PUT(redis, [key], ["rotated"], durable=True)
    old = owner(topology, key)
    old.kill() if how == "killed" else old.freeze()

    longest = await until_served(redis, key)

    assert longest < 1 + SLACK
    assert await redis.get(key) == b"rotated"
    assert await redis.set("sb:{tag}:lease", "1")


@pytest.mark.parametrize("how", ["killed", "frozen"])
@pytest.mark.parametrize("what", ["read", "written"])
async def test_what_is_asked_over_shared_connections_alone_finds_the_next_primary(
    topology: Cluster | Watched, redis: StoreClient, how: str, what: str
) -> None:
    key, shared = "sb:{tag}:grant", SharedConnections(redis)

    async def ask() -> object:
        return await (shared.read(("GET", key)) if what == "read" else PUT(shared, [key], ["rotated"]))

    try:
        await ask()
        old = owner(topology, key)
        old.kill() if how == "killed" else old.freeze()

        longest = await until_done(ask)

        assert longest < 1 + SLACK
    finally:
        await shared.close()


async def test_a_failover_in_the_middle_of_a_refresh_loses_nothing(
    topology: Cluster | Watched, redis: StoreClient, sandbox: Sandbox, tmp_path: Path
) -> None:
    async with held_at(sandbox, redis, tmp_path) as held:
        key = keys.grant(held.tag)
        before = await held.grant()
        await asyncio.to_thread(await_true, lambda: replicated(topology, key))
        sandbox.fault("token_hold", seconds=1.0)
        held.stage.clock.advance(DUE)
        reading = asyncio.ensure_future(held.read())
        await until(lambda: held.refreshes() == 1)
        owner(topology, key).kill()
        await reading
        await until_served(redis, key)

        async def is_renewed() -> bool:
            try:
                return (await held.grant()).generation == before.generation + 1
            except StoreUnavailable:
                return False

        await until(is_renewed)
        held.stage.clock.advance(ENDED - DUE)
        assert (await held.read()).status_code == 200
        assert held.refreshes() == 1


def replicated(topology: Cluster | Watched, key: str) -> bool:
    return bool(owner(topology, key).ask("WAIT", 1, 1000) >= 1)


async def test_a_store_that_is_gone_is_refused_within_a_second_and_served_again_without_a_restart(
    topology: Cluster | Watched, redis: StoreClient, sandbox: Sandbox, tmp_path: Path
) -> None:
    async with held_at(sandbox, redis, tmp_path) as held:
        assert (await held.read()).status_code == 200
        everybody = [*topology.servers, *(topology.sentinels if isinstance(topology, Watched) else [])]
        for server in everybody:
            server.freeze()
        try:
            asked = sandbox.counts().get("fhir", 0)
            refused = [await timed(held) for _ in range(3)]
        finally:
            for server in everybody:
                server.thaw()

        assert [status for status, _ in refused] == [503] * 3
        assert max(seconds for _, seconds in refused) < 1 + SLACK
        assert sandbox.counts().get("fhir", 0) == asked
        await until_served(redis, keys.grant(held.tag))
        assert (await held.read()).status_code == 200


async def timed(held: Held) -> tuple[int, float]:
    began = time.monotonic()
    answer = await held.read()
    return answer.status_code, time.monotonic() - began
