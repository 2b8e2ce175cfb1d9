"""The work beside all requests that webhooks take: gather, deliver, sweep. Nothing waits for it, and it for nobody."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, TypeVar

import structlog

from broker.errors import BrokerError
from broker.webhooks.delivering import Delivering
from broker.webhooks.gathering import Gathering
from broker.webhooks.outbox import Outbox

log = structlog.get_logger()

LONGEST_REST_SECONDS: Final = 60.0
"""How long a receiver that hears nothing is left alone between two tries of one replica."""
_SWEEP_TRY_SECONDS: Final = 60.0
Result = TypeVar("Result")
Work: TypeAlias = Coroutine[Any, Any, None]


@dataclass(frozen=True, slots=True)
class Telling:
    """All of it, for all webhooks."""

    outbox: Outbox
    gathering: Gathering
    deliveries: tuple[Delivering, ...]

    def work(self, every: float, is_draining: Callable[[], bool] = lambda: False) -> Iterator[Work]:
        """Yield what goes on until cancelled or draining, each to be a task of its own.

        `every` is the seconds between two looks while there is nothing to do. Not in one task group: before Python 3.12
        redis-py can swallow a cancellation, and a group hands it on once.
        """
        if self.deliveries:
            yield self._gather(every, is_draining)
            yield self._sweep(is_draining)
        for delivering in self.deliveries:
            yield self._deliver(delivering, every, is_draining)

    async def look(self) -> None:
        """Gather and deliver what is due now, all of it once."""
        while await self.gathering.look():
            pass
        for delivering in self.deliveries:
            await delivering.look()

    async def _gather(self, every: float, is_draining: Callable[[], bool]) -> None:
        while not is_draining():
            if not await _guarded(self.gathering.look, 0):
                await asyncio.sleep(every)

    async def _sweep(self, is_draining: Callable[[], bool]) -> None:
        while not is_draining():
            await _guarded(self.gathering.sweep, None)
            await asyncio.sleep(_SWEEP_TRY_SECONDS)

    async def _deliver(self, delivering: Delivering, every: float, is_draining: Callable[[], bool]) -> None:
        rest = every
        while not is_draining():
            tried, heard = await _guarded(delivering.look, (0, 0))
            if heard:
                rest = 0.0
            elif tried:
                rest = min(2 * max(rest, every), LONGEST_REST_SECONDS)
            else:
                rest = every
            await asyncio.sleep(rest)


async def _guarded(work: Callable[[], Awaitable[Result]], otherwise: Result) -> Result:
    try:
        return await work()
    except Exception as error:  # noqa: BLE001  # whatever it is, the next look may succeed
        log.warning("webhooks_wait", cause=error.detail if isinstance(error, BrokerError) else type(error).__name__)
        return otherwise
