"""Give domains new keys while the broker runs: every record is moved under the new one, then the old one is destroyed.

Nothing of where a rotation stands is kept but the keys themselves: a domain that has a key beside the one that seals is
in the middle of one. So whoever runs this again, after whatever cut it off, goes on with it.
"""

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from broker.audit import AuditRecord, AuditTrail, Event
from broker.clock import Clock, Entropy
from broker.errors import KeyUnavailable, NotFound, SealBroken
from broker.flows.persist import persist
from broker.vault import Domain, DomainKeys, DomainRecords, envelope
from broker.vault.domain_key import DomainKey
from broker.vault.domain_keys import CONFIRMED_SECONDS
from broker.vault.inventory import Inventory
from broker.vault.places import SealedRecord

INSISTING_SECONDS: Final = 60.0
"""What was sealed for a refresh is written for so long, should the store be away (`broker/refresh/insisting.py`)."""
SLACK_SECONDS: Final = 60.0
WRITERS_SECONDS: Final = CONFIRMED_SECONDS + INSISTING_SECONDS + SLACK_SECONDS
"""After a key has a successor, for how long something may still be written that is sealed under it."""
SETTLE_SECONDS: Final = 30.0
"""Between a pass that moved something and the one that finds nothing to move: as far as a fail-over may fall behind."""
_TELL_EVERY: Final = 10_000

Sleep = Callable[[float], Awaitable[None]]
Tell = Callable[[str], None]


@dataclass(slots=True)
class Rotated:
    """What became of one domain's rotation."""

    domain: Domain
    new: DomainKey
    old: tuple[DomainKey, ...]
    goes_on: bool = False
    """Somebody began it before."""
    moved: int = 0
    unreadable: list[str] = field(default_factory=list)
    """Records under an old key that do not unwrap, by name: nobody can read them under any key."""
    is_complete: bool = False
    """The old keys are gone."""


