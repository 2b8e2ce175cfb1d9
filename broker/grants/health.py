"""How a grant is: what an operator is told, with the evidence and since when. Pure."""

from dataclasses import dataclass, replace
from typing import Final, Literal

from broker.grants.failures import ACTIONS, kind_of
from broker.grants.record import Grant, began_at

Health = Literal["healthy", "refreshing", "degraded", "uncertain", "needs_reauth", "revoked", "suspended"]

_REAUTHORIZE: Final = "have the person authorize again: broker grants reauthorize GRANT makes a link"
_ACTIONS: Final[dict[Health, str]] = {
    "healthy": "nothing",
    "refreshing": "nothing: a refresh is under way",
    "degraded": "see what failed; the grant is tried again by itself",
    "uncertain": "broker grants refresh GRANT --even-uncertain tries once more; else have the person authorize again",
    "needs_reauth": _REAUTHORIZE,
    "revoked": "nothing: it was ended here",
    "suspended": "find out why a refresh was about somebody else; then have the person authorize again",
}


@dataclass(frozen=True, slots=True)
class HealthReport:
    """What is said of one grant."""

    health: Health
    since: float
    """Seconds since 1970."""
    evidence: str
    """From codes and counts alone."""
    action: str
    """The one thing that an operator can do."""


def health_of(grant: Grant, *, now: float) -> HealthReport:
    """Say how a grant is at `now` (seconds)."""
    health, since, evidence = _found(grant, now)
    return HealthReport(health, since, evidence, _action(grant, health))


def _action(grant: Grant, health: Health) -> str:
    if health != "degraded" or grant.trouble is None:
        return _ACTIONS[health]
    kind = kind_of(grant.trouble.code)
    # A lost answer that cannot be found out makes a grant uncertain; this one is asked about, or for again, by itself.
    return ACTIONS["ehr_outage" if kind == "lost" else kind]


def lasting_health(grant: Grant, *, now: float) -> HealthReport:
    """Say how a grant is apart from a refresh that is under way: what others are told of."""
    return health_of(replace(grant, attempted_by=None), now=now)


def _found(grant: Grant, now: float) -> tuple[Health, float, str]:
    serves = now < grant.expires_at
    if grant.state == "uncertain":
        left = "its access token serves until its end" if serves else "its access token has ended"
        since = grant.since if serves else max(grant.since, grant.expires_at)
        return ("uncertain" if serves else "needs_reauth"), since, f"{grant.cause}; {left}"
    if grant.state != "active":
        return grant.state, grant.since, grant.cause or grant.state
    if not grant.refreshable and not serves:
        return "needs_reauth", grant.expires_at, "its access token has ended, and there is no refresh token"
    trouble, attempted = grant.trouble, grant.attempted_by
    failed = f"{trouble.count} refreshes failed, the last one with {trouble.code}" if trouble is not None else ""
    began = began_at(attempted) if attempted is not None else None
    if attempted is not None and (trouble is None or (began is not None and began > trouble.last_at)):
        more = f"; before it {failed}" if failed else ""
        return "refreshing", grant.since if began is None else began, f"a refresh has begun and not ended{more}"
    if trouble is not None:
        return "degraded", trouble.first_at, failed
    return "healthy", grant.since, f"generation {grant.generation}"
