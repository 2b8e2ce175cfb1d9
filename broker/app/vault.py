"""What `broker vault` takes, and no more: it has to work where a record of the broker's own does not open."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from redis.asyncio import Redis

from broker.app.trail import report_to, ship_to
from broker.audit import AuditTrail
from broker.clock import Clock, Entropy, system_entropy
from broker.flows.rotate_domain_keys import RotateDomainKeys, Sleep
from broker.flows.rotate_kek import RotateKek
from broker.flows.shred import Shred
from broker.flows.verify_seals import VerifySeals
from broker.keys.identity import IdentityKey
from broker.settings import Settings
from broker.vault import DomainKeys, DomainRecords, KeyEncryptionKeys, Vault
from broker.vault.inventory import Inventory


@dataclass(frozen=True, slots=True)
class VaultWork:
    """The journeys, and what `status` reads."""

    records: DomainRecords
    inventory: Inventory
    rotate: RotateDomainKeys
    rotate_kek: RotateKek
    verify: VerifySeals
    shred: Shred


@asynccontextmanager
async def open_vault(
    settings: Settings,
    *,
    redis: Redis,
    kek: KeyEncryptionKeys,
    audit_file: Path | None,
    clock: Clock,
    sleep: Sleep = asyncio.sleep,
    entropy: Entropy = system_entropy,
) -> AsyncIterator[VaultWork]:
    """Build them. `redis` and `kek` stay the caller's to close. Raises `AuditUnavailable`."""
    async with AsyncExitStack() as closing:
        audit, tenant = AuditTrail(file=audit_file, ship=ship_to(redis), clock=clock), settings.tenant
        records, inventory = DomainRecords(redis), Inventory(redis)
        keys = DomainKeys(records, kek, clock=clock, entropy=entropy)
        closing.push_async_callback(keys.close)
        await audit.open()
        closing.push_async_callback(audit.close)
        vault = Vault(keys, tenant=tenant, report_broken=report_to(audit), entropy=entropy)
        identity_key, issuer = IdentityKey(redis, vault, tenant=tenant), settings.public_url
        yield VaultWork(
            records,
            inventory,
            RotateDomainKeys(records, keys, inventory, audit, clock, entropy, sleep, tenant),
            RotateKek(records, kek, audit, tenant),
            VerifySeals(keys, inventory, tenant),
            Shred(redis, records, inventory, kek, identity_key, audit, clock, sleep, tenant, issuer),
        )
