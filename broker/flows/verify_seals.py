"""Open every sealed record of the store, and change nothing: what cannot be read is found before somebody needs it."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from broker.errors import KeyUnavailable, SealBroken
from broker.vault import DomainKeys, envelope
from broker.vault.inventory import Inventory
from broker.vault.places import SealedRecord

Unreadable = Callable[[str, str], None]
"""Is told where an unreadable record lies, and why it does not open."""


@dataclass(slots=True)
class Verified:
    """How many records of each kind open, and how many do not."""

    readable: Counter[str] = field(default_factory=Counter)
    unreadable: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class VerifySeals:
    """Holds a batch of records at a time in memory, whatever the size of the store."""

    keys: DomainKeys
    inventory: Inventory
    tenant: str

    async def __call__(self, tell: Unreadable) -> Verified:
        """Raises `StoreUnavailable`. A KMS that does not answer makes what is under its keys unreadable."""
        verified, missing = Verified(), dict[bytes, str]()
        async for batch in self.inventory.batches():
            for record in batch:
                if (why := await self._fault(record, missing)) is None:
                    verified.readable[record.kind] += 1
                else:
                    verified.unreadable[record.kind] += 1
                    tell(record.name, why)
        return verified

    async def _fault(self, record: SealedRecord, missing: dict[bytes, str]) -> str | None:
        """Return why a record does not open; `missing` remembers keys that cannot be had, so each is asked for once."""
        key_id = record.key_id
        if key_id is None:
            return "it is no envelope"
        if key_id in missing:
            return missing[key_id]
        try:
            key = await self.keys.for_opening(key_id)
            envelope.open_with(key.cipher, record.context(self.tenant), record.envelope)
        except KeyUnavailable as unavailable:
            return missing.setdefault(key_id, unavailable.detail)
        except SealBroken as broken:
            return broken.detail
        return None
