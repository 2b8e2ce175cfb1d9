"""How a request arrived."""

from collections.abc import Callable
from dataclasses import dataclass, field

from broker.limits.networks import Address


@dataclass(frozen=True, slots=True)
class Arrival:
    """When a request arrived, and from whom. What is not known is None, and meets no limit."""

    at: float
    """Seconds since 1970."""
    address: Address | None = field(default=None, repr=False)
    """The caller's, as declared proxies say; plain."""
    find_x5t: Callable[[], str | None] = field(default=lambda: None, repr=False, compare=False)
    """Reads the certificate that it was sent with, which takes time that few requests have to take."""

    @property
    def x5t(self) -> str | None:
        """The `x5t#S256` of that certificate (RFC 8705 §3.1), as declared proxies say. Raises `InvalidRequest`."""
        return self.find_x5t()
