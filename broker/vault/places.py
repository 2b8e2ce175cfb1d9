"""Where sealed records lie in the store, and what each is bound to. Pure.

Rotation moves what is listed here to another domain key, `verify` opens it, a shred deletes it. A record that is not
listed would be lost with the first key that is rotated: a test compares this with every name that there is.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from broker.vault.context import RecordContext
from broker.vault.envelope import key_id_of

Kind = Literal["string", "hash"]


@dataclass(frozen=True, slots=True)
class Place:
    """What a key of one kind holds."""

    pattern: re.Pattern[str]
    fields: Mapping[str, str]
    """Where in it, with the kind of record that lies there; an empty name is a string's only place."""

    @property
    def kind(self) -> Kind:
        """Redis's word for it."""
        return "string" if "" in self.fields else "hash"


PLACES: Final = (
    Place(re.compile(r"sb:\{([^}]+)\}:grant"), {"terms": "grant-terms", "tokens": "grant-tokens"}),
    Place(re.compile(r"sb:\{([^}]+)\}:handle:(.+)"), {"": "handle"}),
    Place(re.compile(r"sb:\{([^}]+)\}:launch:(.+)"), {"": "launch"}),
    Place(re.compile(r"sb:\{([^}]+)\}:reauthorize:(.+)"), {"": "reauthorize"}),
    Place(re.compile(r"sb:\{([^}]+)\}:refresh:(.+)"), {"sealed": "refresh"}),
    Place(re.compile(r"sb:\{([^}]+)\}:code:(.+)"), {"sealed": "code"}),
    Place(re.compile(r"sb:launch:\{(.+)\}"), {"": "launch"}),
    Place(re.compile(r"sb:bulk:\{([^}]+)\}:job:(.+)"), {"sealed": "bulk"}),
    Place(re.compile(r"sb:bulk:\{([^}]+)\}:files:(.+)"), {"": "bulk-files"}),
    Place(re.compile(r"sb:pin:\{(.+)\}"), {"": "pin"}),
    Place(re.compile(r"sb:key:\{(.+)\}"), {"": "key"}),
)
NOTHING_SEALED: Final = (
    re.compile(r"sb:\{[^}]+\}:(lease|introspected|handles|untold)"),
    re.compile(r"sb:\{[^}]+\}:(exchanged|uses|proof|ended|begun):.+"),
    re.compile(r"sb:(backend|asked|jti):\{[^}]+\}(:lease)?"),
    re.compile(r"sb:used:\{.+\}:.+"),
    re.compile(r"sb:domain:\{.+\}"),
    re.compile(r"sb:(audit|witness|restoring|untold|swept)"),
    re.compile(r"sb:due:.+"),
    re.compile(r"sb:ends:.+"),
    re.compile(r"sb:webhook:.+"),
    re.compile(r"sb:gate:.+"),
    re.compile(r"sb:bulk(:\{[^}]+\}:(jobs|waiting|running|turns|held):.+)?"),
    re.compile(r"sb:pace:.+"),
)
"""By the name of the key."""


def place_of(key: str) -> Place | None:
    """Return what lies at a key; None where nothing is sealed."""
    return next((place for place in PLACES if place.pattern.fullmatch(key)), None)


@dataclass(frozen=True, slots=True)
class SealedRecord:
    """One, as it was read."""

    key: str
    field: str
    """Of a hash; empty for a string."""
    kind: str
    envelope: bytes
    generation: int = 0

    @property
    def key_id(self) -> bytes | None:
        """The id of the domain key that it is under; None for what is no envelope."""
        return key_id_of(self.envelope)

    @property
    def whole(self) -> str:
        """What it is, or is a part of: of a grant's terms, the grant."""
        return self.kind.partition("-")[0]

    @property
    def name(self) -> str:
        """Where it lies, for people."""
        return f"{self.key} {self.field}".rstrip()

    def context(self, tenant: str) -> RecordContext:
        """Return what it was sealed under, as far as its place tells."""
        place = place_of(self.key)
        found = place.pattern.fullmatch(self.key) if place is not None else None
        id_ = ":".join(found.groups()) if found is not None else ""
        return RecordContext(kind=self.kind, id=id_, tenant=tenant, generation=self.generation)


def records_in(key: str, place: Place, value: bytes | Mapping[bytes, bytes]) -> list[SealedRecord]:
    """Return the sealed records of what was read at a key."""
    if isinstance(value, bytes):
        return [SealedRecord(key, "", place.fields[""], value)]
    generation = int(value.get(b"generation", b"0")) if place.pattern is PLACES[0].pattern else 0
    return [
        SealedRecord(key, field, kind, value[field.encode()], generation)
        for field, kind in place.fields.items()
        if field.encode() in value
    ]
