"""How a request arrived."""

from dataclasses import dataclass, field

from broker.limits.networks import Address


@dataclass(frozen=True, slots=True)
class Arrival:
    """When a request arrived, and from whom. What is not known is None, and meets no limit."""

    at: float
    """Seconds since 1970."""
    address: Address | None = field(default=None, repr=False)
    """The caller's, as declared proxies say; plain."""
    x5t: str | None = None
    """The `x5t#S256` of the certificate that it was sent with (RFC 8705 §3.1), as declared proxies say."""
