"""One key per tenant and EHR: made once, found by its id, kept for a bounded time, also while the KMS is down."""

import asyncio
from pathlib import Path

import pytest
from redis.asyncio import Redis

from broker.errors import KeyRefused, KeyUnavailable, SealBroken, StoreUnavailable
from broker.store import keys
from broker.store.connection import connect
from broker.store.embedded import EmbeddedServer, wheel_server
from broker.vault import Domain, DomainRecords, LocalKeyring, RecordContext, Vault, envelope
from broker.vault.domain_key import DomainKey, slot_of
from tests.stage.clock import MovableClock
from tests.stage.vault import KEY, UnsteadyKek, a_vault, domain_keys

CONTEXT = RecordContext(kind="grant-tokens", id="ABCdef012345", tenant="t", generation=1)
EPIC, ORACLE = Domain("t", "epic"), Domain("t", "oracle")
TEXT = b"canary"


async def all_keys(redis: Redis, tenant: str = "t") -> list[DomainKey]:
    return [key async for key, _ in DomainRecords(redis).all(tenant)]


async def asked(redis: Redis) -> int:
    """Return how many commands the store was sent so far, INFO left out."""
    stats = await redis.info("commandstats")
    return sum(figures["calls"] for name, figures in stats.items() if name != "cmdstat_info")


