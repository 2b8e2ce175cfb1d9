"""The EHR of a grant, ready to be asked: where it is and how the broker proves there who it is."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final, Literal

from broker.apps import Directory
from broker.ehr.client_auth import Authenticate
from broker.ehr.discovery import Discovery
from broker.ehr.endpoints import Endpoints
from broker.ehr.introspection import Introspection, bearer
from broker.ehr.scope_words import ScopeWords
from broker.ehr.site import Site
from broker.ehr.token_endpoint import TokenEndpoint
from broker.errors import BrokerError, EhrAnswerLost, EhrError, EhrRefused, EhrUnreachable
from broker.grants import Terms, TokenSet
from broker.keys.signing import SigningKeys
from broker.refresh.gate import Gate
from broker.refresh.limits import Lane
from broker.secret import Secret
from broker.settings import EhrSettings

AtEhr = Literal["revoked", "local_only", "failed"]
LONGEST_WAIT_SECONDS: Final = 3.0
"""Between two tries to revoke, whatever the EHR asks for: somebody waits for the answer."""


@dataclass(frozen=True, slots=True)
class Door:
    """What one request takes."""

    ehr: EhrSettings
    endpoints: Endpoints
    authenticate: Authenticate

    def longest(self, *, proves: bool = False) -> float:
        """Return the seconds that a request may take: each credential in turn; with DPoP twice, for its nonce."""
        return self.ehr.token_timeout * (1 + len(self.authenticate.others)) * (2 if proves else 1)


@dataclass(frozen=True, slots=True)
class EhrSide:
    """Finds the door, and gives tokens back through it."""

    directory: Directory
    discovery: Discovery
    scope_words: ScopeWords
    token_endpoint: TokenEndpoint
    signing_keys: SigningKeys
    gate: Gate
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    def site(self, terms: Terms) -> Site:
        """Return where the grant is from. Raises `NotFound`."""
        return self.directory.granted_site(terms.ehr, terms.registration, terms.fhir_base)

    def doubt(self, terms: Terms, error: EhrError) -> None:
        """Look for the endpoints again soon: one answered as if it had moved (DS-13)."""
        self.discovery.doubt(self.site(terms), error)

    async def door(self, terms: Terms) -> Door:
        """Raises `EhrError` when it cannot be found now, `NotFound` when it is no longer configured."""
        ehr, registration = self.directory.ehr(terms.ehr), self.directory.registration(terms.registration)
        endpoints = await self.discovery.endpoints(self.site(terms))
        return Door(ehr, endpoints, await self.signing_keys.authenticate(registration, ehr, endpoints))

    async def scope(self, terms: Terms, door: Door) -> str:
        """Return the scopes of a grant in the EHR's words (Q9). Raises `EhrError`."""
        return (await self.scope_words.say(terms.scopes, self.site(terms), door.endpoints)).text

    async def introspect(
        self, door: Door, url: str, tokens: TokenSet, token: Secret, hint: str, *, lane: Lane = "interactive"
    ) -> Introspection:
        """Ask about a token, with what the EHR wants to be asked with (IN-03). Raises `EhrError`."""
        # A dynamic client has nothing else to ask with.
        by_token = door.ehr.profile.introspection_authentication == "bearer" or tokens.dynamic_client is not None
        authenticate = bearer(tokens.access_token) if by_token else door.authenticate
        timeout = door.ehr.token_timeout
        async with self.gate.passage(door.ehr, lane, takes=door.longest()):
            return await self.token_endpoint.introspect(url, authenticate, token=token, hint=hint, timeout=timeout)

    async def introspect_refresh_token(
        self, terms: Terms, tokens: TokenSet, *, lane: Lane = "interactive"
    ) -> bool | None:
        """Return whether the EHR still takes the refresh token; None where nothing can be asked. Raises `EhrError`."""
        door = await self.door(terms)
        if door.endpoints.introspection_endpoint is None or tokens.refresh_token is None:
            return None
        url = door.endpoints.introspection_endpoint
        return (await self.introspect(door, url, tokens, tokens.refresh_token, "refresh_token", lane=lane)).active

    async def revoke(self, terms: Terms, tokens: TokenSet, *, tries: int = 1) -> AtEhr:
        """Revoke tokens at the EHR; trouble there is in the answer (IN-06, IN-07).

        The refresh token comes first; where the EHR does not revoke such, the access token does (OA-10). "Later" is
        tried again, `tries` in all.
        """
        try:
            door = await self.door(terms)
            if door.endpoints.revocation_endpoint is None:
                return "local_only"
            return await self._revoke_all(door, door.endpoints.revocation_endpoint, tokens, tries)
        except BrokerError:
            return "failed"

    async def _revoke_all(self, door: Door, url: str, tokens: TokenSet, tries: int) -> AtEhr:
        """Revoke what ends the rest; or all of it, where a dynamic client has the access token (EP-17)."""
        client, revoked = tokens.dynamic_client, False
        own = door if client is None else replace(door, authenticate=client.authenticate)
        for token, hint in tokens.by_lasting():
            revoked |= await self._revoke(own if hint == "access_token" else door, url, token, hint, tries)
            if revoked and client is None:
                break
        return "revoked" if revoked else "failed"

    async def _revoke(self, door: Door, url: str, token: Secret, hint: str, tries: int) -> bool:
        """Returns whether this kind of token is revoked here."""
        timeout = door.ehr.token_timeout
        for left in reversed(range(tries)):
            try:
                await self.token_endpoint.revoke(url, door.authenticate, token=token, hint=hint, timeout=timeout)
            except (EhrUnreachable, EhrAnswerLost) as later:  # revoking twice is the same as once (RFC 7009 §2.2)
                if left == 0:
                    raise
                asked = later.retry_after if isinstance(later, EhrUnreachable) else None
                await self.sleep(min(asked or 1.0, LONGEST_WAIT_SECONDS))
            except EhrRefused as refused:
                if refused.error != "unsupported_token_type":
                    raise
                return False
            else:
                return True
        return False
