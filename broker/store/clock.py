"""One time for all replicas: that of the store.

A replica whose wall clock is wrong would renew tokens late, or take living ones for dead. So each follows the store's
clock: how far ahead that is of its own monotonic one is measured every few seconds, off the path of any request.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog
from redis.asyncio import Redis

from broker.errors import Unavailable
from broker.store.connection import store_errors

log = structlog.get_logger()

FOLLOW_SECONDS: Final = 5.0
"""Between two measurements. While the store is away the last one holds, and drifts as a quartz does: 1 s a day."""
OFF_SECONDS: Final = 2.0
"""A wall clock that differs by more is told of in the log."""
_TRIES: Final = 3


@dataclass(slots=True)
class StoreClock:
    """A `Clock` that follows the store's. Before the first measurement it is the machine's wall clock."""

    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    ahead: float | None = None
    """Seconds from the monotonic clock to the store's."""
    told: bool = False

    def __call__(self) -> float:
        """Return seconds since 1970, as the store counts them."""
        return self.wall() if self.ahead is None else self.monotonic() + self.ahead

    async def measure(self, redis: Redis) -> None:
        """Ask the store for its time, and keep the quickest answer of three: half its way back is how old it is.

        Raises `StoreUnavailable`.
        """
        quickest, ahead = float("inf"), 0.0
        for _ in range(_TRIES):
            asked = self.monotonic()
            with store_errors():
                seconds, microseconds = await redis.time()
            took = self.monotonic() - asked
            if took < quickest:
                quickest, ahead = took, seconds + microseconds / 1e6 - (asked + took / 2)
        self.ahead = ahead
        self._tell(self() - self.wall())

    async def follow(self, redis: Redis, every: float = FOLLOW_SECONDS) -> None:
        """Measure again until cancelled, with `every` seconds in between."""
        while True:
            await asyncio.sleep(every)
            try:
                await self.measure(redis)
            except Unavailable as error:
                log.info("clock_not_measured", cause=error.detail)

    def _tell(self, behind: float) -> None:
        is_off = abs(behind) > OFF_SECONDS
        if is_off and not self.told:
            log.warning("clock_is_off", cause=f"this machine's clock differs from the store's by {-behind:+.1f} s")
        self.told = is_off
