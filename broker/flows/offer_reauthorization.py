"""`broker grants reauthorize`: make the link by which a person authorizes an existing grant again."""

from dataclasses import dataclass

from broker.apps import Directory
from broker.audit import Outcome
from broker.clock import Clock
from broker.errors import Refusal
from broker.flows.reauthorizable import ask_again
from broker.grants import Grant, Grants
from broker.reauthorizations import Reauthorizations
from broker.refresh.trail import RefreshTrail
from broker.secret import Secret


@dataclass(frozen=True, slots=True)
class Offered:
    """A link, to be given to the person that the grant is about."""

    url: Secret
    expires_at: float
    """Seconds since 1970."""


@dataclass(frozen=True, slots=True)
class OfferReauthorization:
    """Makes links for grants that a person could authorize again."""

    directory: Directory
    grants: Grants
    reauthorizations: Reauthorizations
    trail: RefreshTrail
    clock: Clock

    async def __call__(self, tag: str, *, lifetime: int) -> Offered:
        """Return a link that lives so many seconds.

        Raises `NotFound`, and `Refusal` for a grant that no new authorization could be the same as.
        """
        grant = await self.grants.read(tag)
        try:
            ask_again(grant, self.directory)
        except Refusal as error:
            self._record(grant, "denied", error.detail)
            raise
        self._record(grant, "allowed", f"a link is made that lives {lifetime} s")
        text = await self.reauthorizations.make(grant, lifetime)
        url = Secret(f"{self.directory.public_url}/reauthorize/{text.reveal()}")
        return Offered(url, self.clock() + lifetime)

    def _record(self, grant: Grant, outcome: Outcome, reason: str) -> None:
        self.trail.record(grant, outcome, reason, event="grant.reauthorize")
