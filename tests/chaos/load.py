"""Apps that read all the time, and how each read went."""

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx2

from tests.chaos.fleet import Replica
from tests.chaos.held import Held
from tests.chaos.herd import said

EVERY_SECONDS = 0.05


@dataclass(frozen=True)
class Read:
    """One read."""

    began: float
    """Monotonic seconds, as all times here."""
    seconds: float
    said: str
    by: Replica


@dataclass
class Load:
    """What was read."""

    reads: list[Read] = field(default_factory=list)

    def between(self, since: float, until: float) -> list[Read]:
        """Return the reads that began in that time."""
        return [read for read in self.reads if since <= read.began < until]


def counted(reads: Sequence[Read]) -> Counter[str]:
    """Count the answers."""
    return Counter(read.said for read in reads)


@asynccontextmanager
async def under_load(held: Sequence[Held], replicas: Sequence[Replica]) -> AsyncIterator[Load]:
    """Read by each handle for as long as the block, at one replica after the other."""
    load, ends = Load(), asyncio.Event()

    async def go_on(one: Held, first: int) -> None:
        for replica in itertools.islice(itertools.cycle(replicas), first, None):
            began = time.monotonic()
            try:
                answer = said(await replica.app.fhir(one.handle, one.path))
            except httpx2.TransportError as error:
                answer = type(error).__name__
            load.reads.append(Read(began, time.monotonic() - began, answer, replica))
            replica.app.answers.clear()
            if ends.is_set():
                return
            await asyncio.sleep(EVERY_SECONDS)

    reading = [asyncio.create_task(go_on(one, number)) for number, one in enumerate(held)]
    try:
        yield load
    finally:
        ends.set()
        await asyncio.gather(*reading)
