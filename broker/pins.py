"""Which hosts an EHR's credentials may go to: kept sealed, for all replicas, until an operator approves others (DS-15).

What is found first is pinned. A later document that names another origin or issuer is quarantined: what is pinned stays
in use, the new places are never contacted, and `broker ehrs approve` takes them over. The record is sealed, so whoever
can write to Redis can neither plant a host nor approve one; it has no expiry, since an expired pin would let one in.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, cast

import structlog
from redis.asyncio import Redis

from broker.audit import AuditRecord, AuditTrail, Event, Outcome
from broker.clock import Clock
from broker.credentials import KeyedHash
from broker.ehr.endpoints import Endpoints
from broker.ehr.pin import Move, Pin, shown
from broker.ehr.site import Site
from broker.errors import InvalidRequest, NotFound, StoreUnavailable
from broker.origins import origin
from broker.store import keys
from broker.store.connection import Script, store_errors
from broker.store.scripts import script
from broker.vault import RecordContext, Vault

log = structlog.get_logger()

_TRIES: Final = 5


@dataclass(frozen=True, slots=True)
class Pins:
    """The pins of every EHR that was ever discovered."""

    redis: Redis
    vault: Vault
    keyed_hash: KeyedHash
    audit: AuditTrail
    clock: Clock
    tenant: str
    replace: Script = field(default_factory=partial(script, "replace_record"))
    opened: dict[str, tuple[bytes, Pin]] = field(default_factory=dict)
    """What was read last, sealed and open: the same bytes are not opened twice."""
    told: set[str] = field(default_factory=set)
    """Whose overrides are in the audit trail."""

    async def read(self, site: Site) -> Pin | None:
        """Return what is known of a site; None if it was never discovered. Raises `StoreUnavailable`, `SealBroken`."""
        return (await self._read(site))[1]

    async def settle(self, site: Site, found: Endpoints) -> Pin:
        """Pin what was found first; later take it, or quarantine it. Raises `Unavailable`."""
        self._tell_overrides(site)
        for _ in range(_TRIES):
            sealed, known = await self._read(site)
            now = self.clock()
            pin = known.meet(found, now) if known is not None else Pin(found, now)
            self._tell(site, known, pin)
            if await self._write(site, sealed, pin):
                return pin
        raise StoreUnavailable("the pin is written by others all the time")

    async def approve(self, site: Site) -> Sequence[Move]:
        """Use what is quarantined from now on, on all replicas, and return what that changes.

        Raises `NotFound` when nothing is quarantined, `InvalidRequest` when it is something else by now, `Unavailable`.
        """
        approved: Sequence[Move] = ()
        for _ in range(_TRIES):
            sealed, known = await self._read(site)
            if known is None or not known.moves:
                raise NotFound(f"nothing is quarantined for EHR {site.ehr}")
            if approved and known.moves != approved:
                self._record("ehr.approved", "failed", site, "something else is quarantined since")
                raise InvalidRequest(
                    f"what is quarantined for EHR {site.ehr} changed while it was approved",
                    public="Something else is quarantined by now. Look at it first: broker ehrs list.",
                )
            if not approved:
                self._record("ehr.approved", "allowed", site, known.moves)
                approved = known.moves
            if await self._write(site, sealed, known.approve()):
                return approved
        raise StoreUnavailable("the pin is written by others all the time")

    async def _read(self, site: Site) -> tuple[bytes, Pin | None]:
        with store_errors():
            sealed = cast("bytes | None", await self.redis.get(keys.pin(self._digest(site))))
        if sealed is None:
            return b"", None
        last = self.opened.get(site.key)
        if last is None or last[0] != sealed:
            pin = Pin.decode(await self.vault.open(self._context(site), sealed))
            last = self.opened[site.key] = (sealed, pin)
        return last

    async def _write(self, site: Site, read: bytes, pin: Pin) -> bool:
        sealed = await self.vault.seal(self._context(site), pin.encode(), ehr=site.ehr)
        return bool(await self.replace(self.redis, [keys.pin(self._digest(site))], [read, sealed]))

    def _digest(self, site: Site) -> str:
        return self.keyed_hash("pin", site.key)

    def _context(self, site: Site) -> RecordContext:
        return RecordContext(kind="pin", id=self._digest(site), tenant=self.tenant)

    def _tell(self, site: Site, before: Pin | None, after: Pin) -> None:
        """Write down what is about to change; the same quarantine is told once."""
        if before is None:
            hosts = ", ".join(sorted({shown(origin(url)) for url in after.endpoints.urls().values()}))
            self._record("ehr.pinned", "allowed", site, f"first seen: {hosts}")
        elif after.moves and after.moves != before.moves:
            log.warning("ehr_quarantined", ehr=site.ehr, moves=[str(move) for move in after.moves])
            self._record("ehr.quarantined", "denied", site, after.moves)

    def _tell_overrides(self, site: Site) -> None:
        if site.overrides and site.key not in self.told:
            named = (f"{name}: {shown(origin(url))}" for name, url in site.overrides.items())
            self._record("ehr.overridden", "allowed", site, f"by broker.toml: {', '.join(named)}")
            self.told.add(site.key)

    def _record(self, event: Event, outcome: Outcome, site: Site, what: str | Sequence[Move]) -> None:
        reason = what if isinstance(what, str) else "; ".join(map(str, what))
        self.audit.record(AuditRecord(event=event, outcome=outcome, ehr=site.ehr, reason=reason))