@dataclass(frozen=True, slots=True)
class RotateDomainKeys:
    """Makes, moves, counts, ends."""

    records: DomainRecords
    keys: DomainKeys
    inventory: Inventory
    audit: AuditTrail
    clock: Clock
    entropy: Entropy
    sleep: Sleep
    tenant: str

    async def __call__(
        self, domains: Collection[Domain] | None, tell: Tell, *, leave_unreadable: bool = False
    ) -> Sequence[Rotated]:
        """Rotate these, or all there are; each is complete unless it has unreadable records that are not to be left.

        Raises `NotFound` where a domain has no key, `Unavailable`; run again, it goes on.
        """
        found = await self._found(domains)
        rotations = [await self._begin(domain, keys, tell) for domain, keys in found.items()]
        await self._wait_for_writers(rotations, tell)
        while await persist(partial(self._pass, rotations, tell), tell=tell, sleep=self.sleep):
            await self._settle(tell)
        for rotated in rotations:
            if leave_unreadable or not rotated.unreadable:
                await self._end(rotated, tell)
        return rotations

    async def _found(self, domains: Collection[Domain] | None) -> dict[Domain, list[DomainKey]]:
        found: dict[Domain, list[DomainKey]] = {}
        async for key, _ in self.records.all(self.tenant):
            if key.state != "gone" and (domains is None or key.domain in domains):
                found.setdefault(key.domain, []).append(key)
        if missing := sorted(str(domain) for domain in domains or () if domain not in found):
            raise NotFound(f"there is no key of {', '.join(missing)}: nothing of it is sealed")
        return found

    async def _begin(self, domain: Domain, keys: Sequence[DomainKey], tell: Tell) -> Rotated:
        """Let a new key seal, unless one does already while others are still there."""
        active = await self.records.active(domain)
        if active is None:
            raise KeyUnavailable(f"no key of {domain} seals: it is being shredded")
        if old := tuple(key for key in keys if key.id != active.id):
            tell(f"{domain}: going on, key {active.id.hex()} seals already")
            return Rotated(domain, active, old, goes_on=True)
        made = await self.keys.make(domain)
        self._record("domain_key.succeeded", domain, f"{made.id.hex()} seals in place of {active.id.hex()}")
        if not await self.records.succeed(active, made, made.since):
            raise KeyUnavailable(f"the keys of {domain} are changed by others at this moment")
        tell(f"{domain}: key {made.id.hex()} seals from now on, in place of {active.id.hex()}")
        return Rotated(domain, made, (active,))

    async def _wait_for_writers(self, rotations: Sequence[Rotated], tell: Tell) -> None:
        """Wait until nothing sealed under an old key can still be on its way into the store."""
        began = max((rotated.new.since for rotated in rotations), default=0.0)
        left = began + WRITERS_SECONDS - self.clock()
        if left > 0:
            tell(f"waiting {left:.0f} s, until no broker can write what it has sealed under an old key")
            await self.sleep(left)
        elif any(rotated.goes_on for rotated in rotations):
            await self._settle(tell)  # what was moved before this began may have been a moment ago

    async def _settle(self, tell: Tell) -> None:
        tell(f"waiting {SETTLE_SECONDS:.0f} s, so that a fail-over that undoes what was moved is seen")
        await self.sleep(SETTLE_SECONDS)

    async def _pass(self, rotations: Sequence[Rotated], tell: Tell) -> int:
        """Go through all records once, and return how many under old keys were found and can be moved."""
        by_key = {old.id: rotated for rotated in rotations for old in rotated.old}
        for rotated in rotations:
            await self._require(rotated)
            rotated.unreadable = []
        seen = found = 0
        async for batch in self.inventory.batches():
            found += await self._move([(by_key[key], one) for one in batch if (key := one.key_id or b"") in by_key])
            if (seen + len(batch)) // _TELL_EVERY > seen // _TELL_EVERY:
                tell(f"{seen + len(batch)} records seen so far, {found} under an old key")
            seen += len(batch)
        tell(f"{seen} records seen, {found} were under an old key and are rewrapped")
        return found

    async def _require(self, rotated: Rotated) -> None:
        """A new key that is not there any more gets no records: a fail-over lost it, or somebody shredded it."""
        found = await self.records.active(rotated.domain)
        if found is None or found.id != rotated.new.id:
            raise KeyUnavailable(f"key {rotated.new.id.hex()} of {rotated.domain} seals no more. Fix: run this again")

    async def _move(self, batch: Sequence[tuple[Rotated, SealedRecord]]) -> int:
        """Put records under their new keys; returns how many there are, but for those that nobody can read."""
        movable: list[tuple[Rotated, SealedRecord, bytes]] = []
        for rotated, record in batch:
            try:
                movable.append((rotated, record, await self._rewrapped(rotated, record)))
            except SealBroken:
                rotated.unreadable.append(record.name)
        done = await self.inventory.move([(record, header) for _, record, header in movable])
        for (rotated, _, _), is_moved in zip(movable, done, strict=True):
            rotated.moved += is_moved
        return len(movable)

    async def _rewrapped(self, rotated: Rotated, record: SealedRecord) -> bytes:
        old = await self.keys.for_opening(record.key_id or b"")
        new = await self.keys.for_opening(rotated.new.id)
        return envelope.rewrap(record.envelope[: envelope.HEADER_BYTES], old.cipher, new.cipher, new.id, self.entropy)

    async def _end(self, rotated: Rotated, tell: Tell) -> None:
        await self._require(rotated)
        left = (
            f"{len(rotated.unreadable)} damaged records are under it"
            if rotated.unreadable
            else "no record is under it any more"
        )
        for old in rotated.old:
            self._record("domain_key.ended", rotated.domain, f"{old.id.hex()}: {left}")
            await self._destroy(old)
            tell(f"{rotated.domain}: key {old.id.hex()} is gone")
        rotated.is_complete = True

    async def _destroy(self, old: DomainKey) -> None:
        found: DomainKey | None = old
        while found is not None and found.state != "gone":
            if await self.records.replace(found, found.ended(self.clock(), "rotation")):
                return
            found = await self.records.read(old.id)

    def _record(self, event: Event, domain: Domain, reason: str) -> None:
        self.audit.record(AuditRecord(event=event, outcome="allowed", ehr=domain.ehr or None, reason=reason))
