"""A domain key: wraps the data keys of one domain's records, and is itself wrapped by the domain's KEK."""

import base64
import hashlib
import json
from dataclasses import dataclass, replace
from typing import Final, Literal

from broker.vault.kek import Domain, WrappedKey

ID_BYTES: Final = 8
SLOT_BYTES: Final = 4
"""The first bytes of an id tell the domain, so that a key is found by its id alone."""

State = Literal["active", "retiring", "gone"]
EndedBy = Literal["rotation", "shred"]


@dataclass(frozen=True, slots=True)
class DomainKey:
    """What is kept of one. Times are in seconds."""

    id: bytes
    domain: Domain
    state: State
    """`active` seals and opens, `retiring` opens, `gone` has no key any more: it is evidence."""
    wrapped: WrappedKey | None
    """None when it is gone."""
    created_at: float
    since: float
    """When it came into this state."""
    keks: tuple[str, ...]
    """Every KEK that it was ever wrapped by: whoever has one of them and an old backup has the key."""
    ended_by: EndedBy | None = None

    @property
    def slot(self) -> bytes:
        """Where it is kept."""
        return self.id[:SLOT_BYTES]

    def retired(self, now: float) -> "DomainKey":
        """Return it as it is once another one seals."""
        return replace(self, state="retiring", since=now)

    def ended(self, now: float, by: EndedBy) -> "DomainKey":
        """Return what is left of it: no key."""
        return replace(self, state="gone", since=now, wrapped=None, ended_by=by)

    def rewrapped(self, wrapped: WrappedKey) -> "DomainKey":
        """Return it under another KEK; it remembers the earlier ones."""
        return replace(self, wrapped=wrapped, keks=tuple(dict.fromkeys([*self.keks, wrapped.kek])))

    def encode(self) -> bytes:
        """Return it as it is kept."""
        fields: dict[str, object] = {
            "v": 1,
            "id": self.id.hex(),
            "tenant": self.domain.tenant,
            "ehr": self.domain.ehr,
            "state": self.state,
            "created_at": self.created_at,
            "since": self.since,
            "keks": self.keks,
        }
        if self.wrapped is not None:
            fields |= {"kek": self.wrapped.kek, "key": base64.b64encode(self.wrapped.blob).decode()}
        if self.ended_by is not None:
            fields["ended_by"] = self.ended_by
        return json.dumps(fields, separators=(",", ":")).encode()

    @classmethod
    def decode(cls, text: bytes) -> "DomainKey":
        """Read what `encode` wrote."""
        fields = json.loads(text)
        wrapped = WrappedKey(fields["kek"], base64.b64decode(fields["key"])) if "key" in fields else None
        return cls(
            id=bytes.fromhex(fields["id"]),
            domain=Domain(fields["tenant"], fields["ehr"]),
            state=fields["state"],
            wrapped=wrapped,
            created_at=fields["created_at"],
            since=fields["since"],
            keks=tuple(fields["keks"]),
            ended_by=fields.get("ended_by"),
        )


def slot_of(domain: Domain) -> bytes:
    """Return the first bytes of the ids of a domain's keys; two domains may share them, which does no harm."""
    return hashlib.sha256(b"smart-token-broker domain\0" + domain.associated_data()).digest()[:SLOT_BYTES]
