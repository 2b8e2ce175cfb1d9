"""Renews grants that would not survive being left alone (RF-07), for as long as somebody still uses them."""

import asyncio
from dataclasses import dataclass
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
"""When a grant is tried again that could not be renewed, or whose replica died."""

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


@dataclass(frozen=True, slots=True)
class Keeper:
    """Looks at the schedule again and again."""

    grants: Grants
    directory: Directory
    refresher: Refresher
    schedule: Schedule
    clock: Clock

    async def run(self, every: float) -> None:
        """Work until cancelled, with `every` seconds between two looks."""
        while True:
            try:
                await self.look()
            except Exception as error:  # noqa: BLE001  # whatever it is, the next look may succeed
                cause = error.detail if isinstance(error, Unavailable) else type(error).__name__
                log.warning("keeper_waits", cause=cause)
            await asyncio.sleep(every)

    async def look(self) -> None:
        """Deal with everything that is due now."""
        while tags := await self.schedule.take(self.clock(), again=self.clock() + AGAIN_SECONDS):
            await asyncio.gather(*map(self._keep, tags))

    async def _keep(self, tag: str) -> None:
        try:
            grant = await self.grants.read(tag)
            step = self._step(grant)
            if step == "renew":
                grant = await self.refresher.renew(grant)
            if step != "let_go":
                await self.schedule.plan(tag, max(grant.renew_at, grant.hold_until))
                return
        except (NotFound, ReauthorizationRequired, SealBroken) as ended:
            log.info("keeper_lets_go", grant=tag, cause=ended.detail)
        except (EhrError, Unavailable) as error:
            log.info("keeper_tries_again", grant=tag, cause=error.detail)
            return
        await self.schedule.drop(tag)

    def _step(self, grant: Grant) -> Step:
        app = self.directory.app(grant.terms.app or "")
        if app is None or not self.schedule.is_for(grant):
            return "let_go"
        # Once no refresh handle can be alive any more, nobody is left who could use the grant.
        return next_step(grant, now=self.clock(), unused_seconds=app.settings.refresh_lifetime)
