"""Domains get new keys while brokers read and write: nothing is lost, no read fails, and a count proves it."""

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from broker.audit import AuditTrail
from broker.errors import KeyUnavailable, NotFound
from broker.flows.persist import AGAIN_SECONDS
from broker.flows.rotate_domain_keys import SETTLE_SECONDS, WRITERS_SECONDS
from broker.store import keys
from broker.store.connection import Script, connect
from broker.store.embedded import EmbeddedServer, wheel_server
from broker.vault import Domain, DomainRecords, envelope
from broker.vault.places import SealedRecord
from tests.stage.vault import UnsteadyKek
from tests.topology import Cluster
from tests.topology.conftest import cluster, cluster_of_module  # noqa: F401  # fixtures
from tests.vault.stock import TEXT, Stock, names_of

EPIC, ORACLE, OWN = Domain("t", "epic"), Domain("t", "oracle"), Domain("t")


@pytest.fixture
def stock(redis: Redis, tmp_path: Path) -> Stock:
    return Stock(redis, tmp_path)


async def test_a_rotation_moves_every_record_and_destroys_the_old_key(stock: Stock) -> None:
    """HB-04."""
    names = await stock.fill("epic", range(3))
    others = await stock.fill("oracle", [7])
    before = {key.domain: key for key in await stock.keys()}
    lives = {name: await stock.redis.pttl(name) for name in names}

    async with stock.work() as work:
        (rotated,) = await work.rotate([EPIC], stock.told.append)

    assert (rotated.moved, rotated.unreadable, rotated.is_complete) == (27, [], True)  # a grant has two records
    assert await stock.states() == {"t/epic gone": 1, "t/epic active": 1, "t/oracle active": 1}
    gone = next(key for key in await stock.keys() if key.state == "gone")
    assert (gone.id, gone.wrapped, gone.ended_by) == (before[EPIC].id, None, "rotation")
    assert {text for name in names + others for text in await stock.read(stock.replica(), name)} == {TEXT}
    for name in names:
        assert lives[name] - 10_000 < await stock.redis.pttl(name) <= lives[name]
    assert stock.slept == [pytest.approx(WRITERS_SECONDS, abs=5), SETTLE_SECONDS]
    assert stock.told[-2] == "36 records seen, 0 were under an old key and are rewrapped"


async def test_all_domains_are_rotated_in_one_go(stock: Stock) -> None:
    for ehr in ("epic", "oracle", ""):
        await stock.fill(ehr, [len(ehr)])

    async with stock.work() as work:
        rotations = await work.rotate(None, stock.told.append)

    assert {rotated.domain: rotated.moved for rotated in rotations} == {EPIC: 9, ORACLE: 9, OWN: 9}
    assert len(stock.slept) == 2
    assert await stock.states() == {f"{one} {state}": 1 for one in (EPIC, ORACLE, OWN) for state in ("active", "gone")}


async def test_a_rotation_is_in_the_audit_trail_before_it_happens(stock: Stock) -> None:
    await stock.fill("epic", [1])
    (old,) = await stock.keys()

    async with stock.work() as work:
        (rotated,) = await work.rotate([EPIC], stock.told.append)

    lines = [json.loads(line) for line in (stock.folder / "audit.jsonl").read_text().splitlines()]
    assert [(line["event"], line["ehr"], line["reason"]) for line in lines] == [
        ("domain_key.succeeded", "epic", f"{rotated.new.id.hex()} seals in place of {old.id.hex()}"),
        ("domain_key.ended", "epic", f"{old.id.hex()}: no record is under it any more"),
    ]


async def test_without_an_audit_trail_nothing_is_rotated(stock: Stock, monkeypatch: pytest.MonkeyPatch) -> None:
    await stock.fill("epic", [1])
    before = await stock.keys()

    def refuse(*_: Any) -> None:
        raise KeyUnavailable("no audit")

    async with stock.work() as work:
        monkeypatch.setattr(AuditTrail, "record", refuse)
        with pytest.raises(KeyUnavailable):
            await work.rotate([EPIC], stock.told.append)

    assert await stock.keys() == before


async def test_a_domain_without_a_key_is_not_rotated(stock: Stock) -> None:
    await stock.fill("epic", [1])

    async with stock.work() as work:
        with pytest.raises(NotFound, match="t/oracle"):
            await work.rotate([EPIC, ORACLE], stock.told.append)

    assert await stock.states() == {"t/epic active": 1}


