"""Where domain keys are kept: in Redis, wrapped, all of a domain's in one hash.

Fields of the hash: `key:ID` is a key; `active:TENANT/EHR` the id of the one that seals; `seals:ID` how often it sealed,
roughly, since replicas add what they counted every half minute.
"""

from collections.abc import AsyncIterator
from typing import Final, cast

from redis.asyncio import Redis

from broker.store import keys
from broker.store.connection import Script, store_errors
from broker.store.scripts import script
from broker.vault.domain_key import SLOT_BYTES, DomainKey, slot_of
from broker.vault.kek import Domain

_ABSENT: Final = b""


class DomainRecords:
    """Reads domain keys, and changes them only if nobody else did."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._change: Script = script("change_domain_keys")
        self._active: Script = script("active_domain_key")

    async def read(self, key_id: bytes) -> DomainKey | None:
        """Return a key by its id. Raises `StoreUnavailable`."""
        with store_errors():
            text = cast("bytes | None", await self._redis.hget(_place(key_id[:SLOT_BYTES]), _key(key_id)))
        return DomainKey.decode(text) if text is not None else None

    async def active(self, domain: Domain, *, sealed_by: bytes = b"", times: int = 0) -> DomainKey | None:
        """Return the key that seals for the domain, and add to how often one of its keys has sealed.

        Raises `StoreUnavailable`.
        """
        text = await self._active(self._redis, [_place(slot_of(domain))], [_seals(domain), sealed_by.hex(), times])
        return DomainKey.decode(text) if text is not None else None

    async def create(self, key: DomainKey) -> bool:
        """Store the first key of a domain; False when it has one. Raises `StoreUnavailable`."""
        id_ = key.id.hex().encode()
        return await self._write(key, (_seals(key.domain), _ABSENT, id_), (_key(key.id), _ABSENT, key.encode()))

    async def succeed(self, old: DomainKey, new: DomainKey, now: float) -> bool:
        """Let `new` seal from now on in place of `old`; False when `old` has changed meanwhile."""
        return await self._write(
            new,
            (_seals(new.domain), old.id.hex().encode(), new.id.hex().encode()),
            (_key(old.id), old.encode(), old.retired(now).encode()),
            (_key(new.id), _ABSENT, new.encode()),
        )

    async def replace(self, before: DomainKey, after: DomainKey) -> bool:
        """Replace one key's record; False when it has changed meanwhile. One that is gone seals no more."""
        changes = [(_key(before.id), before.encode(), after.encode())]
        if before.state == "active" and after.state == "gone":
            changes.append((_seals(before.domain), before.id.hex().encode(), _ABSENT))
        return await self._write(before, *changes)

    async def all(self, tenant: str) -> AsyncIterator[tuple[DomainKey, int]]:
        """Go through all keys of a tenant's, each with how often it sealed. Raises `StoreUnavailable`."""
        with store_errors():
            async for place in self._redis.scan_iter(match=keys.ANY_DOMAIN, count=500):
                fields = cast("dict[bytes, bytes]", await self._redis.hgetall(place))
                for key in sorted(_keys_in(fields), key=lambda key: (str(key.domain), key.created_at)):
                    if key.domain.tenant == tenant:
                        yield key, int(fields.get(b"seals:" + key.id.hex().encode(), 0))

    async def _write(self, key: DomainKey, *changes: tuple[bytes, bytes, bytes]) -> bool:
        parts = [part for one in changes for part in one]
        # A domain key that a fail-over lost takes every record under it along.
        return bool(await self._change(self._redis, [_place(key.slot)], parts, durable=True))


def _keys_in(fields: dict[bytes, bytes]) -> list[DomainKey]:
    return [DomainKey.decode(text) for name, text in fields.items() if name.startswith(b"key:")]


def _place(slot: bytes) -> str:
    return keys.domain(slot.hex())


def _key(key_id: bytes) -> bytes:
    return b"key:" + key_id.hex().encode()


def _seals(domain: Domain) -> bytes:
    return f"active:{domain}".encode()
