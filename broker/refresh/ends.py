"""When EHRs ended refresh tokens: what they never say, and what can be learned from it for the grants that live."""

from dataclasses import dataclass, field
from functools import partial
from typing import Final, cast

import structlog
from redis.asyncio import Redis

from broker.clock import Clock, Entropy
from broker.errors import Unavailable
from broker.grants import Grant
from broker.single_flight import SingleFlight
from broker.store import keys
from broker.store.connection import Script, store_errors
from broker.store.scripts import script

log = structlog.get_logger()

MOST_ENDS: Final = 200
"""Of each EHR the last ones, which tell of its rules as they are now."""
KEPT_SECONDS: Final = 400 * 86_400
_NAME_BYTES: Final = 6


@dataclass(frozen=True, slots=True)
class ObservedEnd:
    """One refresh token that an EHR no longer took, in seconds."""

    age: float
    """From when a person authorized to when the EHR said no."""
    idle: float
    """From when the EHR last gave tokens to then: the token ended at some moment in between."""


@dataclass(frozen=True, slots=True)
class ObservedEnds:
    """Keeps them, by EHR. They name no grant."""

    redis: Redis
    clock: Clock
    entropy: Entropy
    noting: Script = field(default_factory=partial(script, "note_end"))
    notes: SingleFlight[None] = field(default_factory=SingleFlight)

    def note(self, grant: Grant) -> None:
        """Write down that an EHR has just refused a grant's refresh token; nobody waits for it.

        Not of a grant that ends with a session, or whose token may have been replaced: that tells of something else.
        """
        unclear = grant.state != "active" or grant.terms.ends_with_session or grant.terms.dynamic_client
        if not unclear:
            self.notes.start(grant.tag, lambda: self._note(grant))

    async def of(self, ehr: str) -> list[ObservedEnd]:
        """Return what was observed at an EHR, oldest first. Raises `StoreUnavailable`."""
        with store_errors():
            members = cast("list[bytes]", await self.redis.zrange(keys.ends(ehr), 0, -1))
        return [_read(member.decode()) for member in members]

    async def close(self) -> None:
        """Wait for what is being written down."""
        await self.notes.close()

    async def _note(self, grant: Grant) -> None:
        now = self.clock()
        member = f"{now - grant.authorized_at:.0f} {now - grant.since:.0f} {self.entropy(_NAME_BYTES).hex()}"
        args: list[str | int] = [member, repr(now), MOST_ENDS, KEPT_SECONDS]
        try:
            await self.noting(self.redis, [keys.ends(grant.terms.ehr)], args)
        except Unavailable as error:
            log.info("end_not_noted", grant=grant.tag, cause=error.detail)


def _read(member: str) -> ObservedEnd:
    age, idle, _ = member.split(" ")
    return ObservedEnd(float(age), float(idle))
