"""All sealed records of the store: gone through in batches, moved to another domain key, or deleted."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Final

from redis.asyncio import Redis

from broker.store.connection import Script, store_errors
from broker.store.scripts import script
from broker.vault.envelope import HEADER_BYTES
from broker.vault.places import SealedRecord, place_of, records_in

AT_ONCE: Final = 500
"""Records in memory, roughly; and keys that the store looks at in one step."""
_SENT_TOGETHER: Final = 16
"""Changes under way at a time: a rotation leaves the store to those who serve."""
_ANY: Final = "sb:*"


class Inventory:
    """Sees every record that is there for as long as it is gone through; one that comes meanwhile perhaps."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._replace: Script = script("replace_header")

    async def batches(self) -> AsyncIterator[list[SealedRecord]]:
        """Go through all of them, on every node of a cluster; a record may come twice. Raises `StoreUnavailable`."""
        names: list[str] = []
        with store_errors():
            async for name in self._redis.scan_iter(match=_ANY, count=AT_ONCE):
                if place_of(key := name.decode()) is not None:
                    names.append(key)
                if len(names) == AT_ONCE:
                    yield await self._read(names)
                    names = []
            if names:
                yield await self._read(names)

    async def move(self, changes: Sequence[tuple[SealedRecord, bytes]]) -> Sequence[bool]:
        """Put other first bytes before records, and say of each whether: not where it was written since it was read.

        Raises `StoreUnavailable`.
        """
        done: list[bool] = []
        for start in range(0, len(changes), _SENT_TOGETHER):
            some = changes[start : start + _SENT_TOGETHER]
            done += await asyncio.gather(*(self._change(record, header) for record, header in some))
        return done

    async def delete(self, records: Sequence[SealedRecord]) -> Sequence[bool]:
        """Delete records, and say of each whether, as `move` does; with one field of a grant all of it goes."""
        return await self.move([(record, b"") for record in records])

    async def _change(self, record: SealedRecord, header: bytes) -> bool:
        before = record.envelope[:HEADER_BYTES]
        return bool(await self._replace(self._redis, [record.key], [record.field, before, header]))

    async def _read(self, names: Sequence[str]) -> list[SealedRecord]:
        places = [(name, place) for name in names if (place := place_of(name)) is not None]
        async with self._redis.pipeline(transaction=False) as pipe:
            for name, place in places:
                (pipe.get if place.kind == "string" else pipe.hgetall)(name)
            found = await pipe.execute()
        read = [records_in(name, place, value) for (name, place), value in zip(places, found, strict=True) if value]
        return [record for some in read for record in some]
