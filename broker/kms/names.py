"""What keys are called at a KMS, so that no two domains share one. Ids are small letters, digits, `.`, `_` and `-`."""

import hashlib
import re
from typing import Final

from broker.errors import KeyUnavailable
from broker.vault.kek import Domain, WrappedKey

_HASHED: Final = 16


def dotted(prefix: str, *ids: str) -> str:
    """Join ids with dots for Transit: `broker.default.epic`. A dot of an id becomes `D`, as ids have no capitals."""
    return ".".join([prefix, *(part.replace(".", "D") for part in ids if part)])


def alias(prefix: str, domain: Domain) -> str:
    """Return the alias of a domain at AWS: `alias/broker/default/epic`; aliases have no dots."""
    return "alias/" + dotted(prefix, domain.tenant, domain.ehr).replace(".", "/")


def hashed(prefix: str, domain: Domain, most: int) -> str:
    """Return a name of letters, digits and `-`, at most `most` long; its last 16 digits are a hash of the domain."""
    readable = re.sub(r"[^a-z0-9]+", "-", f"{prefix}-{domain.tenant}-{domain.ehr}").strip("-")
    digest = hashlib.sha256(domain.associated_data()).hexdigest()[:_HASHED]
    return f"{readable[: most - _HASHED - 1].rstrip('-')}-{digest}"


def bound(domain: Domain, bound_to: bytes) -> bytes:
    """Return what a wrapped key is bound to: whose it is, and what the vault says it is for."""
    return domain.associated_data() + bound_to


def require_kind(kind: str, wrapped: WrappedKey) -> None:
    """Raises `KeyUnavailable` for a key that another back end wrapped."""
    if wrapped.kek.partition(":")[0] != kind:
        raise KeyUnavailable(f"a key was wrapped by {wrapped.kek}, and BROKER_KMS is {kind}")
