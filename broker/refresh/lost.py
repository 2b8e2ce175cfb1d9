"""Whether a refresh token whose last request was never answered may be sent again (RF-05).

The EHR may have replaced it, and may take a second sending for theft. So what is known of the EHR says what is safe.
"""

from dataclasses import dataclass
from typing import Final, Literal

from broker.errors import BrokerError, EhrHeldBack, EhrUnreachable
from broker.grants import Grant, Grants
from broker.profiles import Profile
from broker.refresh.ehr_side import EhrSide
from broker.refresh.limits import Lane
from broker.refresh.trail import RefreshTrail

Again = Literal["yes", "ask", "no"]
"""`ask`: only after the EHR has said, by introspection, that the token is still active."""

_CAREFUL: Final = 0.5
"""Share of the EHR's grace that is used: the rest is for the way there and back."""

_AGAIN_SECONDS: Final = 15.0
"""When an EHR that does not say what became of a request is asked again."""


def attempt_name(text: str, now: float) -> str:
    """Name an attempt so that its name says when it began, in seconds."""
    return f"{text}@{now:.3f}"


def repeating(attempt: str, earlier: str) -> str:
    """Name an attempt after when the one began that it repeats, as `claim_refresh` names its lease."""
    _, at, when = earlier.partition("@")
    return f"{attempt.partition('@')[0]}@{when}" if at and when else attempt


def may_send_again(profile: Profile, *, asked_at: float | None, now: float) -> Again:
    """Decide for a refresh token that may have been sent since `asked_at` (seconds; None: nobody knows). Pure."""
    if profile.refresh_tokens == "reusable":
        return "yes"
    if asked_at is not None and 0 <= now - asked_at < profile.refresh_grace * _CAREFUL:
        return "yes"
    return "ask" if profile.introspect_lost else "no"


def can_be_found_out(profile: Profile) -> bool:
    """Whether an answer that was lost need not be the grant's end. Pure."""
    return may_send_again(profile, asked_at=None, now=0.0) != "no" or profile.refresh_grace > 0


@dataclass(frozen=True, slots=True)
class LostAnswers:
    """Finds out what an EHR made of a request that nobody has the answer to."""

    grants: Grants
    ehr_side: EhrSide
    trail: RefreshTrail

    async def is_unused(self, grant: Grant, lane: Lane) -> bool | None:
        """Ask the EHR whether the refresh token is still active; None where it cannot say.

        Raises `EhrUnreachable` when it does not say now, and `EhrHeldBack` when it is not asked: ask again later.
        """
        self.trail.record(grant, "allowed", "asked about its refresh token", event="grant.introspect")
        try:
            tokens = await self.grants.open_tokens(grant)
            said = await self.ehr_side.introspect_refresh_token(grant.terms, tokens, lane=lane)
        except BrokerError as error:
            self.trail.record(grant, "failed", error.detail, event="grant.introspect")
            if isinstance(error, EhrHeldBack):
                raise
            cause = f"the EHR did not say what became of a refresh: {error.detail}"
            raise EhrUnreachable(cause, retry_after=_AGAIN_SECONDS) from None
        told = {True: "it is active", False: "it is not active", None: "it has no introspection"}[said]
        self.trail.record(grant, "allowed", told, event="grant.introspect")
        return said
