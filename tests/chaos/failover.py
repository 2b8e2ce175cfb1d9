"""A primary dies while real brokers refresh: behind sentinels, or one node of a cluster."""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from redis.exceptions import RedisError

from broker.store import keys
from tests.chaos.fleet import Fleet, fleet
from tests.chaos.held import Held, launched
from tests.chaos.load import Load, counted, under_load
from tests.chaos.outcome import Outcome
from tests.topology import Cluster, Server, Watched, running_cluster, running_watched

Topology = Literal["sentinel", "cluster"]

REPLICAS = 2
"""Of each primary: with one alone, no replica would be left to acknowledge anything once it has taken over."""
LIFETIME_SECONDS = 4
"""Of the EHR's tokens, so that some grant is always being refreshed."""
BEFORE_SECONDS = 4.0
RECOVERED_SECONDS = 15.0
"""A failover takes as long as the store's configuration says, here some 2 s; by then all is well."""
AFTER_SECONDS = 6.0
REFUSED_SECONDS = 1.0
SLACK_SECONDS = 0.5
MEANWHILE = {"200", "503 store_unavailable"}
"""What a caller may be told while there is no primary. Others: see `_judge`."""


async def prove(folder: Path, topology: Topology, *, rounds: int = 3, grants: int = 8) -> Outcome:
    """Kill the primary that has the first grant, in each round of another store."""
    outcome = Outcome({"replicas": 2, "longest_gap_seconds": 0.0, "slowest_refusal_seconds": 0.0})
    for number in range(rounds):
        place = folder / str(number)
        (place / "fleet").mkdir(parents=True)
        running = running_watched if topology == "sentinel" else running_cluster
        with running(place / "store", replicas=REPLICAS) as store:
            await _round(place / "fleet", store, grants, outcome)
    return outcome


async def _round(folder: Path, store: Cluster | Watched, grants: int, outcome: Outcome) -> None:
    durable = {"BROKER_REDIS_DURABILITY": "replica"}
    async with fleet(folder, store_url=store.url(), environ=durable) as stage:
        replicas = [stage.first, await (await stage.start()).ready()]
        stage.sandbox.fault("token_lifetime", seconds=LIFETIME_SECONDS)
        handles = [await launched(stage) for _ in range(grants)]
        async with under_load(handles, replicas) as load:
            await asyncio.sleep(BEFORE_SECONDS)
            _primary(store, handles[0]).kill()
            died = time.monotonic()
            await _until_served(load, died)
            served = time.monotonic()
            await asyncio.sleep(AFTER_SECONDS)
        _judge(load, died, served, outcome)
        await _look(stage, handles, outcome)


def _primary(store: Cluster | Watched, held: Held) -> Server:
    return store.owner(keys.grant(held.tag)) if isinstance(store, Cluster) else store.primary()


async def _until_served(load: Load, died: float) -> None:
    """Wait until nobody has been refused for a second."""
    while time.monotonic() < died + RECOVERED_SECONDS:
        await asyncio.sleep(0.25)
        now = time.monotonic()
        if now > died + 2.0 and set(counted(load.between(now - 1.5, now))) == {"200"}:
            return


def _judge(load: Load, died: float, served: float, outcome: Outcome) -> None:
    meanwhile, after = load.between(died, served), load.between(served, time.monotonic())
    refused = [read for read in meanwhile if read.said != "200"]
    gap = max((read.began + read.seconds for read in refused), default=died) - died
    slowest = max((read.seconds for read in refused if read.said == "503 store_unavailable"), default=0.0)
    outcome.count("rounds")
    outcome.count("reads", len(load.reads))
    outcome.count("refused", len(refused))
    outcome.results["longest_gap_seconds"] = max(gap, outcome.results["longest_gap_seconds"])
    outcome.results["slowest_refusal_seconds"] = max(slowest, outcome.results["slowest_refusal_seconds"])
    outcome.must(set(counted(load.between(0, died))) == {"200"}, f"before: {counted(load.between(0, died))}")
    outcome.must(set(counted(meanwhile)) <= MEANWHILE, f"meanwhile: {counted(meanwhile)}")
    outcome.must(set(counted(after)) == {"200"}, f"afterwards: {counted(after)}")
    outcome.must(slowest < REFUSED_SECONDS + SLACK_SECONDS, f"a refusal took {slowest:.2f} s")


async def _look(stage: Fleet, handles: Sequence[Held], outcome: Outcome) -> None:
    """All grants go on, or say why not."""
    for held in handles:
        try:
            grant = await stage.grant(held.tag)
        except RedisError as error:
            grant = {"state": type(error).__name__, "cause": ""}
        outcome.count(f"grants.{grant['state']}")
        outcome.must(grant["state"] == "active", f"a grant was lost: {grant}")
    outcome.count("refreshes", stage.refreshes())
    outcome.count("reuse_alarms", stage.alarms())
    outcome.must(stage.refreshes() >= len(handles), "hardly a grant was refreshed")
    outcome.must(stage.alarms() == 0, f"{stage.alarms()} reuse alarms")
