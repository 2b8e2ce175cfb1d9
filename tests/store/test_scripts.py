"""The atomic steps, each alone and fifty at a time, on the wheel's Valkey and on Debian's Redis 7.0 if it is there."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Iterable, Iterator, Mapping, Sequence
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import pytest
from redis.asyncio import Redis
from redis.crc import key_slot

from broker.app.vault import open_vault
from broker.errors import ReauthorizationRequired
from broker.store import keys, pool
from broker.store.connection import Script, connect
from broker.store.embedded import EmbeddedServer
from broker.store.scripts import script
from broker.vault import Domain, LocalKeyring
from tests.stage import App, BrokerStage, Sandbox, open_stage
from tests.stage.broker import EHR, KEY
from tests.stage.prover import Prover
from tests.stories.exporting import APPS, every_step

TAG = "0123456789AB"
GRANT, LEASE, INDEX, MARK = keys.grant(TAG), keys.lease(TAG), keys.handles(TAG), keys.untold(TAG)
NOW = 1_000_000
MANY = 50

ENDLESS = {
    "sb:domain:": "without the domain keys no record opens",
    "sb:key:": "the broker's own keys are in use until an operator retires them",
    "sb:pin:": "a pin that expired would let another host in",
    "sb:audit": "the audit stream is bounded by its length",
    "sb:witness": "it tells a store that was restored from one that goes on",
}


@pytest.fixture(autouse=True)
def _patient_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fifty calls at once each open a connection: a busy machine must not decide who wins a race."""
    for limit in ("WAIT_SECONDS", "CONNECT_SECONDS", "ANSWER_SECONDS"):
        monkeypatch.setattr(pool, limit, 10.0)


@pytest.fixture(scope="module")
def scripted(program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """One server for all of these tests; each finds it empty."""
    with EmbeddedServer.start(tmp_path_factory.mktemp("scripted"), server=program) as server:
        yield server


@pytest.fixture
async def redis(scripted: EmbeddedServer) -> AsyncIterator[Redis]:
    async with connect(scripted.url()) as client:
        await client.flushall()
        yield client


async def put(redis: Redis, **fields: str) -> None:
    await write(redis, {"state": "active", "generation": "1", **fields})


async def write(redis: Redis, fields: Mapping[str, str]) -> None:
    for name, value in fields.items():
        await redis.hset(GRANT, name, value)


async def fields(redis: Redis) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in (await redis.hgetall(GRANT)).items()}  # type: ignore[union-attr]  # answers are bytes


def sealed(text: str, header: str = "under one key") -> str:
    """Return what is like a sealed record: 69 bytes that say under which key, then the record."""
    return header.ljust(69) + text


async def commit(redis: Redis, expected: int, owner: str, tokens: str = "", mark: str = "") -> bytes:
    pairs = ("state", "active", "generation", str(expected + 1))
    record = sealed(tokens or f"of {owner}")
    arguments: list[str | bytes | int | float] = [expected, owner, 60_000, record, mark, 60_000, *pairs]
    return bytes(await script("commit_grant")(redis, [GRANT, LEASE, MARK], arguments))


async def replace_header(redis: Redis, key: str, field: str, read: str, new: str) -> int:
    return int(await script("replace_header")(redis, [key], [field, read.ljust(69), new and new.ljust(69)]))


async def claim(redis: Redis, owner: str = "me", generation: int = 1, repeat: str = "", now: float = 0) -> bytes:
    return bytes(await script("claim_refresh")(redis, [GRANT, LEASE], [owner, 60_000, generation, repeat, now]))


async def intend(redis: Redis, owner: str = "me", generation: int = 1) -> bytes:
    return bytes(await script("intend_refresh")(redis, [GRANT, LEASE], [owner, 60_000, generation]))


async def release(
    redis: Redis,
    owner: str = "me",
    hold_until: float = 0,
    unanswered: str = "",
    code: str = "",
    now: float = 0,
    mark: str = "",
) -> bytes:
    arguments: list[str | bytes | int | float] = [owner, hold_until, unanswered, code, now, mark, 60_000]
    return bytes(await script("release_refresh")(redis, [GRANT, LEASE, MARK], arguments))


async def end(redis: Redis, state: str, generation: str = "", mark: str = "") -> bytes:
    arguments: list[str | bytes | int | float] = [state, "a cause", "1.5", 60_000, generation, mark, 60_000]
    return bytes(await script("end_grant")(redis, [GRANT, INDEX, LEASE, MARK], arguments))


async def issue(
    redis: Redis,
    digest: str,
    *,
    family: str = "f",
    refresh: int = 0,
    spends: str | None = None,
    grace: int = 0,
    now: int = NOW,
) -> bytes:
    named = [("handle", digest), ("refresh", digest), ("refresh", spends or digest), ("ended", family)]
    return bytes(
        await script("issue_handle")(
            redis,
            [GRANT, INDEX, *(keys.issued(TAG, kind, name) for kind, name in named)],
            [
                now,
                60_000,
                "sealed handle",
                f"{family}:handle:{digest}",
                refresh,
                "sealed refresh handle",
                f"{family}:refresh:{digest}",
                "1" if spends else "0",
                grace,
            ],
        )
    )


async def exchange(
    redis: Redis, way: str, *, uses: int = 0, most: int = MANY, lifetime: int = 60_000, now: int = NOW
) -> bytes:
    """Exchange the last but one of a `way` such as `root:child:grandchild` for the last."""
    root, (subject, digest) = way.split(":", maxsplit=1)[0], way.split(":")[-2:]
    named = [("handle", digest), ("handle", subject), ("exchanged", root), ("uses", digest), ("ended", "f")]
    return bytes(
        await script("exchange_handle")(
            redis,
            [GRANT, INDEX, *(keys.issued(TAG, kind, name) for kind, name in named)],
            [
                now,
                lifetime,
                "sealed handle",
                f"f:handle:{digest}",
                f"f:exchanged:{root}",
                f"f:uses:{digest}",
                way,
                most,
                uses,
            ],
        )
    )


async def end_handle(redis: Redis, digest: str, root: str) -> int:
    on = [keys.issued(TAG, "handle", digest), keys.issued(TAG, "exchanged", root)]
    return int(await script("end_handle")(redis, on, [digest]))


async def handles(redis: Redis) -> set[str]:
    """Return the digests of the live handles."""
    return {key.rpartition(":")[2] for key in await named(redis) if ":handle:" in key}


async def tally(calls: Iterable[Awaitable[bytes]]) -> Counter[bytes]:
    return Counter(await asyncio.gather(*calls))


