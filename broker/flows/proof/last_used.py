"""When each secret was last used, so that an operator knows which one can go."""

import asyncio
from collections.abc import Sequence
from typing import Final

import structlog
from redis.asyncio import Redis

from broker.clock import Clock
from broker.errors import StoreUnavailable
from broker.settings.proof import MOST_SECRET_DAYS
from broker.store import keys
from broker.store.connection import store_errors

log = structlog.get_logger()

EVERY_SECONDS: Final = 60.0
"""A use is not written more often than this, by each process."""
KEPT_SECONDS: Final = MOST_SECRET_DAYS * 86400


class LastUsed:
    """Takes note of uses in the background: no request waits for it, or fails with it."""

    def __init__(self, redis: Redis, clock: Clock) -> None:
        self._redis = redis
        self._clock = clock
        self._noted: dict[tuple[str, str], float] = {}
        self._writing: set[asyncio.Task[None]] = set()

    def note(self, app: str, secret: str) -> None:
        """Write down that an app's secret was used now."""
        now = self._clock()
        if now < self._noted.get((app, secret), float("-inf")) + EVERY_SECONDS:
            return
        self._noted[app, secret] = now
        task = asyncio.create_task(self._write(app, secret, now), name="last-used")
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    async def read(self, app: str, secrets: Sequence[str]) -> list[float | None]:
        """Return when each was last used, in seconds; None where that is not known. Raises `StoreUnavailable`."""
        if not secrets:
            return []
        with store_errors():
            found = [await self._redis.get(keys.secret_used(app, secret)) for secret in secrets]
        return [float(at) if at is not None else None for at in found]

    async def close(self) -> None:
        """Wait for what is being written."""
        await asyncio.gather(*self._writing)

    async def _write(self, app: str, secret: str, at: float) -> None:
        try:
            with store_errors():
                await self._redis.set(keys.secret_used(app, secret), str(int(at)), ex=KEPT_SECONDS)
        except StoreUnavailable as error:
            log.warning("last_use_not_kept", app=app, secret=secret, cause=error.detail)
