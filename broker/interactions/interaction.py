"""What a parsed request is, and what it needs."""

from dataclasses import dataclass, field
from typing import Final, TypeAlias

Pairs: TypeAlias = tuple[tuple[str, str], ...]

LIMITABLE: Final = (
    "capabilities",
    "conditional-create",
    "conditional-delete",
    "conditional-patch",
    "conditional-update",
    "create",
    "delete",
    "history-instance",
    "history-system",
    "history-type",
    "patch",
    "read",
    "search-compartment",
    "search-page",
    "search-system",
    "search-type",
    "update",
    "vread",
)
"""The kinds that a handle can be limited to. Operations are by name; a Bundle is its entries."""


@dataclass(frozen=True, slots=True)
class Need:
    """One scope letter on one FHIR type; type `*` is every type.

    `parameters` are the decoded search pairs that restrict this access and no other. A scope with search parameters may
    count on them (SC-05); it may not count on those of the whole request, because the filter of one batch entry does
    not restrict another, and the filter of a search does not restrict what `_include` adds to it.
    """

    type: str
    letter: str
    parameters: Pairs = field(default=(), repr=False)
    bound_to: str | None = field(default=None, repr=False, compare=False)
    """The id of the one patient whom the request can only be about: of an operation by its definition, else as it was
    decided. Of a page: of its search. It is how the need is met, not what is needed, so it makes no difference between
    two needs."""


@dataclass(frozen=True, slots=True)
class Interaction:
    """A FHIR interaction. What is forwarded is what was decided on: `method`, `path`, `query` and `body`.

    Its `repr` holds no id and no search value.
    """

    kind: str
    """A FHIR interaction name: read, vread, history-instance, history-type, history-system, search-type, search-system,
    search-compartment, search-page, create, update, patch, delete, each of these four with `conditional-`, operation,
    capabilities, batch, transaction."""
    method: str
    path: str = field(repr=False)
    """Relative to the FHIR base, without a leading slash."""
    query: str = field(repr=False)
    type: str | None = None
    """The type that is read, searched or written; None where a request is about several."""
    id: str | None = field(default=None, repr=False)
    needs: tuple[Need, ...] = ()
    """Without repetitions. Empty for capabilities alone."""
    parameters: Pairs = field(default=(), repr=False)
    """Decoded pairs, of the URL and then of the form. Whether they restrict anything is in `needs`."""
    patients: tuple[str, ...] = field(default=(), repr=False)
    """Every patient id the request names, in whatever sense. That only one is named does not mean that only this
    patient's data is answered."""
    safe: bool = False
    """May be sent again after a 401 (PX-08)."""
    body: bytes | None = field(default=None, repr=False)
    """What to send instead of the received body; None where the body is not looked at and streams through."""
    entries: tuple["Interaction", ...] = field(default=(), repr=False)
    """Of a batch or transaction, each entry on its own (SC-09)."""
    operation: str | None = field(default=None, repr=False)
    """The name of an operation, with its `$`."""
    understood: bool = True
    """Whether it is known what an operation reaches. If not, it is for those apps alone that an operator allows it."""
    unlisted: tuple[str, ...] = field(default=(), repr=False)
    """Of a search, the names of its parameters that FHIR does not define: one may be a place in the results of another
    search. Of a page, those of its search."""
    returns: str | None = None
    """What `Prefer: return` asks a write to be answered with: all that goes on of an app's preferences."""
    continues: str | None = None
    """Of a page whose link is the broker's own: the `code` of what it goes on with."""

    @property
    def code(self) -> str:
        """What a handle that is limited to some interactions must name: the operation's name, else the kind.

        Of a page it is that of what it goes on with, where that is known.
        """
        return self.operation or self.continues or self.kind

    @property
    def label(self) -> str:
        """Kind, type and the name of a known operation, for the audit record: never an id or a value."""
        label = f"{self.kind} {self.type}" if self.type else self.kind
        return f"{label} {self.operation}" if self.operation and self.understood else label

    @property
    def named(self) -> str | None:
        """An operation as operators name it: `$graphql`, `Observation/$stats`; on one resource as on its type."""
        return f"{self.type}/{self.operation}" if self.type and self.operation else self.operation
