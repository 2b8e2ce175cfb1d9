"""The only way to a raw access token: with a permit, at the moment it is sent."""

from dataclasses import dataclass, field
from typing import Final

import structlog

from broker.clock import Clock
from broker.errors import EhrError, EhrHeldBack, EhrUnreachable, KeyUnavailable, ReauthorizationRequired, Unavailable
from broker.grants import Grant, Grants
from broker.grants.backend_grants import HELD_SECONDS
from broker.policy import Permit
from broker.refresh.limits import Lane
from broker.refresh.renewal import Renewal
from broker.refresh.schedule import Schedule
from broker.secret import Secret
from broker.single_flight import SingleFlight

log = structlog.get_logger()

RENEWED_SECONDS: Final = 5.0
"""A token renewed this recently is not renewed because of a 401: another one would be refused as well (RF-06)."""
USED_SECONDS: Final = 300.0
"""How exactly it is known when a grant was last used (RF-13); that it was used since its last renewal, at once."""


@dataclass(frozen=True, slots=True)
class CurrentToken:
    """An access token that is alive, and the generation it belongs to."""

    access_token: Secret
    generation: int
    proof_key: Secret | None = None
    """What it is bound to: each request with it needs a proof of that key (OA-23)."""


@dataclass(frozen=True, slots=True)
class Refresher:
    """Gives out current tokens, and renews them when they are due."""

    grants: Grants
    renewal: Renewal
    schedule: Schedule
    clock: Clock
    flights: SingleFlight[Grant] = field(default_factory=SingleFlight)
    notes: SingleFlight[None] = field(default_factory=SingleFlight)
    """What is written down beside a caller's way: nobody waits for it, and losing it costs one renewal unasked."""

    async def current_token(self, permit: Permit) -> CurrentToken:
        """Open the grant's access token, renewing it first when it is due.

        Raises `ReauthorizationRequired`, or `EhrError` when it is past its end and cannot be renewed now.
        """
        grant = permit.grant
        if not grant.is_in_use or self.clock() >= grant.used_at + USED_SECONDS:
            self.notes.start(f"use {grant.tag}", lambda: self.grants.use(grant.tag))
        if self.clock() >= grant.renew_at:
            grant = await self._renew_in_time(grant)
        tokens = await self.grants.open_tokens(grant)
        return CurrentToken(tokens.access_token, grant.generation, tokens.proof_key)

    async def replace_refused(self, permit: Permit, refused: CurrentToken) -> CurrentToken:
        """Renew because the EHR answered 401 to that token (PX-08); if it was renewed meanwhile, give the newer one."""
        grant = await self.grants.read(permit.grant.tag)
        grant.require_usable()
        if grant.generation == refused.generation:
            if grant.generation > 1 and self.clock() - grant.since < RENEWED_SECONDS:
                raise ReauthorizationRequired(f"the EHR refuses a token of grant {grant.tag} that was just renewed")
            grant = await self.renew(grant)
            if grant.generation == refused.generation:
                raise ReauthorizationRequired(f"the EHR refuses the token of grant {grant.tag}, which is {grant.state}")
        tokens = await self.grants.open_tokens(grant)
        return CurrentToken(tokens.access_token, grant.generation, tokens.proof_key)

    async def renew(self, grant: Grant, lane: Lane = "interactive") -> Grant:
        """Return a later generation than `grant`, or an uncertain grant as it is, while its token lives.

        Whoever asks meanwhile waits for the same one. Raises `ReauthorizationRequired`, `EhrError`.
        """
        if not grant.refreshable:
            raise ReauthorizationRequired(f"grant {grant.tag} has expired and has no refresh token")
        flight = f"{grant.tag}:{grant.generation}"
        try:
            return await self.flights.run(flight, lambda: self._renew(grant, lane))
        except EhrHeldBack as held:
            if lane == "background" or not held.callers_may:
                raise
            # What was joined here was background work.
            return await self.flights.run(f"{flight}:{lane}", lambda: self._renew(grant, lane))

    async def close(self) -> None:
        """Wait for refreshes under way."""
        await self.flights.close()
        await self.renewal.close()
        await self.notes.close()

    async def _renew(self, grant: Grant, lane: Lane) -> Grant:
        renewed = await self.renewal.renew(grant, lane=lane)
        self.notes.start(f"due {grant.tag}", lambda: self._watch(renewed))
        return renewed

    async def _watch(self, renewed: Grant) -> None:
        try:
            await self.schedule.watch(renewed)
        except Unavailable as error:
            log.info("renewed_grant_not_watched", grant=renewed.tag, cause=error.detail)

    async def _renew_in_time(self, grant: Grant) -> Grant:
        now = self.clock()
        lives = now < grant.expires_at
        if lives and (not grant.refreshable or now < grant.hold_until):
            return grant
        try:
            renewed = await self.renew(grant, "background" if lives else "interactive")
        except (EhrError, KeyUnavailable):
            if self.clock() < grant.expires_at:
                return grant  # the EHR's trouble, or that of the keys to prove oneself with, is not yet the app's
            raise
        if self.clock() < renewed.expires_at:
            return renewed
        if renewed.generation == grant.generation:  # what this process was answered came too late to be written
            raise EhrUnreachable(f"another attempt to renew grant {grant.tag} is under way", retry_after=HELD_SECONDS)
        return await self._renew_in_time(renewed)  # it was somebody else's, and ended while this process stood still
