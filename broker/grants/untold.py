"""Marks on grants whose health changed, until webhooks were told: set by the script that changes it, so none is lost.

Where marked grants are is known twice: a list of tags, written after the change and not waited for, and the marks
themselves, which a sweep finds where the list was not written any more.
"""

from dataclasses import dataclass, field
from typing import Final

import structlog
from redis.asyncio import Redis

from broker.clock import Clock, Entropy
from broker.errors import Unavailable
from broker.single_flight import SingleFlight
from broker.store import keys
from broker.store.connection import store_errors

log = structlog.get_logger()

MARK_SECONDS: Final = 7 * 86_400
"""News that nobody could be told in so long is none any more."""
LIST_SECONDS: Final = MARK_SECONDS + 86_400
_MARK_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class Untold:
    """What scripts mark with, and the list of what they marked."""

    redis: Redis
    clock: Clock
    entropy: Entropy
    heard: bool
    """Whether anybody is to be told: without webhooks nothing is marked."""
    notes: SingleFlight[None] = field(default_factory=SingleFlight)

    def mark(self) -> list[str | int]:
        """Return what a script takes: a mark that no other change has, and the milliseconds it stays."""
        return [self.entropy(_MARK_BYTES).hex() if self.heard else "", MARK_SECONDS * 1000]

    def hint(self, tag: str) -> None:
        """Put a marked grant on the list, beside whatever goes on; nobody waits for it."""
        if self.heard:
            self.notes.start(tag, lambda: self._note(tag))

    async def plan(self, tag: str, at: float, *, unless_listed: bool = False) -> None:
        """Have somebody look at a grant's health at this time, in seconds. Raises `StoreUnavailable`."""
        with store_errors():
            async with self.redis.pipeline(transaction=False) as pipe:
                pipe.zadd(keys.UNTOLD, {tag: at}, nx=unless_listed)
                pipe.pexpire(keys.UNTOLD, LIST_SECONDS * 1000)
                await pipe.execute()

    async def close(self) -> None:
        """Wait until the list has what is on its way there."""
        await self.notes.close()

    async def _note(self, tag: str) -> None:
        try:
            await self.plan(tag, self.clock())
        except Unavailable as error:
            log.info("news_left_to_the_sweep", grant=tag, cause=error.detail)
