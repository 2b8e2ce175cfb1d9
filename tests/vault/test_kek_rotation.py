"""Domain keys move under a new key-encryption key, and the old line of the keyring can go."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from broker.errors import KeyUnavailable
from broker.store.connection import Script
from broker.vault import Domain, LocalKeyring
from broker.vault.keyring import kek_name
from tests.stage.vault import KEY
from tests.vault.stock import TEXT, Stock

NEWER = bytes(reversed(range(32)))


@pytest.fixture
async def stock(redis: Redis, tmp_path: Path) -> Stock:
    """Two EHRs and the tenant's own records under the one line that there is; then a new one is put above it."""
    stock = Stock(redis, tmp_path)
    for number, ehr in enumerate(("epic", "oracle", "")):
        await stock.fill(ehr, [number])
    return replace(stock, kek=LocalKeyring([NEWER, KEY]))


async def test_every_domain_key_moves_and_the_old_line_can_go(stock: Stock) -> None:
    """HB-04."""
    async with stock.work() as work:
        done = await work.rotate_kek(stock.told.append)

    assert (done.moved, done.left, done.current, done.earlier) == (3, 0, {kek_name(NEWER)}, {kek_name(KEY)})
    alone = replace(stock, kek=LocalKeyring([NEWER]))
    async with alone.work() as work:
        verified = await work.verify(lambda *_: None)
    assert (verified.readable.total(), verified.unreadable.total()) == (27, 0)


async def test_a_key_remembers_every_kek_that_it_was_ever_under(stock: Stock) -> None:
    """Whoever has one of them and a copy of Redis of that time has the key."""
    async with stock.work() as work:
        await work.rotate_kek(stock.told.append)

    assert {key.keks for key in await stock.keys()} == {(kek_name(KEY), kek_name(NEWER))}


async def test_what_is_under_the_current_kek_already_is_left_alone(stock: Stock) -> None:
    async with stock.work() as work:
        await work.rotate_kek(stock.told.append)
        before = await stock.keys()

        done = await work.rotate_kek(stock.told.append, new_version=True)  # a keyring makes none

    assert (done.moved, done.left) == (0, 0)
    assert await stock.keys() == before


async def test_each_move_is_in_the_audit_trail(stock: Stock) -> None:
    async with stock.work() as work:
        await work.rotate_kek(stock.told.append)

    lines = [json.loads(line) for line in (stock.folder / "audit.jsonl").read_text().splitlines()]
    assert [line["event"] for line in lines] == ["domain_key.rewrapped"] * 3
    assert {line.get("ehr") for line in lines} == {"epic", "oracle", None}
    assert all(line["reason"].endswith(f" in place of {kek_name(KEY)}") for line in lines)


async def test_replicas_with_both_lines_read_on_whatever_they_have_at_hand(stock: Stock) -> None:
    replica, names = stock.replica(), await stock.fill("epic", [5])
    assert await stock.read(replica, names[0]) == {TEXT}

    async with stock.work() as work:
        await work.rotate_kek(stock.told.append)

    for _ in range(20):
        stock.clock.advance(40)
        assert await stock.read(replica, names[0]) == {TEXT}


async def test_without_the_old_line_nothing_is_moved(stock: Stock) -> None:
    before = await stock.keys()
    hasty = replace(stock, kek=LocalKeyring([NEWER]))

    async with hasty.work() as work:
        with pytest.raises(KeyUnavailable, match="is not on the keyring"):
            await work.rotate_kek(stock.told.append)

    assert await stock.keys() == before


async def test_a_key_that_is_rotated_at_the_same_time_is_read_again(
    stock: Stock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the reading of a key's record and the writing, somebody else changes it."""
    call, interfered = Script.__call__, False

    async def interfering(self: Script, redis: Redis, *arguments: Any, **options: Any) -> Any:
        nonlocal interfered
        if options.get("durable") and not interfered:
            interfered = True
            async with stock.work() as other:
                await other.rotate([Domain("t", "epic"), Domain("t", "oracle"), Domain("t")], stock.told.append)
        return await call(self, redis, *arguments, **options)

    monkeypatch.setattr(Script, "__call__", interfering)
    async with stock.work() as work:
        done = await work.rotate_kek(stock.told.append)

    assert done.left == 0
    async with stock.work() as work:
        assert not (await work.verify(lambda *_: None)).unreadable
    assert await stock.states() == {
        f"t/{ehr} {state}": 1 for ehr in ("epic", "oracle", "") for state in ("active", "gone")
    }
