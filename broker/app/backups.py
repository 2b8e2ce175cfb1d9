"""What backups take, and no more: a restore comes before the broker's own keys are there."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from redis.asyncio import Redis

from broker.app.trail import ship_to
from broker.audit import AuditTrail
from broker.clock import Clock, Entropy, system_clock, system_entropy
from broker.flows.back_up import BackUp
from broker.flows.restore import Restore
from broker.settings import Settings
from broker.vault import KeyEncryptionKeys


@dataclass(frozen=True, slots=True)
class Backups:
    """The journeys."""

    back_up: BackUp
    restore: Restore


@asynccontextmanager
async def open_backups(
    settings: Settings,
    *,
    redis: Redis,
    kek: KeyEncryptionKeys,
    audit_file: Path | None,
    clock: Clock = system_clock,
    entropy: Entropy = system_entropy,
) -> AsyncIterator[Backups]:
    """Build them. `redis` and `kek` stay the caller's to close. Raises `AuditUnavailable`."""
    async with AsyncExitStack() as closing:
        audit = AuditTrail(file=audit_file, ship=ship_to(redis), clock=clock)
        await audit.open()
        closing.push_async_callback(audit.close)
        yield Backups(
            BackUp(redis, kek, audit, clock, entropy, settings.tenant),
            Restore(redis, kek, audit, clock, settings.tenant),
        )
