"""What happens to signing keys with time: new ones begin, are seen, and old ones retire, on whichever replica looks."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import structlog

from broker.apps import Directory
from broker.clock import Clock
from broker.errors import BrokerError, NotFound
from broker.keys.ring import Ring, Waits
from broker.keys.rings import Rings
from broker.keys.secrets import ClientSecrets
from broker.keys.signing import SigningKeys
from broker.settings import RegistrationSettings
from broker.settings.registration import WITH_SECRET

log = structlog.get_logger()

DAY_SECONDS: Final = 86_400.0


@dataclass(slots=True)
class Tending:
    """Looks at each registration; two replicas that look at the same time change nothing twice."""

    directory: Directory
    rings: Rings
    signing_keys: SigningKeys
    secrets: ClientSecrets
    clock: Clock
    warned: dict[str, float] = field(default_factory=dict)

    async def run(self, every: float, is_draining: Callable[[], bool] = lambda: False) -> None:
        """Look every so many seconds, until cancelled or draining."""
        while not is_draining():
            await self.look()
            await asyncio.sleep(every)

    async def look(self) -> None:
        """Look at all registrations; trouble with one is logged, and keeps no other waiting."""
        for registration in self.directory.registrations:
            try:
                await self._look_at(registration)
            except BrokerError as error:
                log.warning("keys_wait", registration=registration.id, cause=error.detail)

    def waits(self, registration: RegistrationSettings) -> Waits:
        """Return, by enabled EHR of the registration, how many seconds it may keep a key set."""
        found = {}
        for ehr in registration.ehr:
            try:
                settings = self.directory.ehr(ehr)
            except NotFound:  # disabled: nothing is asked there
                continue
            found[ehr] = float(settings.profile.jwks_cache)
        return found

    def due_at(self, registration: RegistrationSettings, ring: Ring) -> float | None:
        """Return when the next key begins, in seconds; None where that is nobody's policy."""
        days = registration.key_rotation_days
        return ring.newest.published_at + days * DAY_SECONDS if days is not None else None

    async def _look_at(self, registration: RegistrationSettings) -> None:
        if registration.authentication in WITH_SECRET:
            await self._warn(registration)
        if registration.authentication != "private_key_jwt":
            return
        ring = await self.rings.find(registration)
        if ring is None:  # no key was needed yet
            return
        if self._is_due(registration, ring):
            ring = await self.rings.add(registration)
        await self._advance(registration, ring)

    async def _advance(self, registration: RegistrationSettings, ring: Ring) -> None:
        fetches, waits = self.signing_keys.take_fetches(registration), self.waits(registration)

        def decide(ring: Ring) -> Ring:
            return ring.seen(fetches, waits, self.clock()).tidied(waits, self.clock())

        if decide(ring) != ring:
            ring = await self.rings.change(registration, decide)
        await self.rings.destroy_retired(registration, ring)

    def _is_due(self, registration: RegistrationSettings, ring: Ring) -> bool:
        due = self.due_at(registration, ring)
        newest, is_elsewhere = ring.newest, ring.newest.reference is not None
        another = (newest.algorithm, is_elsewhere) != (registration.signing_algorithm, registration.signing == "kms")
        return len(ring.live) == 1 and (another or (due is not None and self.clock() >= due))

    async def _warn(self, registration: RegistrationSettings) -> None:
        if self.clock() - self.warned.get(registration.id, 0.0) >= DAY_SECONDS:
            for text in await self.secrets.warnings(registration):
                log.warning("secret_expires", detail=text)
            self.warned[registration.id] = self.clock()
