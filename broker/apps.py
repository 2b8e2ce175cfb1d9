"""Apps: who they are, what they may ever have. Deny by default: an app reaches only what its policy names."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from broker.errors import InvalidTarget, NotFound, UnauthorizedClient
from broker.scopes import Scopes
from broker.settings import AppSettings, EhrSettings, RegistrationSettings, Settings

Flow = Literal["launch", "backend"]


@dataclass(frozen=True, slots=True)
class Allowance:
    """One registration that an app may use, and the most it may have there."""

    registration: RegistrationSettings
    scopes: Scopes


@dataclass(frozen=True, slots=True)
class App:
    """A client of the broker with its policy resolved."""

    settings: AppSettings
    allowances: tuple[Allowance, ...]

    @property
    def id(self) -> str:
        """The app's `client_id`."""
        return self.settings.id

    def allowance(self, ehr: str, flow: Flow) -> Allowance:
        """Return what the app may have at this EHR. Raises `UnauthorizedClient`."""
        for allowance in self.allowances:
            if allowance.registration.ehr == ehr and allowance.registration.flow == flow:
                return allowance
        raise UnauthorizedClient(f"app {self.id!r} has no {flow} access to EHR {ehr!r}")


class Directory:
    """Finds EHRs, registrations and apps by id. Read-only: it is what `broker.toml` says."""

    def __init__(self, settings: Settings) -> None:
        self.public_url = settings.public_url
        self.tenant = settings.tenant
        self._ehrs = {ehr.id: ehr for ehr in settings.ehr}
        self._registrations = {registration.id: registration for registration in settings.registration}
        self._apps = {app.id: App(app, tuple(self._resolve(app))) for app in settings.app}

    def _resolve(self, app: AppSettings) -> Iterator[Allowance]:
        for access in app.access:
            registration = self._registrations[access.registration]
            limit = Scopes.parse(registration.scopes)
            yield Allowance(registration, Scopes.parse(access.scopes).intersection(limit))

    @property
    def registrations(self) -> Iterable[RegistrationSettings]:
        """All registrations, in the order of the file."""
        return self._registrations.values()

    @property
    def ehrs(self) -> Iterable[EhrSettings]:
        """All EHRs, in the order of the file."""
        return self._ehrs.values()

    def app(self, client_id: str) -> App | None:
        """Return the app of that `client_id`, if there is one."""
        return self._apps.get(client_id)

    def ehr(self, ehr_id: str) -> EhrSettings:
        """Raises `NotFound`."""
        try:
            return self._ehrs[ehr_id]
        except KeyError:
            raise NotFound("unknown EHR", public="There is no EHR of that name here.") from None

    def registration(self, registration_id: str) -> RegistrationSettings:
        """Raises `NotFound`."""
        try:
            return self._registrations[registration_id]
        except KeyError:
            raise NotFound("unknown registration", public="There is no registration of that name here.") from None

    def fhir_base(self, ehr_id: str) -> str:
        """Return the broker's own FHIR base URL for an EHR: what an app calls and sends as `aud`."""
        return f"{self.public_url}/fhir/{ehr_id}"

    def ehr_by_audience(self, audience: str) -> EhrSettings:
        """Find the EHR whose broker FHIR base this is, with or without a trailing slash. Raises `InvalidTarget`."""
        for ehr in self._ehrs.values():
            if audience in (base := self.fhir_base(ehr.id), base + "/"):
                return ehr
        raise InvalidTarget("the audience is not a FHIR base of this broker")
