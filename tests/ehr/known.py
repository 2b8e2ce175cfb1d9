"""What discovery remembers, without a store."""

from collections.abc import Callable
from typing import Any

from broker.clock import system_entropy
from broker.ehr.dpop import DpopProofs
from broker.ehr.endpoints import Endpoints
from broker.ehr.pin import Pin
from broker.ehr.site import Site
from broker.profiles import profile


class RememberedEndpoints:
    """Pins in memory; every document is settled as it is in the store."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.pins: dict[str, Pin] = {}

    async def read(self, site: Site) -> Pin | None:
        return self.pins.get(site.key)

    async def settle(self, site: Site, found: Endpoints) -> Pin:
        known = self.pins.get(site.key)
        self.pins[site.key] = known.meet(found, self._clock()) if known else Pin(found, self._clock())
        return self.pins[site.key]


def site(fhir_base: str, *, vendor: str = "generic", **members: Any) -> Site:
    return Site(ehr="ehr", fhir_base=fhir_base, profile=profile(vendor), **members)


def proofs(now: float = 0.0) -> DpopProofs:
    """Return proofs of a moment, that know no nonce yet."""
    return DpopProofs(clock=lambda: now, entropy=system_entropy)
