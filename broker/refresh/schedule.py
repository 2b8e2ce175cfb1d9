"""When grants are looked at, so that those in use are renewed before their tokens end.

Each EHR has a schedule of its own, so that whoever takes from it takes what is due first, and an EHR that is slow is
simply not taken from. It lies in sixteen parts, each in a slot of its own, as one EHR may have most of all grants.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from redis.asyncio import Redis

from broker.grants import Grant
from broker.store import keys
from broker.store.connection import Script, store_errors
from broker.store.scripts import script

MOST_AT_ONCE: Final = 256
"""Tags that one script takes: for longer than that no other command should wait."""
FORGOTTEN_SECONDS: Final = 8 * 86_400
"""A part that nothing was planned in for so long is of an EHR that nobody asks any more; no token lives longer."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """Sorted sets of grants' tags by the time, in seconds, at which to look at them. All replicas share them."""

    redis: Redis
    taking: Script = field(default_factory=partial(script, "take_due"))

    async def watch(self, grant: Grant) -> None:
        """Look at a grant when it is due, if it can be renewed; at once where context is missing (CX-11)."""
        if grant.refreshable:
            await self.plan(grant, grant.since if grant.lacks_context else max(grant.renew_at, grant.hold_until))

    async def plan(self, grant: Grant, at: float) -> None:
        """Look at a grant at this time, and not before."""
        key = keys.due(keys.part(grant.tag), grant.terms.ehr)
        with store_errors():
            async with self.redis.pipeline(transaction=False) as pipe:
                pipe.zadd(key, {grant.tag: at})
                pipe.pexpire(key, FORGOTTEN_SECONDS * 1000)
                await pipe.execute()

    async def drop(self, tag: str, ehr: str) -> None:
        """Look at a grant no more."""
        with store_errors():
            await self.redis.zrem(keys.due(keys.part(tag), ehr), tag)

    async def take(
        self, part: int, now: float, *, again: float, most: Mapping[str, int], in_all: int = MOST_AT_ONCE
    ) -> dict[str, list[str]]:
        """Return the tags that are due in one part, by EHR, each to one replica; they are due `again` then.

        From an EHR as many as `most` says; those that come first in it are taken from first.
        """
        names = [keys.due(part, ehr) for ehr in most]
        found: list[list[bytes]] = await self.taking(
            self.redis, names, [repr(now), repr(again), min(in_all, MOST_AT_ONCE), *most.values()]
        )
        return {ehr: [tag.decode() for tag in tags] for ehr, tags in zip(most, found, strict=True) if tags}