async def named(redis: Redis) -> set[str]:
    return {key.decode() async for key in redis.scan_iter("sb:*")}


# commit_grant


@pytest.mark.parametrize(
    ("before", "expected", "said"),
    [
        ({}, 0, b"ok"),
        ({"generation": "1", "state": "active"}, 0, b"stale"),
        ({}, 1, b"gone"),
        ({"generation": "1", "state": "active", "intent": "me"}, 1, b"ok"),
        ({"generation": "2", "state": "active", "intent": "me"}, 1, b"stale"),
        ({"generation": "1", "state": "active", "intent": "another"}, 1, b"fenced"),
        ({"generation": "1", "state": "active"}, 1, b"ok"),
        ({"generation": "1", "state": "uncertain"}, 1, b"ok"),
        ({"generation": "1", "state": "revoked", "intent": "me"}, 1, b"revoked"),
        ({"generation": "1", "state": "needs_reauth"}, 1, b"fenced"),
        ({"generation": "1", "state": "suspended"}, 1, b"fenced"),
        ({"generation": "1", "state": "needs_reauth", "intent": "another"}, 1, b"fenced"),
        ({"generation": "1", "state": "needs_reauth", "intent": "me"}, 1, b"ok"),
        ({"generation": "1", "state": "uncertain", "intent": "me"}, 1, b"ok"),
    ],
)
async def test_a_commit_is_taken_only_over_the_expected_generation_and_from_who_intended_it(
    redis: Redis, before: Mapping[str, str], expected: int, said: bytes
) -> None:
    await write(redis, before)

    assert await commit(redis, expected, "me") == said

    written = {"state": "active", "generation": str(expected + 1), "tokens": sealed("of me")}
    assert await fields(redis) == (written if said == b"ok" else before)


async def test_a_commit_ends_the_attempt_and_starts_the_lifetime_anew(redis: Redis) -> None:
    await put(redis, cause="an earlier one")
    await claim(redis)
    await intend(redis)

    assert await commit(redis, 1, "me") == b"ok"

    assert not {"intent", "cause"} & (await fields(redis)).keys()
    assert await redis.exists(LEASE) == 0
    assert 59_000 < await redis.pttl(GRANT) <= 60_000


async def test_a_late_commit_leaves_the_lease_of_another_alone(redis: Redis) -> None:
    await put(redis, intent="me")
    await redis.set(LEASE, "another", px=60_000)

    assert await commit(redis, 1, "me") == b"ok"

    assert await redis.get(LEASE) == b"another"


async def test_of_fifty_commits_over_one_generation_one_is_taken(redis: Redis) -> None:
    """RF-05."""
    assert await tally(commit(redis, 0, "", f"first {n}") for n in range(MANY)) == {b"ok": 1, b"stale": MANY - 1}
    await redis.hset(GRANT, "intent", "me")
    assert await tally(commit(redis, 1, "me", f"second {n}") for n in range(MANY)) == {b"ok": 1, b"stale": MANY - 1}
    assert (await fields(redis))["generation"] == "2"


async def test_a_commit_that_is_sent_again_changes_nothing_and_is_told_that_it_is_stored(redis: Redis) -> None:
    """RF-05: who was not told that it is stored, or stored where it must be, insists."""
    await put(redis, intent="me")
    assert await commit(redis, 1, "me") == b"ok"
    stored = await fields(redis)

    assert await commit(redis, 1, "me") == b"ok"

    assert await fields(redis) == stored


async def test_a_commit_that_is_sent_again_after_a_rotation_moved_the_record_is_the_same_one(redis: Redis) -> None:
    """RF-05: the rotation replaced the first 69 bytes between two tries; the tokens are no other ones for that."""
    await put(redis, intent="me")
    assert await commit(redis, 1, "me") == b"ok"
    assert await replace_header(redis, GRANT, "tokens", "under one key", "under another") == 1
    moved = await fields(redis)

    assert await commit(redis, 1, "me") == b"ok"
    assert await commit(redis, 1, "me", "other tokens") == b"stale"

    assert await fields(redis) == moved
    assert moved["tokens"] == sealed("of me", "under another")


async def test_commits_that_are_sent_again_and_a_rotation_do_not_disturb_each_other(redis: Redis) -> None:
    await put(redis, intent="me")
    names = ["under one key", *(f"key {n}" for n in range(MANY))]

    async def rotate() -> int:
        moves = list(pairwise(names))
        return sum([await replace_header(redis, GRANT, "tokens", old, new) for old, new in moves])

    assert await commit(redis, 1, "me") == b"ok"
    said, moved = await asyncio.gather(tally(commit(redis, 1, "me") for _ in range(MANY)), rotate())

    assert (said, moved) == ({b"ok": MANY}, MANY)
    assert (await fields(redis))["tokens"] == sealed("of me", names[-1])


# replace_header, replace_record, change_domain_keys


@pytest.mark.parametrize("field", ["", "sealed"])
async def test_a_record_moves_to_another_key_by_its_first_bytes_and_keeps_its_expiry(redis: Redis, field: str) -> None:
    key = keys.issued(TAG, "refresh" if field else "handle", "h")
    await (redis.hset(key, field, sealed("a record")) if field else redis.set(key, sealed("a record")))
    await redis.pexpire(key, 50_000)

    assert await replace_header(redis, key, field, "under one key", "under another") == 1

    found = await (redis.hget(key, field) if field else redis.get(key))
    assert found == sealed("a record", "under another").encode()
    assert 40_000 < await redis.pttl(key) <= 50_000


@pytest.mark.parametrize("field", ["", "sealed"])
@pytest.mark.parametrize("new", ["under another", ""])
@pytest.mark.parametrize("found", ["under a third", None])
async def test_a_record_that_was_written_meanwhile_or_is_gone_is_left_alone(
    redis: Redis, field: str, new: str, found: str | None
) -> None:
    key = keys.issued(TAG, "refresh" if field else "handle", "h")
    if found:
        await (redis.hset(key, field, sealed("new", found)) if field else redis.set(key, sealed("new", found)))

    assert await replace_header(redis, key, field, "under one key", new) == 0

    now = await (redis.hget(key, field) if field else redis.get(key))
    assert now == (sealed("new", found).encode() if found else None)


async def test_of_fifty_moves_of_one_record_one_is_done(redis: Redis) -> None:
    key = keys.issued(TAG, "handle", "h")
    await redis.set(key, sealed("a record"))

    said = await asyncio.gather(
        *(replace_header(redis, key, "", "under one key", f"under {n}" if n % 2 else "") for n in range(MANY))
    )

    assert sum(said) == 1


