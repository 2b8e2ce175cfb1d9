"""What the broker remembers of an export (BD-14). Pure."""

import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final, Literal

from broker.errors import NotFound
from broker.interactions import Interaction, Need
from broker.interactions.export import EXPORT

State = Literal["waiting", "starting", "running", "complete", "failed"]
"""In line; asked of the EHR, whose answer is not known; accepted by it; done; the EHR says that it failed."""
KEPT_SECONDS: Final = 2_592_000
"""How long a job is kept that nobody ended: 30 days from the last time that it was written."""
JOB_BYTES: Final = 2 << 20
"""Most that a job's record may be: it is read and written at each poll. A thousand manifests take half of it."""
_ID: Final = re.compile(r"[0-9a-f]{32}")
_ID_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Listing:
    """One manifest of a job, without its files; most jobs have one (BD-17)."""

    url: str = field(repr=False)
    """At the EHR. That of the first is the status URL."""
    version: int = 0
    """Another one when it lists other files than before: then the old numbers lead nowhere."""
    shape: str = ""
    """A hash of what it lists, without the URLs, which EHRs sign anew each time."""
    files: int = 0
    head: str = field(default="", repr=False)
    """The manifest as JSON, without what lists files; empty until it was fetched."""
    expires: str | None = None
    """The EHR's `Expires`."""

    @property
    def is_known(self) -> bool:
        """Whether it was fetched."""
        return bool(self.head)


@dataclass(frozen=True, slots=True)
class Job:
    """One export, from kick-off until it is cancelled, abandoned, or forgotten by the EHR."""

    id: str
    ehr: str
    registration: str
    flow: Literal["launch", "backend"]
    app: str
    tag: str
    """Of the grant that was used for it last."""
    needs: tuple[Need, ...]
    """What a handle has to cover, at the kick-off and ever after."""
    type: str | None
    """Whose export it is: `Patient`, `Group`, or None for the system's."""
    path: str = field(repr=False)
    query: str = field(repr=False)
    parameters: str = field(repr=False)
    """The kick-off at the EHR: path and query by GET, or the path and this Parameters resource by POST."""
    method: str
    request: str = field(repr=False)
    """The broker's URL that was asked: what the manifest says of it."""
    separate_status: bool
    """Whether its app wants the status in a header of its own (BD-04)."""
    began_at: float
    state: State = "waiting"
    polls: int = 0
    """How often the EHR was asked for the status, and said that it goes on."""
    progress: str | None = None
    listings: tuple[Listing, ...] = ()
    failure: tuple[int, str] | None = field(default=None, repr=False)
    """Status and OperationOutcome by which the EHR said that it failed."""

    @property
    def member(self) -> str:
        """Its name in the lists of a registration's jobs: app and id, neither of which is secret."""
        return f"{self.app}:{self.id}"

    @property
    def status_url(self) -> str | None:
        """Where the EHR tells how it stands; None until it was accepted there."""
        return self.listings[0].url if self.listings else None

    @property
    def interaction(self) -> Interaction:
        """What asking for its status or a file is, to the one who decides: the export again."""
        return Interaction(
            kind="operation",
            method="GET",
            path=self.path,
            query="",
            type=self.type,
            needs=self.needs,
            operation=EXPORT,
        )

    @property
    def listed(self) -> int:
        """How many files all its manifests list."""
        return sum(listing.files for listing in self.listings)

    def asked_for(self) -> "Job":
        """The EHR is asked for it; what becomes of that is not known yet."""
        return replace(self, state="starting")

    def accepted(self, status_url: str) -> "Job":
        """The EHR took it on; nothing of what was asked is needed any more."""
        return replace(self, state="running", listings=(Listing(status_url),), parameters="", query="")

    def with_listing(self, number: int, listing: Listing, next_url: str | None) -> "Job":
        """Return it with one manifest as it is now, and another to come if that one links to it."""
        before, after = (*self.listings[:number], listing), self.listings[number + 1 :]
        if next_url is None or next_url in {one.url for one in before}:  # a link back leads nowhere new
            return replace(self, listings=before)
        if not after:
            after = (Listing(next_url),)
        elif after[0].url != next_url:  # signed anew, perhaps: what it lists is known again once it was fetched
            after = (replace(after[0], url=next_url, head=""), *after[1:])
        return replace(self, listings=(*before, *after))

    def dump(self) -> bytes:
        """Return it as it is sealed."""
        return json.dumps(asdict(self), separators=(",", ":")).encode()

    @classmethod
    def load(cls, text: bytes) -> "Job":
        """Read what `dump` wrote."""
        fields: dict[str, Any] = json.loads(text)
        needs = tuple(Need(need["type"], need["letter"]) for need in fields.pop("needs"))
        listings = tuple(Listing(**listing) for listing in fields.pop("listings"))
        failure = fields.pop("failure")
        return cls(**fields, needs=needs, listings=listings, failure=tuple(failure) if failure else None)


def new_job_id(entropy: Callable[[int], bytes]) -> str:
    """Make an id: 128 random bits. It opens nothing; that takes a handle of the same app."""
    return entropy(_ID_BYTES).hex()


def is_job_id(text: str) -> bool:
    """Whether `text` is one of ours."""
    return _ID.fullmatch(text) is not None


def no_such_export(detail: str) -> NotFound:
    """One answer for what never was, has ended, or is another app's (BD-14)."""
    return NotFound(detail, public="There is no export of that name here.")
