"""What `broker check` says of a store."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from broker.cli.check_store import check_store, store_findings
from broker.secret import Secret
from broker.store.address import StoreAddress
from broker.store.client import Durability
from broker.store.facts import ServerFacts
from tests.topology import Cluster, Watched, rights, running_cluster, running_watched

SOUND = ServerFacts(
    version="Valkey 9.1.2",
    maxmemory_policy="noeviction",
    aof_enabled=True,
    clock_offset=0.1,
    replicas=2,
    lag=1,
    has_least_replicas=True,
    can_wait=True,
)


@pytest.mark.parametrize("durability", ["primary", "replica", "disk"])
def test_a_sound_server_is_named_and_nothing_else(durability: Durability) -> None:
    (finding,) = store_findings(SOUND, durability)

    assert (finding.level, finding.text) == ("ok", "Valkey 9.1.2")


@pytest.mark.parametrize(
    ("facts", "durability", "level", "fix"),
    [
        (replace(SOUND, version="Redis 6.2.14"), "primary", "fault", "Redis 7.0 or Valkey 8 or newer"),
        (replace(SOUND, version=None), "primary", "warning", None),
        (replace(SOUND, maxmemory_policy="allkeys-lru"), "primary", "fault", "noeviction"),
        (replace(SOUND, aof_enabled=False), "primary", "warning", "appendonly yes"),
        (replace(SOUND, clock_offset=-300.0), "primary", "warning", "run NTP on both"),
        (replace(SOUND, lag=60), "primary", "warning", None),
        (replace(SOUND, has_least_replicas=False), "primary", "warning", "min-replicas-to-write 1"),
        (replace(SOUND, may_too_much=True), "primary", "warning", "the rights in users.acl"),
        (replace(SOUND, replicas=0), "replica", "fault", "add one, or primary"),
        (replace(SOUND, can_wait=False), "replica", "fault", "+wait"),
        (replace(SOUND, can_wait=False), "disk", "fault", "+waitaof, or replica"),
    ],
)
def test_what_would_lose_grants_is_said_with_its_fix(
    facts: ServerFacts, durability: Durability, level: str, fix: str | None
) -> None:
    said = [finding for finding in store_findings(facts, durability) if finding.level != "ok"]

    assert [finding.level for finding in said] == [level]
    assert said[0].text.rpartition("Fix: ")[2] == (fix or said[0].text)


def test_a_disk_policy_without_an_append_only_file_is_at_fault() -> None:
    levels = [finding.level for finding in store_findings(replace(SOUND, aof_enabled=False), "disk")]

    assert levels == ["ok", "warning", "fault"]


@pytest.mark.parametrize(
    ("url", "private"),
    [
        ("redis://redis.internal", False),
        ("rediss://redis.internal", True),
        ("redis://127.0.0.1:6379", True),
        ("unix://:pw@/run/redis.sock", True),
        ("redis+cluster://localhost,redis.internal", False),
        ("redis+sentinel://localhost/grants", True),
        ("rediss+sentinel://redis.internal/grants", True),
    ],
)
def test_who_can_read_along_is_told_by_the_url(url: str, *, private: bool) -> None:
    assert StoreAddress.parse(Secret(url)).is_private() == private


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running_cluster(tmp_path_factory.mktemp("cluster"), rights.broker(rights.CLUSTER, rights.REPLICA)) as cluster:
        yield cluster


async def test_each_primary_of_a_cluster_is_looked_at(cluster: Cluster) -> None:
    url = cluster.url("broker", rights.PASSWORD)
    found = [(finding.level, finding.text) async for finding in check_store(url, "primary")]

    assert [level for level, _ in found] == ["ok"] * 3
    faults = [finding.text async for finding in check_store(url, "replica") if finding.level == "fault"]
    assert (
        faults
        == ["BROKER_REDIS_DURABILITY=replica, and it has no replica: no refresh succeeds. Fix: add one, or primary"] * 3
    )

    cluster.servers[2].ask("CLUSTER", "DELSLOTSRANGE", 16000, 16383)
    seed = Secret(url.reveal().rpartition("@")[0] + f"@127.0.0.1:{cluster.servers[2].port}")
    faults = [finding.text async for finding in check_store(seed, "primary") if finding.level == "fault"]
    assert faults == ["384 of the cluster's slots have no primary: what is there is refused"]


async def test_the_primary_behind_sentinels_is_looked_at_and_too_many_rights_are_found(tmp_path: Path) -> None:
    with running_watched(tmp_path) as watched:
        found = [(finding.level, finding.text) async for finding in check_store(watched.url(), "replica")]

    assert found[0][0] == "ok"
    assert [level for level, text in found[1:]] == ["warning"]
    assert "its user may do more than the broker does (LASTSAVE)" in found[1][1]
    assert isinstance(watched, Watched)