async def replace_record(redis: Redis, read: str, text: str) -> int:
    return int(await script("replace_record")(redis, [keys.sealed_key("k")], [read, text]))


async def test_a_record_is_replaced_over_the_one_that_was_read_whatever_key_that_one_is_under(redis: Redis) -> None:
    key = keys.sealed_key("k")
    assert await replace_record(redis, sealed("none"), sealed("one")) == 0
    assert await replace_record(redis, "", sealed("one")) == 1
    assert await replace_record(redis, "", sealed("two")) == 0
    assert await replace_header(redis, key, "", "under one key", "under another") == 1

    assert await replace_record(redis, sealed("other"), sealed("two")) == 0
    assert await replace_record(redis, sealed("one"), sealed("two")) == 1
    assert await redis.get(key) == sealed("two").encode()


async def change_domain_keys(redis: Redis, *changes: str) -> int:
    return int(await script("change_domain_keys")(redis, [keys.domain("00")], list(changes)))


async def test_changes_of_domain_keys_are_all_made_or_none_and_made_twice_they_are_made_once(redis: Redis) -> None:
    assert await change_domain_keys(redis, "active:t/e", "", "one", "key:one", "", "wrapped") == 1
    assert await change_domain_keys(redis, "active:t/e", "", "two", "key:two", "", "wrapped") == 0
    assert await change_domain_keys(redis, "active:t/e", "", "one", "key:one", "", "wrapped") == 1
    assert await change_domain_keys(redis, "active:t/e", "one", "", "key:one", "wrapped", "gone") == 1
    assert await change_domain_keys(redis, "active:t/e", "one", "", "key:one", "wrapped", "gone") == 1

    assert await redis.hgetall(keys.domain("00")) == {b"key:one": b"gone"}


# claim_refresh, intend_refresh, release_refresh


@pytest.mark.parametrize(
    ("before", "repeat", "said"),
    [
        ({}, "", b"gone"),
        ({"generation": "1", "state": "revoked"}, "", b"revoked"),
        ({"generation": "1", "state": "uncertain"}, "", b"uncertain"),
        ({"generation": "1", "state": "uncertain"}, "repeat", b"again "),
        ({"generation": "1", "state": "uncertain"}, "look", b"again "),
        ({"generation": "1", "state": "uncertain", "intent": "dead@9.5"}, "look", b"again dead@9.5"),
        ({"generation": "1", "state": "active", "intent": "dead@9.5"}, "look", b"again dead@9.5"),
        ({"generation": "1", "state": "active"}, "look", b"claimed"),
        ({"generation": "1", "state": "suspended"}, "look", b"suspended"),
        ({"generation": "1", "state": "needs_reauth"}, "repeat", b"needs_reauth"),
        ({"generation": "2", "state": "active"}, "", b"moved"),
        ({"generation": "1", "state": "active", "intent": "dead"}, "", b"interrupted"),
        ({"generation": "1", "state": "active", "intent": "dead"}, "repeat", b"again dead"),
        ({"generation": "1", "state": "active"}, "", b"claimed"),
    ],
)
async def test_a_lease_is_given_for_the_generation_that_was_seen_and_after_no_unfinished_attempt(
    redis: Redis, before: Mapping[str, str], repeat: str, said: bytes
) -> None:
    await write(redis, before)

    assert await claim(redis, repeat=repeat) == said

    since = b"@9.5" if said == b"again dead@9.5" else b""
    assert await redis.get(LEASE) == (b"me" + since if said.startswith((b"claimed", b"again")) else None)
    assert await fields(redis) == before


async def test_of_fifty_claims_one_gets_the_lease_and_it_runs_out(redis: Redis) -> None:
    """RF-04."""
    await put(redis)

    assert await tally(claim(redis, f"owner {n}") for n in range(MANY)) == {b"claimed": 1, b"held": MANY - 1}

    assert 59_000 < await redis.pttl(LEASE) <= 60_000


@pytest.mark.parametrize(
    ("lease", "change", "said"),
    [
        ("me", {}, b"ok"),
        ("another", {}, b"fenced"),
        (None, {}, b"fenced"),
        ("me", {"generation": "2"}, b"fenced"),
        ("me", {"state": "revoked"}, b"fenced"),
    ],
)
async def test_only_who_holds_the_lease_of_a_living_grant_may_send(
    redis: Redis, lease: str | None, change: dict[str, str], said: bytes
) -> None:
    await put(redis, **change)
    if lease:
        await redis.set(LEASE, lease, px=1_000)

    assert await intend(redis) == said

    assert ("intent" in await fields(redis)) == (said == b"ok")
    assert (await redis.pttl(LEASE) > 1_000) == (said == b"ok")


async def test_an_intent_that_arrives_after_its_lease_was_given_back_is_not_written(redis: Redis) -> None:
    await put(redis)
    await claim(redis)
    await release(redis)

    assert await intend(redis) == b"fenced"

    assert "intent" not in await fields(redis)


async def test_a_release_gives_back_ones_own_lease_and_intent_alone(redis: Redis) -> None:
    await put(redis)
    await claim(redis)
    await intend(redis)

    await release(redis, "another")
    assert (await redis.get(LEASE), (await fields(redis))["intent"]) == (b"me", "me")

    await release(redis)
    assert (await redis.exists(LEASE), "intent" in await fields(redis)) == (0, False)


async def test_an_attempt_that_may_be_asked_about_later_stays_written_down(redis: Redis) -> None:
    """RF-05."""
    await put(redis)
    await claim(redis)
    await intend(redis)

    await release(redis, unanswered="earlier@5")

    assert (await redis.exists(LEASE), (await fields(redis))["intent"]) == (0, "earlier@5")


async def test_failures_are_counted_from_the_first_one_until_a_commit(redis: Redis) -> None:
    """RF-08."""
    await put(redis)
    for now in (10.5, 20.5, 30.5):
        await claim(redis)
        await release(redis, code="ehr_unreachable" if now < 30 else "invalid_client", now=now)

    assert (await fields(redis))["trouble"] == "10.5 30.5 3 invalid_client"
    await redis.hset(GRANT, "intent", "me")
    await commit(redis, 1, "me")
    assert "trouble" not in await fields(redis)


async def test_a_release_makes_no_grant_that_is_not_there(redis: Redis) -> None:
    assert await release(redis, code="ehr_unreachable", hold_until=5, now=1) == b"gone"
    assert await fields(redis) == {}