class Broker:
    """A replica under load: it reads everything and writes new generations, each as late as it may."""

    def __init__(self, stock: Stock, names: list[str]) -> None:
        self.stock, self.names, self.vault = stock, names, stock.replica()
        self.reads = 0
        self.under_way: list[tuple[float, str, bytes]] = []

    async def work(self) -> None:
        for name in self.names:
            assert await self.stock.read(self.vault, name) <= {TEXT, b"newer"}
            self.reads += 1
        await self.seal_now_and_write_later()

    async def seal_now_and_write_later(self) -> None:
        """What a refresh sealed is written up to a minute later: the store was away."""
        now = self.stock.clock()
        for _, key, sealed in [one for one in self.under_way if now - one[0] >= 60]:
            await self.stock.redis.set(key, sealed)
        self.under_way = [one for one in self.under_way if now - one[0] < 60]
        key = keys.pin("busy")
        context = SealedRecord(key, "", "pin", b"").context("t")
        self.under_way.append((now, key, await self.vault.seal(context, b"newer", ehr="epic")))


async def test_not_one_read_fails_while_all_keys_are_rotated_and_records_are_written(stock: Stock) -> None:
    """Three replicas, each with what it has cached; what was sealed under the old key arrives up to a minute late."""
    names = [*await stock.fill("epic", range(4)), keys.pin("busy")]
    await stock.put(stock.replica(), names[-1], "epic")
    brokers = [Broker(stock, names) for _ in range(3)]

    async def meanwhile() -> None:
        await asyncio.gather(*(broker.work() for broker in brokers))

    stock.meanwhile = meanwhile
    await meanwhile()
    for _ in range(2):
        async with stock.work() as work:
            (rotated,) = await work.rotate([EPIC], stock.told.append)
        assert rotated.is_complete
        await meanwhile()

    assert sum(broker.reads for broker in brokers) > 1000
    async with stock.work() as work:
        verified = await work.verify(lambda name, why: stock.told.append(f"{name}: {why}"))
    assert not verified.unreadable, stock.told
    assert await stock.states() == {"t/epic gone": 2, "t/epic active": 1}


class KilledError(Exception):
    """The operator's process is gone."""


async def all_is_readable(stock: Stock, names: list[str]) -> None:
    replica = stock.replica()
    for name in names:
        assert await stock.read(replica, name) == {TEXT}


def dies_at(step: int, patch: pytest.MonkeyPatch, *, done: bool) -> Callable[[], int]:
    """Kill at that step that is seen from outside; `done`: right after it. Returns how many steps there were."""
    taken = 0

    def wrap(call: Any) -> Any:
        async def killing(*args: Any, **options: Any) -> Any:
            nonlocal taken
            taken += 1
            dies = taken == step
            if dies and not done:
                raise KilledError
            answer = await call(*args, **options)
            if dies:
                raise KilledError
            return answer

        return killing

    patch.setattr(Script, "__call__", wrap(Script.__call__))
    patch.setattr(Stock, "sleep", wrap(Stock.sleep))
    return lambda: taken


@pytest.mark.parametrize("done", [False, True])
async def test_a_rotation_that_is_killed_at_any_step_goes_on_when_it_is_run_again(stock: Stock, *, done: bool) -> None:
    names = [name for name in names_of(1) if ":grant" in name or "pin" in name]
    step, was_killed = 0, True
    while was_killed:
        step += 1
        await stock.redis.flushall()
        for name in names:
            await stock.put(stock.replica(), name, "epic")
        with pytest.MonkeyPatch.context() as patch:
            taken = dies_at(step, patch, done=done)
            with suppress(KilledError):
                async with stock.work() as work:
                    await work.rotate([EPIC], stock.told.append)
            was_killed = taken() >= step
        await all_is_readable(stock, names)

        async with stock.work() as work:
            (rotated,) = await work.rotate([EPIC], stock.told.append)
        assert rotated.is_complete
        await all_is_readable(stock, names)
        states = await stock.states()
        assert (states["t/epic active"], states["t/epic retiring"]) == (1, 0)
    assert step > 9


async def test_two_operators_at_once_end_with_one_key_and_nothing_lost(stock: Stock) -> None:
    names = await stock.fill("epic", range(3))

    async def rotate() -> None:
        async with stock.work() as work:
            await work.rotate([EPIC], stock.told.append)

    said = await asyncio.gather(rotate(), rotate(), return_exceptions=True)

    assert [error for error in said if error is not None and not isinstance(error, KeyUnavailable)] == []
    await rotate()
    await all_is_readable(stock, names)
    assert (await stock.states())["t/epic retiring"] == 0


async def test_an_old_key_stays_while_a_record_under_it_is_unreadable_unless_that_is_left(stock: Stock) -> None:
    names = await stock.fill("epic", [1])
    damaged = keys.pin("damaged")
    sealed = await stock.redis.get(keys.pin("pin1"))
    assert isinstance(sealed, bytes)
    await stock.redis.set(damaged, sealed[:20] + bytes(60) + sealed[80:])

    async with stock.work() as work:
        (rotated,) = await work.rotate([EPIC], stock.told.append)
        assert (rotated.unreadable, rotated.is_complete) == ([damaged], False)
        assert (await stock.states())["t/epic retiring"] == 1

        (rotated,) = await work.rotate([EPIC], stock.told.append, leave_unreadable=True)
    assert rotated.is_complete
    assert (stock.folder / "audit.jsonl").read_text().count("1 damaged records are under it") == 1
    await all_is_readable(stock, names)


