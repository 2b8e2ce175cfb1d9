"""A replica goes by the store's time, however wrong its own clock is."""

import asyncio
import time
from pathlib import Path

import pytest
from redis.asyncio import Redis

from broker.app import open_broker
from broker.errors import StoreUnavailable
from broker.secret import Secret
from broker.settings import load
from broker.store.clock import StoreClock
from broker.store.connection import connect
from broker.vault import LocalKeyring
from tests.stage.broker import KEY, stage_toml


@pytest.mark.parametrize("wrong", [-300.0, 0.0, 300.0, 86_400.0])
async def test_a_clock_that_is_wrong_follows_the_stores(redis: Redis, wrong: float) -> None:
    clock = StoreClock(wall=lambda: time.time() + wrong)
    assert clock() == pytest.approx(time.time() + wrong, abs=1)

    await clock.measure(redis)

    assert clock() == pytest.approx(time.time(), abs=0.5)


async def test_a_wall_clock_that_is_set_while_the_broker_runs_changes_nothing(redis: Redis) -> None:
    moved = 0.0
    clock = StoreClock(wall=lambda: time.time() + moved)
    await clock.measure(redis)

    moved = 3600.0

    assert clock() == pytest.approx(time.time(), abs=0.5)


async def test_the_quickest_of_three_answers_counts() -> None:
    class Slow:
        """Answers with the right time; the way to it and back takes a while, but the second time."""

        def __init__(self) -> None:
            self.now, self.calls = 1000.0, 0

        def monotonic(self) -> float:
            return self.now

        async def time(self) -> tuple[int, int]:
            self.calls += 1
            way = 0.001 if self.calls == 2 else 0.4
            self.now += way
            told = 5000 + self.now
            self.now += way if self.calls == 2 else 0.0
            return int(told), int(told % 1 * 1e6)

    slow = Slow()
    clock = StoreClock(monotonic=slow.monotonic, wall=lambda: 6000.0)

    await clock.measure(slow)  # type: ignore[arg-type]  # all it asks of the store is its time

    assert clock() == pytest.approx(5000 + slow.now, abs=0.002)


async def test_while_the_store_is_away_the_last_measurement_holds(redis: Redis) -> None:
    clock = StoreClock()
    await clock.measure(redis)
    nowhere = connect(Secret("redis://127.0.0.1:1/0"))

    with pytest.raises(StoreUnavailable):
        await clock.measure(nowhere)

    assert clock() == pytest.approx(time.time(), abs=0.5)
    await nowhere.aclose()


async def test_following_goes_on_when_the_store_was_away(redis: Redis) -> None:
    clock = StoreClock(ahead=0.0)

    following = asyncio.create_task(clock.follow(redis, every=0.01))
    async with asyncio.timeout(5):
        while clock() < time.time() - 1:  # noqa: ASYNC110  # nothing tells of it
            await asyncio.sleep(0.01)
    following.cancel()


async def test_a_broker_goes_by_the_stores_time(redis: Redis, tmp_path: Path) -> None:
    config = tmp_path / "broker.toml"
    config.write_text(stage_toml("http://127.0.0.1:1", "http://127.0.0.1:2/fhir"))

    async with open_broker(
        load(config, {}), redis=redis, kek=LocalKeyring([KEY]), audit_file=tmp_path / "audit.jsonl", keep_every=None
    ) as broker:
        clock = broker.keeper.clock

    assert isinstance(clock, StoreClock)
    assert clock.ahead is not None