@pytest.mark.parametrize(("now", "said"), [(99.9, b"on_hold"), (100, b"claimed"), (101, b"claimed")])
async def test_a_refresh_on_hold_is_not_claimed_before_its_time(redis: Redis, now: float, said: bytes) -> None:
    """OR-04, RF-08: on whichever replica."""
    await put(redis, state="active", generation="1", hold_until="0.0")
    await claim(redis)
    await release(redis, hold_until=100.0)
    await release(redis, "another", hold_until=50.0)

    assert await claim(redis, now=now) == said


# reauthorize_grant

LINK = keys.issued(TAG, "reauthorize", "l")


async def reauthorize(redis: Redis, generation: int = 1, tokens: str = "new", mark: str = "") -> bytes:
    pairs = ("state", "active", "generation", str(generation + 1))
    arguments: list[str | bytes | int | float] = [generation, 60_000, sealed(tokens), mark, 60_000, *pairs]
    return bytes(await script("reauthorize_grant")(redis, [GRANT, LEASE, LINK, MARK], arguments))


@pytest.mark.parametrize(
    ("stored", "link", "said"),
    [
        ({}, True, b"gone"),
        ({"state": "revoked"}, True, b"revoked"),
        ({"generation": "2"}, True, b"stale"),
        ({}, False, b"gone"),
        ({"state": "active"}, False, b"used"),
        ({"state": "active"}, True, b"ok"),
        ({"state": "uncertain", "intent": "me"}, True, b"ok"),
        ({"state": "needs_reauth", "cause": "x"}, True, b"ok"),
        ({"state": "suspended", "trouble": "1 1 1 x"}, True, b"ok"),
    ],
)
async def test_a_grant_is_authorized_again_by_a_link_that_is_there_over_the_generation_that_was_read(
    redis: Redis, stored: dict[str, str], *, link: bool, said: bytes
) -> None:
    if stored:
        await put(redis, tokens=sealed("old"), **stored)
    if link:
        await redis.set(LINK, "sealed")
    await redis.set(LEASE, "a refresh under way")
    before = await fields(redis)

    assert await reauthorize(redis) == said

    if said != b"ok":
        assert await fields(redis) == before
        assert await redis.exists(LINK) == link
        return
    assert await fields(redis) == {"state": "active", "generation": "2", "tokens": sealed("new")}
    assert await named(redis) == {GRANT}
    assert 59_000 < await redis.pttl(GRANT) <= 60_000


async def test_of_fifty_authorizations_by_one_link_one_is_taken_and_told_so_again(redis: Redis) -> None:
    await put(redis)
    await redis.set(LINK, "sealed")

    said = await tally(reauthorize(redis, tokens=f"of {number}") for number in range(MANY))

    assert said == {b"ok": 1, b"used": MANY - 1}
    stored = (await fields(redis))["tokens"]
    await redis.hset(GRANT, "tokens", sealed(stored[69:], "a rotation since"))
    assert await reauthorize(redis, tokens=stored[69:]) == b"ok"


# use_grant, take_due


async def test_a_use_is_written_down_and_makes_no_grant(redis: Redis) -> None:
    """RF-13."""
    assert await script("use_grant")(redis, [GRANT], ["5.5"]) == b"ok"
    assert await named(redis) == set()
    await put(redis, used_at="1.0")

    await script("use_grant")(redis, [GRANT], ["5.5"])

    assert await redis.hget(GRANT, "used_at") == b"5.5"


async def test_what_is_due_is_taken_by_one_and_comes_up_again(redis: Redis) -> None:
    """RF-07: over replicas only one keeps a grant; another does when that one dies."""
    key = keys.due(3, "ehr")
    await redis.zadd(key, {f"due{n:02}": n for n in range(30)} | {"later": 1000})

    async def take(now: float = 100, again: float = 115) -> list[bytes]:
        taken: list[list[bytes]] = await script("take_due")(redis, [key], [now, again, 20, 20])
        return taken[0]

    taken = [tag for some in await asyncio.gather(*(take() for _ in range(MANY))) for tag in some]

    assert sorted(taken) == [b"due%02d" % n for n in range(30)]
    assert await take(114.9) == []
    assert len(await take(115, 130)) == 20


async def test_of_each_ehr_no_more_is_taken_than_it_has_room_for_and_the_earliest_first(redis: Redis) -> None:
    """RF-08: one EHR's grants do not wait for another's."""
    names = ["slow", "idle", "quick", "last"]
    for name in ("slow", "quick", "last"):
        await redis.zadd(keys.due(3, name), {f"{name}{n}": n for n in range(9)})

    taken = await script("take_due")(redis, [keys.due(3, name) for name in names], [100, 115, 6, 2, 5, 3, 9])

    assert taken == [[b"slow0", b"slow1"], [], [b"quick0", b"quick1", b"quick2"], [b"last0"]]
    assert await redis.zcount(keys.due(3, "slow"), 0, 100) == 7


# claim_backend, settle_backend, count_asked

BACKEND = [keys.backend("h"), keys.backend_lease("h")]


async def claim_backend(redis: Redis, owner: str, useless: str = "") -> list[bytes]:
    return list(await script("claim_backend")(redis, BACKEND, [owner, 60_000, 86_400_000, useless]))


async def settle_backend(redis: Redis, owner: str, tag: str) -> bytes | None:
    said: bytes | None = await script("settle_backend")(redis, BACKEND, [owner, tag, 86_400_000])
    return said


async def test_of_fifty_who_want_a_backend_grant_one_asks_for_it_and_all_find_it(redis: Redis) -> None:
    """BS-10."""
    said = await asyncio.gather(*(claim_backend(redis, str(owner)) for owner in range(MANY)))

    assert Counter(map(tuple, said)) == {(b"claimed",): 1, (b"held",): MANY - 1}
    assert 59_000 < await redis.pttl(BACKEND[1]) <= 60_000
    assert await settle_backend(redis, str(said.index([b"claimed"])), "tag") == b"tag"
    assert await named(redis) == {BACKEND[0]}
    assert await claim_backend(redis, "late") == [b"known", b"tag"]
    assert await claim_backend(redis, "late", useless="tag") == [b"claimed"]


