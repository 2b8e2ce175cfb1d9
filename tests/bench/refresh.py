"""What keeping grants current costs: in the engine, in the schedule, in the store's memory, and in a storm."""

import asyncio
import os
import sys
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any, Final

from redis.asyncio import Redis

from broker.credentials import new_tag
from broker.ehr.token_answer import TokenAnswer
from broker.grants import Grant, TokenSet
from broker.refresh.asking import Ask, Asking, Check
from broker.refresh.current_token import Refresher
from broker.refresh.schedule import Schedule
from broker.store import keys
from broker.store.connection import connect
from broker.store.embedded import EmbeddedServer, wheel_server
from tests.bench.storm import open_field, rage
from tests.stage import open_stage, running_sandbox
from tests.stories.held import hold

RENEWALS: Final = 300
CLAIMS: Final = 200_000
BATCH: Final = 500


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    storm: int
    memory: int


SMALL: Final = Sizes(storm=5_000, memory=50_000)
FULL: Final = Sizes(storm=100_000, memory=1_000_000)


async def measure() -> dict[str, float]:
    """Renew grants: overhead, claims, bytes each, and a storm over two processes (--full: 100,000 and 1,000,000)."""
    sizes = FULL if "--full" in sys.argv else SMALL
    results: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder)
        with EmbeddedServer.start(state, server=wheel_server()) as store:
            redis = connect(store.url())
            try:
                results |= await _round_trip(redis)
                results |= await _engine(redis, state)
                results |= await _schedule(redis)
                await redis.flushall()
                with open_field(store.url(), state) as place:
                    async with place.broker() as broker:
                        results |= await rage(place, broker, sizes.storm)
                        results |= await _memory(redis, sizes.memory)
            finally:
                await redis.aclose()
    return results


@dataclass
class TimedAsking:
    """Asks as `Asking` does, and notes how long the token call took."""

    asking: Asking
    seconds: list[float] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.asking, name)

    async def prepare(self, grant: Grant, tokens: TokenSet) -> Ask:
        """Return the timed request."""
        ask = await self.asking.prepare(grant, tokens)

        async def timed(check: Check) -> TokenAnswer:
            began = time.perf_counter()
            try:
                return await ask.send(check)
            finally:
                self.seconds.append(time.perf_counter() - began)

        return replace(ask, send=timed)


async def _round_trip(redis: Redis) -> dict[str, float]:
    """What the machine makes of the least that a renewal does several times."""
    seconds = []
    for _ in range(RENEWALS):
        began = time.perf_counter()
        await redis.ping()
        seconds.append(time.perf_counter() - began)
    return {"redis_ping_ms_p50": median(seconds) * 1e3}


async def _engine(redis: Redis, state: Path) -> dict[str, float]:
    """One renewal after the other, at the sandbox: everything but the token call is overhead."""
    with running_sandbox() as sandbox:
        async with open_stage(sandbox, redis, state, authentication="client_secret_basic") as stage:
            app = stage.app()
            held = await hold(stage, app, 3600)
            refresher: Refresher = stage.broker.keeper.refresher
            asking = TimedAsking(refresher.renewal.asking)
            renewal: Any = replace(refresher.renewal, asking=asking)  # type: ignore[arg-type]  # it asks as that does
            refresher, grant = replace(refresher, renewal=renewal), await held.grant()
            overhead = []
            for _ in range(RENEWALS):
                began = time.perf_counter()
                grant = await refresher.renew(grant)
                overhead.append(time.perf_counter() - began - asking.seconds[-1])
            await app.close()
    await redis.flushall()
    return {"overhead_ms_p50": median(overhead) * 1e3, "sandbox_token_ms_p50": median(asking.seconds) * 1e3}


async def _schedule(redis: Redis) -> dict[str, float]:
    """Take everything from a full schedule."""
    schedule, taken = Schedule(redis), 0
    tags = [new_tag(os.urandom) for _ in range(CLAIMS)]
    for start in range(0, CLAIMS, BATCH):
        async with redis.pipeline(transaction=False) as pipe:
            for tag in tags[start : start + BATCH]:
                pipe.zadd(keys.due(keys.part(tag), f"ehr-{len(tag) % 4}"), {tag: 1.0})
            await pipe.execute()
    began = time.perf_counter()
    for part in range(keys.PARTS):
        while some := await schedule.take(part, 2.0, again=3.0, most={f"ehr-{n}": 256 for n in range(4)}):
            taken += sum(map(len, some.values()))
    seconds = time.perf_counter() - began
    assert taken == CLAIMS
    return {"claims_per_s": taken / seconds}


async def _memory(redis: Redis, count: int) -> dict[str, float]:
    """Store copies of a real grant's record under other tags, each on the schedule, and see what the store grew by."""
    original = await anext(redis.scan_iter(keys.ANY_GRANT, count=1000))
    record: Any = await redis.hgetall(original)
    await redis.flushall()
    await asyncio.sleep(1)
    before, sealed = (await redis.info("memory"))["used_memory"], len(record[b"tokens"])
    for start in range(0, count, BATCH):
        async with redis.pipeline(transaction=False) as pipe:
            for _ in range(start, min(start + BATCH, count)):
                tag = new_tag(os.urandom)
                pipe.hset(keys.grant(tag), mapping=record)
                pipe.pexpire(keys.grant(tag), 86_400_000)
                pipe.zadd(keys.due(keys.part(tag), "ehr-0"), {tag: time.time()})
            await pipe.execute()
    after = (await redis.info("memory"))["used_memory"]
    return {
        "memory_grants": count,
        "sealed_tokens_bytes": sealed,
        "redis_bytes_per_grant": (after - before) / count,
    }
