"""Whether the answer to a refresh is about the grant, and who it says has signed in."""

from dataclasses import dataclass

import structlog

from broker.ehr.id_token import Identity, IdTokens
from broker.ehr.token_answer import TokenAnswer
from broker.ehr.unverified import unverified_claims
from broker.errors import BrokerError
from broker.grants import Grant, TokenSet
from broker.refresh.ehr_side import EhrSide
from broker.refresh.outcome import names_another_patient, names_another_user
from broker.refresh.trail import RefreshTrail

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Answers:
    """Reads answers that nobody else has any more."""

    ehr_side: EhrSide
    id_tokens: IdTokens
    trail: RefreshTrail

    def breach(self, grant: Grant, answer: TokenAnswer, previous: TokenSet) -> str | None:
        """Say why the answer is about somebody else, or binds its tokens no more: a security event (CX-11, ID-08)."""
        if previous.proof_key is not None and not answer.bound:
            return "the refresh answered a token that is not bound to the grant's key (OA-23)"
        if names_another_patient(grant.terms, answer):
            return "the refresh named another patient than the grant (CX-11)"
        directory = self.ehr_side.directory
        clients = {directory.registration(grant.terms.registration).client_id}
        clients |= {previous.dynamic_client.client_id} if previous.dynamic_client is not None else set()
        claims = unverified_claims(answer.id_token) if answer.id_token else None
        audiences = directory.ehr(grant.terms.ehr).profile.id_token_audiences
        if names_another_user(grant.terms, claims, {*clients, *audiences}):
            return "the id_token of the refresh changed issuer, subject or audience (ID-08)"
        return None

    async def identity(self, grant: Grant, answer: TokenAnswer) -> Identity | None:
        """Return who signed in, where only a refresh says so (CX-11); an id_token that does not verify says nothing."""
        if answer.id_token is None or grant.terms.context.subject is not None:
            return None
        try:
            site, door = self.ehr_side.site(grant.terms), await self.ehr_side.door(grant.terms)
            client_id = self.ehr_side.directory.registration(grant.terms.registration).client_id
            identity = await self.id_tokens.verify(
                answer.id_token, site=site, endpoints=door.endpoints, client_id=client_id, nonce=None
            )
            if identity.exception is not None:
                rule = f"accepted by {identity.exception} of the profile"
                self.trail.record(grant, "allowed", rule, event="id_token.exception")
        except Exception as error:  # noqa: BLE001  # whatever it is, the tokens that came with it must be kept
            cause = error.detail if isinstance(error, BrokerError) else type(error).__name__
            log.info("id_token_of_refresh_ignored", grant=grant.tag, cause=cause)
            return None
        return identity