async def test_a_backend_grant_that_came_after_the_lease_ended_takes_nothing_from_another(redis: Redis) -> None:
    """BS-10."""
    await claim_backend(redis, "slow")
    await redis.delete(BACKEND[1])
    assert await claim_backend(redis, "quick") == [b"claimed"]

    assert await settle_backend(redis, "slow", "") is None
    assert await claim_backend(redis, "third") == [b"held"]
    assert await settle_backend(redis, "quick", "quicker") == b"quicker"
    assert await settle_backend(redis, "slow", "slower") == b"quicker"


async def test_an_app_has_so_many_new_grants_in_a_time_whoever_asks(redis: Redis) -> None:
    """BS-04."""

    async def count(now: int, name: str) -> bytes:
        return b"%d" % await script("count_asked")(redis, [keys.asked("app")], [now, 60_000, 30, name])

    assert await tally(count(1_000, str(n)) for n in range(MANY)) == {b"1": 30, b"0": MANY - 30}
    assert await count(60_999, "early") == b"0"
    assert await count(61_000, "in time") == b"1"
    assert 59_000 < await redis.pttl(keys.asked("app")) <= 60_000


async def test_a_release_does_not_make_a_grant_that_is_gone(redis: Redis) -> None:
    await release(redis)

    assert await named(redis) == set()


# end_grant


@pytest.mark.parametrize(
    ("state", "generation", "said", "after"),
    [
        ("active", "", b"ok", "revoked"),
        ("active", "1", b"ok", "revoked"),
        ("active", "2", b"stale", "active"),
        ("needs_reauth", "1", b"ok", "revoked"),
        ("revoked", "", b"revoked", "revoked"),
    ],
)
async def test_a_grant_ends_once_and_at_the_expected_generation(
    redis: Redis, state: str, generation: str, said: bytes, after: str
) -> None:
    await put(redis, state=state)

    assert await end(redis, "revoked", generation) == said

    assert (await fields(redis))["state"] == after


async def test_a_grant_that_is_gone_is_not_made_by_ending_it(redis: Redis) -> None:
    assert await end(redis, "revoked") == b"gone"

    assert await named(redis) == set()


async def test_a_revoked_grant_leaves_nothing_but_what_happened(redis: Redis) -> None:
    await put(redis, tokens="sealed", terms="sealed")
    for number in range(MANY):
        await issue(redis, f"h{number}", family=f"f{number % 3}", refresh=90_000)
    await claim(redis)
    await intend(redis)

    await end(redis, "revoked")

    assert await named(redis) == {GRANT}
    assert await fields(redis) == {
        "state": "revoked",
        "generation": "1",
        "cause": "a cause",
        "since": "1.5",
        "terms": "sealed",
    }
    assert 59_000 < await redis.pttl(GRANT) <= 60_000


@pytest.mark.parametrize("state", ["uncertain", "needs_reauth"])
async def test_a_grant_that_may_come_back_keeps_its_tokens_and_its_intent(redis: Redis, state: str) -> None:
    await put(redis, tokens="sealed")
    await issue(redis, "h")
    await claim(redis)
    await intend(redis)

    assert await end(redis, state, "1") == b"ok"

    after = await fields(redis)
    assert (after["state"], after["tokens"], after.get("intent")) == (state, "sealed", "me")
    assert await named(redis) == {GRANT, INDEX, keys.issued(TAG, "handle", "h")}


async def test_no_handle_survives_a_revocation_that_it_races(redis: Redis) -> None:
    """HB-08."""
    await put(redis)

    said = await tally(end(redis, "revoked") if number == 25 else issue(redis, f"h{number}") for number in range(MANY))

    assert said[b"ok"] + said[b"revoked"] == MANY
    assert await named(redis) == {GRANT}


# issue_handle


@pytest.mark.parametrize(
    ("state", "said"),
    [(None, b"gone"), ("revoked", b"revoked"), ("active", b"ok")],
)
async def test_a_handle_is_issued_on_a_living_grant_only(redis: Redis, state: str | None, said: bytes) -> None:
    if state:
        await put(redis, state=state)

    assert await issue(redis, "h", refresh=90_000) == said

    issued = {INDEX, keys.issued(TAG, "handle", "h"), keys.issued(TAG, "refresh", "h")}
    assert await named(redis) == (issued if said == b"ok" else set()) | ({GRANT} if state else set())


async def test_a_handle_ends_by_itself_and_the_index_with_the_last(redis: Redis) -> None:
    await put(redis)
    await issue(redis, "long", refresh=90_000)
    await issue(redis, "short")

    ends = [await redis.pttl(key) for key in (keys.issued(TAG, "handle", "long"), keys.issued(TAG, "refresh", "long"))]
    assert 59_000 < ends[0] <= 60_000
    assert 89_000 < ends[1] <= 90_000
    assert 89_000 < await redis.pttl(INDEX) <= 90_000
    assert await redis.zscore(INDEX, "f:refresh:long") == NOW + 90_000


async def test_the_index_forgets_what_has_ended(redis: Redis) -> None:
    await put(redis)
    await issue(redis, "old")

    await issue(redis, "new", now=NOW + 60_000)

    assert await redis.zrange(INDEX, 0, -1) == [b"f:handle:new"]


async def test_a_refresh_handle_is_spent_once(redis: Redis) -> None:
    await put(redis)
    assert await issue(redis, "first", refresh=90_000) == b"ok"

    said = await tally(issue(redis, f"h{n}", refresh=90_000, spends="first") for n in range(MANY))

    assert said == {b"ok": 1, b"reused": MANY - 1}
    assert len(await redis.zrange(INDEX, 0, -1)) == 4


async def test_an_unknown_refresh_handle_buys_nothing(redis: Redis) -> None:
    await put(redis)

    assert await issue(redis, "h", spends="never issued") == b"unknown"

    assert await named(redis) == {GRANT}


async def used(redis: Redis, digest: str) -> bytes | None:
    return cast("bytes | None", await redis.hget(keys.issued(TAG, "refresh", digest), "used"))


@pytest.mark.parametrize(
    ("later", "grace", "said"),
    [(0, 10_000, b"ok"), (10_000, 10_000, b"ok"), (10_001, 10_000, b"reused"), (0, 0, b"reused"), (1, 0, b"reused")],
)
async def test_a_spent_refresh_handle_is_forgiven_for_as_long_as_the_grace(
    redis: Redis, later: int, grace: int, said: bytes
) -> None:
    """RF-03, OA-24."""
    await put(redis)
    await issue(redis, "r1", refresh=90_000)
    await issue(redis, "r2", refresh=90_000, spends="r1")

    assert await issue(redis, "r3", refresh=90_000, spends="r1", grace=grace, now=NOW + later) == said

    forgiven = said == b"ok"
    assert await handles(redis) == ({"r1", "r3"} if forgiven else {"r1", "r2"})
    assert await used(redis, "r2") == (b"1" if forgiven else b"0"), "who comes with it is told from a stranger"
    assert await used(redis, "r3") == (b"0" if forgiven else None)


