"""When a request arrived, from where, and with which certificate: what some handles are held to."""

from dataclasses import dataclass

from starlette.types import Scope

from broker.clock import Clock
from broker.limits import Arrival, plain_address


@dataclass(frozen=True, slots=True)
class Arrivals:
    """Tells it of one request at a time. Most handles do not ask."""

    clock: Clock

    def of(self, scope: Scope) -> Arrival:
        """Return what is known; the address is that of the connection, or what a declared proxy says (OA-25)."""
        client = scope.get("client")
        return Arrival(at=self.clock(), address=plain_address(client[0]) if client else None)
