"""Which grants are renewed even if nobody asks, and when.

Some refresh tokens die with the access token (RF-07). And some EHRs name the patient only in a refresh (CX-11): until
then every call for the patient is refused, so no call would ever cause that refresh.
"""

from dataclasses import dataclass, field
from functools import partial
from typing import Final

from redis.asyncio import Redis

from broker.apps import Directory
from broker.grants import Grant
from broker.store import keys
from broker.store.connection import Script, store_errors
from broker.store.scripts import script

MOST_AT_ONCE: Final = 20


@dataclass(frozen=True, slots=True)
class Schedule:
    """A sorted set of grants' tags by the time, in seconds, at which to look at them. All replicas share it."""

    redis: Redis
    directory: Directory
    taking: Script = field(default_factory=partial(script, "take_due"))

    def is_for(self, grant: Grant) -> bool:
        """Whether this grant has to be renewed unasked. Raises `NotFound` when its EHR is gone or disabled."""
        profile = self.directory.ehr(grant.terms.ehr).profile
        needed = profile.refresh_while_alive or grant.lacks_context
        return grant.refreshable and grant.terms.flow == "launch" and needed

    async def watch(self, grant: Grant) -> None:
        """Put a grant on the schedule, if it is for it."""
        if self.is_for(grant):
            await self.plan(grant.tag, grant.since if grant.lacks_context else grant.renew_at)

    async def plan(self, tag: str, at: float) -> None:
        """Look at a grant at this time, and not before."""
        with store_errors():
            await self.redis.zadd(keys.SCHEDULE, {tag: at})

    async def drop(self, tag: str) -> None:
        """Look at a grant no more."""
        with store_errors():
            await self.redis.zrem(keys.SCHEDULE, tag)

    async def take(self, now: float, *, again: float) -> list[str]:
        """Return the tags that are due, each to one replica; they are due `again` then, if nothing else is planned."""
        found: list[bytes] = await self.taking(self.redis, [keys.SCHEDULE], [repr(now), repr(again), MOST_AT_ONCE])
        return [tag.decode() for tag in found]
