"""Make what is sealed for an EHR, or for the tenant, unreadable for good, and sign a certificate of it.

What is read of the store afterwards says how far it came: keys that are `gone` by a shred. So whoever runs it again,
after whatever cut it off, goes on with it, and gets the certificate.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from redis.asyncio import Redis

from broker.audit import AuditRecord, AuditTrail
from broker.clock import Clock
from broker.errors import NotFound, Unavailable
from broker.flows.persist import persist
from broker.flows.rotate_domain_keys import WRITERS_SECONDS, Sleep, Tell
from broker.keys.identity import IdentityKey
from broker.store import keys
from broker.store.connection import store_errors
from broker.vault import Destroyed, Domain, DomainRecords, KeyEncryptionKeys
from broker.vault.domain_key import DomainKey
from broker.vault.inventory import Inventory
from broker.vault.places import SealedRecord

TYPE: Final = "shred-certificate+jwt"
"""A type of its own, so that nobody takes it for an id_token (RFC 8725 §3.11)."""

Certify = Callable[[dict[str, Any]], Awaitable[str]]


@dataclass(slots=True)
class Shredded:
    """What was done."""

    what: Domain
    began_at: float
    keys: list[DomainKey] = field(default_factory=list)
    destroyed: list[Destroyed] = field(default_factory=list)
    deleted: Counter[str] = field(default_factory=Counter)
    """Records by kind."""
    left_over: int = 0
    """Records under its keys that the last look at the store found."""
    others: int = 0
    """Keys of other domains, which are still wrapped by a KEK that wrapped one of these."""

    @property
    def keks(self) -> list[str]:
        """Every KEK that wrapped one of the keys: who has it, and an older copy of the store, reads that copy."""
        return sorted({kek for key in self.keys for kek in key.keks})

    @property
    def keks_left(self) -> list[str]:
        """Those of them that nobody destroyed."""
        gone = {one.kek for one in self.destroyed}
        return [kek for kek in self.keks if not any(kek == name or kek.startswith(f"{name}:") for name in gone)]


@dataclass(frozen=True, slots=True)
class Shred:
    """Records, then destroys keys, then their KEK, then deletes what nobody can read any more."""

    redis: Redis
    records: DomainRecords
    inventory: Inventory
    kek: KeyEncryptionKeys
    identity_key: IdentityKey
    audit: AuditTrail
    clock: Clock
    sleep: Sleep
    tenant: str
    issuer: str

    async def __call__(self, ehr: str, tell: Tell) -> tuple[Shredded, str]:
        """Shred one EHR's, or with an empty `ehr` everything of the tenant; returns what was done, and the certificate.

        Raises `NotFound` where nothing was ever sealed, `Unavailable`; run again, it goes on.
        """
        done = Shredded(Domain(self.tenant, ehr), self.clock())
        if not (found := await self._found(ehr)):
            raise NotFound(f"there is no key of {done.what}: nothing of it is sealed")
        certify = await self._signer(found)
        found = await self._found(ehr)  # with that of the signing key, if it was made just now
        await self._end(found, tell)
        done.destroyed = await self._destroy({key.domain for key in found}, tell)
        if done.destroyed:  # what a broker made meanwhile is under a KEK that is gone
            await self._end(await self._found(ehr), tell)
        done.keys = await self._found(ehr)
        await self._delete(done, tell)
        done.others = await self._count_others(done)
        return done, await certify(self._statement(done))

    async def _found(self, ehr: str) -> list[DomainKey]:
        return [key async for key, _ in self.records.all(self.tenant) if ehr in {"", key.domain.ehr}]

    async def _signer(self, found: Iterable[DomainKey]) -> Certify:
        """Have the signing key in memory before anything is destroyed: it may be among it."""
        identity_key = self.identity_key
        try:
            public = await identity_key.public_jwk()
        except Unavailable:
            if not any(key.ended_by == "shred" and not key.domain.ehr for key in found):
                raise
            identity_key = await identity_key.for_once()  # it went with a shred that was cut off
            public = await identity_key.public_jwk()

        async def certify(statement: dict[str, Any]) -> str:
            return await identity_key.sign(statement | {"signed_by": public}, typ=TYPE)

        return certify

    async def _end(self, found: Iterable[DomainKey], tell: Tell) -> None:
        """Destroy the keys, also what a backup may have of one that was rotated."""
        for key in [key for key in found if key.ended_by != "shred"]:
            reason = f"{key.id.hex()}: nothing that is sealed under it can be read any more"
            self.audit.record(
                AuditRecord(event="domain_key.shredded", outcome="allowed", ehr=key.domain.ehr or None, reason=reason)
            )
            current: DomainKey | None = key
            while current is not None and current.ended_by != "shred":
                await self.records.replace(current, current.ended(self.clock(), "shred"))
                current = await self.records.read(key.id)
            tell(f"{key.domain}: key {key.id.hex()} is gone")

    async def _destroy(self, domains: Iterable[Domain], tell: Tell) -> list[Destroyed]:
        destroyed: list[Destroyed] = []
        for domain in sorted(domains, key=str):
            destroyed += await self.kek.destroy(domain)
        for one in destroyed:
            tell(f"KEK {one.kek} is gone at {_when(one.gone_at)}")
        return destroyed

    async def _count_others(self, done: Shredded) -> int:
        ids, keks = {key.id for key in done.keys}, set(done.keks_left)
        return len(
            [
                key
                async for key, _ in self.records.all(self.tenant)
                if key.id not in ids and key.wrapped is not None and key.wrapped.kek in keks
            ]
        )

    async def _delete(self, done: Shredded, tell: Tell) -> None:
        """Delete what is dead, once now, and until there is none once no broker can write any more."""
        look = partial(persist, partial(self._pass, done, tell), tell=tell, sleep=self.sleep)
        await look()
        left = max(key.since for key in done.keys) + WRITERS_SECONDS - self.clock()
        if left > 0:
            tell(f"waiting {left:.0f} s, until no broker can write what it has sealed under a key that is gone")
            await self.sleep(left)
        now = [await self.records.read(key.id) for key in done.keys]
        await self._end([key for key in now if key is not None], tell)  # what a fail-over undid
        done.left_over = await look()
        while done.left_over:
            done.left_over = await look()

    async def _pass(self, done: Shredded, tell: Tell) -> int:
        dead, found, seen = {key.id for key in done.keys}, 0, 0
        async for batch in self.inventory.batches():
            doomed = {record.key: record for record in reversed(batch) if record.key_id in dead}
            for record, is_deleted in zip(
                doomed.values(), await self.inventory.delete([*doomed.values()]), strict=True
            ):
                done.deleted[record.whole] += is_deleted
                if is_deleted and record.whole == "grant":
                    await self._delete_beside(record)
            found, seen = found + len(doomed), seen + len(batch)
        tell(f"{seen} records seen, {found} under keys that are gone were deleted")
        return found

    async def _delete_beside(self, grant: SealedRecord) -> None:
        tag = grant.key.partition("{")[2].partition("}")[0]
        with store_errors():
            await self.redis.delete(keys.handles(tag), keys.lease(tag), keys.introspected(tag))

    def _statement(self, done: Shredded) -> dict[str, Any]:
        """Return what the certificate says: identifiers, times and counts."""
        return {
            "iss": self.issuer,
            "iat": int(self.clock()),
            "tenant": self.tenant,
            "ehr": done.what.ehr or None,
            "began_at": int(done.began_at),
            "keys": [_described(key) for key in done.keys],
            "keks_destroyed": [{"kek": one.kek, "gone_at": int(one.gone_at)} for one in done.destroyed],
            "keks_left": done.keks_left,
            "records_deleted": dict(sorted(done.deleted.items())),
            "records_left": done.left_over,
        }


def _described(key: DomainKey) -> dict[str, Any]:
    return {"key": key.id.hex(), "ehr": key.domain.ehr or None, "made": int(key.created_at), "gone": int(key.since)}


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
