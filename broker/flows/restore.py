"""Put a backup into an empty store. What it grants is used once the EHR or an operator has said that it is good."""

import base64
import binascii
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any, BinaryIO, Final, cast

from redis.asyncio import Redis

from broker.audit import AuditRecord, AuditTrail
from broker.backups import Entry, merged, merges, read_entries, read_head, restored
from broker.clock import Clock
from broker.errors import BackupUnreadable
from broker.flows.back_up import bound_to
from broker.store import keys
from broker.store.connection import store_errors
from broker.vault import Domain, DomainRecords, KeyEncryptionKeys, WrappedKey
from broker.vault.places import place_of, records_in
from broker.witness import call_restored

_AT_ONCE: Final = 500
SHREDDED: Final = "shredded"
"""Among the counts: records that do not come back, since their key was shredded."""


@dataclass(frozen=True, slots=True)
class Restore:
    """Reads the whole file once before anything is written: one that is damaged changes nothing."""

    redis: Redis
    kek: KeyEncryptionKeys
    audit: AuditTrail
    clock: Clock
    tenant: str

    async def __call__(self, file: BinaryIO) -> Mapping[str, int]:
        """Write its records; returns how many there were of each Redis type, and how many a shred keeps away.

        It can be done again if it was cut off.
        Raises `BackupUnreadable`, also when the store holds grants that are of no such restore; `Unavailable`.
        """
        head = read_head(file)
        backup_id, taken_at = str(head.get("id")), _time(head)
        await self._require_empty(backup_id)
        key = await self._key(head, backup_id)
        _count(read_entries(file, key))
        self.audit.record(AuditRecord(event="store.restored", outcome="allowed", reason=f"backup {backup_id}"))
        with store_errors():
            await self.redis.set(keys.RESTORING, backup_id)
        counted = await self._write_all(read_entries(file, key), taken_at)
        await call_restored(self.redis, self.clock())
        with store_errors():
            await self.redis.delete(keys.RESTORING)
        return counted

    async def verify(self, file: BinaryIO) -> Mapping[str, str | int]:
        """Read it to its end, and change nothing. Raises `BackupUnreadable`, `Unavailable`."""
        head = read_head(file)
        key = await self._key(head, str(head.get("id")))
        counted = _count(read_entries(file, key))
        return {"taken_at": str(head.get("taken_at")), "records": counted.total(), **counted}

    async def call_restored(self) -> None:
        """Call everything restored that the store holds now: it was put back by other means. Raises `Unavailable`."""
        self.audit.record(AuditRecord(event="store.restored", outcome="allowed", reason="an operator says so"))
        await call_restored(self.redis, self.clock())

    async def _require_empty(self, backup_id: str) -> None:
        with store_errors():
            began = cast("bytes | None", await self.redis.get(keys.RESTORING))
            if began == backup_id.encode():
                return
            async for _ in self.redis.scan_iter(match=keys.ANY_GRANT, count=_AT_ONCE):
                raise BackupUnreadable(
                    "the store holds grants; a backup is put into an empty one. Fix: another database"
                )

    async def _key(self, head: Mapping[str, Any], backup_id: str) -> bytes:
        if head.get("tenant") != self.tenant:
            raise BackupUnreadable(f"it is of tenant {head.get('tenant')!r}, and broker.toml says {self.tenant!r}")
        try:
            wrapped = WrappedKey(str(head.get("kek")), base64.b64decode(str(head.get("key")), validate=True))
        except binascii.Error:
            raise BackupUnreadable("its head has no key") from None
        return await self.kek.unwrap(Domain(self.tenant), wrapped, bound_to(backup_id))

    async def _write_all(self, entries: Iterator[Entry], taken_at: float) -> Counter[str]:
        age = int((self.clock() - taken_at) * 1000)
        said = f"{datetime.fromtimestamp(taken_at, UTC):%Y-%m-%dT%H:%M:%SZ}"
        counted: Counter[str] = Counter()
        shredded = {key.id async for key, _ in DomainRecords(self.redis).all(self.tenant) if key.ended_by == "shred"}
        while batch := list(islice(entries, _AT_ONCE)):
            readable = [entry for entry in batch if not _key_ids(entry) & shredded]
            back = [entry for found in readable if (entry := restored(found, taken_at=said)) is not None]
            alive = [entry for entry in back if not entry.lives or entry.lives > age]
            counted.update({SHREDDED: len(batch) - len(readable)} if len(batch) > len(readable) else {})
            with store_errors():
                await self._write(alive, age)
            counted.update(entry.kind for entry in alive)
        return counted

    async def _write(self, entries: Sequence[Entry], age: int) -> None:
        for entry in [entry for entry in entries if merges(entry.key)]:
            await self._merge(entry)
        others = [entry for entry in entries if not merges(entry.key)]
        async with self.redis.pipeline(transaction=False) as pipe:
            for entry in others:
                pipe.delete(entry.key)
                if isinstance(entry.value, bytes):
                    pipe.set(entry.key, entry.value)
                elif entry.kind == "zset":
                    pipe.zadd(entry.key, {member: float(score) for member, score in entry.value.items()})
                else:
                    pipe.hset(entry.key, items=[part for field in entry.value.items() for part in field])
                if entry.lives:
                    pipe.pexpire(entry.key, entry.lives - age)
            if others:
                await pipe.execute()

    async def _merge(self, entry: Entry) -> None:
        """No broker runs now, so nobody else writes there."""
        found = cast("dict[bytes, bytes]", await self.redis.hgetall(entry.key))
        if fields := merged(found, cast("Mapping[bytes, bytes]", entry.value), self.clock()):
            await self.redis.hset(entry.key, items=[part for field in fields.items() for part in field])


def _key_ids(entry: Entry) -> set[bytes | None]:
    """Return under which domain keys a record is sealed."""
    place = place_of(entry.key)
    if place is None:
        return set()
    return {
        record.key_id for record in records_in(entry.key, place, cast("bytes | Mapping[bytes, bytes]", entry.value))
    }


def _time(head: Mapping[str, Any]) -> float:
    try:
        return datetime.strptime(str(head.get("taken_at")), "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()
    except ValueError:
        raise BackupUnreadable("its head has no time") from None


def _count(entries: Iterable[Entry]) -> Counter[str]:
    return Counter(entry.kind for entry in entries)
