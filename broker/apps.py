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
            if ehr in allowance.registration.ehr and allowance.registration.flow == flow:
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
        """Return an EHR that is enabled. Raises `NotFound`."""
        ehr = self._ehrs.get(ehr_id)
        if ehr is None or not ehr.enabled:
            cause = f"EHR {ehr_id} is disabled (BR-05)" if ehr else "unknown EHR"
            raise NotFound(cause, public="There is no EHR of that name here.")
        return ehr

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
        ehr = self._ehrs.get(audience.removeprefix(self.fhir_base("")).removesuffix("/"))
        if ehr is None or not ehr.enabled or audience not in (base := self.fhir_base(ehr.id), base + "/"):
            raise InvalidTarget("the audience is not a FHIR base of this broker")
        return ehr

    def ehr_of_launch(self, registration: RegistrationSettings, iss: str) -> EhrSettings | None:
        """Find the enabled EHR of a registration whose FHIR base an EHR launch names as `iss` (AL-02)."""
        found = (self._ehrs[ehr_id] for ehr_id in registration.ehr)
        return next((ehr for ehr in found if ehr.enabled and iss.removesuffix("/") == ehr.fhir_base), None)

    def callback_uri(self, registration: RegistrationSettings, ehr_id: str) -> str:
        """Return the redirect URI registered at the EHR: fixed, the same byte for byte in both requests (RG-02).

        A registration at several EHRs has one for each: where a code arrives says whose it is (CB-07).
        """
        own = f"/{ehr_id}" if len(registration.ehr) > 1 else ""
        return f"{self.public_url}/callback/{registration.id}{own}"
