"""Renew one grant's token. What must never be lost is written before it is needed.

1. claim     one script takes the lease, if the generation is still the one the caller saw
2. intend    one script writes down that a request may have been sent, if the lease is still ours
3. ask       the token endpoint, once
4. commit    one script writes the next generation, if the last intent is still ours; retried while the store is away
   or release, when the EHR certainly did nothing; or `uncertain`, when an answer was lost and the EHR may have
   replaced the refresh token; or `needs_reauth`, when it said invalid_grant and no one else had refreshed meanwhile;
   or `suspended`, when the answer is about somebody else
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final, TypeVar

import structlog
from redis.asyncio import Redis

from broker.audit import AuditRecord, AuditTrail, Event, Outcome
from broker.clock import Clock, Entropy
from broker.credentials import random_text
from broker.ehr.id_token import Identity, IdTokens
from broker.ehr.token_answer import TokenAnswer, at_server
from broker.ehr.unverified import unverified_claims
from broker.errors import (
    BrokerError,
    EhrAnswerLost,
    EhrError,
    EhrRefused,
    EhrUnreachable,
    StoreUnavailable,
    Unavailable,
)
from broker.grants import Grant, Grants, GrantState, TokenSet
from broker.profiles import Profile
from broker.refresh.asking import Ask, Asking
from broker.refresh.ehr_side import EhrSide
from broker.refresh.outcome import (
    names_another_patient,
    names_another_user,
    offers_more,
    refreshed_terms,
    share_of_life,
    token_set,
)
from broker.single_flight import SingleFlight
from broker.store import keys
from broker.store.connection import Script
from broker.store.scripts import script

log = structlog.get_logger()

LEASE_SECONDS: Final = 60.0
"""Longer than the longest token request; how long others wait before they call a dead holder's grant uncertain."""
WAIT_SECONDS: Final = 15.0
"""How long a caller waits for a refresh that another replica makes."""
REFUSED_SECONDS: Final = 5.0
"""How long a grant is left alone after an EHR refused its refresh for another reason than the grant (EP-03)."""
_POLL_SECONDS: Final = 0.05
_INSIST_SECONDS: Final = 60.0
"""How long a write that must not be lost is tried again."""

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Renewal:
    """Everything that renewing takes."""

    redis: Redis
    grants: Grants
    ehr_side: EhrSide
    asking: Asking
    id_tokens: IdTokens
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
        current = await self._current(seen)
        if said == "on_hold":
            pause = max(0.0, current.hold_until - self.clock())
            raise EhrUnreachable(f"grant {seen.tag} is not to be refreshed yet", retry_after=pause)
        return current

    async def close(self) -> None:
        """Wait until every lease that has to be given back was."""
        await self.releases.close()

    async def _claim(self, seen: Grant, owner: str) -> str:
        repeat = "repeat" if self.asking.may_repeat(seen) else ""
        try:
            said: bytes = await self.claim(
                self.redis, _keys(seen), [owner, int(LEASE_SECONDS * 1000), seen.generation, repeat, repr(self.clock())]
            )
        except StoreUnavailable:
            self._start_release(seen, owner)  # the script may have run all the same
            raise
        return said.decode()

    def _profile(self, grant: Grant) -> Profile:
        return self.ehr_side.directory.ehr(grant.terms.ehr).profile

    async def _attempt(self, grant: Grant, owner: str) -> Grant:
        try:
            self._record(grant, "allowed", "due")
            tokens = await self.grants.open_tokens(grant)
            ask = await self.asking.prepare(grant, tokens)
            await self._intend(grant, owner)
            answer = await self._ask(grant, ask)
        except EhrAnswerLost as lost:
            if not self.asking.may_repeat(grant):
                return await self._end(grant, "uncertain", f"the answer to a refresh was lost: {lost.detail}")
            await self._give_back(grant, owner, lost)
            raise
        except EhrRefused as refused:
            if refused.error == "invalid_grant" and grant.terms.flow == "launch":
                more = ", as the session ended (RF-10)" if grant.terms.ends_with_session else ""
                return await self._end(grant, "needs_reauth", f"{refused.detail}{more}")
            self.ehr_side.doubt(grant.terms, refused)
            await self._give_back(grant, owner, refused)
            raise
        except BrokerError as error:
            if isinstance(error, EhrError):
                self.ehr_side.doubt(grant.terms, error)
            await self._give_back(grant, owner, error)
            raise
        except Exception as error:  # before the request, as `_ask` raises no other: nothing was sent
            self._start_release(grant, owner)
            self._record(grant, "failed", f"not sent ({type(error).__name__})")
            raise
        if (breach := self._breach(grant, answer, tokens)) is not None:
            return await self._suspend(grant, answer, tokens, breach)
        return await self._commit(grant, owner, answer, tokens)

    async def _ask(self, grant: Grant, ask: Ask) -> TokenAnswer:
        """Send the request. Raises `EhrError` alone: from here on, whatever else goes wrong, it may have been sent."""
        try:
            return at_server(await ask(), grant.terms.fhir_base)
        except BrokerError:
            raise
        except Exception as error:
            log.exception("refresh_failed_unforeseen", grant=grant.tag)
            raise EhrAnswerLost(f"the request failed unforeseen ({type(error).__name__})") from None

    def _breach(self, grant: Grant, answer: TokenAnswer, previous: TokenSet) -> str | None:
        """Say why the answer is about somebody else, or binds its tokens no more: a security event (CX-11, ID-08)."""
        if previous.proof_key is not None and not answer.bound:
            return "the refresh answered a token that is not bound to the grant's key (OA-23)"
        if names_another_patient(grant.terms, answer):
            return "the refresh named another patient than the grant (CX-11)"
        clients = {self.ehr_side.directory.registration(grant.terms.registration).client_id}
        clients |= {previous.dynamic_client.client_id} if previous.dynamic_client is not None else set()
        claims = unverified_claims(answer.id_token) if answer.id_token else None
        if names_another_user(grant.terms, claims, {*clients, *self._profile(grant).id_token_audiences}):
            return "the id_token of the refresh changed issuer, subject or audience (ID-08)"
        return None

    async def _suspend(self, grant: Grant, answer: TokenAnswer, previous: TokenSet, cause: str) -> Grant:
        """End the grant, and at the EHR what came for it: that may open somebody else's record."""
        self._record(grant, "denied", cause, event="grant.suspended")
        await self._insist(partial(self.grants.end, grant.tag, "suspended", cause, generation=grant.generation))
        tokens = token_set(answer, now=self.clock(), share=1.0, default_lifetime=0.0, previous=previous)
        at_ehr = await self.ehr_side.revoke(grant.terms, tokens)
        outcome: Outcome = "failed" if at_ehr == "failed" else "allowed"
        self._record(grant, outcome, f"at the EHR: {at_ehr}", event="grant.suspended")
        return await self._current(grant)

    async def _commit(self, grant: Grant, owner: str, answer: TokenAnswer, previous: TokenSet) -> Grant:
        profile, identity = self._profile(grant), await self._identity(grant, answer)
        terms = refreshed_terms(grant.terms, answer, identity, extensions=profile.context_extensions)
        now, share, default = self.clock(), share_of_life(self.entropy), float(profile.default_lifetime)
        tokens = token_set(answer, now=now, share=share, default_lifetime=default, previous=previous)
        commit = partial(
            self.grants.commit,
            grant.tag,
            terms,
            tokens,
            generation=grant.generation,
            owner=owner,
            hold_until=now + profile.refresh_interval,
        )
        if (said := await self._insist(commit)) != "ok":
            log.warning("refresh_not_committed", grant=grant.tag, generation=grant.generation, said=said)
        if said in {"revoked", "gone"}:
            await self.ehr_side.revoke(grant.terms, tokens)
        more = "; more scope was offered and not applied (RF-11)" if offers_more(grant.terms, answer) else ""
        more += f"; {answer.note}" if answer.note else ""
        self._record(grant, "allowed" if said == "ok" else "failed", f"answered, and the store said {said}{more}")
        return await self._current(grant)

    async def _identity(self, grant: Grant, answer: TokenAnswer) -> Identity | None:
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
                self._record(grant, "allowed", rule, event="id_token.exception")
        except Exception as error:  # noqa: BLE001  # whatever it is, the tokens that came with it must be kept
            cause = error.detail if isinstance(error, BrokerError) else type(error).__name__
            log.info("id_token_of_refresh_ignored", grant=grant.tag, cause=cause)
            return None
        return identity

    async def _intend(self, grant: Grant, owner: str) -> None:
        said = await self.intend(self.redis, _keys(grant), [owner, int(LEASE_SECONDS * 1000), grant.generation])
        if said != b"ok":
            await self._current(grant)
            raise EhrUnreachable("the lease ran out before the request was sent")

    async def _give_back(self, grant: Grant, owner: str, error: BrokerError) -> None:
        """Release first: when the audit trail is what failed, the record fails again."""
        releasing = self._start_release(grant, owner, self._hold_until(grant, error))
        if not isinstance(error, StoreUnavailable):  # else callers are refused at once, and this goes on without them
            await asyncio.shield(releasing)
        self._record(grant, "failed", error.detail)

    def _hold_until(self, grant: Grant, error: BrokerError) -> float:
        """Return when the EHR may be asked again: `Retry-After`, its profile and what it refused say so."""
        unanswered = isinstance(error, EhrUnreachable) and error.retry_after is None
        if unanswered or not isinstance(error, EhrError):
            return 0.0
        asked = error.retry_after or 0.0 if isinstance(error, EhrUnreachable) else 0.0
        refused = REFUSED_SECONDS if isinstance(error, EhrRefused) else 0.0
        return self.clock() + max(asked, refused, self._profile(grant).refresh_interval)

    def _start_release(self, grant: Grant, owner: str, hold_until: float = 0.0) -> asyncio.Future[None]:
        return self.releases.start(owner, lambda: self._insist(partial(self._release, grant, owner, hold_until)))

    async def _release(self, grant: Grant, owner: str, hold_until: float) -> None:
        await self.release(self.redis, _keys(grant), [owner, repr(hold_until)])

    async def _end(self, grant: Grant, state: GrantState, cause: str) -> Grant:
        """End the grant unless its generation has moved on: then someone else renewed it, and that is the answer."""
        self._record(grant, "failed", cause)
        await self._insist(partial(self.grants.end, grant.tag, state, cause, generation=grant.generation))
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

    def _record(self, grant: Grant, outcome: Outcome, reason: str, *, event: Event = "grant.refresh") -> None:
        self.audit.record(
            AuditRecord(
                event=event,
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
