"""When a secret was last used: written now and then, in the background."""

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from broker.flows.proof.last_used import LastUsed
from broker.secret import Secret
from broker.store import keys
from broker.store.connection import connect

NOW = 1_795_000_000.0


async def test_nothing_is_known_of_a_secret_that_was_never_used(redis: Redis) -> None:
    assert await LastUsed(redis, lambda: NOW).read("etl", ["a", "b"]) == [None, None]
    assert await LastUsed(redis, lambda: NOW).read("etl", []) == []


async def test_a_use_is_written_at_most_once_a_minute_for_each_secret(redis: Redis) -> None:
    now = NOW
    last_used = LastUsed(redis, lambda: now)
    seen = []
    for seconds in (0, 59, 1):
        now += seconds
        last_used.note("etl", "a")
        await last_used.close()
        seen += await last_used.read("etl", ["a"])
    last_used.note("etl", "b")
    last_used.note("other", "a")
    await last_used.close()

    assert seen == [NOW, NOW, NOW + 60]
    assert await last_used.read("etl", ["b"]) == await last_used.read("other", ["a"]) == [NOW + 60]


async def test_what_is_known_ends_with_the_longest_life_of_a_secret(redis: Redis) -> None:
    last_used = LastUsed(redis, lambda: NOW)
    last_used.note("etl", "a")
    await last_used.close()

    assert await redis.ttl(keys.secret_used("etl", "a")) == pytest.approx(400 * 86400, abs=5)


async def test_a_store_that_is_away_is_told_and_costs_nothing() -> None:
    nowhere = connect(Secret("redis://127.0.0.1:1/0"))
    last_used = LastUsed(nowhere, lambda: NOW)
    with capture_logs() as lines:
        last_used.note("etl", "a")
        await last_used.close()
    await nowhere.aclose()

    (line,) = lines
    assert (line["event"], line["log_level"], line["app"], line["secret"]) == (
        "last_use_not_kept",
        "warning",
        "etl",
        "a",
    )
