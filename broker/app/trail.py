"""The audit trail's way into the store, and the vault's into the audit trail."""

from collections.abc import Callable, Sequence
from typing import Final

from redis.asyncio import Redis

from broker.audit import STREAM_KEY, AuditRecord, AuditTrail, Ship
from broker.store.scripts import script
from broker.vault import RecordContext

AUDIT_STREAM_LENGTH: Final = 1_000_000
"""Records the Redis stream keeps, roughly; the file keeps all."""


def ship_to(redis: Redis) -> Ship:
    """Return what copies audit records to the store."""
    append = script("append_audit")

    async def ship(lines: Sequence[str]) -> None:
        await append(redis, [STREAM_KEY], [AUDIT_STREAM_LENGTH, *lines])

    return ship


def report_to(audit: AuditTrail) -> Callable[[RecordContext, str], None]:
    """Return what records a seal that is broken."""

    def report(context: RecordContext, detail: str) -> None:
        audit.record(AuditRecord(event="seal.broken", outcome="denied", reason=f"{context.kind}: {detail}"))

    return report