async def test_a_new_key_that_is_lost_meanwhile_gets_no_records(stock: Stock) -> None:
    """A fail-over went back to before it was made; the old key is there, and everything under it."""
    names = await stock.fill("epic", [1])
    (old,) = await stock.keys()
    place = next(iter([name async for name in stock.redis.scan_iter(match=keys.ANY_DOMAIN)]))
    before: Any = await stock.redis.hgetall(place)

    async def fail_over() -> None:
        await stock.redis.delete(place)
        await stock.redis.hset(place, mapping=before)

    stock.meanwhile = fail_over
    async with stock.work() as work:
        with pytest.raises(KeyUnavailable, match="run this again"):
            await work.rotate([EPIC], stock.told.append)

    assert await stock.keys() == [old]
    await all_is_readable(stock, names)


async def test_what_a_fail_over_undoes_is_moved_again_before_the_old_key_ends(stock: Stock) -> None:
    """Another node has its slot, and not what was moved on the first one; the domain key is on a node that is fine."""
    names = await stock.fill("epic", [1])
    name, undone = keys.pin("pin1"), 0
    before = await stock.redis.get(name)

    async def fail_over() -> None:
        nonlocal undone
        if stock.slept[-1] == SETTLE_SECONDS and undone < 2:
            undone += 1
            assert isinstance(before, bytes)
            await stock.redis.set(name, before)

    stock.meanwhile = fail_over
    async with stock.work() as work:
        (rotated,) = await work.rotate([EPIC], stock.told.append)

    assert (rotated.moved, undone, stock.slept.count(SETTLE_SECONDS)) == (11, 2, 3)
    await all_is_readable(stock, names)


async def test_a_rotation_needs_the_kek_for_each_key_once(redis: Redis, tmp_path: Path) -> None:
    stock = Stock(redis, tmp_path, kek=(kek := UnsteadyKek()))
    await stock.fill("epic", range(5))
    before = (kek.wrapped, kek.unwrapped)

    async with stock.work() as work:
        await work.rotate([EPIC], stock.told.append)

    assert (kek.wrapped - before[0], kek.unwrapped - before[1]) == (1, 2)


async def test_a_kek_that_is_away_stops_a_rotation_and_changes_nothing(redis: Redis, tmp_path: Path) -> None:
    stock = Stock(redis, tmp_path, kek=(kek := UnsteadyKek()))
    names = await stock.fill("epic", [1])
    before = await stock.keys()
    kek.down()

    async with stock.work() as work:
        with pytest.raises(KeyUnavailable):
            await work.rotate([EPIC], stock.told.append)

    kek.recover()
    assert await stock.keys() == before
    await all_is_readable(stock, names)


async def test_a_store_that_restarts_between_two_passes_is_waited_for(tmp_path: Path) -> None:
    servers = [EmbeddedServer.start(tmp_path / "store", server=wheel_server())]
    async with connect(servers[0].url()) as redis:
        stock = Stock(redis, tmp_path)
        names = await stock.fill("epic", [1])

        async def restart() -> None:
            if stock.slept[-1] == SETTLE_SECONDS:
                servers[-1].stop()
            elif stock.slept[-1] == AGAIN_SECONDS:
                servers.append(EmbeddedServer.start(tmp_path / "store", server=wheel_server()))

        stock.meanwhile = restart
        try:
            async with stock.work() as work:
                (rotated,) = await work.rotate([EPIC], stock.told.append)
            assert rotated.is_complete
            assert stock.slept[-2:] == [SETTLE_SECONDS, AGAIN_SECONDS]
            await all_is_readable(stock, names)
        finally:
            servers[-1].stop()


async def test_on_a_cluster_the_records_of_every_node_are_moved(cluster: Cluster, tmp_path: Path) -> None:  # noqa: F811  # the fixture
    async with connect(cluster.url()) as redis:
        stock = Stock(redis, tmp_path)
        names = await stock.fill("epic", range(12))

        async with stock.work() as work:
            (rotated,) = await work.rotate([EPIC], stock.told.append)

        assert (rotated.moved, rotated.is_complete) == (108, True)
        await all_is_readable(stock, names)


async def test_moved_records_name_the_new_key(stock: Stock) -> None:
    names = await stock.fill("epic", [1])

    async with stock.work() as work:
        (rotated,) = await work.rotate([EPIC], stock.told.append)
        found = [record async for batch in work.inventory.batches() for record in batch]

    assert {record.key for record in found} == set(names)
    assert {envelope.key_id_of(record.envelope) for record in found} == {rotated.new.id}
    active = await DomainRecords(stock.redis).active(EPIC)
    assert active is not None
    assert active.id == rotated.new.id
