"""After a launch: spend its one-time token on a client for this grant alone, and let that one ask for tokens (EP-17).

A launch does not fail for want of a dynamic client: the grant then lasts as long as what came with the code, and says
why.
"""

import asyncio
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from broker.apps import Directory
from broker.audit import AuditRecord, AuditTrail, Outcome
from broker.clock import Clock
from broker.ehr.dynamic_client import REGISTER_SCOPE, DynamicClient, DynamicClients, new_key
from broker.ehr.endpoints import Endpoints
from broker.ehr.token_answer import TokenAnswer
from broker.errors import AccessDenied, EhrError, EhrMisbehaved, ReauthorizationRequired
from broker.grants import Grant, Terms, TokenSet
from broker.refresh.current_token import Refresher


@dataclass(frozen=True, slots=True)
class RegisterDynamicClient:
    """Registers the client before the grant is stored; asks for its first token after, when its key is safe."""

    directory: Directory
    dynamic_clients: DynamicClients
    refresher: Refresher
    audit: AuditTrail
    clock: Clock

    async def __call__(
        self, terms: Terms, tokens: TokenSet, answer: TokenAnswer, endpoints: Endpoints
    ) -> tuple[Terms, TokenSet]:
        """Return terms and tokens with a client, or terms with the cause why not; as they were where none is wanted."""
        if not self.directory.registration(terms.registration).dynamic_client:
            return terms, tokens
        self._record(terms, "allowed", "due")
        try:
            client = await self._register(terms, answer, endpoints)
        except EhrError as error:
            self._record(terms, "failed", error.detail)
            return replace(terms, no_dynamic_client=error.detail), tokens
        self._record(terms, "allowed", f"registered{_secret_note(client)}")
        now = self.clock()  # the token was for one use, and that was it
        spent = replace(tokens, dynamic_client=client, renew_at=now, expires_at=now, expected_end=client.secret_ends)
        return replace(terms, dynamic_client=True), spent

    async def first_token(self, grant: Grant) -> Grant:
        """Return the grant with a token that works; where the EHR cannot now, as it is, for the first use to try again.

        Raises `AccessDenied` when the EHR refuses the client that it has just registered, `StoreUnavailable`.
        """
        if not grant.terms.dynamic_client:
            return grant
        try:
            return await self.refresher.renew(grant)
        except EhrError:
            return grant
        except ReauthorizationRequired as ended:
            raise AccessDenied(f"the dynamic client got no token: {ended.detail}") from None

    async def _register(self, terms: Terms, answer: TokenAnswer, endpoints: Endpoints) -> DynamicClient:
        if answer.scope is not None and REGISTER_SCOPE not in answer.scope.split():
            raise EhrMisbehaved(f"the EHR did not grant {REGISTER_SCOPE}")
        if endpoints.registration_endpoint is None:
            raise EhrMisbehaved("the EHR names no registration_endpoint")
        registration, ehr = self.directory.registration(terms.registration), self.directory.ehr(terms.ehr)
        return await self.dynamic_clients.register(
            endpoints.registration_endpoint,
            software_id=registration.client_id,
            key=await asyncio.to_thread(new_key, registration.signing_algorithm),
            initial_token=answer.access_token,
            timeout=ehr.token_timeout,
        )

    def _record(self, terms: Terms, outcome: Outcome, reason: str) -> None:
        self.audit.record(
            AuditRecord(
                event="grant.register",
                outcome=outcome,
                app=terms.app,
                ehr=terms.ehr,
                registration=terms.registration,
                reason=reason,
            )
        )


def _secret_note(client: DynamicClient) -> str:
    """Say when the client ends by itself, where it does (OA-15)."""
    if client.secret_ends is None:
        return ""
    return f"; its secret ends {datetime.fromtimestamp(client.secret_ends, UTC):%Y-%m-%d}"
