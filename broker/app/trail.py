"""The audit trail's way into the store, and the vault's into the audit trail."""

from collections.abc import Callable, Sequence
from typing import Final

from redis.asyncio import Redis

from broker.audit import STREAM_KEY, AuditRecord, AuditTrail, Ship
from broker.store.connection import store_errors
from broker.vault import RecordContext

AUDIT_STREAM_LENGTH: Final = 1_000_000
"""Records the Redis stream keeps, roughly; the file keeps all."""


def ship_to(redis: Redis) -> Ship:
    """Return what copies audit records to the store."""

    async def ship(lines: Sequence[str]) -> None:
        with store_errors():
            async with redis.pipeline(transaction=False) as pipe:
                for line in lines:
                    pipe.xadd(STREAM_KEY, {"record": line}, maxlen=AUDIT_STREAM_LENGTH, approximate=True)
                await pipe.execute()

    return ship


def report_to(audit: AuditTrail) -> Callable[[RecordContext, str], None]:
    """Return what records a seal that is broken."""

    def report(context: RecordContext, detail: str) -> None:
        audit.record(AuditRecord(event="seal.broken", outcome="denied", reason=f"{context.kind}: {detail}"))

    return report
