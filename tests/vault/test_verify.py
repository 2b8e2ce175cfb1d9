"""`verify` opens everything, names what does not open, and holds a batch at a time."""

from pathlib import Path

import pytest
from redis.asyncio import Redis

from broker.store import keys
from broker.vault import Domain, DomainRecords
from tests.stage.vault import UnsteadyKek
from tests.vault.stock import Stock, names_of


@pytest.fixture
async def stock(redis: Redis, tmp_path: Path) -> Stock:
    stock = Stock(redis, tmp_path)
    await stock.fill("epic", range(3))
    await stock.fill("oracle", [7])
    return stock


async def verified(stock: Stock) -> tuple[dict[str, int], dict[str, int]]:
    async with stock.work() as work:
        said = await work.verify(lambda name, why: stock.told.append(f"{name}: {why}"))
    return dict(said.readable), dict(said.unreadable)


async def test_every_record_of_every_kind_is_opened(stock: Stock) -> None:
    kinds = ("grant-terms", "grant-tokens", "handle", "refresh", "code", "pin", "key")

    assert await verified(stock) == ({**dict.fromkeys(kinds, 4), "launch": 8}, {})


@pytest.mark.parametrize("place", [0, 30, 75, 90, -1])
async def test_a_record_that_was_changed_anywhere_is_named(stock: Stock, place: int) -> None:
    name = keys.pin("pin7")
    found = await stock.redis.get(name)
    assert isinstance(found, bytes)
    sealed = bytearray(found)
    sealed[place] ^= 1
    await stock.redis.set(name, bytes(sealed))

    _, unreadable = await verified(stock)

    assert unreadable == {"pin": 1}
    (told,) = stock.told
    assert told.startswith(f"{name}: ")


async def test_a_record_in_anothers_place_is_named(stock: Stock) -> None:
    one, other = keys.pin("pin1"), keys.pin("pin2")
    await stock.redis.set(one, await stock.redis.get(other) or b"")

    assert (await verified(stock))[1] == {"pin": 1}
    assert stock.told == [f"{one}: a pin record does not open in its place"]


async def test_tokens_that_were_put_back_beside_a_later_generation_are_named(stock: Stock) -> None:
    await stock.redis.hset(keys.grant("tag000000001"), "generation", "4")

    assert (await verified(stock))[1] == {"grant-terms": 1, "grant-tokens": 1}


async def test_what_is_under_a_key_that_is_gone_is_named_and_the_rest_is_opened(stock: Stock) -> None:
    records = DomainRecords(stock.redis)
    key = await records.active(Domain("t", "epic"))
    assert key is not None
    await records.replace(key, key.ended(1.0, "shred"))

    readable, unreadable = await verified(stock)

    assert (sum(readable.values()), sum(unreadable.values())) == (9, 27)
    assert {line.rpartition(": ")[2] for line in stock.told} == {f"domain key {key.id.hex()} is gone"}


class CountedKek(UnsteadyKek):
    """Counts what it is asked."""

    asked = 0

    async def check(self) -> None:
        self.asked += 1
        await super().check()


async def test_a_kms_that_is_away_is_asked_once_for_each_key(redis: Redis, tmp_path: Path) -> None:
    stock = Stock(redis, tmp_path, kek=(kek := CountedKek()))
    await stock.fill("epic", range(3))
    kek.down()
    before = kek.asked

    _, unreadable = await verified(stock)

    assert (sum(unreadable.values()), kek.asked - before) == (27, 1)


async def test_it_changes_nothing(stock: Stock) -> None:
    before = {name: await stock.redis.pttl(name) for name in names_of(1)}

    await verified(stock)

    assert await stock.redis.exists(*names_of(1)) == len(before)
    assert not (stock.folder / "audit.jsonl").read_text()


async def test_a_batch_at_a_time_is_in_memory(stock: Stock) -> None:
    await stock.fill("epic", range(10, 120))

    async with stock.work() as work:
        sizes = [len(batch) async for batch in work.inventory.batches()]

    assert sum(sizes) == 9 * 114
    assert max(sizes) <= 2 * 500
