"""One limit, as one replica keeps it: tokens at hand, more from the store before they are used up."""

from dataclasses import dataclass, field
from functools import partial
from typing import Final

import structlog
from redis.asyncio import Redis

from broker.clock import Clock
from broker.errors import EhrHeldBack, StoreUnavailable, TooManyRequests
from broker.fair_use.rate import Lot
from broker.single_flight import SingleFlight
from broker.store.connection import Script, Value
from broker.store.scripts import script

log = structlog.get_logger()

KEPT_SECONDS: Final = 7_200
"""How long a bucket is kept that nobody takes from: by then it is full, and any pause over."""


@dataclass(frozen=True, slots=True)
class Store:
    """Where the buckets are."""

    redis: Redis
    clock: Clock
    taking: Script = field(default_factory=partial(script, "take_lot"))
    holding: Script = field(default_factory=partial(script, "hold_bucket"))
    flights: SingleFlight[None] = field(default_factory=SingleFlight)


@dataclass(slots=True)
class Bucket:
    """The limit of an app, or of an EHR and how long that wants to be left alone."""

    name: str
    """Whose it is, in details."""
    key: str
    lot: Lot
    store: Store
    longest_pause: float = 0.0
    waiting: int = 0

    async def take(self) -> None:
        """Take one token; asks the store only where none is at hand.

        Raises `TooManyRequests`, `EhrHeldBack`, `StoreUnavailable`.
        """
        lot, now = self.lot, self.store.clock()
        if not lot.take(now):
            await self._wait()
        elif lot.is_low(now):
            self.store.flights.start(self.key, self._fill_ahead)

    def hold(self, seconds: float) -> None:
        """Let no replica take from it for so long, or for the longest pause that is obeyed."""
        seconds = min(seconds, self.longest_pause)
        if seconds > 0:
            self.lot.hold(self.store.clock(), seconds)
            self.store.flights.start(f"{self.key}:hold", lambda: self._tell(seconds))

    async def _wait(self) -> None:
        self.waiting += 1
        try:
            while True:
                self._require_open()
                await self.store.flights.run(self.key, self._fill)
                if self.lot.take(self.store.clock()):
                    return
        finally:
            self.waiting -= 1

    def _require_open(self) -> None:
        closed = self.lot.closed(self.store.clock())
        if closed is None:
            return
        why, seconds = closed
        if why == "held":
            raise EhrHeldBack(f"{self.name} is not asked now: it asked for a pause", retry_after=seconds)
        raise TooManyRequests(f"{self.name} is at its limit of requests", retry_after=seconds)

    async def _fill(self) -> None:
        lot, now = self.lot, self.store.clock()
        wanted, rate = lot.wanted(self.waiting), lot.rate
        args: list[Value] = [
            repr(now),
            wanted,
            repr(rate.gap),
            rate.burst,
            repr(self.longest_pause),
            KEPT_SECONDS * 1000,
        ]
        given, wait, held = await self.store.taking(self.store.redis, [self.key], args)
        lot.fill(now, given=given, empty_for=float(wait), held_for=float(held))

    async def _fill_ahead(self) -> None:
        try:
            await self._fill()
        except StoreUnavailable as error:
            self.lot.filled_at = self.store.clock()  # asked again when it is due, and by whoever finds none left
            log.info("lot_not_filled", limit=self.name, cause=error.detail)

    async def _tell(self, seconds: float) -> None:
        now = self.store.clock()
        args: list[Value] = [repr(now), repr(seconds), repr(self.longest_pause), KEPT_SECONDS * 1000]
        try:
            await self.store.holding(self.store.redis, [self.key], args)
        except StoreUnavailable as error:  # this replica knows it, and the others are told by the EHR itself
            log.info("pause_not_shared", limit=self.name, cause=error.detail)
