"""What a request proves itself with, apart from the fields of its form."""

from dataclasses import dataclass, field
from typing import Self

from starlette.requests import Request

from sandbox.settings import Settings


@dataclass(frozen=True, slots=True)
class Presented:
    """The credentials of one request to `url` (without its query)."""

    method: str
    url: str
    authorization: str | None = field(default=None, repr=False)
    proofs: tuple[str, ...] = field(default=(), repr=False)
    """The values of its `DPoP` headers (RFC 9449 §4.1)."""
    certificate: bytes | None = field(default=None, repr=False)
    """The client's certificate in DER, which only the mTLS endpoints look at (RFC 8705 §5)."""

    @classmethod
    def of(cls, request: Request, settings: Settings) -> Self:
        """Return what a request presents."""
        # As it was sent: what the sandbox makes of a path is not what the client signed.
        url = f"{settings.public_url}{request.scope['raw_path'].decode('latin-1')}"
        certificate = request.scope.get("state", {}).get("client_certificate")
        return cls(
            method=request.method,
            url=url,
            authorization=request.headers.get("authorization"),
            proofs=tuple(request.headers.getlist("dpop")),
            certificate=certificate if url in settings.mtls_endpoint_aliases.values() else None,
        )

    def token(self, scheme: str) -> str | None:
        """Return the token of an Authorization header of this scheme, or None."""
        given, _, value = (self.authorization or "").partition(" ")
        return value.strip() if given.lower() == scheme else None
