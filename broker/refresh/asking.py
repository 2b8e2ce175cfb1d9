"""What a renewal asks the EHR with: a refresh token, the broker's own name, or a dynamic client's assertion."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from broker.ehr.dynamic_client import DynamicClient, DynamicClients
from broker.ehr.token_answer import TokenAnswer
from broker.errors import ReauthorizationRequired
from broker.grants import Grant, TokenSet
from broker.refresh.ehr_side import Door, EhrSide
from broker.secret import Secret

Check = Callable[[], None]
"""Called right before each sending. Raises `EhrHeldBack` when nothing may be sent any more."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One token request, ready to be made once."""

    send: Callable[[Check], Awaitable[TokenAnswer]]
    """Raises `EhrError`."""
    timeout: float
    """Seconds until an answer is taken for lost."""
    longest: float
    """Seconds until the last one is: what was not processed is sent again with another credential or nonce."""


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
        timeout, longest = door.ehr.token_timeout, door.longest(proves=tokens.proof_key is not None)
        if tokens.dynamic_client is not None:
            return Ask(partial(self._by_assertion, tokens.dynamic_client, door), timeout, timeout)
        if grant.terms.flow == "backend":
            scope = await self.ehr_side.scope(grant.terms, door)
            return Ask(partial(self._by_name, tokens, door, scope), timeout, longest)
        if tokens.refresh_token is None:
            raise ReauthorizationRequired(f"grant {grant.tag} has no refresh token")
        return Ask(partial(self._by_refresh_token, tokens.refresh_token, tokens.proof_key, door), timeout, longest)

    async def _by_assertion(self, client: DynamicClient, door: Door, check: Check) -> TokenAnswer:
        check()
        url, timeout = door.endpoints.token_endpoint, door.ehr.token_timeout
        return await self.dynamic_clients.token(url, client, timeout=timeout)

    async def _by_name(self, tokens: TokenSet, door: Door, scope: str, check: Check) -> TokenAnswer:
        return await self.ehr_side.token_endpoint.client_credentials(
            door.endpoints.token_endpoint,
            door.authenticate.guarded(check),
            scope=scope,
            timeout=door.ehr.token_timeout,
            proof_key=tokens.proof_key,
        )

    async def _by_refresh_token(
        self, refresh_token: Secret, proof_key: Secret | None, door: Door, check: Check
    ) -> TokenAnswer:
        return await self.ehr_side.token_endpoint.refresh(
            door.endpoints.token_endpoint,
            door.authenticate.guarded(check),
            refresh_token=refresh_token,
            timeout=door.ehr.token_timeout,
            proof_key=proof_key,
        )
