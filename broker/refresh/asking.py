"""What a renewal asks the EHR with: a refresh token, the broker's own name, or a dynamic client's assertion."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from broker.ehr.dynamic_client import DynamicClients
from broker.ehr.token_answer import TokenAnswer
from broker.errors import ReauthorizationRequired
from broker.grants import Grant, TokenSet
from broker.refresh.ehr_side import Door, EhrSide

Ask = Callable[[], Awaitable[TokenAnswer]]
"""Sends one token request. Raises `EhrError`."""


@dataclass(frozen=True, slots=True)
class Asking:
    """Finds out everything that a request takes, so that nothing is left to go wrong but the request."""

    ehr_side: EhrSide
    dynamic_clients: DynamicClients

    def may_repeat(self, grant: Grant) -> bool:
        """Whether a request whose answer was lost may be sent again: nothing of the grant is used up by it (RF-05)."""
        if grant.terms.flow == "backend" or grant.terms.dynamic_client:
            return True
        return self.ehr_side.directory.ehr(grant.terms.ehr).profile.refresh_tokens == "reusable"

    async def prepare(self, grant: Grant, tokens: TokenSet) -> Ask:
        """Return the request, to be sent once. Raises `EhrError`, `NotFound`, `ReauthorizationRequired`."""
        door = await self.ehr_side.door(grant.terms)
        if tokens.dynamic_client is not None:
            url, timeout = door.endpoints.token_endpoint, door.ehr.token_timeout
            return partial(self.dynamic_clients.token, url, tokens.dynamic_client, timeout=timeout)
        if grant.terms.flow == "backend":
            return await self._by_name(grant, tokens, door)
        return self._by_refresh_token(grant, tokens, door)

    async def _by_name(self, grant: Grant, tokens: TokenSet, door: Door) -> Ask:
        return partial(
            self.ehr_side.token_endpoint.client_credentials,
            door.endpoints.token_endpoint,
            door.authenticate,
            scope=await self.ehr_side.scope(grant.terms, door),
            timeout=door.ehr.token_timeout,
            proof_key=tokens.proof_key,
        )

    def _by_refresh_token(self, grant: Grant, tokens: TokenSet, door: Door) -> Ask:
        if tokens.refresh_token is None:
            raise ReauthorizationRequired(f"grant {grant.tag} has no refresh token")
        return partial(
            self.ehr_side.token_endpoint.refresh,
            door.endpoints.token_endpoint,
            door.authenticate,
            refresh_token=tokens.refresh_token,
            timeout=door.ehr.token_timeout,
            proof_key=tokens.proof_key,
        )
