"""Send a browser to an EHR to authorize: the part that EHR launch and standalone launch share."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from broker.apps import Allowance, App, Directory
from broker.audit import AuditRecord, AuditTrail
from broker.ehr.authorization import (
    Delivery,
    audience,
    authorization_request,
    authorization_url,
    choose_delivery,
    pushed_url,
)
from broker.ehr.discovery import Discovery
from broker.ehr.dpop import offered_algorithm
from broker.ehr.dynamic_client import REGISTER_SCOPE
from broker.ehr.endpoints import Endpoints
from broker.ehr.scope_words import ScopeWords
from broker.ehr.token_endpoint import TokenEndpoint
from broker.errors import EhrError, EhrMisbehaved
from broker.flows.scope_text import for_audit
from broker.keys.signing import SigningKeys
from broker.launches import AppRequest, Browser, Launch, Launches, Reauthorizes
from broker.scopes import Rendered, Scopes
from broker.secret import Secret
from broker.settings import EhrSettings, RegistrationSettings


@dataclass(frozen=True, slots=True)
class Redirect:
    """Where the browser goes next, with the proof it must bring back and the cookie it can forget."""

    url: str = field(repr=False)
    """Holds a `state` or a code."""
    browser: Browser | None = None
    forget_cookie: str | None = None
    form: Mapping[str, str] | None = field(default=None, repr=False)
    """What it posts there; None goes there by GET."""
    frame_ancestors: tuple[str, ...] = ()
    """Whose pages may hold the browser's window in a frame; with any, the proof is also kept by the tab (AL-22)."""


@dataclass(frozen=True, slots=True)
class EhrLaunch:
    """What an EHR opened the launch URL with. `iss` goes back as `aud`, byte for byte (AL-11)."""

    iss: str
    launch: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class AskEhr:
    """Begins a launch at an EHR."""

    directory: Directory
    discovery: Discovery
    scope_words: ScopeWords
    token_endpoint: TokenEndpoint
    signing_keys: SigningKeys
    launches: Launches
    audit: AuditTrail

    async def __call__(
        self,
        app: App,
        allowance: Allowance,
        ehr: EhrSettings,
        scopes: Scopes,
        *,
        request_id: str,
        launched_by: EhrLaunch | None = None,
        app_request: AppRequest | None = None,
        reauthorizes: Reauthorizes | None = None,
    ) -> Redirect:
        """Store the launch, then return the redirect. Raises `EhrError` when the EHR cannot be asked."""
        registration = allowance.registration
        site = self.directory.site(ehr, registration)
        endpoints = await self.discovery.endpoints(site)
        endpoint = _launch_endpoint(ehr, registration, endpoints)
        scopes = with_identity(scopes)
        said = await self.scope_words.say(scopes, site, endpoints)
        asked = f"{said.text} {REGISTER_SCOPE}" if registration.dynamic_client else said.text
        state, proof = self.launches.secret(), self.launches.secret()
        launch = Launch(
            registration=registration.id,
            ehr=ehr.id,
            app=app.id,
            scope=str(scopes),
            code_verifier=self.launches.secret(),
            nonce=self.launches.secret(),
            browser=self.launches.browser_of(proof),
            app_request=app_request,
            reauthorizes=reauthorizes,
        )
        request = self._request(registration, ehr, launch, state, asked, launched_by)
        url = authorization_url(endpoint, request)
        delivery = choose_delivery(url, endpoints, ehr.profile, launched_by_ehr=launched_by is not None)
        self._record(launch, delivery, said, request_id)
        await self.launches.begin(state, launch)
        if delivery == "pushed":
            url = await self._push(endpoint, endpoints, ehr, registration, request)
        return Redirect(
            endpoint if delivery == "form" else url,
            Browser(self.launches.cookie_of(state), proof),
            form=request if delivery == "form" else None,
            frame_ancestors=registration.frame_ancestors,
        )

    def _request(
        self,
        registration: RegistrationSettings,
        ehr: EhrSettings,
        launch: Launch,
        state: Secret,
        scope: str,
        launched_by: EhrLaunch | None,
    ) -> dict[str, str]:
        base = launched_by.iss if launched_by else ehr.fhir_base
        return authorization_request(
            client_id=registration.client_id,
            redirect_uri=self.directory.callback_uri(registration, ehr.id),
            scope=scope,
            state=state,
            nonce=launch.nonce,
            code_verifier=launch.code_verifier,
            audience=audience(ehr.profile, base),
            resource=base if ehr.profile.resource_parameter else None,
            launch=launched_by.launch if launched_by else None,
        )

    async def _push(
        self,
        endpoint: str,
        endpoints: Endpoints,
        ehr: EhrSettings,
        registration: RegistrationSettings,
        request: Mapping[str, str],
    ) -> str:
        """Push the request and return the short URL that stands for it (RFC 9126)."""
        authenticate = await self.signing_keys.authenticate(registration, ehr, endpoints)
        try:
            request_uri = await self.token_endpoint.push(
                str(endpoints.pushed_authorization_request_endpoint),
                authenticate,
                request=request,
                timeout=ehr.token_timeout,
            )
        except EhrError as error:
            self.discovery.doubt(self.directory.site(ehr, registration), error)
            raise
        return pushed_url(endpoint, registration.client_id, request_uri)

    def _record(self, launch: Launch, delivery: Delivery, said: Rendered, request_id: str) -> None:
        wider = "; said wider in the EHR's dialect: " + " ".join(map(str, said.widened)) if said.widened else ""
        self.audit.record(
            AuditRecord(
                event="launch.ask",
                outcome="allowed",
                app=launch.app,
                ehr=launch.ehr,
                registration=launch.registration,
                scope=for_audit(Scopes.parse(launch.scope)),
                reason=f"the browser goes to the EHR, the request by {delivery}{wider}",
                request_id=request_id,
            )
        )


def _launch_endpoint(ehr: EhrSettings, registration: RegistrationSettings, endpoints: Endpoints) -> str:
    """Return where to send the browser. Raises `EhrMisbehaved` when the EHR cannot be launched, or not safely."""
    if endpoints.authorization_endpoint is None:
        raise EhrMisbehaved(f"EHR {ehr.id} has no authorization_endpoint, so it cannot be launched (DS-04)")
    if registration.shares_callback and not (endpoints.iss_in_callback and endpoints.issuer):
        raise EhrMisbehaved(
            f"EHR {ehr.id} does not announce iss in callbacks, so callback = 'shared' would not tell whose code it is "
            "(CB-07)"
        )
    if registration.dpop:
        offered_algorithm(endpoints)  # before anybody logs in for nothing
    return endpoints.authorization_endpoint


def with_identity(scopes: Scopes) -> Scopes:
    """Return the scopes with `openid` and `fhirUser` asked together, where one of them is (AL-16)."""
    both = frozenset({"openid", "fhirUser"})
    return Scopes(scopes.resources, scopes.others | both) if scopes.others & both else scopes
