"""`grant_type=client_credentials`: an app without a user gets a handle on a backend-services grant (spec §10)."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from broker.apps import Allowance, App, Directory
from broker.audit import AuditRecord, AuditTrail
from broker.clock import Clock, Entropy
from broker.credentials import new_tag
from broker.ehr.discovery import Discovery
from broker.ehr.dpop import grant_key, require_bound
from broker.ehr.scope_words import ScopeWords
from broker.ehr.token_answer import TokenAnswer
from broker.ehr.token_endpoint import TokenEndpoint
from broker.errors import (
    EhrError,
    EhrMisbehaved,
    EhrRefused,
    EhrUnreachable,
    InvalidRequest,
    InvalidScope,
    UnauthorizedClient,
)
from broker.flows.issue_handle import IssueHandle
from broker.flows.mint_trail import MintTrail
from broker.flows.scope_text import for_audit, read_requested
from broker.grants import Grant, Grants, Terms
from broker.grants.backend_grants import ASKED_SECONDS, MOST_ASKED, BackendGrants, Purpose
from broker.handles import UNBOUND, Confirmation
from broker.keys.signing import SigningKeys
from broker.refresh.ehr_side import Door
from broker.refresh.gate import Gate
from broker.refresh.outcome import granted_scopes, share_of_life, token_set
from broker.refresh.renewal import REFUSED_SECONDS
from broker.refresh.schedule import Schedule
from broker.scopes import Scopes
from broker.secret import Secret
from broker.settings import EhrSettings, RegistrationSettings
from broker.single_flight import SingleFlight

_FAMILY_BYTES = 12


@dataclass(frozen=True, slots=True)
class BackendHandle:
    """Finds the backend grant for the registration and scope set, or asks the EHR for one."""

    directory: Directory
    discovery: Discovery
    scope_words: ScopeWords
    token_endpoint: TokenEndpoint
    gate: Gate
    signing_keys: SigningKeys
    grants: Grants
    backend_grants: BackendGrants
    schedule: Schedule
    issue_handle: IssueHandle
    audit: AuditTrail
    clock: Clock
    entropy: Entropy
    refused: dict[tuple[str, str], float] = field(default_factory=dict)
    """Until when, in seconds, an EHR is left alone that does not know a registration (EP-03)."""
    flights: SingleFlight[Grant] = field(default_factory=SingleFlight)

    async def __call__(
        self, app: App, form: Mapping[str, str], trail: MintTrail, *, proven: Confirmation = UNBOUND
    ) -> dict[str, Any]:
        """Return the token response. Raises `InvalidScope`, `UnauthorizedClient`, `InvalidTarget`, `EhrError`."""
        if app.settings.authentication == "none":
            raise UnauthorizedClient(f"app {app.id} is public")
        if not form.get("resource"):
            raise InvalidRequest(
                "resource is missing", public="resource is required: the FHIR base URL of this broker (RFC 8707)."
            )
        ehr = self.directory.ehr_by_audience(form["resource"])
        allowance = app.allowance(ehr.id, "backend")
        scopes = _within_policy(form.get("scope", ""), allowance)
        grant = await self._grant(app, ehr, allowance, _whole_types(scopes, allowance))
        family = self.entropy(_FAMILY_BYTES).hex()
        return await self.issue_handle(app, grant, scopes, family=family, trail=trail, proven=proven)

    async def _grant(self, app: App, ehr: EhrSettings, allowance: Allowance, scopes: Scopes) -> Grant:
        purpose = Purpose(allowance.registration.id, ehr.fhir_base, scopes)
        if (known := await self.backend_grants.find(purpose)) is not None:
            return known
        make = partial(self._ask, app, ehr, allowance.registration, scopes)
        return await self.flights.run(str(purpose), lambda: self.backend_grants.once(purpose, make))

    async def _require_measure(self, app: str) -> None:
        """Raise `InvalidRequest` when an app has asked for too many new grants of late."""
        if not await self.backend_grants.may_ask(app):
            raise InvalidRequest(
                f"app {app} has asked for {MOST_ASKED} new backend grants within {ASKED_SECONDS:g} s",
                public="Too many different scopes were asked for. Use those of earlier requests, or try again later.",
            )

    def _require_patience(self, ehr: str, registration: str) -> None:
        """Raise `EhrUnreachable` when the EHR said a moment ago that it does not know the registration (EP-03)."""
        pause = self.refused.get((ehr, registration), 0.0) - self.clock()
        if pause > 0:
            raise EhrUnreachable(f"registration {registration} was answered invalid_client (EP-03)", retry_after=pause)

    async def _ask(self, app: App, ehr: EhrSettings, registration: RegistrationSettings, scopes: Scopes) -> Grant:
        self._require_patience(ehr.id, registration.id)
        self.gate.require_open(ehr.id, "interactive")
        await self._require_measure(app.id)
        self.audit.record(
            AuditRecord(
                event="grant.create",
                outcome="allowed",
                ehr=ehr.id,
                registration=registration.id,
                scope=for_audit(scopes),
                reason="client_credentials",
            )
        )
        answer, proof_key = await self._request(ehr, registration, scopes)
        granted = granted_scopes(answer, scopes, missing=ehr.profile.missing_scope).intersection(scopes)
        if not granted.resources:
            raise EhrMisbehaved(f"EHR {ehr.id} granted no resource scope to registration {registration.id}")
        terms = Terms(
            ehr=ehr.id,
            fhir_base=ehr.fhir_base,
            registration=registration.id,
            flow="backend",
            app=None,
            scopes=granted,
            scope_assumed=answer.scope is None,
        )
        now, share, default = self.clock(), share_of_life(self.entropy), float(ehr.profile.default_lifetime)
        tokens = token_set(answer, now=now, share=share, default_lifetime=default, proof_key=proof_key)
        grant = await self.grants.create(new_tag(self.entropy), terms, tokens)
        await self.schedule.watch(grant)
        return grant

    async def _request(
        self, ehr: EhrSettings, registration: RegistrationSettings, scopes: Scopes
    ) -> tuple[TokenAnswer, Secret | None]:
        """Return the EHR's answer, and the key that its token is bound to, if it is."""
        site = self.directory.site(ehr, registration)
        try:
            endpoints = await self.discovery.endpoints(site)
            proof_key = grant_key(endpoints) if registration.dpop else None
            authenticate = await self.signing_keys.authenticate(registration, ehr, endpoints)
            scope = (await self.scope_words.say(scopes, site, endpoints)).text
            takes = Door(ehr, endpoints, authenticate).longest(proves=proof_key is not None)
            async with self.gate.passage(ehr, "interactive", takes=takes):
                answer = await self.token_endpoint.client_credentials(
                    endpoints.token_endpoint,
                    authenticate,
                    scope=scope,
                    timeout=ehr.token_timeout,
                    proof_key=proof_key,
                )
            require_bound(answer, proof_key)
        except EhrError as error:
            self.discovery.doubt(site, error)
            if isinstance(error, EhrRefused) and error.error == "invalid_client":
                self.refused[ehr.id, registration.id] = self.clock() + REFUSED_SECONDS
            raise
        return answer, proof_key


def _within_policy(text: str, allowance: Allowance) -> Scopes:
    asked = read_requested(text)
    if not asked.resources or asked.others:
        raise InvalidScope("backend services take resource scopes only", public="scope must name system/ scopes.")
    if not asked.narrows(allowance.scopes):
        raise InvalidScope("the scope is more than the app's policy allows")
    return asked


def _whole_types(scopes: Scopes, allowance: Allowance) -> Scopes:
    """Return what the EHR is asked for: without search parameters, as far as the registration has that.

    The handle keeps them, and each request is held to them. At the EHR each that an app thinks of would be one grant
    more.
    """
    whole = (replace(scope, parameters=()) for scope in scopes.resources)
    known = (scope for scope in whole if Scopes(frozenset({scope})).narrows(allowance.registered))
    return scopes.union(Scopes(frozenset(known)))
