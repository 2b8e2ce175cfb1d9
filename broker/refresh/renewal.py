"""Renew one grant's token. What must never be lost is written before it is needed.

1. claim     one script takes the lease and writes the intent down, if the generation is still the one the caller saw
2. ask       the token endpoint, once
3. commit    one script writes the next generation, if the lease is still ours; retried while the lease lasts
   or release, when the EHR certainly did nothing; or `uncertain`, when an answer was lost and the EHR may have
   replaced the refresh token; or `needs_reauth`, when it said invalid_grant and no one else had refreshed meanwhile
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final, TypeVar

import structlog
from redis.asyncio import Redis

from broker.apps import Directory
from broker.audit import AuditRecord, AuditTrail, Outcome
from broker.clock import Clock, Entropy
from broker.credentials import random_text
from broker.ehr.discovery import Discovery
from broker.ehr.token_endpoint import TokenAnswer, TokenEndpoint
from broker.errors import (
    BrokerError,
    EhrAnswerLost,
    EhrRefused,
    EhrUnreachable,
    ReauthorizationRequired,
    StoreUnavailable,
)
from broker.grants import Grant, Grants, GrantState, TokenSet
from broker.keys.signing import SigningKeys
from broker.refresh.outcome import names_another_patient, refreshed_terms, token_set
from broker.store import keys
from broker.store.connection import Script, store_errors
from broker.store.scripts import script

log = structlog.get_logger()

LEASE_SECONDS: Final = 60.0
"""Longer than the longest token request and the commits after it."""
WAIT_SECONDS: Final = 15.0
"""How long a caller waits for a refresh that another replica makes."""
_POLL_SECONDS: Final = 0.05
_INSIST_SECONDS: Final = 20.0
"""How long a write that must not be lost is tried again; well within the lease."""

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Renewal:
    """Everything that renewing takes."""

    redis: Redis
    grants: Grants
    directory: Directory
    discovery: Discovery
    token_endpoint: TokenEndpoint
    signing_keys: SigningKeys
    audit: AuditTrail
    clock: Clock
    entropy: Entropy
    claim: Script = field(default_factory=partial(script, "claim_refresh"))
    release: Script = field(default_factory=partial(script, "release_refresh"))

    async def renew(self, seen: Grant) -> Grant:
        """Return the grant at a later generation than `seen`.

        Raises `ReauthorizationRequired` when it has ended, `EhrError` when the EHR could not renew it now.
        """
        owner = random_text(self.entropy)
        give_up = self.clock() + WAIT_SECONDS
        while (said := await self._claim(seen, owner)) == "held":
            if self.clock() >= give_up:
                raise EhrUnreachable("another replica's refresh has not ended")
            await asyncio.sleep(_POLL_SECONDS)
        if said == "claimed":
            return await self._attempt(seen, owner)
        if said == "interrupted":
            return await self._end(seen, "uncertain", "a refresh was cut off after it may have been sent")
        return await self._current(seen)

    async def _claim(self, seen: Grant, owner: str) -> str:
        lease, repeat = int(LEASE_SECONDS * 1000), "repeat" if self._may_repeat(seen) else ""
        with store_errors():
            said: bytes = await self.claim(
                self.redis, [keys.grant(seen.tag), keys.lease(seen.tag)], [owner, lease, seen.generation, repeat]
            )
        return said.decode()

    def _may_repeat(self, grant: Grant) -> bool:
        return grant.terms.flow == "backend" or self.directory.ehr(grant.terms.ehr).refresh_tokens == "reusable"

    async def _attempt(self, grant: Grant, owner: str) -> Grant:
        try:
            self._record(grant, "allowed", "due")
            tokens = await self.grants.open_tokens(grant)
            answer = await self._ask(grant, tokens)
        except EhrAnswerLost as lost:
            if not self._may_repeat(grant):
                return await self._end(grant, "uncertain", f"the answer to a refresh was lost: {lost.detail}")
            await self._give_back(grant, owner, lost)
            raise
        except EhrRefused as refused:
            if refused.error == "invalid_grant" and grant.terms.flow == "launch":
                return await self._end(grant, "needs_reauth", "the EHR answered invalid_grant")
            self.discovery.forget(grant.terms.fhir_base)
            await self._give_back(grant, owner, refused)
            raise
        except BrokerError as error:
            await self._give_back(grant, owner, error)
            raise
        if names_another_patient(grant.terms, answer):
            return await self._end(grant, "needs_reauth", "the refresh named another patient than the grant (CX-11)")
        renewed = token_set(answer, now=self.clock(), previous=tokens)
        terms = refreshed_terms(grant.terms, answer)
        commit = partial(self.grants.commit, grant.tag, terms, renewed, generation=grant.generation, owner=owner)
        if (said := await self._insist(commit)) != "ok":
            log.warning("refresh_not_committed", grant=grant.tag, generation=grant.generation, said=said)
        return await self._current(grant)

    async def _ask(self, grant: Grant, tokens: TokenSet) -> TokenAnswer:
        terms = grant.terms
        timeout = self.directory.ehr(terms.ehr).token_timeout
        authenticate = await self.signing_keys.authenticate(self.directory.registration(terms.registration))
        url = (await self.discovery.endpoints(terms.fhir_base)).token_endpoint
        if terms.flow == "backend":
            scope = str(terms.scopes)
            return await self.token_endpoint.client_credentials(url, authenticate, scope=scope, timeout=timeout)
        if tokens.refresh_token is None:
            raise ReauthorizationRequired(f"grant {grant.tag} has no refresh token")
        refresh_token = tokens.refresh_token
        return await self.token_endpoint.refresh(url, authenticate, refresh_token=refresh_token, timeout=timeout)

    async def _give_back(self, grant: Grant, owner: str, error: BrokerError) -> None:
        self._record(grant, "failed", error.detail)
        await self._insist(partial(self._release, grant, owner))

    async def _release(self, grant: Grant, owner: str) -> None:
        with store_errors():
            await self.release(self.redis, [keys.grant(grant.tag), keys.lease(grant.tag)], [owner])

    async def _end(self, grant: Grant, state: GrantState, cause: str) -> Grant:
        """End the grant unless its generation has moved on: then someone else renewed it, and that is the answer."""
        self._record(grant, "failed", cause)
        said = await self._insist(partial(self.grants.end, grant.tag, state, cause, generation=grant.generation))
        if said == "ok":
            raise ReauthorizationRequired(f"grant {grant.tag} is now {state}: {cause}")
        return await self._current(grant)

    async def _current(self, grant: Grant) -> Grant:
        current = await self.grants.read(grant.tag)
        current.require_usable()
        return current

    async def _insist(self, work: Callable[[], Awaitable[Result]]) -> Result:
        """Try again while the store is away: what is written here exists nowhere else."""
        give_up = self.clock() + _INSIST_SECONDS
        while True:
            try:
                return await work()
            except StoreUnavailable as error:
                if self.clock() >= give_up:
                    log.critical("refresh_result_unstored", cause=error.detail)
                    raise
                await asyncio.sleep(_POLL_SECONDS)

    def _record(self, grant: Grant, outcome: Outcome, reason: str) -> None:
        self.audit.record(
            AuditRecord(
                event="grant.refresh",
                outcome=outcome,
                app=grant.terms.app,
                ehr=grant.terms.ehr,
                registration=grant.terms.registration,
                grant=grant.tag,
                generation=grant.generation,
                reason=reason,
            )
        )
