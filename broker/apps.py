"""Apps: who they are, what they may ever have. Deny by default: an app reaches only what its policy names."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from broker.ehr.relative import RelativeUrls
from broker.ehr.site import Site
from broker.ehr.url_map import UrlMap
from broker.errors import InvalidTarget, NotFound, UnauthorizedClient
from broker.limits import Limits, meet
from broker.origins import origin
from broker.scopes import Scopes
from broker.settings import AppSettings, EhrSettings, RegistrationSettings, Settings

Flow = Literal["launch", "backend"]


@dataclass(frozen=True, slots=True)
class Allowance:
    """One registration that an app may use, and the most it may have there."""

    registration: RegistrationSettings
    scopes: Scopes
    operations: frozenset[str] = frozenset()
    """The operations whose reach the broker does not know, and that the app may ask for all the same."""
    limits: Limits | None = None
    """What every handle of the app is held to there."""
    registered: Scopes = field(default_factory=Scopes)
    """What the registration may have at all."""


@dataclass(frozen=True, slots=True)
class App:
    """A client of the broker with its policy resolved."""

    settings: AppSettings
    allowances: tuple[Allowance, ...]
    _by_place: dict[tuple[str, Flow], Allowance] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # A registration may be at thousands of EHRs, and each FHIR request asks for one of them.
        by_place = {(ehr, one.registration.flow): one for one in self.allowances for ehr in one.registration.ehr}
        object.__setattr__(self, "_by_place", by_place)

    @property
    def id(self) -> str:
        """The app's `client_id`."""
        return self.settings.id

    def allowance(self, ehr: str, flow: Flow) -> Allowance:
        """Return what the app may have at this EHR. Raises `UnauthorizedClient`."""
        try:
            return self._by_place[ehr, flow]
        except KeyError:
            raise UnauthorizedClient(f"app {self.id!r} has no {flow} access to EHR {ehr!r}") from None


class Directory:
    """Finds EHRs, registrations and apps by id. Read-only: it is what `broker.toml` says."""

    def __init__(self, settings: Settings) -> None:
        self.public_url = settings.public_url
        self.tenant = settings.tenant
        self._ehrs = {ehr.id: ehr for ehr in settings.ehr}
        self._registrations = {registration.id: registration for registration in settings.registration}
        self._at_ehr = _by_ehr(settings.registration)
        self._urls: dict[tuple[str, str], UrlMap] = {}
        self._relative_urls: dict[str, RelativeUrls] = {}
        self._apps = {app.id: App(app, tuple(self._resolve(app))) for app in settings.app}

    def _resolve(self, app: AppSettings) -> Iterator[Allowance]:
        for access in app.access:
            registration = self._registrations[access.registration]
            limit = Scopes.parse(registration.scopes)
            scopes = Scopes.parse(access.scopes).intersection(limit)
            limits = meet(table.value for table in (app.limits, access.limits) if table is not None)
            yield Allowance(registration, scopes, frozenset(access.operations), limits, limit)

    @property
    def registrations(self) -> Iterable[RegistrationSettings]:
        """All registrations, in the order of the file."""
        return self._registrations.values()

    @property
    def apps(self) -> Iterable[App]:
        """All apps, in the order of the file."""
        return self._apps.values()

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

    def site(self, ehr: EhrSettings, registration: RegistrationSettings | None) -> Site:
        """Return what discovery needs to know of an EHR, as one of its registrations or as nobody."""
        return Site(
            ehr=ehr.id,
            fhir_base=ehr.fhir_base,
            profile=ehr.profile,
            client_id=registration.client_id if registration and ehr.profile.client_id_header else None,
            token_endpoint=ehr.token_endpoint,
            authorization_endpoint=ehr.authorization_endpoint,
            relies_on_issuer=registration is not None and _relies_on_issuer(registration, ehr),
        )

    def granted_site(self, ehr_id: str, registration_id: str, fhir_base: str) -> Site:
        """Return the site that a grant is of: its own FHIR base, which may be older than the settings.

        What those say of endpoints is then not for it. Raises `NotFound`.
        """
        ehr = self.ehr(ehr_id)
        site = self.site(ehr, self.registration(registration_id))
        if fhir_base == ehr.fhir_base:
            return site
        return replace(site, fhir_base=fhir_base, token_endpoint=None, authorization_endpoint=None)

    def sites(self, ehr: EhrSettings) -> list[Site]:
        """Return the sites of an EHR: one, or where it answers each client differently one per client (EP-08)."""
        here = [self.site(ehr, registration) for registration in self._at_ehr.get(ehr.id, ())]
        return list({site.key: site for site in here}.values()) or [self.site(ehr, None)]

    def frame_ancestors(self, registration_id: str) -> tuple[str, ...]:
        """Return whose pages may hold a registration's launches in a frame; nobody's where there is no such one."""
        registration = self._registrations.get(registration_id)
        return registration.frame_ancestors if registration else ()

    def registration(self, registration_id: str) -> RegistrationSettings:
        """Raises `NotFound`."""
        try:
            return self._registrations[registration_id]
        except KeyError:
            raise NotFound("unknown registration", public="There is no registration of that name here.") from None

    def fhir_base(self, ehr_id: str) -> str:
        """Return the broker's own FHIR base URL for an EHR: what an app calls and sends as `aud`."""
        return f"{self.public_url}/fhir/{ehr_id}"

    def urls(self, ehr_id: str, fhir_base: str) -> UrlMap:
        """Return which URLs are an EHR's; `fhir_base` is that of a grant, which may be older than the settings.

        It is made at its first use, since of thousands of EHRs few are used. Raises `NotFound`.
        """
        key = (ehr_id, fhir_base)
        if key not in self._urls:
            ehr = self.ehr(ehr_id)
            self._urls[key] = UrlMap(
                self.fhir_base(ehr_id), fhir_base, ehr.aliases, attachments=ehr.rewrite_attachments
            )
        return self._urls[key]

    def token_origins(self, ehr_id: str, fhir_base: str) -> Collection[str]:
        """Return where a grant's token may go: to its FHIR base's origin, and to those approved for files (PX-03).

        Raises `NotFound`.
        """
        return {origin(fhir_base), *map(origin, self.ehr(ehr_id).bulk_file_hosts)}

    def relative_urls(self, ehr_id: str) -> RelativeUrls:
        """Return what makes the broker's URLs relative to an EHR; made like the above. Raises `NotFound`."""
        if ehr_id not in self._relative_urls:
            self._relative_urls[ehr_id] = RelativeUrls(self.fhir_base(ehr_id), self.ehr(ehr_id).fhir_base)
        return self._relative_urls[ehr_id]

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

        A registration at several EHRs has one for each: where a code arrives says whose it is (CB-07). Where the vendor
        allows only one, `callback = "shared"` has the EHR's `iss` say so.
        """
        own = f"/{ehr_id}" if registration.has_own_callbacks else ""
        return f"{self.public_url}/callback/{registration.id}{own}"


def _by_ehr(registrations: Iterable[RegistrationSettings]) -> Mapping[str, list[RegistrationSettings]]:
    found: defaultdict[str, list[RegistrationSettings]] = defaultdict(list)
    for registration in registrations:
        for ehr in registration.ehr:
            found[ehr].append(registration)
    return found


def _relies_on_issuer(registration: RegistrationSettings, ehr: EhrSettings) -> bool:
    """Whether one of several EHRs could get what is another's by claiming its issuer (CB-07, Q3)."""
    signed = registration.authentication == "private_key_jwt" and ehr.profile.assertion_audience == "issuer"
    return len(registration.ehr) > 1 and (registration.shares_callback or signed)
