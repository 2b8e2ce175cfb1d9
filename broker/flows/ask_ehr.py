"""Send a browser to an EHR to authorize: the part that EHR launch and standalone launch share."""

from dataclasses import dataclass, field

from broker.apps import Allowance, App, Directory
from broker.ehr.authorization import authorization_url
from broker.ehr.discovery import Discovery
from broker.errors import EhrMisbehaved
from broker.launches import AppRequest, Browser, Launch, Launches
from broker.scopes import Scopes
from broker.settings import EhrSettings


@dataclass(frozen=True, slots=True)
class Redirect:
    """Where the browser goes next, with the cookie it must bring back and the one it can forget."""

    url: str = field(repr=False)
    """Holds a `state` or a code."""
    browser: Browser | None = None
    forget_cookie: str | None = None


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
    launches: Launches

    async def __call__(
        self,
        app: App,
        allowance: Allowance,
        ehr: EhrSettings,
        scopes: Scopes,
        *,
        launched_by: EhrLaunch | None = None,
        app_request: AppRequest | None = None,
    ) -> Redirect:
        """Store the launch, then return the redirect. Raises `EhrError` when the EHR cannot be discovered."""
        registration = allowance.registration
        endpoint = (await self.discovery.endpoints(ehr.fhir_base)).authorization_endpoint
        if endpoint is None:
            raise EhrMisbehaved(f"EHR {ehr.id} has no authorization_endpoint, so it cannot be launched (DS-04)")
        state, cookie = self.launches.secret(), self.launches.secret()
        launch = Launch(
            registration=registration.id,
            ehr=ehr.id,
            app=app.id,
            scope=str(scopes),
            code_verifier=self.launches.secret(),
            nonce=self.launches.secret(),
            browser=self.launches.browser_of(cookie),
            app_request=app_request,
        )
        await self.launches.begin(state, launch)
        url = authorization_url(
            endpoint,
            client_id=registration.client_id,
            redirect_uri=self.directory.callback_uri(registration, ehr.id),
            scope=launch.scope,
            state=state,
            nonce=launch.nonce,
            code_verifier=launch.code_verifier,
            audience=launched_by.iss if launched_by else ehr.fhir_base,
            launch=launched_by.launch if launched_by else None,
        )
        return Redirect(url, Browser(self.launches.cookie_of(state), cookie))
