"""Key-encryption keys (KEKs): what wraps the vault's keys, and is itself never in Redis.

One small interface for keys that this process holds and for keys that never leave a key-management service (KMS).
"""

from dataclasses import dataclass, field
from typing import Final, Protocol

KEY_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Domain:
    """Whose keys: one EHR of a tenant's, or with an empty `ehr` what belongs to the tenant and to no EHR."""

    tenant: str
    ehr: str = ""

    def __str__(self) -> str:
        return f"{self.tenant}/{self.ehr}"

    def associated_data(self) -> bytes:
        """Return an unambiguous encoding: each field is preceded by its length."""
        fields = (self.tenant.encode(), self.ehr.encode())
        return b"".join(len(part).to_bytes(4, "big") + part for part in fields)


@dataclass(frozen=True, slots=True)
class WrappedKey:
    """A key as it may be kept."""

    kek: str
    """Names the KEK and its version, such as `local:1f2e3d4c5b6a7988` or `transit:broker.default.epic:3`."""
    blob: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Destroyed:
    """A KEK that is gone, or on its way out."""

    kek: str
    gone_at: float
    """From when on nobody can bring it back, in seconds; later than now where the back end makes one wait."""


class KeyEncryptionKeys(Protocol):
    """Wraps and unwraps. Local keys answer at once, a KMS over the network.

    All of them raise `KeyUnavailable` when there is no answer now, and `KeyRefused` when the answer is no: the key is
    disabled, destroyed, or denied to us.
    """

    async def wrap(self, domain: Domain, key: bytes, bound_to: bytes) -> WrappedKey:
        """Wrap under the domain's current KEK; it unwraps only for the same domain and `bound_to`."""
        ...

    async def unwrap(self, domain: Domain, wrapped: WrappedKey, bound_to: bytes) -> bytes:
        """Return the key. Raises `SealBroken` when it was wrapped for something else, or was damaged."""
        ...

    async def current(self, domain: Domain) -> str:
        """Return the name that `wrap` would write now."""
        ...

    async def rotate(self, domain: Domain) -> str:
        """Make a new version where the back end can, and return its name; earlier ones still unwrap."""
        ...

    async def destroy(self, domain: Domain) -> tuple[Destroyed, ...]:
        """Destroy the domain's own KEK, all versions; empty where it has none of its own."""
        ...

    async def check(self) -> None:
        """Raises `KeyUnavailable` unless keys can be wrapped and unwrapped now."""
        ...

    async def close(self) -> None:
        """Give up connections."""
        ...
