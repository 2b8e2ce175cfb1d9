"""What is said of a grant: ids, words and times. Nothing that opens anything, nothing that names a person. Pure."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from broker.grants import Grant, GrantState, HealthReport

EVENT_TYPE: Final = "grant.health_changed"
REASONS: Final[Mapping[GrantState, str]] = {
    "active": "well_again",
    "uncertain": "answer_lost",
    "needs_reauth": "refresh_refused",
    "suspended": "somebody_else",
    "revoked": "ended_here",
}
"""By the grant's state; where refreshes fail, the code of the last failure stands in its place."""


def message(grant: Grant, report: HealthReport, *, before: str, now: float) -> str:
    """Return the body of an event as JSON; it is the same at each try. `now` is when it was found, in seconds."""
    data = {
        "grant": grant.tag,
        "ehr": grant.terms.ehr,
        "registration": grant.terms.registration,
        "app": grant.terms.app,
        "health": report.health,
        "before": before,
        "since": written(report.since),
        "reason": reason(grant),
        "evidence": report.evidence,
        "action": report.action,
    }
    return json.dumps({"type": EVENT_TYPE, "timestamp": written(now), "data": data}, separators=(",", ":"))


def reason(grant: Grant) -> str:
    """Return one stable word for why a grant is as it is."""
    return grant.trouble.code if grant.state == "active" and grant.trouble is not None else REASONS[grant.state]


def written(seconds: float) -> str:
    """Return a time as RFC 3339, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
