"""A handle is found in one round trip, wherever it is for."""

import pytest
from redis.asyncio import Redis

from broker.clock import system_entropy
from broker.credentials import KeyedHash
from broker.errors import InvalidHandle
from broker.grants import Grants
from broker.handles import Handles
from broker.issued import IssuedRecords
from broker.store.shared import SharedConnections
from broker.vault import RecordContext, Vault
from tests.stage.vault import domain_keys, report_nothing
from tests.store.test_rotation import SCOPES, TAG, TERMS, TOKENS

NOW = 1_000_000.0


class CountingVault(Vault):
    """Remembers what was opened."""

    def __init__(self, redis: Redis) -> None:
        super().__init__(domain_keys(redis), tenant="t", report_broken=report_nothing)
        self.opened: list[str] = []

    async def open(self, context: RecordContext, sealed: bytes) -> bytes:
        self.opened.append(context.kind)
        return await super().open(context, sealed)


async def reads(redis: Redis) -> int:
    """Return how often a whole grant was read so far."""
    stats = await redis.info("commandstats")
    return int(stats.get("cmdstat_hgetall", {"calls": 0})["calls"])


async def test_a_handle_is_found_without_its_ehr_in_one_round_trip_and_at_another_ehr_not_at_all(redis: Redis) -> None:
    """HB-01, HB-06."""
    vault = CountingVault(redis)
    shared = SharedConnections(redis)
    grants = Grants(redis, vault, tenant="t", clock=lambda: NOW)
    records = IssuedRecords(vault, KeyedHash(bytes(32)), tenant="t", clock=lambda: NOW, entropy=system_entropy)
    handles = Handles(redis, shared, records, grants, clock=lambda: NOW)
    await grants.create(TAG, TERMS, TOKENS)
    issued = await handles.issue(
        tag=TAG,
        app="app",
        ehr="sandbox",
        scopes=SCOPES,
        family="f",
        lifetime=300,
        refresh_lifetime=0,
        announce=lambda _: None,
    )
    vault.opened.clear()
    before = await reads(redis)

    found = await handles.find(issued.handle.reveal())

    assert found is not None
    assert (found[0].ehr, found[1].tag) == ("sandbox", TAG)
    assert await reads(redis) == before + 1
    assert sorted(vault.opened) == ["grant-terms", "handle"]
    with pytest.raises(InvalidHandle, match="is bound to EHR sandbox"):
        await handles.redeem(issued.handle.reveal(), "other")
    await shared.close()
