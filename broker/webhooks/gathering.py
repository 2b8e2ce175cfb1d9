"""Turns marks on grants into events: looks at each marked grant, and says how it is if that is news.

What is compared is the health that was told last and the one that is. So a change that is undone before anybody looks
is none, and a look that is repeated, since a replica died in the middle, makes the same event again: it is kept once.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, cast

import structlog
from redis.asyncio import Redis

from broker.clock import Clock
from broker.credentials import KeyedHash
from broker.errors import SealBroken, Unavailable
from broker.grants import Grant, Grants, HealthReport, lasting_health
from broker.settings import WebhookSettings
from broker.store import keys
from broker.store.connection import Script, store_errors
from broker.store.scripts import script
from broker.webhooks.news import message
from broker.webhooks.outbox import Event, Outbox

log = structlog.get_logger()

AGAIN_SECONDS: Final = 60.0
"""When a grant is looked at again whose look did not end."""
LASTS_SECONDS: Final = 300.0
"""How long refreshes must fail before that is news: an EHR that is away for a moment is nobody's business."""
SWEEP_SECONDS: Final = 900
"""Between two sweeps for marks that are on no list, as their replica died first."""
AT_ONCE: Final = 16
_MOST: Final = 128


def next_look(report: HealthReport, grant: Grant) -> float | None:
    """Return when a health must be looked at again, as time alone changes it; None when it need not. Pure."""
    return grant.expires_at if report.health == "uncertain" else None


def settles_at(report: HealthReport) -> float:
    """Return from when on a health is news, in seconds. Pure."""
    return report.since + LASTS_SECONDS if report.health == "degraded" else 0.0


@dataclass(frozen=True, slots=True)
class Gathering:
    """Looks at what is listed, and sweeps for what is not."""

    redis: Redis
    grants: Grants
    outbox: Outbox
    webhooks: Sequence[WebhookSettings]
    keyed_hash: KeyedHash
    clock: Clock
    taking: Script = field(default_factory=partial(script, "take_due"))
    settling: Script = field(default_factory=partial(script, "settle_news"))

    async def look(self) -> int:
        """Look at grants that are listed by now, not all of them at once; returns how many. Raises `Unavailable`."""
        now = self.clock()
        (found,) = await self.taking(self.redis, [keys.UNTOLD], [repr(now), repr(now + AGAIN_SECONDS), _MOST, _MOST])
        tags = [tag.decode() for tag in found]
        for start in range(0, len(tags), AT_ONCE):
            await asyncio.gather(*(self._look_at(tag) for tag in tags[start : start + AT_ONCE]))
        return len(tags)

    async def sweep(self) -> None:
        """List every mark that is not, unless another replica did that a moment ago. Raises `StoreUnavailable`."""
        with store_errors():
            if not await self.redis.set(keys.SWEPT, "1", nx=True, ex=SWEEP_SECONDS):
                return
            async for key in self.redis.scan_iter(match=keys.ANY_UNTOLD, count=500):
                tag = key.decode().partition("{")[2].partition("}")[0]
                await self.grants.untold.plan(tag, self.clock(), unless_listed=True)

    async def _look_at(self, tag: str) -> None:
        try:
            await self._tell(tag)
        except SealBroken:  # recorded where it was opened; there is nothing to say of it
            await self._unlist(tag)
        except Unavailable as error:
            log.info("news_waits", grant=tag, cause=error.detail)
        except Exception as error:  # noqa: BLE001  # whatever it is, it keeps no other grant's news
            log.warning("news_waits", grant=tag, cause=type(error).__name__)

    async def _tell(self, tag: str) -> None:
        mark, fields = await self._read(tag)
        if not fields:
            await self._unlist(tag)
            return
        grant, now = await self.grants.unpack(tag, fields), self.clock()
        report = lasting_health(grant, now=now)
        if (settled := settles_at(report)) > now and grant.told != report.health:
            await self.grants.untold.plan(tag, settled)
            return
        before = grant.told or "healthy"
        if report.health != before and not await self._queue(grant, report, before, mark, now):
            return  # no room: the mark stays, and it is looked at again
        await self._settle(grant, report, mark)

    async def _queue(self, grant: Grant, report: HealthReport, before: str, mark: str, now: float) -> bool:
        name = self.keyed_hash("webhook", f"{grant.tag}\0{before}\0{report.health}\0{mark or report.since}")[:32]
        event = Event(f"msg_{name}", message(grant, report, before=before, now=now), now)
        for webhook in self.webhooks:
            if report.health in webhook.events and not await self.outbox.queue(webhook.id, event):
                log.info("webhook_full", webhook=webhook.id)
                return False
        return True

    async def _settle(self, grant: Grant, report: HealthReport, mark: str) -> None:
        """Plan first: what is planned and not settled is looked at once more, and nothing comes of it."""
        if (later := next_look(report, grant)) is not None:
            await self.grants.untold.plan(grant.tag, later)
        told = "" if report.health == "healthy" else report.health
        more = await self.settling(self.redis, [keys.grant(grant.tag), keys.untold(grant.tag)], [mark, told])
        if not more and later is None:
            await self._unlist(grant.tag)

    async def _read(self, tag: str) -> tuple[str, Mapping[bytes, bytes]]:
        with store_errors():
            async with self.redis.pipeline(transaction=False) as pipe:
                pipe.get(keys.untold(tag))
                pipe.hgetall(keys.grant(tag))
                mark, fields = cast("tuple[bytes | None, Mapping[bytes, bytes]]", await pipe.execute())
        return (mark or b"").decode(), fields

    async def _unlist(self, tag: str) -> None:
        with store_errors():
            await self.redis.zrem(keys.UNTOLD, tag)