async def settled() -> None:
    """Let what runs in the background come to its end."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    await asyncio.wait(others) if others else await asyncio.sleep(0)


async def test_each_tenant_and_ehr_has_a_key_of_its_own(redis: Redis) -> None:
    vault, other = a_vault(redis), a_vault(redis, tenant="other")
    ids = [
        envelope.key_id_of(await one.seal(CONTEXT, TEXT, ehr=ehr))
        for one, ehr in ((vault, "epic"), (vault, "oracle"), (vault, ""), (other, "epic"), (vault, "epic"))
    ]

    assert len(set(ids)) == 4
    assert ids[0] == ids[4]
    assert {str(key.domain): (key.id, key.state) for key in await all_keys(redis)} == {
        "t/": (ids[2], "active"),
        "t/epic": (ids[0], "active"),
        "t/oracle": (ids[1], "active"),
    }


async def test_replicas_that_seal_together_agree_on_one_key(redis: Redis) -> None:
    vaults = [a_vault(redis) for _ in range(20)]

    sealed = await asyncio.gather(*(vault.seal(CONTEXT, TEXT, ehr="epic") for vault in vaults))

    assert len({envelope.key_id_of(one) for one in sealed}) == 1
    assert [await vaults[0].open(CONTEXT, one) for one in sealed] == [TEXT] * 20
    assert len(await all_keys(redis)) == 1


async def test_a_thousand_records_cost_the_kms_one_call_and_the_store_one_command(redis: Redis) -> None:
    kek, writer = UnsteadyKek(), a_vault(redis)
    sealed = [await writer.seal(CONTEXT, TEXT, ehr="epic") for _ in range(1000)]
    reader, before = a_vault(redis, kek), await asked(redis)

    assert {await reader.open(CONTEXT, one) for one in sealed} == {TEXT}

    assert (kek.unwrapped, kek.wrapped) == (1, 0)
    assert await asked(redis) == before + 1


async def test_a_domain_key_stands_in_redis_wrapped_only_and_for_good(redis: Redis) -> None:
    await a_vault(redis).seal(CONTEXT, TEXT, ehr="epic")
    (key,) = await all_keys(redis)
    place = keys.domain(slot_of(EPIC).hex())

    assert key.wrapped is not None
    raw = await LocalKeyring([KEY]).unwrap(EPIC, key.wrapped, key.id)
    assert len(raw) == 32
    for text in (await redis.hgetall(place)).values():
        assert raw not in text
        assert raw.hex().encode() not in text.lower()
    assert await redis.pttl(place) == -1


async def test_a_key_that_is_said_to_be_another_ehrs_does_not_unwrap(redis: Redis) -> None:
    """Whoever writes to Redis cannot have one EHR's records sealed under a key of another's."""
    await a_vault(redis).seal(CONTEXT, TEXT, ehr="oracle")
    (oracle,) = await all_keys(redis)
    place, wanted = keys.domain(slot_of(EPIC).hex()), slot_of(EPIC) + oracle.id[4:]
    forged = oracle.encode().replace(oracle.id.hex().encode(), wanted.hex().encode()).replace(b'"oracle"', b'"epic"')
    await redis.hset(place, mapping={f"key:{wanted.hex()}": forged, "active:t/epic": wanted.hex()})

    with pytest.raises(SealBroken):
        await a_vault(redis).seal(CONTEXT, TEXT, ehr="epic")


class Office:
    """A replica with a clock and a KMS that can be moved and stopped, and one record of Epic's."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self.clock = MovableClock()
        self.kek = UnsteadyKek()
        self.keys = domain_keys(redis, self.kek, clock=self.clock)
        self.vault = Vault(self.keys, tenant="t", report_broken=lambda *_: None)
        self.sealed = b""

    async def use(self) -> None:
        """Seal and open, as requests do all the time."""
        self.sealed = await self.vault.seal(CONTEXT, TEXT, ehr="epic")
        assert await self.vault.open(CONTEXT, self.sealed) == TEXT
        await settled()

    async def use_for(self, seconds: float) -> None:
        for _ in range(int(seconds // 20)):
            self.clock.advance(20)
            await self.use()

    async def forget(self) -> None:
        """Destroy the key behind the replica's back."""
        (key,) = await all_keys(self.redis)
        assert await DomainRecords(self.redis).replace(key, key.ended(self.clock(), "shred"))


@pytest.fixture
async def office(redis: Redis) -> Office:
    office = Office(redis)
    await office.use()
    return office


async def test_a_key_in_use_is_confirmed_in_the_background_and_never_waited_for(office: Office) -> None:
    before = await asked(office.redis)
    office.clock.advance(29)
    await office.use()
    assert await asked(office.redis) == before

    office.clock.advance(2)
    await office.use()
    assert await asked(office.redis) > before

    assert office.kek.unwrapped == 1


async def test_a_key_is_unwrapped_again_after_five_minutes(office: Office) -> None:
    await office.use_for(290)
    assert office.kek.unwrapped == 1

    await office.use_for(60)
    assert office.kek.unwrapped == 2


async def test_a_kms_that_is_down_stops_nothing_for_an_hour(office: Office) -> None:
    office.kek.down()
    await office.use_for(3580)

    office.clock.advance(40)
    for call in (office.vault.seal(CONTEXT, TEXT, ehr="epic"), office.vault.open(CONTEXT, office.sealed)):
        with pytest.raises(KeyUnavailable, match="the KMS does not answer"):
            await call

    office.kek.recover()
    await office.use()


async def test_a_kms_that_is_down_refuses_an_ehr_whose_key_is_not_at_hand(office: Office) -> None:
    oracles = await a_vault(office.redis).seal(CONTEXT, TEXT, ehr="oracle")
    office.kek.down()

    for call in (
        office.vault.open(CONTEXT, oracles),
        office.vault.seal(CONTEXT, TEXT, ehr="oracle"),
        office.vault.seal(CONTEXT, TEXT, ehr="new"),
        office.vault.ready("oracle"),
        office.vault.ready("new"),
    ):
        with pytest.raises(KeyUnavailable):
            await call
    assert {str(key.domain) for key in await all_keys(office.redis)} == {"t/epic", "t/oracle"}


async def test_a_kms_that_says_no_takes_the_key_away(office: Office) -> None:
    office.kek.refuse()
    await office.use_for(320)  # asked in the background at five minutes; what was under way was served

    for call in (office.vault.open(CONTEXT, office.sealed), office.vault.seal(CONTEXT, TEXT, ehr="epic")):
        with pytest.raises(KeyRefused):
            await call


@pytest.mark.parametrize("used", ["in use", "idle"])
async def test_a_destroyed_key_is_in_use_nowhere_after_three_minutes(office: Office, used: str) -> None:
    """Used or not meanwhile; where it is used, Redis is asked within half a minute."""
    await office.forget()
    if used == "in use":
        office.clock.advance(31)
        await office.use()  # the last one: its confirmation finds the key gone
    else:
        office.clock.advance(180)

    with pytest.raises(KeyUnavailable, match="is gone"):
        await office.vault.open(CONTEXT, office.sealed)


async def test_a_replica_that_is_cut_off_from_redis_uses_a_key_no_longer_than_it_was_confirmed(tmp_path: Path) -> None:
    """It could not know that the key was destroyed meanwhile."""
    server = EmbeddedServer.start(tmp_path, server=wheel_server())
    redis = connect(server.url())
    office = Office(redis)
    await office.use()
    server.stop()

    office.clock.advance(178)
    assert await office.vault.open(CONTEXT, office.sealed) == TEXT
    office.clock.advance(2)
    with pytest.raises(StoreUnavailable):
        await office.vault.open(CONTEXT, office.sealed)
    await office.keys.close()
    await redis.aclose()


async def test_what_is_ready_is_sealed_without_kms_and_store(office: Office) -> None:
    """A refresh's answer, with the KMS away: the promise holds for 150 seconds, also when the key was old already."""
    await office.use_for(280)
    await office.vault.ready("epic")
    await settled()
    office.kek.down()
    before = await asked(office.redis)
    office.clock.advance(29)
    await office.vault.seal(CONTEXT, TEXT, ehr="epic")
    assert await asked(office.redis) == before

    office.clock.advance(120)
    await office.vault.seal(CONTEXT, TEXT, ehr="epic")


async def test_ready_promises_nothing_that_it_cannot_keep(office: Office) -> None:
    """An hour after the KMS was last heard, the key could end before the answer comes."""
    office.kek.down()
    await office.use_for(3440)
    await office.vault.ready("epic")
    await office.use_for(40)

    with pytest.raises(KeyUnavailable, match="has not answered for too long"):
        await office.vault.ready("epic")
    await office.use()


async def test_how_often_a_key_sealed_is_counted_over_all_replicas(redis: Redis) -> None:
    clock = MovableClock()
    vaults = [a_vault(redis, clock=clock) for _ in range(3)]
    for vault in vaults:
        for _ in range(10):
            await vault.seal(CONTEXT, TEXT, ehr="epic")
    clock.advance(31)
    for vault in vaults:
        await vault.seal(CONTEXT, TEXT, ehr="epic")
    await settled()

    ((_, seals),) = [found async for found in DomainRecords(redis).all("t")]
    assert seals >= 30


async def test_the_number_of_keys_at_hand_is_bounded(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.vault.domain_keys.MOST_KEYS", 3)
    kek = UnsteadyKek()
    vault = a_vault(redis, kek)
    sealed = {ehr: await vault.seal(CONTEXT, TEXT, ehr=ehr) for ehr in "abcd"}
    kek.down()

    for ehr in "bcd":
        assert await vault.open(CONTEXT, sealed[ehr]) == TEXT
    with pytest.raises(KeyUnavailable):
        await vault.open(CONTEXT, sealed["a"])


async def test_of_changes_to_one_key_the_first_wins(redis: Redis) -> None:
    records, maker = DomainRecords(redis), domain_keys(redis)
    await maker.for_sealing(EPIC)
    (key,) = await all_keys(redis)
    candidates = [await maker.make(EPIC) for _ in range(10)]

    said = await asyncio.gather(*(records.succeed(key, candidate, 5.0) for candidate in candidates))

    assert sum(said) == 1
    after = {one.id: one.state for one in await all_keys(redis)}
    assert after == {key.id: "retiring", candidates[said.index(True)].id: "active"}


def test_a_key_is_written_and_read_as_it_is() -> None:
    key = DomainKey(bytes(8), EPIC, "active", None, 1.5, 2.5, ("local:a", "local:b"), "rotation")

    assert DomainKey.decode(key.encode()) == key
    assert slot_of(EPIC) != slot_of(ORACLE)
