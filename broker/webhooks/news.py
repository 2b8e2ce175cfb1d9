"""What is said of a grant: ids, words and times. Nothing that opens anything, nothing that names a person. Pure."""

import json
from datetime import UTC, datetime
from typing import Final

from broker.grants import Grant, HealthReport

EVENT_TYPE: Final = "grant.health_changed"


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
        "evidence": report.evidence,
        "action": report.action,
    }
    return json.dumps({"type": EVENT_TYPE, "timestamp": written(now), "data": data}, separators=(",", ":"))


def written(seconds: float) -> str:
    """Return a time as RFC 3339, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
