"""How many requests one EHR has under way from this replica, and who gets the next place.

Who waits for an answer comes before work in the background, and that never has all places. Nor has one app: one whose
answers are taken slowly would keep all others out. Who waits, waits in the line of its app, and apps take turns.
"""

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from functools import partial
from typing import Final, Literal

from broker.errors import EhrUnreachable

Lane = Literal["interactive", "background"]
"""Whether a person waits for the answer."""
LANES: Final[tuple[Lane, ...]] = ("interactive", "background")
PATIENCE_SECONDS: Final = 2.0
"""How long a request waits for a place."""
SHARE: Final = 0.75
"""Of the places, one app has no more, and the background has no more."""


class Places:
    """The places of one EHR."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._share = max(1, int(most * SHARE))
        self._taken: Counter[str] = Counter()
        self._in_lane: Counter[Lane] = Counter()
        self._lines: dict[Lane, OrderedDict[str, deque[asyncio.Future[None]]]] = {lane: OrderedDict() for lane in LANES}

    async def enter(self, app: str, lane: Lane) -> Callable[[], None]:
        """Take a place, and return what gives it back; to be called once.

        Raises `EhrUnreachable` where none is free within `PATIENCE_SECONDS`.
        """
        if not self.take(app, lane):
            await self._wait(app, lane)
        return partial(self.leave, app, lane)

    def take(self, app: str, lane: Lane) -> bool:
        """Take a place at once, if there is one and nobody waits who comes first."""
        if not self._has_room(app, lane) or self._is_awaited(lane):
            return False
        self._count(app, lane, 1)
        return True

    def leave(self, app: str, lane: Lane) -> None:
        """Give a place back, and to whoever comes next."""
        self._count(app, lane, -1)
        self._hand_on()

    async def _wait(self, app: str, lane: Lane) -> None:
        line = self._lines[lane].setdefault(app, deque())
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        line.append(mine)
        self._hand_on()  # whoever made us wait may be unable to go, for a reason that is not ours
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await mine
        except BaseException as error:
            if mine.done() and not mine.cancelled():
                self.leave(app, lane)  # it was ours already
            else:
                mine.cancel()
                self._forget(app, lane)
            if isinstance(error, TimeoutError):
                raise EhrUnreachable(
                    "all places for requests to the EHR are taken (fhir_concurrency)", ours=True
                ) from None
            raise

    def _has_room(self, app: str, lane: Lane) -> bool:
        full = self._in_lane["interactive"] + self._in_lane["background"] >= self._most
        late = lane == "background" and self._in_lane[lane] >= self._share
        return not full and not late and self._taken[app] < self._share

    def _is_awaited(self, lane: Lane) -> bool:
        return any(self._lines[first] for first in LANES[: LANES.index(lane) + 1])

    def _count(self, app: str, lane: Lane, by: int) -> None:
        self._in_lane[lane] += by
        self._taken[app] += by
        if not self._taken[app]:
            del self._taken[app]

    def _hand_on(self) -> None:
        while (found := self._next()) is not None:
            app, lane, waiter = found
            self._count(app, lane, 1)
            waiter.set_result(None)

    def _next(self) -> tuple[str, Lane, asyncio.Future[None]] | None:
        for lane in LANES:
            for app in tuple(self._lines[lane]):
                self._forget(app, lane)
                if app in self._lines[lane] and self._has_room(app, lane):
                    waiter = self._lines[lane][app].popleft()
                    self._lines[lane].move_to_end(app)
                    self._forget(app, lane)
                    return app, lane, waiter
        return None

    def _forget(self, app: str, lane: Lane) -> None:
        """Take those out of a line that nobody waits for any more, and a line that has ended."""
        line = self._lines[lane].get(app, deque())
        while line and line[0].done():
            line.popleft()
        if not line:
            self._lines[lane].pop(app, None)
