"""Renews grants that would not survive being left alone (RF-07), for as long as somebody still uses them."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import Final, Literal

import structlog

from broker.apps import Directory
from broker.clock import Clock
from broker.errors import EhrError, NotFound, ReauthorizationRequired, SealBroken, Unavailable
from broker.grants import Grant, Grants
from broker.refresh.current_token import Refresher
from broker.refresh.schedule import Schedule

log = structlog.get_logger()

AGAIN_SECONDS: Final = 15.0
"""When a grant is looked at again, at the soonest, that could not be renewed, or whose replica died."""
AT_ONCE_PER_EHR: Final = 20
"""Renewals at one EHR under way; others wait for their turn."""
WAITING_PER_EHR: Final = 500
"""Renewals at one EHR under way and waiting; grants beyond are looked at again."""
_TRIES_LEFT: Final = 8.0

Step = Literal["renew", "wait", "let_go"]


def next_step(grant: Grant, *, now: float, unused_seconds: float) -> Step:
    """Decide about a grant of the schedule. Pure.

    It is let go when it has ended, when its token has expired (nothing can be kept alive then), and when nobody has
    used it for `unused_seconds`: an authorization is not kept for its own sake.
    """
    if grant.state != "active" or not grant.refreshable or now >= grant.expires_at:
        return "let_go"
    if now >= grant.used_at + unused_seconds:
        return "let_go"
    due = 0.0 if grant.lacks_context else grant.renew_at
    return "renew" if now >= max(due, grant.hold_until) else "wait"


def next_try(grant: Grant, *, now: float) -> float:
    """Return when to try again what the EHR did not renew: after an eighth of what is left of the token's life. Pure.

    So an EHR that is down for long is asked less often, and one that comes back late still before it is too late.
    """
    return now + max(AGAIN_SECONDS, (grant.expires_at - now) / _TRIES_LEFT)


@dataclass(frozen=True, slots=True)
class Keeper:
    """Looks at the schedule again and again, and waits for no EHR: one that does not answer keeps no other's grants."""

    grants: Grants
    directory: Directory
    refresher: Refresher
    schedule: Schedule
    clock: Clock
    renewing: set[str] = field(default_factory=set)
    waiting: Counter[str] = field(default_factory=Counter)
    turns: dict[str, asyncio.Semaphore] = field(default_factory=dict)
    """By EHR, like `waiting`: those are configured, so there are only so many."""

    async def run(self, every: float) -> None:
        """Work until cancelled, with `every` seconds between two looks."""
        async with asyncio.TaskGroup() as renewals:
            while True:
                try:
                    await self._start_due(renewals)
                except Exception as error:  # noqa: BLE001  # whatever it is, the next look may succeed
                    log.warning("keeper_waits", cause=_cause(error))
                await asyncio.sleep(every)

    async def look(self) -> None:
        """Deal with everything that is due now."""
        async with asyncio.TaskGroup() as renewals:
            await self._start_due(renewals)

    async def _start_due(self, renewals: asyncio.TaskGroup) -> None:
        while tags := await self.schedule.take(self.clock(), again=self.clock() + AGAIN_SECONDS):
            await asyncio.gather(*(self._look_at(tag, renewals) for tag in tags if tag not in self.renewing))

    async def _look_at(self, tag: str, renewals: asyncio.TaskGroup) -> None:
        try:
            await self._take_step(tag, renewals)
        except Unavailable as error:
            log.info("keeper_tries_again", grant=tag, cause=error.detail)

    async def _take_step(self, tag: str, renewals: asyncio.TaskGroup) -> None:
        try:
            grant = await self.grants.read(tag)
        except (NotFound, SealBroken) as ended:
            log.info("keeper_lets_go", grant=tag, cause=ended.detail)
            await self.schedule.drop(tag)
            return
        step = self._step(grant)
        if step == "let_go":
            await self.schedule.drop(tag)
        elif step == "wait":
            await self.schedule.plan(tag, max(grant.renew_at, grant.hold_until))
        elif step == "renew" and tag not in self.renewing and self.waiting[grant.terms.ehr] < WAITING_PER_EHR:
            self.renewing.add(tag)  # the schedule gives it out again while it waits for its turn
            self.waiting[grant.terms.ehr] += 1
            renewals.create_task(self._renew(grant))

    def _step(self, grant: Grant) -> Step | None:
        """Decide; None where another replica has to: this one does not know the app or EHR, and may be behind."""
        app = self.directory.app(grant.terms.app or "")
        # Once no refresh handle can be alive any more, nobody is left who could use the grant.
        unused_seconds = app.settings.refresh_lifetime if app is not None else float("inf")
        step = next_step(grant, now=self.clock(), unused_seconds=unused_seconds)
        if step == "let_go":
            return step
        try:
            kept = self.schedule.is_for(grant)
        except NotFound:
            return None
        return (step if kept else "let_go") if app is not None else None

    async def _renew(self, grant: Grant) -> None:
        try:
            async with self.turns.setdefault(grant.terms.ehr, asyncio.Semaphore(AT_ONCE_PER_EHR)):
                await self._try(grant)
        except Exception as error:  # noqa: BLE001  # whatever it is, it ends nobody else's renewal
            log.warning("keeper_waits", cause=_cause(error))
        finally:
            self.renewing.discard(grant.tag)
            self.waiting[grant.terms.ehr] -= 1

    async def _try(self, grant: Grant) -> None:
        try:
            renewed = await self.refresher.renew(grant)
        except (ReauthorizationRequired, SealBroken) as ended:
            log.info("keeper_lets_go", grant=grant.tag, cause=ended.detail)
            await self.schedule.drop(grant.tag)
        except (EhrError, NotFound, Unavailable) as error:
            log.info("keeper_tries_again", grant=grant.tag, cause=error.detail)
            if isinstance(error, EhrError):
                await self.schedule.plan(grant.tag, next_try(grant, now=self.clock()))
        else:
            await self.schedule.plan(grant.tag, max(renewed.renew_at, renewed.hold_until))


def _cause(error: Exception) -> str:
    return error.detail if isinstance(error, Unavailable) else type(error).__name__
