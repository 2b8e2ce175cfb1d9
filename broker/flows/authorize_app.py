"""An app asks at `/oauth/authorize` (RFC 6749 §4.1.1, SMART App Launch step 4).

(1) client and redirect URI must be right before anything is redirected: no open redirector (AL-20)
(2) then `response_type`, `response_mode`, `state`, `nonce`, PKCE S256, `aud`, `authorization_details`, scope;
    from here on errors go to the app's redirect URI
(3) with a `launch` of ours, the grant exists: the app gets its code at once
    without, the browser goes to the EHR first (standalone launch)
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from broker.apps import Allowance, App, Directory
from broker.audit import AuditRecord, AuditTrail, Outcome
from broker.codes import Codes
from broker.errors import (
    BrokerError,
    EhrError,
    InvalidRequest,
    InvalidScope,
    InvalidTarget,
    Refusal,
    UnauthorizedClient,
    UnsupportedResponseType,
)
from broker.flows.answer_app import AnswerApp
from broker.flows.ask_ehr import AskEhr, Redirect
from broker.flows.authorization_details import read_details
from broker.flows.presented import AskTab, Presented
from broker.flows.scope_text import for_audit, read_requested
from broker.grants import Grants
from broker.launches import AppRequest, Launches
from broker.scopes import Scopes

_CHALLENGE: Final = re.compile(r"[A-Za-z0-9\-_]{43}")
_THUMBPRINT: Final = _CHALLENGE
"""Both are a SHA-256 in base64url."""
_LONGEST_STATE: Final = 4096
_LONGEST_NONCE: Final = 1024


@dataclass(frozen=True, slots=True)
class AuthorizeApp:
    """Decides where the browser goes next."""

    directory: Directory
    launches: Launches
    codes: Codes
    grants: Grants
    ask_ehr: AskEhr
    answer_app: AnswerApp
    audit: AuditTrail

    async def __call__(
        self, parameters: Mapping[str, str], presented: Presented, *, request_id: str
    ) -> Redirect | AskTab:
        """Return the redirect, or what the browser's tab has to be asked first (AL-22).

        Raises `Refusal` when app or redirect URI are unknown: then nothing is redirected.
        """
        app = redirect_uri = None
        try:
            app = self._client(parameters)
            redirect_uri = self._redirect_uri(app, parameters)
            return await self._authorize(app, redirect_uri, parameters, presented, request_id)
        except (Refusal, EhrError) as error:
            self._record(app, None, "denied" if isinstance(error, Refusal) else "failed", error, request_id)
            if redirect_uri is None:
                raise
            answer_to = AppRequest(redirect_uri, parameters.get("state", ""), code_challenge="", scope="")
            return Redirect(self.answer_app.with_error(answer_to, error))

    def _client(self, parameters: Mapping[str, str]) -> App:
        app = self.directory.app(parameters.get("client_id", ""))
        if app is None:
            raise UnauthorizedClient("unknown client_id", public="client_id is missing or unknown.")
        return app

    def _redirect_uri(self, app: App, parameters: Mapping[str, str]) -> str:
        redirect_uri = parameters.get("redirect_uri", "")
        if redirect_uri not in app.settings.redirect_uris:
            raise InvalidRequest(
                f"redirect_uri is not registered for app {app.id}",
                public="redirect_uri must be exactly one of the registered ones.",
            )
        return redirect_uri

    async def _authorize(
        self, app: App, redirect_uri: str, parameters: Mapping[str, str], presented: Presented, request_id: str
    ) -> Redirect | AskTab:
        challenge = _check_protocol(parameters)
        ehr = self.directory.ehr_by_audience(parameters.get("aud", ""))
        allowance = app.allowance(ehr.id, "launch")
        scopes = allowed_scopes(asked_scopes(parameters, self.directory.fhir_base(ehr.id)), allowance)
        request = AppRequest(
            redirect_uri,
            parameters["state"],
            challenge,
            str(scopes),
            nonce=parameters.get("nonce"),
            detailed="authorization_details" in parameters,
            dpop_jkt=parameters.get("dpop_jkt"),
        )
        self._record(app, ehr.id, "allowed", None, request_id, scope=for_audit(scopes))
        if "launch" in parameters:
            cookie, framed_by = self.launches.cookie_of(parameters["launch"]), allowance.registration.frame_ancestors
            if presented.may_lie_in_tab(cookie, framed_by):
                return AskTab(cookie, parameters, framed_by)
            return await self._launched(app, ehr.id, parameters["launch"], presented.proof(cookie) or "", request)
        return await self.ask_ehr(
            app, allowance, ehr, ehr_scopes(scopes, allowance), request_id=request_id, app_request=request
        )

    async def _launched(self, app: App, ehr: str, value: str, proof: str, request: AppRequest) -> Redirect:
        launch = await self.codes.take_launch(value)
        cookie = self.launches.cookie_of(value)
        if launch.app != app.id:
            raise InvalidRequest("launch was given to another app", public="launch is not for this client.")
        if launch.ehr != ehr:
            raise InvalidTarget("aud is not the FHIR base of this launch")
        if launch.browser != self.launches.browser_of(proof):
            raise InvalidRequest(
                "the browser is not the one that was launched (CB-02)",
                public="This browser was not launched, or its cookie is gone. Launch again from the EHR.",
            )
        grant = await self.grants.read(launch.tag)
        return Redirect(await self.answer_app.with_code(request, app.id, grant), forget_cookie=cookie)

    def _record(
        self,
        app: App | None,
        ehr: str | None,
        outcome: Outcome,
        error: BrokerError | None,
        request_id: str,
        scope: str | None = None,
    ) -> None:
        self.audit.record(
            AuditRecord(
                event="app.authorize",
                outcome=outcome,
                app=app.id if app else None,
                ehr=ehr,
                scope=scope,
                reason=error.detail if error else None,
                request_id=request_id,
            )
        )


def _check_protocol(parameters: Mapping[str, str]) -> str:
    """Return the code challenge. Raises `UnsupportedResponseType` or `InvalidRequest`."""
    if parameters.get("response_type") != "code":
        raise UnsupportedResponseType("response_type is not code")
    if parameters.get("response_mode", "query") != "query":
        raise InvalidRequest("a response_mode that is not offered", public="Only response_mode=query is supported.")
    if len(parameters.get("nonce", "")) > _LONGEST_NONCE:
        raise InvalidRequest("nonce is too long", public="nonce is too long.")
    if "dpop_jkt" in parameters and not _THUMBPRINT.fullmatch(parameters["dpop_jkt"]):
        raise InvalidRequest("dpop_jkt is no SHA-256", public="dpop_jkt must be a JWK SHA-256 thumbprint (RFC 9449).")
    if not 0 < len(parameters.get("state", "")) <= _LONGEST_STATE:
        raise InvalidRequest("state is missing or too long", public="state is required (SMART App Launch).")
    challenge = parameters.get("code_challenge", "")
    if parameters.get("code_challenge_method") != "S256" or not _CHALLENGE.fullmatch(challenge):
        raise InvalidRequest(
            "PKCE is missing or not S256", public="code_challenge with code_challenge_method=S256 is required."
        )
    return challenge


def asked_scopes(parameters: Mapping[str, str], fhir_base: str) -> Scopes:
    """Return what `scope` and `authorization_details` ask together (RFC 9396 §3).

    Raises `InvalidScope`, `InvalidAuthorizationDetails`.
    """
    detailed = read_details(parameters.get("authorization_details"), fhir_base)
    return read_requested(parameters.get("scope", "")).union(detailed)


def allowed_scopes(asked: Scopes, allowance: Allowance) -> Scopes:
    """Return what the app may have of what it asks. Raises `InvalidScope` when that leaves no resource scope."""
    allowed = asked.intersection(allowance.scopes)
    if not allowed.resources:
        raise InvalidScope("nothing of the requested scope is in the app's policy")
    return allowed


def ehr_scopes(scopes: Scopes, allowance: Allowance) -> Scopes:
    """Return what to ask of the EHR in a standalone launch.

    That is the app's resource and context scopes, these with their role hints (AL-19), and the registration's others.
    """
    registered = Scopes.parse(allowance.registration.scopes).others
    contexts = {word for word in registered if word == "launch" or word.startswith("launch/")}
    return Scopes(scopes.resources, (registered - contexts) | (scopes.others & contexts - {"launch"}))
