"""What a handle is, and what it came from."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import groupby
from typing import Final

from broker.limits import Limits
from broker.scopes import Scopes
from broker.secret import Secret

ID_LENGTH: Final = 16


@dataclass(frozen=True, slots=True)
class Ancestor:
    """A handle that another one was exchanged for, directly or over others (RFC 8693)."""

    digest: str
    app: str
    counted: bool
    """Its uses are counted, and a use of the handle exchanged for it is one of them."""


@dataclass(frozen=True, slots=True)
class Confirmation:
    """What must be proved beside having it (`cnf`, RFC 7800): thumbprints of a key, of a certificate, or neither."""

    jkt: str | None = None
    """Of a DPoP key (RFC 9449 §6.1)."""
    x5t: str | None = None
    """Of a client certificate: `x5t#S256` (RFC 8705 §3.1)."""

    def fields(self) -> dict[str, str]:
        """Return those that there are, as records have them."""
        return {name: value for name, value in (("jkt", self.jkt), ("x5t", self.x5t)) if value is not None}


UNBOUND: Final = Confirmation()


@dataclass(frozen=True, slots=True)
class Handle:
    """A handle's limits. It can do what these, its grant and the policies of its apps all allow."""

    digest: str = field(repr=False)
    tag: str
    app: str
    ehr: str
    scopes: Scopes
    family: str
    """The authorization of the app that this handle came from; reuse of its refresh handle ends all of it."""
    expires_at: float
    patient: str | None = field(default=None, repr=False)
    """The one patient it was narrowed to, whatever its scopes reach."""
    counted: bool = False
    """It works as many times as a counter in the store says."""
    ancestors: tuple[Ancestor, ...] = ()
    """The handles that it was exchanged for, the first one first. It ends with each of them."""
    jkt: str | None = None
    """The thumbprint of the key without which it does not work (RFC 9449 §6); None where having it is enough."""
    limits: Limits | None = None
    """What it was narrowed to beside scope and patient; None where it was not."""
    x5t: str | None = None
    """The thumbprint of the client certificate without which it does not work (RFC 8705 §3); None where none is."""

    @property
    def id(self) -> str:
        """Public: the first digits of its keyed hash. It stands in audit records and listings, and opens nothing."""
        return self.digest[:ID_LENGTH]

    @property
    def confirmation(self) -> Confirmation:
        """What it is bound to."""
        return Confirmation(self.jkt, self.x5t)

    @property
    def root(self) -> str:
        """The digest of the handle that no other was exchanged for."""
        return self.ancestors[0].digest if self.ancestors else self.digest

    @property
    def apps(self) -> tuple[str, ...]:
        """The apps that it went through, first the one that was authorized, last its own; each may hold it twice."""
        return (*(ancestor.app for ancestor in self.ancestors), self.app)

    @property
    def actors(self) -> tuple[str, ...]:
        """See `actors`."""
        return actors(self.apps)

    @property
    def counters(self) -> tuple[str, ...]:
        """The digests of the handles one use of which is taken with each use of this one."""
        own = (self.digest,) if self.counted else ()
        return (*(ancestor.digest for ancestor in self.ancestors if ancestor.counted), *own)


@dataclass(frozen=True, slots=True)
class RefreshHandle:
    """What the app may trade for a new handle, once."""

    tag: str
    app: str
    ehr: str
    scopes: Scopes
    family: str
    digest: str
    spent: bool = False
    """It was traded before; that may be forgiven once, if the answer was lost (RFC 9700 §4.14.2)."""
    jkt: str | None = None
    """The thumbprint of the key it was issued for; a public app must prove that very one to trade it (RFC 9449 §5)."""


@dataclass(frozen=True, slots=True)
class Issued:
    """A new handle, and what goes with it."""

    handle: Secret
    expires_in: int
    """Seconds."""
    refresh_handle: Secret | None = None


def actors(apps: Iterable[str]) -> tuple[str, ...]:
    """Return the apps that a handle went through, if it did not stay with one; immediate repetitions count once."""
    chain = tuple(app for app, _ in groupby(apps))
    return chain if len(chain) > 1 else ()
