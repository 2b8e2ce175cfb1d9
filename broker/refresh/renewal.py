"""Renew one grant's token. What must never be lost is written before it is needed.

1. claim     one script takes the lease, if the generation is still the one the caller saw
2. intend    one script writes down that a request may have been sent, if the lease is still ours
3. ask       the token endpoint, once
4. commit    one script writes the next generation, if the last intent is still ours; retried while the store is away
   or release, when the EHR certainly did nothing; or `uncertain`, when an answer was lost and the EHR may have
   replaced the refresh token; or `needs_reauth`, when it said invalid_grant and no one else had refreshed meanwhile
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
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
    EhrError,
    EhrRefused,
    EhrUnreachable,
    ReauthorizationRequired,
    StoreUnavailable,
    Unavailable,
)
from broker.grants import Grant, Grants, GrantState, TokenSet
from broker.keys.signing import SigningKeys
from broker.refresh.outcome import names_another_patient, offers_more, refreshed_terms, token_set
from broker.single_flight import SingleFlight
from broker.store import keys
from broker.store.connection import Script
from broker.store.scripts import script

log = structlog.get_logger()

LEASE_SECONDS: Final = 60.0
"""Longer than the longest token request; how long others wait before they call a dead holder's grant uncertain."""
WAIT_SECONDS: Final = 15.0
"""How long a caller waits for a refresh that another replica makes."""
_POLL_SECONDS: Final = 0.05
_INSIST_SECONDS: Final = 60.0
"""How long a write that must not be lost is tried again."""

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
    intend: Script = field(default_factory=partial(script, "intend_refresh"))
    release: Script = field(default_factory=partial(script, "release_refresh"))
    releases: SingleFlight[None] = field(default_factory=SingleFlight)

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

    async def close(self) -> None:
        """Wait until every lease that has to be given back was."""
        await self.releases.close()

    async def _claim(self, seen: Grant, owner: str) -> str:
        repeat = "repeat" if self._may_repeat(seen) else ""
        try:
            said: bytes = await self.claim(
                self.redis, _keys(seen), [owner, int(LEASE_SECONDS * 1000), seen.generation, repeat]
            )
        except StoreUnavailable:
            self._start_release(seen, owner)  # the script may have run all the same
            raise
        return said.decode()

    def _may_repeat(self, grant: Grant) -> bool:
        return grant.terms.flow == "backend" or self.directory.ehr(grant.terms.ehr).profile.refresh_tokens == "reusable"

    async def _attempt(self, grant: Grant, owner: str) -> Grant:
        try:
            self._record(grant, "allowed", "due")
            tokens = await self.grants.open_tokens(grant)
            answer = await self._ask(grant, tokens, owner)
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
            if isinstance(error, EhrError):
                self.discovery.forget(grant.terms.fhir_base)
            await self._give_back(grant, owner, error)
            raise
        if names_another_patient(grant.terms, answer):
            return await self._end(grant, "needs_reauth", "the refresh named another patient than the grant (CX-11)")
        return await self._commit(grant, owner, answer, tokens)

    async def _commit(self, grant: Grant, owner: str, answer: TokenAnswer, previous: TokenSet) -> Grant:
        terms, tokens = refreshed_terms(grant.terms, answer), token_set(answer, now=self.clock(), previous=previous)
        commit = partial(self.grants.commit, grant.tag, terms, tokens, generation=grant.generation, owner=owner)
        if (said := await self._insist(commit)) != "ok":
            log.warning("refresh_not_committed", grant=grant.tag, generation=grant.generation, said=said)
        if said in {"revoked", "gone"}:
            await self._hand_back(grant, tokens)
        more = "; more scope was offered and not applied (RF-11)" if offers_more(grant.terms, answer) else ""
        self._record(grant, "allowed" if said == "ok" else "failed", f"answered, and the store said {said}{more}")
        return await self._current(grant)

    async def _hand_back(self, grant: Grant, tokens: TokenSet) -> None:
        """Revoke at the EHR what came for a grant that was revoked meanwhile; it is kept nowhere."""
        with suppress(EhrError):
            url = (await self.discovery.endpoints(grant.terms.fhir_base)).revocation_endpoint
            authenticate = await self.signing_keys.authenticate(self.directory.registration(grant.terms.registration))
            token, hint = tokens.most_lasting()
            timeout = self.directory.ehr(grant.terms.ehr).token_timeout
            if url is not None:
                await self.token_endpoint.revoke(url, authenticate, token=token, hint=hint, timeout=timeout)

    async def _ask(self, grant: Grant, tokens: TokenSet, owner: str) -> TokenAnswer:
        terms = grant.terms
        timeout = self.directory.ehr(terms.ehr).token_timeout
        authenticate = await self.signing_keys.authenticate(self.directory.registration(terms.registration))
        url = (await self.discovery.endpoints(terms.fhir_base)).token_endpoint
        if terms.flow == "launch" and tokens.refresh_token is None:
            raise ReauthorizationRequired(f"grant {grant.tag} has no refresh token")
        await self._intend(grant, owner)
        if tokens.refresh_token is None or terms.flow == "backend":
            scope = str(terms.scopes)
            return await self.token_endpoint.client_credentials(url, authenticate, scope=scope, timeout=timeout)
        refresh_token = tokens.refresh_token
        return await self.token_endpoint.refresh(url, authenticate, refresh_token=refresh_token, timeout=timeout)

    async def _intend(self, grant: Grant, owner: str) -> None:
        said = await self.intend(self.redis, _keys(grant), [owner, int(LEASE_SECONDS * 1000), grant.generation])
        if said != b"ok":
            await self._current(grant)
            raise EhrUnreachable("the lease ran out before the request was sent")

    async def _give_back(self, grant: Grant, owner: str, error: BrokerError) -> None:
        """Release first: when the audit trail is what failed, the record fails again."""
        releasing = self._start_release(grant, owner)
        if not isinstance(error, StoreUnavailable):  # else callers are refused at once, and this goes on without them
            await asyncio.shield(releasing)
        self._record(grant, "failed", error.detail)

    def _start_release(self, grant: Grant, owner: str) -> asyncio.Future[None]:
        return self.releases.start(owner, lambda: self._insist(partial(self._release, grant, owner)))

    async def _release(self, grant: Grant, owner: str) -> None:
        await self.release(self.redis, _keys(grant), [owner])

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
            except Unavailable as error:
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


def _keys(grant: Grant) -> list[str]:
    return [keys.grant(grant.tag), keys.lease(grant.tag)]
