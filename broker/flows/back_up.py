"""Write a backup of the store while the broker runs: what is sealed stays sealed, and the file is sealed once more."""

import base64
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, BinaryIO, Final, cast

from redis.asyncio import Redis

from broker.audit import AuditRecord, AuditTrail
from broker.backups import ArchiveWriter, Entry, Kind, kind_of, merges
from broker.clock import Clock, Entropy
from broker.store import keys
from broker.store.connection import store_errors
from broker.vault import Domain, KeyEncryptionKeys

KEY_BYTES: Final = 32
_ID_BYTES: Final = 8
_AT_ONCE: Final = 500
_ANY: Final = "sb:*"


def bound_to(backup_id: str) -> bytes:
    """Return what the key of a backup's file is bound to. A KEK wraps it: domain keys may be lost with the store."""
    return f"backup {backup_id}".encode()


@dataclass(frozen=True, slots=True)
class BackUp:
    """Reads the store key by key, each as it is at that moment: grants do not depend on each other."""

    redis: Redis
    kek: KeyEncryptionKeys
    audit: AuditTrail
    clock: Clock
    entropy: Entropy
    tenant: str

    async def __call__(self, file: BinaryIO) -> int:
        """Write it; returns how many records it holds. Raises `Unavailable`."""
        backup_id, key = self.entropy(_ID_BYTES).hex(), self.entropy(KEY_BYTES)
        self.audit.record(AuditRecord(event="store.backed_up", outcome="allowed", reason=f"backup {backup_id}"))
        writer = ArchiveWriter(file, await self._head(backup_id, key), key)
        async for entry in self._entries():
            writer.add(entry)
        writer.finish()
        return writer.count

    async def _head(self, backup_id: str, key: bytes) -> dict[str, Any]:
        wrapped = await self.kek.wrap(Domain(self.tenant), key, bound_to(backup_id))
        return {
            "id": backup_id,
            "tenant": self.tenant,
            "taken_at": f"{datetime.fromtimestamp(self.clock(), UTC):%Y-%m-%dT%H:%M:%SZ}",
            "kek": wrapped.kek,
            "key": base64.b64encode(wrapped.blob).decode(),
        }

    async def _entries(self) -> AsyncIterator[Entry]:
        """Domain keys come first, and once more at the end where they have changed: a rotation may be under way."""
        first = [entry async for entry in self._found(keys.ANY_DOMAIN)]
        for entry in first:
            yield entry
        async for entry in self._found(_ANY):
            if not merges(entry.key):
                yield entry
        async for entry in self._found(keys.ANY_DOMAIN):
            if entry not in first:
                yield entry

    async def _found(self, pattern: str) -> AsyncIterator[Entry]:
        seen: set[str] = set()  # SCAN may name a key twice
        batch: list[str] = []
        with store_errors():
            async for name in self.redis.scan_iter(match=pattern, count=_AT_ONCE):
                key = name.decode()
                if kind_of(key) is not None and key not in seen:
                    seen.add(key)
                    batch.append(key)
                if len(batch) == _AT_ONCE:
                    for entry in await self._read(batch):
                        yield entry
                    batch = []
            for entry in await self._read(batch):
                yield entry

    async def _read(self, names: Sequence[str]) -> list[Entry]:
        async with self.redis.pipeline(transaction=False) as pipe:
            for name in names:
                _READERS[cast("Kind", kind_of(name))](pipe, name)
                pipe.pttl(name)
            found = await pipe.execute() if names else []
        values, lives = found[::2], found[1::2]
        return [
            Entry(name, cast("Kind", kind_of(name)), _value(value), max(0, left))
            for name, value, left in zip(names, values, lives, strict=True)
            if value
        ]


def _value(value: Any) -> bytes | dict[bytes, bytes | float]:
    return value if isinstance(value, bytes) else dict(value)


_READERS: Final[dict[Kind, Any]] = {
    "string": lambda pipe, name: pipe.get(name),
    "hash": lambda pipe, name: pipe.hgetall(name),
    "zset": lambda pipe, name: pipe.zrange(name, 0, -1, withscores=True),
}
