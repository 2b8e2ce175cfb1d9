"""Fair use: how many requests an app may send and an EHR is asked, over all replicas, and who comes first.

An app's requests are counted when its handle is known, so that what is denied counts, too. What an EHR may be asked is
looked at once a request is allowed, before anything else happens for it. Neither takes a round trip of its own: see
`rate`.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, Self

from redis.asyncio import Redis

from broker.audit import AuditTrail
from broker.clock import Clock
from broker.egress import StreamedAnswer
from broker.ehr.token_answer import parse_retry_after
from broker.errors import EhrHeldBack, TooManyRequests
from broker.fair_use.bucket import Bucket, Store
from broker.fair_use.places import Lane, Places
from broker.fair_use.rate import Lot, Rate
from broker.fair_use.throttled import Throttled
from broker.handles import Handle
from broker.settings import AppSettings, EhrSettings, Settings
from broker.store import keys

_ASKS_FOR_A_PAUSE: Final = frozenset({429, 503})

__all__ = ["FairUse", "Lane"]


@dataclass(frozen=True, slots=True)
class FairUse:
    """The limits of all apps and EHRs, as `broker.toml` says, on this replica."""

    apps: dict[str, Bucket]
    ehrs: dict[str, Bucket]
    places: dict[str, Places]
    store: Store
    throttled: Throttled

    @classmethod
    def of(cls, settings: Settings, redis: Redis, audit: AuditTrail, clock: Clock) -> Self:
        """Build them."""
        store = Store(redis, clock)
        apps = {app.id: _of_app(app, store) for app in settings.app if app.requests_per_minute is not None}
        ehrs = {ehr.id: _of_ehr(ehr, store) for ehr in settings.ehr if ehr.enabled}
        places = {ehr.id: Places(ehr.fhir_concurrency) for ehr in settings.ehr if ehr.enabled}
        return cls(apps, ehrs, places, store, Throttled(audit))

    async def count(self, handle: Handle) -> None:
        """Count a request of the handle's app. Raises `TooManyRequests`, `StoreUnavailable`, `AuditUnavailable`."""
        if (bucket := self.apps.get(handle.app)) is not None:
            await self._take(bucket, handle)

    async def admit(self, handle: Handle) -> None:
        """Let a request through to the handle's EHR, where nothing was sent yet.

        Raises `TooManyRequests`, `EhrHeldBack` while the EHR wants to be left alone, and as `count` does.
        """
        await self._take(self.ehrs[handle.ehr], handle)

    async def send(self, send: Callable[[], Awaitable[StreamedAnswer]], handle: Handle, lane: Lane) -> StreamedAnswer:
        """Send to the handle's EHR when there is a place, which is held until the answer is closed.

        An EHR that asks for a pause with its answer is left alone for it, by all replicas (RFC 9110 §10.2.3). Raises
        `EhrUnreachable` where no place is free in time, and what `send` raises.
        """
        leave = await self.places[handle.ehr].enter(handle.app, lane)
        try:
            answer = await send()
        except BaseException:
            leave()
            raise
        if answer.status in _ASKS_FOR_A_PAUSE:
            self.ehrs[handle.ehr].hold(parse_retry_after(answer.headers))
        return answer.closing(leave)

    @asynccontextmanager
    async def place(self, handle: Handle, lane: Lane) -> AsyncIterator[None]:
        """Hold a place at the handle's EHR. A pause that is asked for meanwhile is of this exchange alone.

        Raises `EhrUnreachable` where none is free in time.
        """
        leave = await self.places[handle.ehr].enter(handle.app, lane)
        try:
            yield
        finally:
            leave()

    async def close(self) -> None:
        """Tell the audit trail and the store what they do not know yet."""
        self.throttled.close()
        await self.store.flights.close()

    async def _take(self, bucket: Bucket, handle: Handle) -> None:
        try:
            await bucket.take()
        except (TooManyRequests, EhrHeldBack) as error:
            self.throttled.note(handle, error)
            raise


def _of_app(app: AppSettings, store: Store) -> Bucket:
    rate = Rate.of(app.requests_per_minute, app.burst)
    return Bucket(f"app {app.id}", keys.pace("app", app.id), Lot(rate), store)


def _of_ehr(ehr: EhrSettings, store: Store) -> Bucket:
    rate = Rate.of(ehr.fhir_requests_per_minute, ehr.fhir_burst)
    return Bucket(f"EHR {ehr.id}", keys.pace("ehr", ehr.id), Lot(rate), store, ehr.fhir_longest_pause)
