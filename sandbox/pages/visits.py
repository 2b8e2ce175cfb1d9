"""Users on their way through the authorization pages."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from sandbox.marks import Entropy
from sandbox.oauth.authorize import AuthorizationRequest
from sandbox.oauth.errors import invalid_request
from sandbox.oauth.parameters import Parameters, required
from sandbox.oauth.scopes import needs_patient
from sandbox.oauth.users import User

LIFETIME = 600
"""Seconds a user has for all the pages together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """One user half-way: what was asked, and what has been settled so far."""

    id: str
    request: AuthorizationRequest
    expires_at: float
    user: User | None = None
    patient: str | None = None
    encounter: str | None = None

    @property
    def lacks_patient(self) -> bool:
        """Whether a patient is still to be chosen."""
        return self.patient is None and needs_patient(self.request.scopes)


@dataclass(slots=True)
class Visits:
    """The visits under way, by an id that only their browser has seen."""

    clock: Callable[[], float]
    entropy: Entropy
    _open: dict[str, Visit] = field(default_factory=dict)

    def begin(self, request: AuthorizationRequest) -> Visit:
        """Return a new visit; an EHR launch has settled who and about whom."""
        visit = Visit(id=self.entropy(24).hex(), request=request, expires_at=self.clock() + LIFETIME)
        if launch := request.launch:
            return replace(visit, user=launch.user, patient=launch.patient, encounter=launch.encounter)
        return visit

    def keep(self, visit: Visit) -> None:
        """Remember a visit, and forget those that took too long."""
        now = self.clock()
        self._open = {key: kept for key, kept in self._open.items() if kept.expires_at > now} | {visit.id: visit}

    def find(self, parameters: Parameters) -> Visit:
        """Return the visit a form belongs to; raises `OAuthError` when it is over."""
        visit = self._open.get(required(parameters, "visit"))
        if visit is None or visit.expires_at <= self.clock():
            raise invalid_request("this sign-in is over; start again from the app")
        return visit

    def end(self, visit: Visit) -> None:
        """Forget a visit."""
        self._open.pop(visit.id, None)
