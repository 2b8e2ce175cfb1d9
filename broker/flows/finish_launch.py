"""Launch, second half: the EHR sent the browser back to `/callback/{registration}` with a code.

Checks, in order; each refusal uses the launch up (CB-01):
(1) `state` is one of ours, unused, and for this registration (CB-07)
(2) the browser is the one that began the launch (CB-02)
(3) `iss`, where the EHR announces it (CB-08); an error answer ends here
(4) the code buys tokens; the id_token verifies (ID-01)
(5) something was granted
"""

from collections.abc import Mapping
from dataclasses import dataclass

from broker.apps import App, Directory
from broker.audit import AuditRecord, AuditTrail, Outcome
from broker.codes import AppLaunch, Codes
from broker.ehr.authorization import parse_callback
from broker.ehr.discovery import Discovery
from broker.ehr.dpop import grant_key
from broker.ehr.token_endpoint import TokenEndpoint
from broker.errors import AccessDenied, EhrError, InvalidRequest, Refusal, StoreUnavailable
from broker.flows.answer_app import AnswerApp, with_query
from broker.flows.ask_ehr import Redirect
from broker.flows.make_grant import MakeGrant
from broker.flows.presented import AskTab, Presented
from broker.flows.scope_text import for_audit
from broker.grants import Grant
from broker.keys.signing import SigningKeys
from broker.launches import Browser, Launch, Launches
from broker.refresh.ehr_side import Door
from broker.refresh.gate import Gate
from broker.scopes import Scopes


@dataclass(frozen=True, slots=True)
class Reauthorized:
    """An existing grant was authorized again: there is nowhere to go on to, so the person is told."""

    forget_cookie: str


@dataclass(frozen=True, slots=True)
class FinishLaunch:
    """Turns the EHR's code into a grant, and sends the browser on to the app."""

    directory: Directory
    discovery: Discovery
    token_endpoint: TokenEndpoint
    gate: Gate
    signing_keys: SigningKeys
    launches: Launches
    make_grant: MakeGrant
    codes: Codes
    answer_app: AnswerApp
    audit: AuditTrail

    async def __call__(
        self,
        registration_id: str,
        ehr_id: str | None,
        parameters: Mapping[str, str],
        presented: Presented,
        *,
        request_id: str,
    ) -> Redirect | Reauthorized | AskTab:
        """Return the redirect to the app, or what its tab has to be asked before anything is used up (AL-22).

        Or that it is done, where an existing grant was authorized again and no app waits. `ehr_id` is what the
        callback's path names besides the registration. Raises a `BrokerError` when there is no app that could be told.
        """
        state = parameters.get("state", "")
        cookie = self.launches.cookie_of(state)
        frame_ancestors = self.directory.frame_ancestors(registration_id)
        if presented.may_lie_in_tab(cookie, frame_ancestors):
            return AskTab(cookie, parameters, frame_ancestors)
        launch = await self._take(registration_id, ehr_id, state, presented.proof(cookie), request_id)
        self._record(launch, "allowed", "state and browser are right; the code is exchanged", request_id)
        try:
            grant = await self._authorize(launch, parameters)
        except (AccessDenied, EhrError, InvalidRequest, StoreUnavailable) as error:
            self._record(launch, "denied" if isinstance(error, Refusal) else "failed", error.detail, request_id)
            if launch.app_request is None:
                raise
            url, browser = self.answer_app.with_error(launch.app_request, error), None
            return Redirect(url, browser, cookie, frame_ancestors=frame_ancestors)
        again = launch.reauthorizes is not None
        self._record(launch, "allowed", "grant authorized again" if again else "grant created", request_id, grant)
        if again:
            return Reauthorized(cookie)
        url, browser = await self._hand_over(launch, grant)
        return Redirect(url, browser, cookie, frame_ancestors=frame_ancestors)

    async def _take(
        self, registration_id: str, ehr_id: str | None, state: str, proof: str | None, request_id: str
    ) -> Launch:
        registration = None
        try:
            registration = self.directory.registration(registration_id)
            launch = await self.launches.take(state)
            here = launch.ehr if registration.has_own_callbacks else None
            if launch.registration != registration.id or ehr_id != here:
                raise InvalidRequest("state belongs to another registration or EHR (CB-07)")
            if proof is None or self.launches.browser_of(proof) != launch.browser:
                raise InvalidRequest(
                    "the browser is not the one that began the launch (CB-02)",
                    public="This browser did not begin the launch, or its cookie is gone. Start again.",
                )
        except Refusal as error:
            self.audit.record(
                AuditRecord(
                    event="launch.finish",
                    outcome="denied",
                    registration=registration.id if registration else None,
                    reason=error.detail,
                    request_id=request_id,
                )
            )
            raise
        return launch

    async def _authorize(self, launch: Launch, parameters: Mapping[str, str]) -> Grant:
        ehr = self.directory.ehr(launch.ehr)
        registration = self.directory.registration(launch.registration)
        site = self.directory.site(ehr, registration)
        endpoints = await self.discovery.endpoints(site)
        iss_required = endpoints.iss_in_callback or registration.shares_callback
        code = parse_callback(parameters, issuer=endpoints.issuer, iss_required=iss_required)
        proof_key = grant_key(endpoints) if registration.dpop else None
        try:
            authenticate = await self.signing_keys.authenticate(registration, ehr, endpoints)
            takes = Door(ehr, endpoints, authenticate).longest(proves=proof_key is not None)
            async with self.gate.passage(ehr, "launch", takes=takes):
                answer = await self.token_endpoint.exchange_code(
                    endpoints.token_endpoint,
                    authenticate,
                    code=code,
                    redirect_uri=self.directory.callback_uri(registration, ehr.id),
                    code_verifier=launch.code_verifier,
                    timeout=ehr.token_timeout,
                    proof_key=proof_key,
                )
        except EhrError as error:
            self.discovery.doubt(site, error)
            raise
        return await self.make_grant(launch, answer, endpoints, proof_key)

    async def _hand_over(self, launch: Launch, grant: Grant) -> tuple[str, Browser | None]:
        """Answer the app that asked; or, in an EHR launch, launch the app with a `launch` value of our own."""
        if launch.app_request is not None:
            return await self.answer_app.with_code(launch.app_request, launch.app, grant), None
        cookie = self.launches.secret()
        value = await self.codes.issue_launch(
            AppLaunch(tag=grant.tag, app=launch.app, ehr=launch.ehr, browser=self.launches.browser_of(cookie))
        )
        app = self._app(launch.app)
        parameters = {"iss": self.directory.fhir_base(launch.ehr), "launch": value.reveal()}
        return with_query(str(app.settings.launch_uri), parameters), Browser(self.launches.cookie_of(value), cookie)

    def _app(self, app_id: str) -> App:
        app = self.directory.app(app_id)
        if app is None:
            raise InvalidRequest(f"app {app_id!r} is no longer configured")
        return app

    def _record(
        self, launch: Launch, outcome: Outcome, reason: str, request_id: str, grant: Grant | None = None
    ) -> None:
        self.audit.record(
            AuditRecord(
                event="launch.finish",
                outcome=outcome,
                app=launch.app,
                ehr=launch.ehr,
                registration=launch.registration,
                grant=grant.tag if grant else None,
                scope=for_audit(Scopes(grant.terms.scopes.resources, frozenset())) if grant else None,
                reason=reason,
                request_id=request_id,
            )
        )
