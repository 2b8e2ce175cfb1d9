"""The atomic steps that webhooks take: marks on grants, and the lists of events."""

import pytest
from redis.asyncio import Redis

from broker.store import keys
from broker.store.scripts import script
from tests.store.test_scripts import GRANT, LINK, MARK, TAG, commit, end, named, put, reauthorize, release

MANY = 50


@pytest.mark.parametrize(
    ("stored", "marked"),
    [
        ({}, False),
        ({"trouble": "1 1 1 x"}, True),
        ({"state": "uncertain"}, True),
        ({"told": "degraded"}, True),
    ],
)
async def test_a_commit_marks_a_grant_that_was_in_trouble_and_no_other(
    redis: Redis, stored: dict[str, str], *, marked: bool
) -> None:
    await put(redis, intent="me", **stored)

    assert await commit(redis, 1, "me", mark="m") == (b"news" if marked else b"ok")

    assert await redis.get(MARK) == (b"m" if marked else None)
    assert await commit(redis, 1, "me", mark="m2") == b"ok", "it is written, and was marked then"
    assert await redis.get(MARK) == (b"m" if marked else None)


async def test_a_new_grant_is_no_news(redis: Redis) -> None:
    assert await commit(redis, 0, "", mark="m") == b"ok"
    assert await redis.exists(MARK) == 0


async def test_the_first_failure_marks_a_grant_and_the_next_ones_do_not(redis: Redis) -> None:
    await put(redis)
    said = [await release(redis, code="x", now=now, mark=f"m{now}") for now in (1, 2, 3)]

    assert said == [b"news", b"ok", b"ok"]
    assert await redis.get(MARK) == b"m1"
    assert 59_000 < await redis.pttl(MARK) <= 60_000
    assert await release(redis, mark="m4") == b"ok", "nothing failed"


@pytest.mark.parametrize("state", ["uncertain", "needs_reauth", "suspended", "revoked"])
async def test_an_end_marks_a_grant(redis: Redis, state: str) -> None:
    await put(redis)
    assert await end(redis, state, mark="m") == b"ok"
    assert await redis.get(MARK) == b"m"


async def test_a_new_authorization_marks_a_grant(redis: Redis) -> None:
    await put(redis)
    await redis.set(LINK, "sealed")
    assert await reauthorize(redis, mark="m") == b"ok"
    assert await redis.get(MARK) == b"m"


async def test_where_nobody_is_to_be_told_nothing_is_marked(redis: Redis) -> None:
    await put(redis)
    await release(redis, code="x")
    await redis.hset(GRANT, "intent", "me")
    assert await commit(redis, 1, "me") == b"ok"
    await end(redis, "needs_reauth")

    assert await redis.exists(MARK) == 0


@pytest.mark.parametrize(
    ("stored", "read", "health", "said", "told", "left"),
    [
        ("m", "m", "degraded", 0, b"degraded", None),
        ("m", "m", "", 0, None, None),
        ("newer", "m", "degraded", 1, b"degraded", b"newer"),
        (None, "", "uncertain", 0, b"uncertain", None),
        ("m", "", "uncertain", 1, b"uncertain", b"m"),
    ],
)
async def test_a_mark_is_taken_off_unless_it_changed_since_it_was_read(
    redis: Redis, stored: str | None, read: str, health: str, said: int, told: bytes | None, left: bytes | None
) -> None:
    await put(redis, told="needs_reauth")
    if stored is not None:
        await redis.set(MARK, stored)

    assert await script("settle_news")(redis, [GRANT, MARK], [read, health]) == said

    assert (await redis.hget(GRANT, "told"), await redis.get(MARK)) == (told, left)


async def test_news_of_a_grant_that_is_gone_make_none(redis: Redis) -> None:
    assert await script("settle_news")(redis, [GRANT, keys.untold(TAG)], ["", "degraded"]) == 0
    assert await named(redis) == set()


EVENT, DUE, DEAD = keys.webhook_event("w", "e"), keys.webhook_due("w"), keys.webhook_dead("w")


async def queue(redis: Redis, event: str = "e", at: float = 5, most: int = MANY) -> int:
    arguments: list[str | bytes | int | float] = [f"of {event}", 60_000, event, repr(at), most]
    return int(await script("queue_event")(redis, [keys.webhook_event("w", event), DUE], arguments))


async def settle(redis: Redis, outcome: str, at: float = 9) -> bytes:
    return bytes(await script("settle_event")(redis, [EVENT, DUE, DEAD], ["e", outcome, "changed", at, 60_000]))


async def test_an_event_is_queued_once_and_waits_with_so_many_at_most(redis: Redis) -> None:
    assert [await queue(redis), await queue(redis, at=99)] == [1, 1]
    assert await redis.zrange(DUE, 0, -1, withscores=True) == [[b"e", 5.0]]
    assert [await queue(redis, f"e{number}", most=3) for number in range(4)] == [1, 1, 0, 0]
    for key in await named(redis):
        assert 59_000 < await redis.pttl(key) <= 60_000


@pytest.mark.parametrize(
    ("outcome", "due", "dead"), [("heard", [], []), ("again", [[b"e", 9.0]], []), ("dead", [], [[b"e", 9.0]])]
)
@pytest.mark.parametrize("earlier", ["again", "dead"])
async def test_an_event_is_on_one_list_or_on_none(
    redis: Redis, earlier: str, outcome: str, due: list[list[bytes | float]], dead: list[list[bytes | float]]
) -> None:
    await queue(redis)
    await settle(redis, earlier, 7)

    await settle(redis, outcome)

    assert await redis.zrange(DUE, 0, -1, withscores=True) == due
    assert await redis.zrange(DEAD, 0, -1, withscores=True) == dead
    assert await redis.get(EVENT) == (b"" if outcome == "heard" else b"changed")
    for key in await named(redis):
        assert 59_000 < await redis.pttl(key) <= 60_000


async def test_an_event_that_was_heard_is_not_queued_again_by_who_comes_late(redis: Redis) -> None:
    await queue(redis)
    await settle(redis, "heard")

    assert await queue(redis) == 1
    await settle(redis, "again")

    assert (await named(redis), await redis.get(EVENT)) == ({EVENT}, b"")


async def test_an_event_that_was_dropped_stays_so(redis: Redis) -> None:
    await settle(redis, "again")
    assert await named(redis) == set()
