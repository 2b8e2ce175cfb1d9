"""A store that went back in time is noticed, by whoever saw it later."""

import json
from pathlib import Path
from typing import cast

import pytest
from redis.asyncio import Redis

from broker.audit import AuditTrail
from broker.clock import system_entropy
from broker.store import keys
from broker.witness import FAIL_OVER_SECONDS, Witness, call_restored
from tests.stage.clock import MovableClock


class Replica:
    """One replica's witness, with a file of its own."""

    def __init__(self, redis: Redis, folder: Path, clock: MovableClock, name: str = "one") -> None:
        self.audit_file, self.file, self.clock = folder / f"{name}.jsonl", folder / f"{name}.json", clock
        self.audit = AuditTrail(file=self.audit_file, ship=_nowhere, clock=clock)
        self.redis = redis
        self.witness = self.started()

    def started(self) -> Witness:
        """A new process of the same replica."""
        return Witness(self.redis, self.file, self.audit, self.clock, system_entropy)

    async def open(self) -> "Replica":
        await self.audit.open()
        await self.witness.open()
        return self

    def told(self) -> list[str]:
        lines = map(json.loads, self.audit_file.read_text().splitlines())
        return [line["reason"] for line in lines if line["event"] == "store.went_back"]


async def _nowhere(_lines: object) -> None:
    pass


@pytest.fixture
async def replica(redis: Redis, tmp_path: Path) -> Replica:
    return await Replica(redis, tmp_path, MovableClock()).open()


async def kept(redis: Redis) -> dict[bytes, bytes]:
    return cast("dict[bytes, bytes]", await redis.hgetall(keys.WITNESS))


async def put_back(redis: Redis, fields: dict[bytes, bytes]) -> None:
    await redis.delete(keys.WITNESS)
    for name, value in fields.items():
        await redis.hset(keys.WITNESS, name.decode(), value.decode())


async def test_a_store_that_goes_on_is_never_called_restored(replica: Replica) -> None:
    for _ in range(5):
        replica.clock.advance(3600)
        await replica.witness.look()

    assert not replica.witness.is_restored(since=0)
    assert replica.told() == []


async def test_a_backup_put_in_its_place_makes_everything_in_it_restored(replica: Replica) -> None:
    backup = await kept(replica.redis)
    replica.clock.advance(600)
    await replica.witness.look()
    before = replica.clock()
    await put_back(replica.redis, backup)
    replica.clock.advance(1)

    await replica.witness.look()

    assert replica.witness.is_restored(since=before)
    assert replica.told() == ["by 600 s: what it held is called restored"]
    replica.clock.advance(1)
    assert not replica.witness.is_restored(since=replica.clock())


async def test_every_replica_learns_of_it_and_it_is_found_once(replica: Replica, tmp_path: Path) -> None:
    other = await Replica(replica.redis, tmp_path, replica.clock, "other").open()
    backup = await kept(replica.redis)
    replica.clock.advance(600)
    await replica.witness.look()
    await other.witness.look()
    await put_back(replica.redis, backup)
    replica.clock.advance(1)
    await replica.witness.look()
    replica.clock.advance(1)
    written_since = replica.clock()
    await other.witness.look()

    assert other.witness.is_restored(since=written_since - 60)
    assert not other.witness.is_restored(since=written_since)
    assert (len(replica.told()), len(other.told())) == (1, 0)


@pytest.mark.parametrize(("seconds", "whole"), [(1, False), (FAIL_OVER_SECONDS, False), (FAIL_OVER_SECONDS + 1, True)])
async def test_a_fail_over_that_lost_the_last_seconds_is_told_from_a_backup(
    replica: Replica, seconds: float, *, whole: bool
) -> None:
    backup = await kept(replica.redis)
    replica.clock.advance(seconds)
    await replica.witness.look()
    mark = float((await kept(replica.redis))[b"mark"])
    await put_back(replica.redis, {**backup, b"mark": repr(mark - seconds).encode()})

    await replica.witness.look()

    assert replica.witness.is_restored(since=0) is whole
    assert len(replica.told()) == 1


async def test_a_store_that_went_back_while_no_replica_ran_is_noticed_by_the_next_one(replica: Replica) -> None:
    backup = await kept(replica.redis)
    replica.clock.advance(600)
    await replica.witness.look()
    await put_back(replica.redis, backup)
    later = replica.started()

    await later.open()

    assert later.is_restored(since=0)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"store": 1, "mark": "soon"}', "\x00"])
async def test_a_damaged_file_stops_no_start(replica: Replica, text: str) -> None:
    replica.file.write_text(text)
    later = replica.started()

    await later.open()

    assert not later.is_restored(since=0)


async def test_another_store_under_an_old_file_is_not_called_restored(replica: Replica) -> None:
    replica.clock.advance(600)
    await replica.witness.look()
    await replica.redis.flushall()

    await replica.witness.look()

    assert not replica.witness.is_restored(since=0)


async def test_an_operator_can_say_that_it_was_restored(replica: Replica) -> None:
    replica.clock.advance(60)
    await call_restored(replica.redis, replica.clock())
    replica.clock.advance(1)

    await replica.witness.look()

    assert replica.witness.is_restored(since=replica.clock() - 2)
    assert not replica.witness.is_restored(since=replica.clock())


async def test_a_replica_whose_clock_is_behind_takes_nothing_for_restored(replica: Replica, tmp_path: Path) -> None:
    replica.clock.advance(300)
    await replica.witness.look()
    behind = await Replica(replica.redis, tmp_path, MovableClock(), "behind").open()

    await behind.witness.look()
    await replica.witness.look()

    assert not behind.witness.is_restored(since=0)
    assert not replica.witness.is_restored(since=0)
