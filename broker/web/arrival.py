"""When a request arrived, from where, and with which certificate: what some handles are held to."""

from dataclasses import dataclass
from functools import partial

from cryptography.hazmat.primitives.serialization import Encoding
from starlette.types import Scope

from broker.clock import Clock
from broker.limits import Arrival, plain_address
from broker.settings.proof import thumbprint
from broker.web.client_certificate import ClientCertificates


@dataclass(frozen=True, slots=True)
class Arrivals:
    """Tells it of one request at a time. Most handles do not ask."""

    certificates: ClientCertificates
    clock: Clock

    def of(self, scope: Scope, request_id: str) -> Arrival:
        """Return what is known: the address of the connection and its certificate, or what a declared proxy says.

        Whoever wants to know the certificate is told then if its header cannot be read (`InvalidRequest`, OA-25).
        """
        client = scope.get("client")
        address = plain_address(client[0]) if client else None
        return Arrival(at=self.clock(), address=address, find_x5t=partial(self._x5t, scope, request_id))

    def _x5t(self, scope: Scope, request_id: str) -> str | None:
        certificate = self.certificates.read(scope, request_id)
        return thumbprint(certificate.public_bytes(Encoding.DER)) if certificate else None
