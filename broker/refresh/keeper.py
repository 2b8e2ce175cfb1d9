"""Renews grants ahead of their tokens' end (RF-06): those in use, and those that would not survive being left alone.

An authorization is not kept for its own sake: a grant that nobody has used since its last renewal is let go, and is
renewed again at its next use.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, Literal

import structlog

from broker.apps import Directory
from broker.clock import Clock
from broker.errors import EhrError, EhrHeldBack, NotFound, ReauthorizationRequired, SealBroken, Unavailable
from broker.grants import Grant, Grants
from broker.refresh.current_token import Refresher
from broker.refresh.schedule import Schedule
from broker.store import keys

log = structlog.get_logger()

AGAIN_SECONDS: Final = 15.0
"""When a grant is looked at again, at the soonest, that could not be renewed, or whose replica died."""
AT_ONCE: Final = 256
"""Renewals under way in one process, at all EHRs; of what is left of them, one EHR gets no more than half."""
AT_ONCE_PER_EHR: Final = 20
"""Renewals under way in one process at one EHR."""
MOST_BEGUN: Final = 64
"""Renewals begun at one look: they share the connections to the store with callers."""
HELD_SECONDS: Final = 0.25
"""How long an EHR whose gate held something back is not looked at, at the least."""
LATE_SECONDS: Final = 0.05
"""When the event loop runs this late, callers feel it: fewer renewals are begun."""
BUSY_SECONDS: Final = 0.02
"""Between two looks while more is due than could be begun."""
_TRIES_LEFT: Final = 8.0

Step = Literal["renew", "wait", "let_go"]


def next_step(grant: Grant, *, needed: bool, now: float, unused_seconds: float) -> Step:
    """Decide about a grant of the schedule. Pure.

    It is let go when it has ended, when its token has expired (nothing can be kept alive then), and when nobody can
    come back to it, having not used it for `unused_seconds`. Else it is renewed when due, if it was used since the last
    renewal, or if it is `needed`, because it would not survive being left alone.
    """
    if grant.state != "active" or not grant.refreshable or now >= grant.expires_at:
        return "let_go"
    if now >= grant.used_at + unused_seconds:
        return "let_go"
    due = 0.0 if grant.lacks_context else grant.renew_at
    if now < max(due, grant.hold_until):
        return "wait"
    return "renew" if needed or grant.is_in_use else "let_go"


def next_try(grant: Grant, *, now: float) -> float:
    """Return when to try again what the EHR did not renew: after an eighth of what is left of the token's life. Pure.

    So an EHR that is down for long is asked less often, and one that comes back late still before it is too late.
    """
    return now + max(AGAIN_SECONDS, (grant.expires_at - now) / _TRIES_LEFT)


@dataclass(slots=True)
class Pace:
    """How many renewals one look begins: what the event loop can take beside the callers that it serves."""

    most: int = MOST_BEGUN // 4

    def heard(self, late: float) -> None:
        """Learn how much later than asked, in seconds, the loop came back."""
        self.most = max(1, self.most // 2) if late > LATE_SECONDS else min(MOST_BEGUN, self.most + 4)


@dataclass(slots=True)
class Keeper:
    """Looks at the schedule again and again, and waits for no EHR: one that does not answer keeps no other's grants."""

    grants: Grants
    directory: Directory
    refresher: Refresher
    schedule: Schedule
    clock: Clock
    pace: Pace = field(default_factory=Pace)
    renewing: set[str] = field(default_factory=set)
    at: Counter[str] = field(default_factory=Counter)
    """How many are under way, by EHR."""
    held: dict[str, float] = field(default_factory=dict)
    """EHRs whose gate held a renewal back, until when, in seconds: more of it would only be held back, too."""
    turn: int = 0
    """Where the next look begins, so that no part and no EHR is always the last."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, every: float, is_draining: Callable[[], bool] = lambda: False) -> None:
        """Work until stopped or draining, with about `every` seconds between two looks; then finish what was begun."""
        async with asyncio.TaskGroup() as renewals:
            while not (self.stopping.is_set() or is_draining()):
                more = False
                try:
                    more = await self._begin_due(renewals)
                except Exception as error:  # noqa: BLE001  # whatever it is, the next look may succeed
                    log.warning("keeper_waits", cause=_cause(error))
                if self.renewing or not more:
                    await _wait(self.ended if more else self.stopping, every)
                self.pace.heard(await _lateness())

    def stop(self) -> None:
        """Begin nothing more. Not by cancelling: before Python 3.12 redis-py can swallow that."""
        self.stopping.set()
        self.ended.set()

    async def look(self) -> None:
        """Deal with everything that is due now."""
        more = True
        while more:
            async with asyncio.TaskGroup() as renewals:
                more = await self._begin_due(renewals)
            await asyncio.sleep(0)  # where others of this process have begun all there is room for

    async def _begin_due(self, renewals: asyncio.TaskGroup) -> bool:
        """Begin what may be begun; returns whether more may be due."""
        self.ended.clear()
        self.turn += 1
        ehrs, left, more = self._ehrs(), self.pace.most, False
        if not ehrs:
            return False
        for offset in range(keys.PARTS):
            most = self._room(ehrs)
            more |= len(most) < len(ehrs)
            if not most or left <= 0:
                return True
            now, part = self.clock(), (self.turn + offset) % keys.PARTS
            taken = await self.schedule.take(part, now, again=now + AGAIN_SECONDS, most=most, in_all=left)
            for ehr, tags in taken.items():
                more |= len(tags) == most[ehr]
                for tag in tags:
                    left -= 1
                    self._begin(tag, ehr, renewals)
        return more or left <= 0

    def _ehrs(self) -> list[str]:
        now = self.clock()
        ehrs = [ehr.id for ehr in self.directory.ehrs if ehr.enabled and now >= self.held.get(ehr.id, 0.0)]
        first = self.turn % len(ehrs) if ehrs else 0
        return ehrs[first:] + ehrs[:first]

    def _room(self, ehrs: list[str]) -> dict[str, int]:
        """Return how many more renewals may be under way at each EHR, where that is any."""
        share = (AT_ONCE - len(self.renewing) + 1) // 2
        room = {ehr: min(AT_ONCE_PER_EHR - self.at[ehr], share) for ehr in ehrs}
        return {ehr: free for ehr, free in room.items() if free > 0}

    def _begin(self, tag: str, ehr: str, renewals: asyncio.TaskGroup) -> None:
        if tag not in self.renewing:  # the schedule gives it out again while its EHR takes its time
            self.renewing.add(tag)
            self.at[ehr] += 1
            renewals.create_task(self._look_at(tag, ehr))

    async def _look_at(self, tag: str, ehr: str) -> None:
        try:
            await self._take_step(tag, ehr)
        except Unavailable as error:
            log.info("keeper_tries_again", grant=tag, cause=error.detail)
        except Exception as error:  # noqa: BLE001  # whatever it is, it ends nobody else's renewal
            log.warning("keeper_waits", cause=_cause(error))
        finally:
            self.renewing.discard(tag)
            self.at[ehr] -= 1
            self.ended.set()

    async def _take_step(self, tag: str, ehr: str) -> None:
        try:
            grant = await self.grants.read(tag)
        except (NotFound, SealBroken) as gone:
            log.info("keeper_lets_go", grant=tag, cause=gone.detail)
            await self.schedule.drop(tag, ehr)
            return
        step = self._step(grant)
        if step == "let_go":
            await self.schedule.drop(tag, ehr)
        elif step == "wait":
            await self.schedule.watch(grant)
        elif step == "renew":
            await self._renew(grant)

    def _step(self, grant: Grant) -> Step | None:
        """Decide; None where another replica has to: this one does not know the app or EHR, and may be behind."""
        app = self.directory.app(grant.terms.app or "")
        # Once no refresh handle can be alive any more, nobody is left who could use the grant.
        unused_seconds = app.settings.refresh_lifetime if app is not None else float("inf")
        try:
            needed = grant.terms.flow == "launch" and self._dies_alone(grant)
        except NotFound:
            needed, app = True, None
        step = next_step(grant, needed=needed, now=self.clock(), unused_seconds=unused_seconds)
        known = app is not None or grant.terms.flow == "backend"
        return step if known or step == "let_go" else None

    def _dies_alone(self, grant: Grant) -> bool:
        """Whether its refresh token dies with its token (RF-07), or only a refresh would name its patient (CX-11).

        No call would ever cause that one, as calls for the patient are refused until then.
        """
        return grant.lacks_context or self.directory.ehr(grant.terms.ehr).profile.refresh_while_alive

    async def _renew(self, grant: Grant) -> None:
        try:
            await self.refresher.renew(grant, "background")
        except EhrHeldBack as held:
            await self._wait_for(grant, held)
        except (ReauthorizationRequired, SealBroken) as gone:
            log.info("keeper_lets_go", grant=grant.tag, cause=gone.detail)
            await self.schedule.drop(grant.tag, grant.terms.ehr)
        except (EhrError, NotFound, Unavailable) as error:
            log.info("keeper_tries_again", grant=grant.tag, cause=error.detail)
            if isinstance(error, EhrError):
                await self.schedule.plan(grant, next_try(grant, now=self.clock()))

    async def _wait_for(self, grant: Grant, held: EhrHeldBack) -> None:
        """Look at the grant when its EHR may be asked again, and meanwhile at none of its others."""
        log.info("keeper_held_back", grant=grant.tag, cause=held.detail)
        at = self.clock() + max(held.retry_after or 0.0, HELD_SECONDS)
        self.held[grant.terms.ehr] = max(at, self.held.get(grant.terms.ehr, 0.0))
        await self.schedule.plan(grant, at)


async def _wait(event: asyncio.Event, most: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(most):
            await event.wait()


async def _lateness() -> float:
    loop = asyncio.get_running_loop()
    asked = loop.time() + BUSY_SECONDS
    await asyncio.sleep(BUSY_SECONDS)
    return loop.time() - asked


def _cause(error: Exception) -> str:
    return error.detail if isinstance(error, Unavailable) else type(error).__name__
