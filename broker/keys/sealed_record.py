"""A record that is sealed as a whole and written only over what was read."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final, cast

from redis.asyncio import Redis

from broker.errors import StoreUnavailable
from broker.store.connection import Script, store_errors
from broker.store.scripts import script
from broker.vault import RecordContext, Vault

_TRIES: Final = 20

Decide = Callable[[bytes | None], bytes | None]
"""Given the record, or None where there is none, returns the one to write; None leaves it. Called anew after a race."""


@dataclass(frozen=True, slots=True)
class SealedRecords:
    """Reads and changes such records; two replicas that change one at a time both see their changes kept."""

    redis: Redis
    vault: Vault
    tenant: str
    replace: Script = field(default_factory=partial(script, "replace_record"))
    opened: dict[str, tuple[bytes, bytes]] = field(default_factory=dict)
    """What was read last, sealed and open: the same bytes are not opened twice."""

    async def read(self, key: str, name: str) -> bytes | None:
        """Return the record; None if there is none. Raises `StoreUnavailable`, `SealBroken`, `KeyUnavailable`."""
        return (await self._read(key, name))[1]

    async def change(self, key: str, name: str, decide: Decide, *, ehr: str = "") -> bytes | None:
        """Return the record as it is after the change, which is as durable as a rotated refresh token.

        `ehr`: under whose key it is sealed, where it is of one alone.

        Raises what `read` and `decide` raise.
        """
        for _ in range(_TRIES):
            sealed, text = await self._read(key, name)
            decided = decide(text)
            if decided is None or decided == text:
                return text
            fresh = await self.vault.seal(self._context(name), decided, ehr=ehr)
            if await self.replace(self.redis, [key], [sealed, fresh], durable=True):
                self.opened[key] = (fresh, decided)
                return decided
        raise StoreUnavailable("the record is written by others all the time")

    async def _read(self, key: str, name: str) -> tuple[bytes, bytes | None]:
        with store_errors():
            sealed = cast("bytes | None", await self.redis.get(key))
        if sealed is None:
            return b"", None
        last = self.opened.get(key)
        if last is None or last[0] != sealed:
            last = self.opened[key] = (sealed, await self.vault.open(self._context(name), sealed))
        return last

    def _context(self, name: str) -> RecordContext:
        return RecordContext(kind="key", id=name, tenant=self.tenant)
