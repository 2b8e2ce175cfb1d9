"""`broker grants forecast`: which grants will soon need their person again, by EHR, and why that is believed."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Final

from broker.apps import Directory
from broker.clock import Clock
from broker.errors import BrokerError, NotFound, Unavailable
from broker.grants import Grant, Grants
from broker.refresh.ends import ObservedEnds
from broker.refresh.lifetimes import Basis, Expected, Learned, expect, learn

AT_ONCE: Final = 64
"""Grants in memory at any time."""


@dataclass(slots=True)
class Line:
    """The grants of one EHR that end for one reason."""

    ehr: str
    basis: Basis
    because: str
    grants: int = 0
    over: int = 0
    """Of these, how many should have ended by now: nobody has refreshed them since."""
    first_end: float = float("inf")
    """In seconds since 1970."""

    def count(self, expected: Expected, now: float) -> None:
        """Add one grant."""
        self.grants += 1
        self.over += expected.at <= now
        self.first_end = min(self.first_end, expected.at)


@dataclass(slots=True)
class Forecast:
    """What is expected, over all grants that a person authorized and that can be refreshed."""

    living: int = 0
    unknown: int = 0
    """Of these, how many nothing tells the end of."""
    unreadable: int = 0
    lines: dict[tuple[str, str], Line] = field(default_factory=dict)
    """By EHR and reason."""

    @property
    def ending(self) -> int:
        """How many end in the time that was asked for."""
        return sum(line.grants for line in self.lines.values())


@dataclass(frozen=True, slots=True)
class ForecastGrants:
    """Goes through all grants, some at a time, and keeps counts alone."""

    directory: Directory
    grants: Grants
    ends: ObservedEnds
    clock: Clock

    async def __call__(self, seconds: float) -> Forecast:
        """Return what ends within so many seconds. Raises `StoreUnavailable`."""
        forecast, now = Forecast(), self.clock()
        learned: dict[str, Learned | None] = {}
        async for some in self._batches():
            for grant in await asyncio.gather(*(self._read(tag) for tag in some)):
                if grant is None:
                    forecast.unreadable += 1
                elif _counts(grant):
                    ehr = grant.terms.ehr
                    if ehr not in learned:
                        learned[ehr] = learn(await self.ends.of(ehr))
                    self._count(forecast, grant, learned[ehr], now, now + seconds)
        return forecast

    def _count(self, forecast: Forecast, grant: Grant, learned: Learned | None, now: float, until: float) -> None:
        forecast.living += 1
        ehr = grant.terms.ehr
        try:
            expected = expect(grant, learned, self.directory.ehr(ehr).profile)
        except NotFound:  # disabled, or out of the settings: nobody refreshes it
            expected = None
        if expected is None:
            forecast.unknown += 1
        elif expected.at <= until:
            line = forecast.lines.setdefault((ehr, expected.because), Line(ehr, expected.basis, expected.because))
            line.count(expected, now)

    async def _batches(self) -> AsyncIterator[list[str]]:
        some: list[str] = []
        async for tag in self.grants.tags():
            some.append(tag)
            if len(some) == AT_ONCE:
                yield some
                some = []
        yield some

    async def _read(self, tag: str) -> Grant | None:
        try:
            return await self.grants.read(tag)
        except Unavailable as error:
            if error.code == "store_unavailable":
                raise
            return None
        except BrokerError:  # it has expired since it was listed, or does not open
            return None


def _counts(grant: Grant) -> bool:
    return grant.state == "active" and grant.terms.flow == "launch" and grant.refreshable