async def test_of_fifty_that_come_again_one_is_forgiven(redis: Redis) -> None:
    """RF-03, OA-24."""
    await put(redis)
    await issue(redis, "r1", refresh=90_000)
    await issue(redis, "r2", refresh=90_000, spends="r1")

    said = await tally(issue(redis, f"h{n}", refresh=90_000, spends="r1", grace=10_000) for n in range(MANY))

    assert said == {b"ok": 1, b"reused": MANY - 1}
    assert len(await handles(redis)) == 2


async def test_nobody_is_forgiven_once_the_successor_was_used(redis: Redis) -> None:
    """RF-03, OA-24."""
    await put(redis)
    await issue(redis, "r1", refresh=90_000)
    await issue(redis, "r2", refresh=90_000, spends="r1")
    await issue(redis, "r3", refresh=90_000, spends="r2")

    assert await issue(redis, "h", refresh=90_000, spends="r1", grace=10_000) == b"reused"
    assert await handles(redis) == {"r1", "r2", "r3"}


async def test_the_pair_that_a_forgiven_one_replaces_ends_with_all_exchanged_for_it(redis: Redis) -> None:
    """RF-03, HB-05."""
    await put(redis)
    await issue(redis, "r1", refresh=90_000)
    await issue(redis, "r2", refresh=90_000, spends="r1")
    for way in ("r2:a", "r2:a:b"):
        assert await exchange(redis, way, uses=3) == b"ok"

    assert await issue(redis, "r3", refresh=90_000, spends="r1", grace=10_000) == b"ok"

    assert await handles(redis) == {"r1", "r3"}
    assert not {key for key in await named(redis) if ":uses:" in key or ":exchanged:" in key}


# enter_gate


async def test_of_fifty_at_once_as_many_enter_as_there_are_slots(redis: Redis) -> None:
    """RF-08."""
    gate = [keys.gate("general"), keys.gate_slots("general")]

    async def enter(number: int) -> bytes:
        more = [8, MANY, 1.0, MANY, 900, 60, 60_000]
        return bytes(await script("enter_gate")(redis, gate, [f"r{number}", NOW, 15, "interactive", *more]))

    said = Counter(await asyncio.gather(*map(enter, range(MANY))))

    assert said == {b"in": 8, b"busy 0.000": MANY - 8}
    assert await redis.zcard(gate[1]) == 8


async def test_of_fifty_at_once_one_finds_out_whether_the_ehr_still_fails(redis: Redis) -> None:
    """RF-08."""
    gate = [keys.gate("general"), keys.gate_slots("general")]
    for field, value in {"breaks": "1", "broken": str(NOW)}.items():
        await redis.hset(gate[0], field, value)

    async def enter(number: int) -> bytes:
        more = [MANY, MANY, 1.0, MANY, 900, 60, 60_000]
        return bytes(await script("enter_gate")(redis, gate, [f"r{number}", NOW, 15, "interactive", *more]))

    assert Counter(await asyncio.gather(*map(enter, range(MANY)))) == {b"in": 1, b"probed 0.250": MANY - 1}


# exchange_handle, end_handle, take_use


@pytest.mark.parametrize(
    ("state", "said"),
    [(None, b"gone"), ("revoked", b"revoked"), ("active", b"ok")],
)
async def test_a_handle_is_exchanged_on_a_living_grant_only(redis: Redis, state: str | None, said: bytes) -> None:
    """HB-05, HB-08."""
    await redis.set(keys.issued(TAG, "handle", "root"), "sealed handle")
    if state:
        await put(redis, state=state)

    assert await exchange(redis, "root:a") == said

    assert await handles(redis) == ({"root", "a"} if said == b"ok" else {"root"})


@pytest.mark.parametrize("ended", ["root", "a"])
async def test_nothing_is_exchanged_for_a_handle_that_has_ended(redis: Redis, ended: str) -> None:
    """HB-05, HB-08."""
    await put(redis)
    await issue(redis, "root")
    await exchange(redis, "root:a")
    await end_handle(redis, ended, "root")

    assert await exchange(redis, "root:a:b") == b"ended"
    assert await handles(redis) == {"root"} - {ended}


async def test_nothing_is_exchanged_in_a_family_that_has_ended(redis: Redis) -> None:
    """HB-08."""
    await put(redis)
    await script("end_family")(redis, [INDEX, keys.issued(TAG, "ended", "f")], ["f"])
    await redis.set(keys.issued(TAG, "handle", "root"), "sealed handle")

    assert await exchange(redis, "root:a") == b"ended"


async def test_a_handle_ends_with_all_that_was_exchanged_for_it_and_with_nothing_else(redis: Redis) -> None:
    """HB-05, HB-08."""
    await put(redis)
    await issue(redis, "root")
    for way in ("root:a", "root:a:b", "root:a:b:c", "root:d", "root:d:e"):
        assert await exchange(redis, way, uses=2) == b"ok"

    assert await asyncio.gather(*(end_handle(redis, "a", "root") for _ in range(MANY))) == [1] + [0] * (MANY - 1)

    assert await handles(redis) == {"root", "d", "e"}
    assert {key for key in await named(redis) if ":uses:" in key} == {keys.issued(TAG, "uses", d) for d in ("d", "e")}
    assert await end_handle(redis, "root", "root") == 1
    assert await handles(redis) == set()


async def test_of_fifty_exchanges_as_many_are_taken_as_may_hang_on_one_handle(redis: Redis) -> None:
    """HB-05."""
    await put(redis)
    await issue(redis, "root")

    said = await tally(exchange(redis, f"root:h{n}", most=32) for n in range(MANY))

    assert said == {b"ok": 32, b"crowded": MANY - 32}
    assert await exchange(redis, f"root:{min(await handles(redis) - {'root'})}:x", most=32) == b"crowded", "nor below"
    assert await exchange(redis, "root:late", most=32, now=NOW + 60_000) == b"ok", "the others have ended by then"


async def test_no_exchanged_handle_survives_the_end_of_its_root_that_it_races(redis: Redis) -> None:
    """HB-05, HB-08."""
    await put(redis)
    await issue(redis, "root")
    await exchange(redis, "root:a")

    async def end_it() -> bytes:
        return b"%d" % await end_handle(redis, "root", "root")

    said = await tally(end_it() if n == 25 else exchange(redis, f"root:a:h{n}") for n in range(MANY))

    assert said[b"ok"] + said[b"ended"] == MANY - 1
    assert said[b"1"] == 1
    assert await handles(redis) == set()


