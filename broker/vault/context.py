"""What a sealed record is bound to."""

from dataclasses import dataclass

FORMAT_VERSION = 2


@dataclass(frozen=True, slots=True)
class RecordContext:
    """The place of one record: opening it anywhere else fails.

    `kind` is what it is ("token-set", "context", "launch", …), `id` which one, `tenant` whose, and `generation` which
    version of it: a number that grows with each rewrite, 0 for records that are written once.
    """

    kind: str
    id: str
    tenant: str
    generation: int = 0

    def associated_data(self) -> bytes:
        """Return an unambiguous encoding: each field is preceded by its length, so no two contexts share one."""
        fields = (str(FORMAT_VERSION), self.kind, self.id, self.tenant, str(self.generation))
        return b"".join(len(field.encode()).to_bytes(4, "big") + field.encode() for field in fields)
