"""Renew one grant's token. What must never be lost is written before it is needed.

1. claim     one script takes the lease, if the generation is still the one the caller saw
             where an earlier attempt was cut off: find out what became of it, or give up
2. intend    past the EHR's gate, one script writes down that a request may have been sent, if the lease is still ours
3. ask       the token endpoint, once
4. commit    one script writes the next generation, if the last intent is still ours; retried while the store is away
   or release, when the EHR certainly did nothing, or what it did can be found out; or `uncertain`, when an answer was
   lost and the EHR may have replaced the refresh token; or `needs_reauth`, when it said invalid_grant and no one else
   had refreshed meanwhile; or `suspended`, when the answer is about somebody else
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, TypeVar

import structlog
from redis.asyncio import Redis

from broker.audit import Outcome
from broker.clock import Clock, Entropy
from broker.credentials import random_text
from broker.ehr.token_answer import TokenAnswer
from broker.errors import (
    BrokerError,
    EhrAnswerLost,
    EhrError,
    EhrHeldBack,
    EhrRefused,
    EhrUnreachable,
    StoreUnavailable,
)
from broker.grants import Grant, Grants, GrantState, TokenSet, began_at
from broker.grants.backend_grants import HELD_SECONDS
from broker.grants.failures import classify
from broker.profiles import Profile
from broker.refresh.answers import Answers
from broker.refresh.asking import Asking
from broker.refresh.ehr_side import EhrSide
from broker.refresh.ends import ObservedEnds
from broker.refresh.insisting import insist
from broker.refresh.limits import Lane
from broker.refresh.lost import LostAnswers, attempt_name, can_be_found_out, may_send_again, repeating
from broker.refresh.outcome import offers_more, refreshed_terms, share_of_life, token_set
from broker.refresh.sending import LEASE_SECONDS, Sending
from broker.refresh.trail import RefreshTrail
from broker.settings import EhrSettings
from broker.single_flight import SingleFlight
from broker.store import keys
from broker.store.connection import Script
from broker.store.scripts import script

log = structlog.get_logger()

WAIT_SECONDS: Final = 15.0
"""How long a caller waits for a refresh that another replica makes."""
REFUSED_SECONDS: Final = 5.0
"""How long a grant is left alone after an EHR refused its refresh for another reason than the grant (EP-03)."""
SETTLE_SECONDS: Final = 30.0
"""How long after a lost answer an EHR is not yet asked what it made of the request: it may still be at it."""
_CUT_OFF: Final = "a refresh was cut off after it may have been sent"
_POLL_SECONDS: Final = 0.05

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Renewal:
    """Everything that renewing takes."""

    redis: Redis
    grants: Grants
    ehr_side: EhrSide
    asking: Asking
    answers: Answers
    lost: LostAnswers
    sending: Sending
    trail: RefreshTrail
    ends: ObservedEnds
    clock: Clock
    entropy: Entropy
    claim: Script = field(default_factory=partial(script, "claim_refresh"))
    release: Script = field(default_factory=partial(script, "release_refresh"))
    releases: SingleFlight[None] = field(default_factory=SingleFlight)

    async def renew(self, seen: Grant, *, lane: Lane = "interactive", even_uncertain: bool = False) -> Grant:
        """Return the grant at a later generation than `seen`; or, uncertain, as it is, while its token lives.

        `even_uncertain` is an operator's word that a lost answer may be asked for again, whatever the profile says.

        Raises `ReauthorizationRequired` when it has ended, `EhrError` when the EHR could not renew it now.
        """
        try:
            self.sending.gate.require_open(seen.terms.ehr, lane)
        except EhrHeldBack:
            current = await self._current(seen) if lane == "interactive" else seen
            if current.generation == seen.generation:
                raise
            return current
        owner = attempt_name(random_text(self.entropy), self.clock())
        mode = "repeat" if even_uncertain or self.asking.may_repeat(seen) else self._mode(seen)
        give_up = self.clock() + WAIT_SECONDS
        while (said := await self._claim(seen, owner, mode)) == "held":
            if self.clock() >= give_up:
                raise EhrUnreachable("another replica's refresh has not ended", retry_after=HELD_SECONDS)
            await asyncio.sleep(_POLL_SECONDS)
        if said == "claimed":
            return await self._attempt(seen, owner, lane)
        if said.startswith("again"):
            earlier = said.partition(" ")[2]
            owner, known = repeating(owner, earlier), even_uncertain or self.asking.may_repeat(seen)
            return await (self._attempt if known else self._attempt_again)(seen, owner, lane, earlier=earlier)
        if said == "interrupted":
            return await self._end(seen, "uncertain", _CUT_OFF)
        current = await self._current(seen)
        if said == "on_hold":
            pause = max(0.0, current.hold_until - self.clock())
            raise EhrUnreachable(f"grant {seen.tag} is not to be refreshed yet", retry_after=pause)
        return current

    async def close(self) -> None:
        """Wait until every lease that has to be given back was."""
        await self.releases.close()
        await self.ends.close()

    def _mode(self, grant: Grant) -> str:
        return "look" if can_be_found_out(self._profile(grant)) else ""

    async def _claim(self, seen: Grant, owner: str, mode: str) -> str:
        try:
            said: bytes = await self.claim(
                self.redis, _keys(seen), [owner, int(LEASE_SECONDS * 1000), seen.generation, mode, repr(self.clock())]
            )
        except StoreUnavailable:
            self._start_release(seen, owner)  # the script may have run all the same
            raise
        return said.decode()

    async def _attempt_again(self, grant: Grant, owner: str, lane: Lane, *, earlier: str) -> Grant:
        """Go on where an attempt was cut off, if that is safe at this EHR (RF-05)."""
        again = may_send_again(self._profile(grant), asked_at=began_at(earlier), now=self.clock())
        if again == "yes":
            return await self._attempt(grant, owner, lane, earlier=earlier)
        try:
            unused = await self.lost.is_unused(grant, lane) if again == "ask" else None
        except BrokerError as error:
            await self._give_back(grant, owner, error)
            raise
        if unused:
            return await self._attempt(grant, owner, lane)
        if unused is None:
            return await self._end(grant, "uncertain", grant.cause or _CUT_OFF)
        return await self._end(grant, "needs_reauth", "a refresh was lost, and its token is active no more")

    def _profile(self, grant: Grant) -> Profile:
        return self._ehr(grant).profile

    def _ehr(self, grant: Grant) -> EhrSettings:
        return self.ehr_side.directory.ehr(grant.terms.ehr)

    async def _attempt(self, grant: Grant, owner: str, lane: Lane, *, earlier: str = "") -> Grant:
        """Make the attempt; `earlier` is one whose answer was lost, that this one repeats."""
        try:
            self.trail.record(grant, "allowed", "due")
            tokens = await self.grants.open_tokens(grant)
            ask = await self.asking.prepare(grant, tokens)
            await self.grants.ready(grant.terms.ehr)
            answer = await self.sending(grant, owner, self._ehr(grant), ask, lane)
        except EhrAnswerLost as lost:
            if self.asking.may_repeat(grant):
                await self._give_back(grant, owner, lost)
                raise
            if self._mode(grant):
                await self._give_back(grant, owner, lost, unanswered=earlier or owner)
                raise
            return await self._end(grant, "uncertain", f"the answer to a refresh was lost: {lost.detail}")
        except EhrRefused as refused:
            if refused.error == "invalid_grant" and grant.terms.flow == "launch":
                more = ", as the session ended (RF-10)" if grant.terms.ends_with_session else ""
                return await self._end(grant, "needs_reauth", f"{refused.detail}{more}", learned_from=not earlier)
            self.ehr_side.doubt(grant.terms, refused)
            await self._give_back(grant, owner, refused, unanswered=earlier)
            raise
        except BrokerError as error:
            if isinstance(error, EhrError):
                self.ehr_side.doubt(grant.terms, error)
            await self._give_back(grant, owner, error, unanswered=earlier)
            raise
        except Exception as error:  # before the request, as `_ask` raises no other: nothing was sent
            self._start_release(grant, owner, unanswered=earlier)
            self.trail.record(grant, "failed", f"not sent ({type(error).__name__})")
            raise
        if (breach := self.answers.breach(grant, answer, tokens)) is not None:
            return await self._suspend(grant, answer, tokens, breach)
        return await self._commit(grant, owner, answer, tokens)

    async def _suspend(self, grant: Grant, answer: TokenAnswer, previous: TokenSet, cause: str) -> Grant:
        """End the grant, and at the EHR what came for it: that may open somebody else's record."""
        self.trail.record(grant, "denied", cause, event="grant.suspended")
        await insist(partial(self.grants.end, grant.tag, "suspended", cause, generation=grant.generation))
        tokens = token_set(answer, now=self.clock(), share=1.0, default_lifetime=0.0, previous=previous)
        at_ehr = await self.ehr_side.revoke(grant.terms, tokens)
        outcome: Outcome = "failed" if at_ehr == "failed" else "allowed"
        self.trail.record(grant, outcome, f"at the EHR: {at_ehr}", event="grant.suspended")
        return await self._current(grant)

    async def _commit(self, grant: Grant, owner: str, answer: TokenAnswer, previous: TokenSet) -> Grant:
        profile, identity = self._profile(grant), await self.answers.identity(grant, answer)
        terms = refreshed_terms(grant.terms, answer, identity, extensions=profile.context_extensions)
        now, share, default = self.clock(), share_of_life(self.entropy), float(profile.default_lifetime)
        tokens = token_set(answer, now=now, share=share, default_lifetime=default, previous=previous)
        seal = partial(
            self.grants.seal,
            grant.tag,
            terms,
            tokens,
            generation=grant.generation + 1,
            created_at=grant.created_at,
            used_at=grant.used_at,
            hold_until=now + profile.refresh_interval,
        )
        following = await insist(seal)
        if (said := await insist(partial(self.grants.commit, following, owner=owner))) != "ok":
            log.warning("refresh_not_committed", grant=grant.tag, generation=grant.generation, said=said)
        if said in {"revoked", "gone"}:
            await self.ehr_side.revoke(grant.terms, tokens)
        more = "; more scope was offered and not applied (RF-11)" if offers_more(grant.terms, answer) else ""
        more += f"; {answer.note}" if answer.note else ""
        self.trail.record(grant, "allowed" if said == "ok" else "failed", f"answered, and the store said {said}{more}")
        return following.grant if said == "ok" else await self._current(grant)

    async def _give_back(self, grant: Grant, owner: str, error: BrokerError, *, unanswered: str = "") -> None:
        """Release first: when the audit trail is what failed, the record fails again.

        `unanswered` is the attempt that stays written down as one that may have been sent.
        """
        asked = isinstance(error, EhrError) and not isinstance(error, EhrHeldBack)
        code = classify(error).code if asked else ""
        releasing = self._start_release(grant, owner, self._hold_until(grant, error), unanswered=unanswered, code=code)
        if not isinstance(error, StoreUnavailable):  # else callers are refused at once, and this goes on without them
            await asyncio.shield(releasing)
        self.trail.record(grant, "failed", error.detail)

    def _hold_until(self, grant: Grant, error: BrokerError) -> float:
        """Return when the EHR may be asked again: `Retry-After`, its profile and what it refused say so."""
        unanswered = isinstance(error, EhrUnreachable) and error.retry_after is None
        if unanswered or isinstance(error, EhrHeldBack) or not isinstance(error, EhrError):
            return 0.0
        asked = error.retry_after or 0.0 if isinstance(error, EhrUnreachable) else 0.0
        profile, pause = self._profile(grant), 0.0
        if isinstance(error, EhrRefused):
            pause = REFUSED_SECONDS
        elif isinstance(error, EhrAnswerLost) and may_send_again(profile, asked_at=None, now=0.0) == "ask":
            pause = SETTLE_SECONDS
        return self.clock() + max(asked, pause, profile.refresh_interval)

    def _start_release(
        self, grant: Grant, owner: str, hold_until: float = 0.0, *, unanswered: str = "", code: str = ""
    ) -> asyncio.Future[None]:
        asked = [owner, repr(hold_until), unanswered, code, repr(self.clock()), *self.grants.untold.mark()]
        return self.releases.start(owner, lambda: insist(partial(self._release, grant, asked)))

    async def _release(self, grant: Grant, asked: Sequence[str | int]) -> None:
        if await self.release(self.redis, [*_keys(grant), keys.untold(grant.tag)], asked) == b"news":
            self.grants.untold.hint(grant.tag)

    async def _end(self, grant: Grant, state: GrantState, cause: str, *, learned_from: bool = False) -> Grant:
        """End the grant unless its generation has moved on: then someone else renewed it, and that is the answer."""
        self.trail.record(grant, "failed", cause)
        said = await insist(partial(self.grants.end, grant.tag, state, cause, generation=grant.generation))
        if learned_from and said == "ok":
            self.ends.note(grant)
        return await self._current(grant)

    async def _current(self, grant: Grant) -> Grant:
        current = await self.grants.read(grant.tag)
        current.require_usable()
        return current


def _keys(grant: Grant) -> list[str]:
    return [keys.grant(grant.tag), keys.lease(grant.tag)]
