"""How long refresh tokens live at an EHR, and when a grant will end: as it says, as was learned, as is known. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final, Literal

from broker.grants import Grant
from broker.profiles import Profile
from broker.refresh.ends import ObservedEnd

LEAST_ENDS: Final = 5
"""Fewer that agree could be people who changed their mind."""
AGREEING: Final = 0.1
"""How far from the middle an end may be to count as the same rule, as a share of it."""
_SHARE: Final = 0.5
"""How many of all ends must agree: people end grants at any time, rules at one."""

Since = Literal["authorization", "refresh"]
Basis = Literal["said", "learned", "profile"]


@dataclass(frozen=True, slots=True)
class Learned:
    """A rule that an EHR seems to have."""

    since: Since
    seconds: float
    """From then to the end."""
    ends: int
    """How many ends agree on it."""


@dataclass(frozen=True, slots=True)
class Expected:
    """When a grant is expected to end, in seconds since 1970, and why that is believed."""

    at: float
    basis: Basis
    because: str


def learn(ends: Sequence[ObservedEnd]) -> Learned | None:
    """Find the rule behind the ends of one EHR; None where there is none to be seen.

    A token that was refreshed until shortly before tells how long after the authorization it ended. One that was left
    alone tells how long without a refresh it did not last.
    """
    used = [end.age for end in ends if end.idle <= end.age * AGREEING]
    left = [end.idle for end in ends if end.idle > end.age * AGREEING]
    return _rule("authorization", used) or _rule("refresh", left)


def expect(grant: Grant, learned: Learned | None, profile: Profile) -> Expected | None:
    """Say when a living grant will end; None where nothing tells. A rule that it has outlived is none for it."""
    if grant.expected_end is not None:
        return Expected(grant.expected_end, "said", "the EHR said so")
    beliefs = [*_learned(grant, learned), *_known(grant, profile)]
    return next((belief for belief in beliefs if belief.at > grant.since), None)


def _rule(since: Since, seconds: Iterable[float]) -> Learned | None:
    found = sorted(seconds)
    if len(found) < LEAST_ENDS:
        return None
    middle = median(found)
    agreeing = [one for one in found if abs(one - middle) <= AGREEING * middle]
    if len(agreeing) < max(LEAST_ENDS, _SHARE * len(found)):
        return None
    return Learned(since, median(agreeing), len(agreeing))


def _learned(grant: Grant, learned: Learned | None) -> Iterable[Expected]:
    if learned is not None:
        start = grant.authorized_at if learned.since == "authorization" else grant.since
        because = f"learned from {learned.ends} ends: {_days(learned.seconds)} after the last {learned.since}"
        yield Expected(start + learned.seconds, "learned", because)


def _known(grant: Grant, profile: Profile) -> Iterable[Expected]:
    for seconds, start, since in (
        (profile.refresh_lifetime, grant.authorized_at, "authorization"),
        (profile.refresh_idle, grant.since, "refresh"),
    ):
        if seconds:
            yield Expected(start + seconds, "profile", f"its profile: {_days(seconds)} after the last {since}")


def _days(seconds: float) -> str:
    return f"{seconds / 86_400:.3g} days" if seconds >= 86_400 else f"{seconds / 3600:.3g} hours"