@pytest.mark.parametrize("ending", ["family", "grant"])
async def test_an_exchanged_handle_and_what_lies_beside_it_end_with_the_family_and_the_grant(
    redis: Redis, ending: str
) -> None:
    """HB-05, HB-08."""
    await put(redis)
    await issue(redis, "root", refresh=90_000)
    await exchange(redis, "root:a", uses=2)
    mark = keys.issued(TAG, "ended", "f")

    if ending == "family":
        await script("end_family")(redis, [INDEX, mark], ["f"])
    else:
        await end(redis, "revoked")

    assert await named(redis) == {GRANT} | ({mark} if ending == "family" else set())


async def test_whatever_is_kept_for_an_exchanged_handle_has_an_end(redis: Redis) -> None:
    await put(redis)
    await issue(redis, "root")
    await exchange(redis, "root:a", uses=2, lifetime=30_000)
    await exchange(redis, "root:b", uses=2, lifetime=50_000)

    ends = {name: await redis.pttl(keys.issued(TAG, *name)) for name in [("handle", "a"), ("uses", "a")]}
    assert all(29_000 < end <= 30_000 for end in ends.values())
    assert 49_000 < await redis.pttl(keys.issued(TAG, "exchanged", "root")) <= 50_000
    assert await redis.zscore(INDEX, "f:exchanged:root") == NOW + 50_000


async def take_use(redis: Redis, *digests: str) -> bytes:
    counters = [keys.issued(TAG, "uses", digest) for digest in digests]
    return b"%d" % await script("take_use")(redis, [keys.issued(TAG, "exchanged", "root"), *counters])


async def test_a_handle_works_as_many_times_as_it_has_uses_whoever_asks(redis: Redis) -> None:
    """HB-02, HB-05."""
    await put(redis)
    await issue(redis, "root")
    await exchange(redis, "root:a", uses=7)

    assert await take_use(redis, "a") == b"1"
    assert 59_000 < await redis.pttl(keys.issued(TAG, "uses", "a")) <= 60_000, "taking one prolongs nothing"
    assert await tally(take_use(redis, "a") for _ in range(MANY)) == {b"1": 6, b"0": MANY - 6}


async def test_a_use_is_taken_from_every_counter_or_from_none(redis: Redis) -> None:
    """HB-05: what was exchanged has no more uses than what it was exchanged for."""
    await put(redis)
    await issue(redis, "root")
    await exchange(redis, "root:a", uses=3)
    await exchange(redis, "root:a:b", uses=2)
    await exchange(redis, "root:a:c", uses=9)

    assert await tally(take_use(redis, "a", "b") for _ in range(MANY)) == {b"1": 2, b"0": MANY - 2}
    assert await redis.get(keys.issued(TAG, "uses", "a")) == b"1"
    assert await tally(take_use(redis, "a", "c") for _ in range(MANY)) == {b"1": 1, b"0": MANY - 1}


async def test_the_last_use_ends_a_handle_with_all_that_was_exchanged_for_it_and_with_nothing_else(
    redis: Redis,
) -> None:
    """HB-02, HB-05."""
    await put(redis)
    await issue(redis, "root")
    for way, uses in (("root:a", 2), ("root:a:b", 1), ("root:a:c", 9), ("root:d", 9)):
        await exchange(redis, way, uses=uses)

    assert await take_use(redis, "a", "b") == b"1"
    assert await handles(redis) == {"root", "a", "c", "d"}
    assert await take_use(redis, "a", "c") == b"1"
    assert await handles(redis) == {"root", "d"}
    assert {key for key in await named(redis) if ":uses:" in key} == {keys.issued(TAG, "uses", "d")}
    assert await redis.zrange(keys.issued(TAG, "exchanged", "root"), 0, -1) == [b"root:d"]


async def test_handles_that_are_used_up_leave_room_for_others(redis: Redis) -> None:
    """HB-05."""
    await put(redis)
    await issue(redis, "root")
    for n in range(MANY):
        assert await exchange(redis, f"root:h{n}", uses=1, most=2) == b"ok"
        assert await take_use(redis, f"h{n}") == b"1"

    assert await handles(redis) == {"root"}


async def test_a_counter_that_is_gone_counts_as_used_up(redis: Redis) -> None:
    assert await take_use(redis, "never issued") == b"0"

    assert await named(redis) == set()


# take_code, end_family


async def take(redis: Redis) -> list[bytes]:
    return list(await script("take_code")(redis, [keys.issued(TAG, "code", "c")], [60_000]))


async def test_a_code_is_used_once_and_its_replay_is_told_from_an_unknown_one(redis: Redis) -> None:
    """CB-03."""
    assert await take(redis) == [b"unknown"]
    await redis.hset(keys.issued(TAG, "code", "c"), mapping={"family": "f", "sealed": "what it stands for"})

    answers = Counter([tuple(answer) for answer in await asyncio.gather(*(take(redis) for _ in range(MANY)))])

    assert answers == {(b"ok", b"f", b"what it stands for"): 1, (b"reused", b"f"): MANY - 1}
    assert await redis.hgetall(keys.issued(TAG, "code", "c")) == {b"family": b"f", b"used": b"1"}
    assert 59_000 < await redis.pttl(keys.issued(TAG, "code", "c")) <= 60_000


async def test_a_family_ends_whole_and_alone(redis: Redis) -> None:
    await put(redis)
    for number in range(4):
        await issue(redis, f"h{number}", family=f"f{number % 2}", refresh=90_000)

    mark = keys.issued(TAG, "ended", "f0")
    ended = await asyncio.gather(*(script("end_family")(redis, [INDEX, mark], ["f0"]) for _ in range(MANY)))

    assert sorted(ended) == [0] * (MANY - 1) + [4]
    survivors = {keys.issued(TAG, kind, digest) for kind in ("handle", "refresh") for digest in ("h1", "h3")}
    assert await named(redis) == {GRANT, INDEX, mark} | survivors
    assert set(await redis.zrange(INDEX, 0, -1)) == {
        b"f1:%s:%s" % (k, d) for k in (b"handle", b"refresh") for d in (b"h1", b"h3")
    }


