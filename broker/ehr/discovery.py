"""Where an EHR's endpoints are: asked for, remembered for an hour, and never believed blindly (DS-01…DS-15).

What the documents say is settled with what is pinned (`KnownEndpoints`) before anything is sent there. A discovery that
is down is bridged with what was known last: nothing about credentials changes by that.
"""

from typing import Any, Final, Literal, Protocol

import structlog

from broker.clock import Clock
from broker.egress import Egress
from broker.ehr.documents import find_endpoints, find_openid_configuration, require_callable
from broker.ehr.endpoints import Endpoints
from broker.ehr.own_issuer import OwnIssuer
from broker.ehr.pin import Pin
from broker.ehr.site import Site
from broker.errors import EhrError, EhrHeldBack, EhrRefused, EhrUnreachable
from broker.single_flight import SingleFlight

log = structlog.get_logger()

CACHE_SECONDS: Final = 3600.0
AGAIN_SECONDS: Final = 60.0
"""Not more often than this is a known EHR asked again, however often an endpoint answers as if it had moved."""
BRIDGE_SECONDS: Final = 7 * 86_400.0
"""How long what was known last stands in for a discovery that is down."""


class KnownEndpoints(Protocol):
    """What is known of EHRs' endpoints, for all replicas."""

    async def read(self, site: Site) -> Pin | None:
        """Return what is known. Raises `StoreUnavailable`, `SealBroken`."""
        ...

    async def settle(self, site: Site, found: Endpoints) -> Pin:
        """Return what is known after the EHR said `found`; its `endpoints` may be used. Raises `Unavailable`."""
        ...


class Discovery:
    """Finds endpoints."""

    def __init__(self, egress: Egress, clock: Clock, known: KnownEndpoints) -> None:
        self._egress = egress
        self._clock = clock
        self._known = known
        self._asked: dict[str, float] = {}
        self._doubted: set[str] = set()
        self._flights: SingleFlight[Pin] = SingleFlight()
        self._own_issuer = OwnIssuer(egress, clock)

    async def endpoints(self, site: Site) -> Endpoints:
        """Return the endpoints that may be used, the operator's own first (OR-02). Raises `EhrError`, `Unavailable`."""
        pin = await self._known.read(site)
        if pin is None or self._is_due(site, pin):
            pin = await self._flights.run(site.key, lambda: self._ask(site, pin))
        elif self._is_too_old(pin):  # unless it is being asked for right now
            pin = await self._flights.run(site.key, self._give_up)
        endpoints = site.apply(pin.endpoints)
        if site.relies_on_issuer:
            await self._own_issuer.require(site, endpoints)
        return endpoints

    def doubt(self, site: Site, error: EhrError) -> None:
        """Look again soon: an endpoint answered as if it had moved (DS-13).

        `invalid_grant` says nothing of places, and what was not sent says nothing at all.
        """
        of_grant = isinstance(error, EhrRefused) and error.error == "invalid_grant"
        if not (of_grant or isinstance(error, EhrHeldBack)):
            self._doubted.add(site.key)

    def _is_due(self, site: Site, pin: Pin) -> bool:
        now = self._clock()
        old = now >= pin.answered_at + CACHE_SECONDS or site.key in self._doubted
        return old and now >= self._asked.get(site.key, float("-inf")) + AGAIN_SECONDS

    def _is_too_old(self, pin: Pin) -> bool:
        return self._clock() > pin.answered_at + BRIDGE_SECONDS

    async def _give_up(self) -> Pin:
        raise EhrUnreachable("the EHR has not answered discovery for a week; it is asked again once a minute (DS-13)")

    async def _ask(self, site: Site, pin: Pin | None) -> Pin:
        self._asked[site.key] = self._clock()
        try:
            found = await find_endpoints(self._egress, site)
            if pin is None:  # later on, another origin is quarantined, whatever it is
                found = require_callable(self._egress, found, unused=site.overrides)
        except Exception as error:  # whatever an EHR thinks of to say must not take away what is known of it
            if pin is None or self._is_too_old(pin):
                raise
            cause = error.detail if isinstance(error, EhrError) else f"unforeseen: {type(error).__name__}"
            log.warning("discovery_bridged", ehr=site.ehr, cause=cause)
            return pin
        self._doubted.discard(site.key)
        settled = await self._known.settle(site, found)
        for text in settled.endpoints.warnings:
            log.info("discovery_warning", ehr=site.ehr, text=text)
        return settled

    async def openid_configuration(
        self, issuer: str, *, place: Literal["append", "insert"] = "append"
    ) -> dict[str, Any]:
        """Return the OpenID Provider's configuration (ID-02); `place` is tried first (Q6). Raises `EhrError`."""
        return await find_openid_configuration(self._egress, issuer, place=place)
