"""Turn an EHR's token answer into a grant: what it may do, for whom, and who signed in (TR-*, CX-*, ID-*).

Whatever is wrong with the answer, its tokens are given back to the EHR before they are dropped.
"""

from dataclasses import dataclass

from broker.apps import Directory
from broker.audit import AuditRecord, AuditTrail, Event, Outcome
from broker.clock import Clock, Entropy
from broker.credentials import new_tag
from broker.ehr.dpop import require_bound
from broker.ehr.endpoints import Endpoints
from broker.ehr.id_token import Identity, IdTokens
from broker.ehr.token_answer import TokenAnswer, at_server
from broker.errors import AccessDenied, BrokerError
from broker.flows.reauthorize_grant import ReauthorizeGrant
from broker.flows.register_dynamic_client import RegisterDynamicClient
from broker.grants import Grant, Grants, Terms, TokenSet
from broker.launches import Launch
from broker.refresh.ehr_side import EhrSide
from broker.refresh.outcome import granted_context, granted_scopes, share_of_life, token_set
from broker.refresh.schedule import Schedule
from broker.scopes import Scopes
from broker.secret import Secret


@dataclass(frozen=True, slots=True)
class MakeGrant:
    """The last step of a launch at an EHR."""

    directory: Directory
    id_tokens: IdTokens
    grants: Grants
    schedule: Schedule
    ehr_side: EhrSide
    register_dynamic_client: RegisterDynamicClient
    reauthorize_grant: ReauthorizeGrant
    audit: AuditTrail
    clock: Clock
    entropy: Entropy

    async def __call__(
        self, launch: Launch, answer: TokenAnswer, endpoints: Endpoints, proof_key: Secret | None = None
    ) -> Grant:
        """Return the stored grant, a new one, or the one that the launch authorizes again.

        Its tokens are to be bound to `proof_key`, where there is one (OA-23).

        Raises `EhrMisbehaved`, `EhrUnreachable`, `AccessDenied`, `StoreUnavailable`.
        """
        ehr = self.directory.ehr(launch.ehr)
        answer, default = at_server(answer, ehr.fhir_base), float(ehr.profile.default_lifetime)
        now, share = self.clock(), share_of_life(self.entropy)
        tokens = token_set(answer, now=now, share=share, default_lifetime=default, proof_key=proof_key)
        terms = _unread(launch, ehr.fhir_base)
        try:
            require_bound(answer, proof_key)
            terms = await self._terms(launch, answer, endpoints)
            if launch.reauthorizes is not None:  # before more is done at the EHR for somebody else
                await self.reauthorize_grant.require_same(launch.reauthorizes, terms)
            terms, tokens = await self.register_dynamic_client(terms, tokens, answer, endpoints)
            grant = await self._store(launch, terms, tokens)
        except BrokerError as error:
            await self._give_back(terms, tokens, error)
            raise
        if answer.note is not None:
            self._record("grant.create", "allowed", terms, answer.note)
        grant = await self.register_dynamic_client.first_token(grant)
        await self.schedule.watch(grant)
        return grant

    async def _store(self, launch: Launch, terms: Terms, tokens: TokenSet) -> Grant:
        if launch.reauthorizes is None:
            return await self.grants.create(new_tag(self.entropy), terms, tokens)
        return await self.reauthorize_grant(launch.reauthorizes, terms, tokens)

    async def _terms(self, launch: Launch, answer: TokenAnswer, endpoints: Endpoints) -> Terms:
        ehr = self.directory.ehr(launch.ehr)
        scopes = granted_scopes(answer, Scopes.parse(launch.scope), missing=ehr.profile.missing_scope)
        if not scopes.resources:
            raise AccessDenied("the EHR granted no resource scope")
        identity = await self._identity(launch, answer, endpoints)
        extensions = ehr.profile.context_extensions
        return Terms(
            ehr=ehr.id,
            fhir_base=ehr.fhir_base,
            registration=launch.registration,
            flow="launch",
            app=launch.app,
            scopes=scopes,
            context=granted_context(answer, identity, fhir_base=ehr.fhir_base, extensions=extensions),
            scope_assumed=answer.scope is None,
        )

    async def _identity(self, launch: Launch, answer: TokenAnswer, endpoints: Endpoints) -> Identity | None:
        if answer.id_token is None or endpoints.sso_off is not None:
            return None
        registration = self.directory.registration(launch.registration)
        identity = await self.id_tokens.verify(
            answer.id_token,
            site=self.directory.site(self.directory.ehr(launch.ehr), registration),
            endpoints=endpoints,
            client_id=registration.client_id,
            nonce=launch.nonce if "openid" in launch.scope.split() else None,
        )
        if identity.exception is not None:
            self._record("id_token.exception", "allowed", launch, f"accepted by {identity.exception} of the profile")
        return identity

    async def _give_back(self, terms: Terms, tokens: TokenSet, error: BrokerError) -> None:
        self._record("grant.revoke", "allowed", terms, f"giving back what a failed launch got: {error.detail}")
        at_ehr = await self.ehr_side.revoke(terms, tokens)
        self._record("grant.revoke", "failed" if at_ehr == "failed" else "allowed", terms, f"{at_ehr}: failed launch")

    def _record(self, event: Event, outcome: Outcome, about: Launch | Terms, reason: str) -> None:
        self.audit.record(
            AuditRecord(
                event=event,
                outcome=outcome,
                app=about.app,
                ehr=about.ehr,
                registration=about.registration,
                reason=reason,
            )
        )


def _unread(launch: Launch, fhir_base: str) -> Terms:
    """Return terms that grant nothing: enough to find the way back to the EHR."""
    return Terms(launch.ehr, fhir_base, launch.registration, "launch", launch.app, Scopes())
