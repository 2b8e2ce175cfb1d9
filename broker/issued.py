"""Whatever the broker hands out: made, hashed and sealed in one place.

Only the keyed hash of a credential is in Redis, as the name of a record that is itself sealed under that name.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Any

from broker.clock import Clock, Entropy
from broker.credentials import KeyedHash, mint
from broker.scopes import Scopes
from broker.secret import Secret
from broker.vault import RecordContext, Vault


@dataclass(frozen=True, slots=True)
class Made:
    """A new credential, the hash it is found under, and the sealed record of what it stands for."""

    secret: Secret
    digest: str
    sealed: bytes


@dataclass(frozen=True, slots=True)
class Opened:
    """What a credential stands for, and until when (seconds)."""

    fields: dict[str, Any]
    expires_at: float


class IssuedRecords:
    """Makes credentials and opens their records. What is done with them in the store is the callers' business."""

    def __init__(self, vault: Vault, keyed_hash: KeyedHash, *, tenant: str, clock: Clock, entropy: Entropy) -> None:
        self._vault = vault
        self._hash = keyed_hash
        self._tenant = tenant
        self._clock = clock
        self._entropy = entropy

    def digest(self, kind: str, secret: Secret) -> str:
        """Return the keyed hash of a presented credential; of another kind, the same text hashes differently."""
        return self._hash(kind, secret)

    async def make(
        self, prefix: str, kind: str, tag: str, fields: Mapping[str, Any], *, lifetime: int, ends_by: float = inf
    ) -> Made:
        """Make a credential that stands for `fields`, for `lifetime` seconds, and not beyond `ends_by` (seconds).

        Each is for one EHR, which `fields` names.
        """
        secret = mint(prefix, tag, self._entropy)
        digest = self.digest(kind, secret)
        dated = {**fields, "expires_at": min(self._clock() + lifetime, ends_by)}
        sealed = await self._vault.seal(self._bound(kind, tag, digest), json.dumps(dated).encode(), ehr=fields["ehr"])
        return Made(secret, digest, sealed)

    async def open(self, kind: str, tag: str, digest: str, sealed: bytes) -> Opened | None:
        """Return what it stands for; None past its end, whatever the store says. Raises `SealBroken`."""
        fields: dict[str, Any] = json.loads(await self._vault.open(self._bound(kind, tag, digest), sealed))
        expires_at = fields.pop("expires_at")
        if expires_at <= self._clock():
            return None
        if "scopes" in fields:
            fields["scopes"] = Scopes.parse(fields["scopes"])
        return Opened(fields, expires_at)

    def _bound(self, kind: str, tag: str, digest: str) -> RecordContext:
        return RecordContext(kind=kind, id=f"{tag}:{digest}", tenant=self._tenant)
