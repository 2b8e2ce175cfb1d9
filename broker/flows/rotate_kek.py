"""Put domain keys under the current KEK, so that an earlier one can leave. No record is touched."""

from collections.abc import Callable
from dataclasses import dataclass, field

from broker.audit import AuditRecord, AuditTrail
from broker.errors import KeyUnavailable
from broker.vault import DomainRecords, KeyEncryptionKeys
from broker.vault.domain_key import DomainKey


@dataclass(slots=True)
class Rewrapped:
    """What became of it."""

    moved: int = 0
    left: int = 0
    """Domain keys that are still under another KEK than the current one of their domain."""
    current: set[str] = field(default_factory=set)
    """The KEKs that wrap something now."""
    earlier: set[str] = field(default_factory=set)
    """Those that wrapped a domain key at any time, as far as the store knows, and wrap none now."""


@dataclass(frozen=True, slots=True)
class RotateKek:
    """Unwraps each domain key, wraps it anew, and writes it over what was read; run again, it goes on."""

    records: DomainRecords
    kek: KeyEncryptionKeys
    audit: AuditTrail
    tenant: str

    async def __call__(self, tell: Callable[[str], None], *, new_version: bool = False) -> Rewrapped:
        """Do it for all of the tenant's. `new_version`: let the KMS make one for each domain first.

        Raises `KeyUnavailable` when a KEK is away or on the keyring no more, `SealBroken`, `StoreUnavailable`.
        """
        keys = [key async for key, _ in self.records.all(self.tenant) if key.wrapped is not None]
        if new_version:
            for domain in dict.fromkeys(key.domain for key in keys):
                tell(f"{domain}: {await self.kek.rotate(domain)}")
        rewrapped = Rewrapped()
        for key in keys:
            rewrapped.moved += await self._move(key, tell)
        return await self._count(rewrapped)

    async def _move(self, key: DomainKey, tell: Callable[[str], None]) -> bool:
        found: DomainKey | None = key
        while found is not None and found.wrapped is not None:
            if found.wrapped.kek == await self.kek.current(found.domain):
                return False
            opened = await self.kek.unwrap(found.domain, found.wrapped, found.id)
            wrapped = await self.kek.wrap(found.domain, opened, found.id)
            self._record(found, wrapped.kek)
            if await self.records.replace(found, found.rewrapped(wrapped)):
                tell(f"{found.domain}: key {found.id.hex()} is under {wrapped.kek}")
                return True
            found = await self.records.read(found.id)  # rotated or shredded meanwhile
        return False

    async def _count(self, rewrapped: Rewrapped) -> Rewrapped:
        ever: set[str] = set()
        async for key, _ in self.records.all(self.tenant):
            ever |= set(key.keks)
            if key.wrapped is not None:
                rewrapped.current.add(key.wrapped.kek)
                rewrapped.left += key.wrapped.kek != await self.kek.current(key.domain)
        rewrapped.earlier = ever - rewrapped.current
        return rewrapped

    def _record(self, key: DomainKey, kek: str) -> None:
        if key.wrapped is None:
            raise KeyUnavailable(f"domain key {key.id.hex()} is gone")
        reason = f"{key.id.hex()} is wrapped by {kek} in place of {key.wrapped.kek}"
        record = AuditRecord(event="domain_key.rewrapped", outcome="allowed", ehr=key.domain.ehr or None, reason=reason)
        self.audit.record(record)