async def test_an_ended_family_gets_no_handle_that_was_under_way(redis: Redis) -> None:
    await put(redis)
    mark = keys.issued(TAG, "ended", "f")
    await script("end_family")(redis, [INDEX, mark], ["f"])

    assert await issue(redis, "late") == b"ended"
    assert await named(redis) == {GRANT, mark}
    assert 590_000 < await redis.pttl(mark) <= 600_000


async def test_no_handle_of_a_family_survives_the_end_that_it_races(redis: Redis) -> None:
    await put(redis)
    mark = keys.issued(TAG, "ended", "f")

    async def end_it() -> bytes:
        return b"%d" % await script("end_family")(redis, [INDEX, mark], ["f"])

    await tally(end_it() if number == 25 else issue(redis, f"h{number}") for number in range(MANY))

    assert not {key for key in await named(redis) if ":handle:" in key}


# Of all of them, over whole journeys


def deaf_webhook(folder: Path) -> str:
    """Return settings of a webhook that nobody answers at; every journey needs one."""
    (folder / "webhook").write_text("whsec_" + "A" * 32)
    return '[[webhook]]\nid = "pager"\nurl = "http://127.0.0.1:1/"\nsecret = "file:webhook"'


@pytest.fixture
async def stage(sandbox: Sandbox, redis: Redis, tmp_path: Path) -> AsyncIterator[BrokerStage]:
    async with open_stage(sandbox, redis, tmp_path, more=APPS + deaf_webhook(tmp_path), ehr="bulk_jobs = 1") as stage:
        yield stage


async def every_journey(stage: BrokerStage, app: App, reports: App) -> None:
    await stage.broker.witness.look()
    stage.sandbox.fault("token_lifetime", seconds=29)
    answer = await app.standalone()
    await app.launched(stage.sandbox.launch("broker-launch", answer["patient"]))
    stage.sandbox.fault("token_503")
    stage.clock.advance(26.2)
    for _ in range(2):  # the first refresh fails, the second, which comes later than the EHR asked, does not
        assert (await app.fhir(answer["access_token"], f"Patient/{answer['patient']}")).status_code == 200
        stage.clock.advance(1.1)
    stage.sandbox.fault("fhir_429")
    assert (await app.fhir(answer["access_token"], f"Patient/{answer['patient']}")).status_code == 429
    stage.clock.advance(1.1)
    await stage.broker.grants.use(answer["access_token"][4:16])
    link = (await stage.broker.offer_reauthorization(answer["access_token"][4:16], lifetime=300)).url.reveal()
    assert (await app.browser.open((await app.http.post(link)).headers["location"])).status == 400  # another browser
    await app.browser.open((await app.browser.http.post(link)).headers["location"])
    assert (await stage.broker.grants.read(answer["access_token"][4:16])).reauthorized_at is not None
    await stage.broker.keeper.look()
    exchanged = await app.token(
        grant_type="urn:ietf:params:oauth:grant-type:token-exchange",
        subject_token=answer["access_token"],
        subject_token_type="urn:ietf:params:oauth:token-type:access_token",
        uses="1",
    )
    for handle in (exchanged.json()["access_token"], answer["access_token"]):
        await app.fhir(handle, f"Patient/{answer['patient']}")
    await app.http.post(
        f"{stage.public_url}/oauth/revoke", data={"client_id": app.client_id, "token": answer["access_token"]}
    )
    for _ in range(2):  # the second use ends the family
        await app.token(grant_type="refresh_token", refresh_token=answer["refresh_token"])
    prover = Prover(app.base, app.client_id)
    await prover.fhir(answer["access_token"], "Patient")
    await prover.close()
    await every_step(stage)
    ask = {"grant_type": "client_credentials", "scope": "system/Patient.rs", "resource": reports.base}
    assert (await reports.token(**ask)).status_code == 200
    assert await stage.broker.revoke_grant(answer["access_token"][4:16], cause="test") == "revoked"
    await app.authorize()  # a code that stays unused
    await an_end(stage, app)
    await stage.broker.telling.gathering.sweep()
    await stage.broker.telling.look()
    told = [event.said async for event, _ in stage.broker.telling.outbox.listed("pager", "due")]
    assert told == ["no_connection"] * 2
    await rotate_the_keys_of(stage)


async def an_end(stage: BrokerStage, app: App) -> None:
    """Let the EHR end a grant."""
    grant = await stage.broker.grants.read((await app.standalone())["access_token"][4:16])
    stage.sandbox.fault("token_invalid_grant")
    with pytest.raises(ReauthorizationRequired):
        await stage.broker.keeper.refresher.renew(grant)
    await stage.broker.keeper.refresher.renewal.close()
    await stage.broker.grants.untold.close()


async def rotate_the_keys_of(stage: BrokerStage) -> None:
    async def sleep(seconds: float) -> None:
        stage.clock.advance(seconds)

    file, kek = stage.state / "rotation.jsonl", LocalKeyring([KEY])
    async with open_vault(
        stage.broker.settings, redis=stage.redis, kek=kek, audit_file=file, clock=stage.clock, sleep=sleep
    ) as work:
        (rotated,) = await work.rotate([Domain(stage.broker.settings.tenant, EHR)], lambda _: None)
    assert rotated.moved > 1


async def test_every_script_keeps_to_one_slot(
    stage: BrokerStage, app: App, reports: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {
        script(file.name.removesuffix(".lua"))._sha: file.name
        for file in files("broker.store").joinpath("lua").iterdir()
    }
    called: dict[str, set[int]] = {}
    call = Script.__call__

    async def noted(self: Script, redis: Redis, on: Sequence[str | bytes], *rest: Any, **how: Any) -> Any:
        slots = {key_slot(key if isinstance(key, bytes) else key.encode()) for key in on}
        assert len(slots) == 1, (names[self._sha], on)
        called.setdefault(names[self._sha], set()).update(slots)
        return await call(self, redis, on, *rest, **how)

    monkeypatch.setattr(Script, "__call__", noted)
    await every_journey(stage, app, reports)
    await stage.broker.audit._drain()

    assert called.keys() == set(names.values())
    assert max(len(slots) for slots in called.values()) > 1


async def test_every_record_has_an_end_or_a_reason_to_have_none(stage: BrokerStage, app: App, reports: App) -> None:
    await every_journey(stage, app, reports)
    await stage.broker.audit._drain()

    endless = {key async for key in stage.redis.scan_iter("*") if await stage.redis.pttl(key) < 0}

    assert {next((start for start in ENDLESS if key.decode().startswith(start)), key) for key in endless} == set(
        ENDLESS
    )
