"""When the EHR may be asked again about an export, and what of its progress is passed on (BD-05 to BD-07). Pure."""

import json
import math
from collections.abc import Mapping
from typing import Final

from broker.ehr.token_answer import parse_retry_after

FIRST_SECONDS: Final = 5.0
LONGEST_SECONDS: Final = 300.0
"""Where the EHR does not say: between the first two polls, and at most; each time twice as long."""
PROGRESS_CHARACTERS: Final = 100
_TRANSIENT: Final = frozenset(
    {"transient", "lock-error", "no-store", "exception", "timeout", "incomplete", "throttled"}
)
"""The issue type `transient` of FHIR, and those below it."""


def next_wait(headers: Mapping[str, str], polls: int) -> float:
    """Return how long to wait, in seconds: what `Retry-After` asks for, or exponentially longer with each poll."""
    asked = parse_retry_after(headers)
    return asked if asked > 0 else min(FIRST_SECONDS * 2 ** min(polls, 16), LONGEST_SECONDS)


def retry_after(seconds: float) -> str:
    """Return the header's value: whole seconds, never less than it takes."""
    return str(max(1, math.ceil(seconds)))


def clean_progress(said: str | None) -> str | None:
    """Return `X-Progress` as it may be passed on: printable ASCII, under 100 characters (BD-06)."""
    kept = "".join(letter for letter in said or "" if " " <= letter <= "~").strip()
    return kept[: PROGRESS_CHARACTERS - 1] or None


def is_transient(body: bytes) -> bool:
    """Whether a failed status may be asked for again: its issues say so, or nothing in it is an issue (BD-07).

    What a gateway answers in the EHR's stead says nothing of the export.
    """
    try:
        issues = json.loads(body)["issue"]
        codes = {issue["code"] for issue in issues}
    except (ValueError, RecursionError, KeyError, TypeError):
        return True
    return not codes or bool(codes & _TRANSIENT)
