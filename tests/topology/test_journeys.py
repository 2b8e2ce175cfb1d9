"""Every journey on a cluster and behind sentinels, with the rights of the documentation and no others."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from broker.clock import system_clock
from broker.store.client import StoreClient
from broker.store.connection import connect
from broker.store.facts import server_facts
from tests.stage import Sandbox, open_stage
from tests.store.test_scripts import deaf_webhook, every_journey
from tests.stories.exporting import APPS
from tests.topology import Cluster, Server, Watched, rights, running_cluster, running_watched


@pytest.fixture(scope="module", params=["cluster", "sentinels"])
def topology(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster | Watched]:
    directory = tmp_path_factory.mktemp("topology")
    if request.param == "cluster":
        with running_cluster(directory, rights.broker(rights.CLUSTER)) as cluster:
            yield cluster
    else:
        with running_watched(directory, rights.broker(rights.SENTINEL)) as watched:
            yield watched


def primaries(topology: Cluster | Watched) -> list[Server]:
    return topology.primaries() if isinstance(topology, Cluster) else [topology.primary()]


@pytest.fixture
async def redis(topology: Cluster | Watched) -> AsyncIterator[StoreClient]:
    for server in primaries(topology):
        server.ask("FLUSHALL")
        server.ask("CONFIG", "RESETSTAT")
        server.ask("ACL", "LOG", "RESET")
    async with connect(topology.url("broker", rights.PASSWORD)) as client:
        yield client


def used(server: Server) -> set[str]:
    """Return the commands that were called, as an ACL names them."""
    lines = server.ask("INFO", "commandstats")
    return {name.removeprefix("cmdstat_") for name, of in lines.items() if of["calls"] > 0}


def permitted(server: Server) -> set[str]:
    (line,) = [line.decode() for line in server.ask("ACL", "LIST") if line.startswith(b"user broker ")]
    return {right.removeprefix("+") for right in line.split() if right.startswith("+")}


async def test_every_journey_is_played_with_the_documented_rights(
    topology: Cluster | Watched, redis: StoreClient, sandbox: Sandbox, tmp_path: Path
) -> None:
    facts = await server_facts(redis, system_clock)
    async with open_stage(sandbox, redis, tmp_path, more=APPS + deaf_webhook(tmp_path), ehr="bulk_jobs = 1") as stage:
        app, reports = stage.app(), stage.app("reports")
        await every_journey(stage, app, reports)
        async for tag in stage.broker.grants.tags():
            await stage.broker.handles.live(tag)
            await stage.broker.grants.read(tag)
        assert (await app.http.get(f"{stage.public_url}/readyz")).status_code == 200
        await app.close()
        await reports.close()

    assert facts.version
    assert not facts.may_too_much
    denied = [entry for server in primaries(topology) for entry in server.ask("ACL", "LOG")]
    assert {entry[b"object"] for entry in denied} == {b"lastsave"}, "by which too many rights are found out"
    servers = primaries(topology)
    assert all(server.ask("DBSIZE") > 0 for server in servers), "no node is left out"
    unused = set.intersection(*(permitted(server) - used(server) for server in servers))
    assert unused <= {"asking", "hincrby"}, "a slot on the move, a count kept now and then"
