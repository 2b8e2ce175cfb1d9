"""Several replicas on one store, all at once: the limit is everybody's, and an ordinary request asks nobody."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from redis.asyncio import Redis

from broker.errors import EhrHeldBack, StoreUnavailable, TooManyRequests
from broker.fair_use.bucket import Bucket, Store
from broker.fair_use.rate import FRESH_SECONDS, Lot, Rate
from broker.secret import Secret
from broker.store import keys
from broker.store.connection import connect
from broker.store.embedded import EmbeddedServer


@dataclass
class StillClock:
    """Moves when the test says so."""

    seconds: float = 1_795_000_000.0

    def __call__(self) -> float:
        return self.seconds


@asynccontextmanager
async def replicas(
    valkey: EmbeddedServer, clock: StillClock, count: int, rate: Rate, *, longest_pause: float = 60.0
) -> AsyncIterator[list[Bucket]]:
    clients = [connect(valkey.url()) for _ in range(count)]
    buckets = [
        Bucket("EHR general", keys.pace("ehr", "general"), Lot(rate), Store(client, clock), longest_pause)
        for client in clients
    ]
    yield buckets
    for bucket in buckets:
        await bucket.store.flights.close()
    for client in clients:
        await client.aclose()


@pytest.fixture
def clock() -> StillClock:
    return StillClock()


async def outcome(bucket: Bucket) -> str:
    try:
        await bucket.take()
    except TooManyRequests:
        return "refused"
    except EhrHeldBack:
        return "held back"
    return "taken"


async def crowd(buckets: list[Bucket], each: int) -> list[str]:
    return await asyncio.gather(*(outcome(bucket) for _ in range(each) for bucket in buckets))


async def settled(buckets: list[Bucket]) -> None:
    for bucket in buckets:
        await bucket.store.flights.close()


async def asked(redis: Redis) -> int:
    """How many scripts the store has run."""
    stats = await redis.info("commandstats")
    return sum(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("evalsha", "eval"))


@pytest.mark.parametrize(("per_minute", "burst"), [(60, 10), (600, 64), (6000, 500)])
async def test_a_crowd_at_four_replicas_gets_what_the_bucket_holds_and_no_more(
    valkey: EmbeddedServer, redis: Redis, clock: StillClock, per_minute: int, burst: int
) -> None:
    """What a replica took ahead and nobody came for stays with it: no more than a lot each."""
    rate = Rate.of(per_minute, burst)
    async with replicas(valkey, clock, 4, rate) as buckets:
        taken = (await crowd(buckets, burst)).count("taken")
        await settled(buckets)
        held = sum(int(bucket.lot.left) for bucket in buckets)
        assert taken + held == burst
        assert held <= 4 * rate.lot

        clock.seconds += 60 / per_minute * 7
        taken += (await crowd(buckets, burst)).count("taken")
        await settled(buckets)
        held = sum(int(bucket.lot.left) for bucket in buckets)
        assert taken + held == burst + 7


async def test_an_ordinary_request_waits_for_nobody(valkey: EmbeddedServer, redis: Redis, clock: StillClock) -> None:
    """The next lot comes before this one is used up: of a thousand requests one has to wait, and 64 asked."""
    rate = Rate.of(60_000, 16 * 32)
    async with replicas(valkey, clock, 1, rate) as (bucket,):
        before, waited = await asked(redis), 0
        for _ in range(1000):
            clock.seconds += 0.001
            taking = bucket.take()
            try:
                taking.send(None)
            except StopIteration:
                await asyncio.sleep(0)
            else:
                waited += 1
                taking.close()
            await settled([bucket])

        assert waited == 1
        assert await asked(redis) - before <= 1000 / (rate.lot / 2) + 2


async def test_without_a_limit_nobody_ever_waits_and_the_store_is_asked_once_a_second(
    valkey: EmbeddedServer, redis: Redis, clock: StillClock
) -> None:
    async with replicas(valkey, clock, 1, Rate.of(None, None)) as (bucket,):
        before = await asked(redis)
        for _ in range(500):
            clock.seconds += 0.01
            await bucket.take()
            await settled([bucket])

        assert 5 <= await asked(redis) - before <= 7


async def test_whoever_is_over_the_limit_is_told_when_there_is_room_and_asks_the_store_no_more(
    valkey: EmbeddedServer, redis: Redis, clock: StillClock
) -> None:
    async with replicas(valkey, clock, 1, Rate.of(60, 5)) as (bucket,):
        assert await crowd([bucket], 5) == ["taken"] * 5
        with pytest.raises(TooManyRequests, match="EHR general is at its limit of requests") as raised:
            await bucket.take()
        before = await asked(redis)

        assert raised.value.retry_after == pytest.approx(1.0, abs=0.01)
        assert await crowd([bucket], 100) == ["refused"] * 100
        assert await asked(redis) == before
        clock.seconds += 1.01
        assert await crowd([bucket], 2) == ["taken", "refused"]


async def test_a_pause_reaches_the_other_replicas_with_their_next_lot(
    valkey: EmbeddedServer, redis: Redis, clock: StillClock
) -> None:
    async with replicas(valkey, clock, 2, Rate.of(None, None), longest_pause=30.0) as (told, other):
        assert await crowd([told, other], 1) == ["taken", "taken"]
        told.hold(7200.0)
        await settled([told, other])
        assert await outcome(told) == "held back"

        clock.seconds += FRESH_SECONDS
        await outcome(other)  # brings the news
        await settled([other])
        with pytest.raises(EhrHeldBack) as raised:
            await other.take()
        assert raised.value.retry_after == pytest.approx(29.0, abs=0.01)

        clock.seconds += 29.01
        assert await crowd([told, other], 1) == ["taken", "taken"]


async def test_a_pause_of_nothing_holds_nobody(valkey: EmbeddedServer, redis: Redis, clock: StillClock) -> None:
    async with replicas(valkey, clock, 1, Rate.of(None, None), longest_pause=0.0) as (bucket,):
        bucket.hold(100.0)
        bucket.hold(0.0)

        assert await outcome(bucket) == "taken"


async def test_without_the_store_nobody_gets_through_who_has_none_at_hand(clock: StillClock) -> None:
    """What was taken before is everybody's to use; nothing fails open."""
    nowhere = connect(Secret("redis://127.0.0.1:1/0"))
    store = Store(nowhere, clock)
    bucket = Bucket("app chart", keys.pace("app", "chart"), Lot(Rate.of(600, 160)), store)
    bucket.lot.fill(clock(), given=7, empty_for=0.0, held_for=0.0)

    for _ in range(7):
        await bucket.take()
        await store.flights.close()
    with pytest.raises(StoreUnavailable):
        await bucket.take()
    await nowhere.aclose()


async def test_who_leaves_while_waiting_takes_nothing_from_who_stays(
    valkey: EmbeddedServer, redis: Redis, clock: StillClock
) -> None:
    async with replicas(valkey, clock, 1, Rate.of(60, 5)) as (bucket,):
        leaving = [asyncio.create_task(bucket.take()) for _ in range(3)]
        await asyncio.sleep(0)
        for task in leaving:
            task.cancel()
        await asyncio.gather(*leaving, return_exceptions=True)

        assert (await crowd([bucket], 5)).count("taken") == 5
        assert bucket.waiting == 0
