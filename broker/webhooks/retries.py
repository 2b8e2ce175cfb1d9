"""When what was not heard is said again, and when that is given up. Pure."""

from typing import Final

FIRST_SECONDS: Final = 5.0
FACTOR: Final = 4.0
LONGEST_SECONDS: Final = 6 * 3600.0
GIVE_UP_SECONDS: Final = 3 * 86_400.0
"""An event that is older is a dead letter."""
_SPREAD: Final = 0.5


def next_try(tries: int, *, first: float, now: float, asked: float, drawn: float) -> float | None:
    """Return when to try again after so many tries; None when the event is given up. All in seconds.

    The pause is four times as long each time, and spread by `drawn` (0 to 1) from three quarters to five quarters of
    that; or as long as the receiver `asked`, within the longest pause.
    """
    if now - first >= GIVE_UP_SECONDS:
        return None
    pause = min(FIRST_SECONDS * FACTOR ** min(tries - 1, 10), LONGEST_SECONDS)
    spread = pause * (1 + _SPREAD * (drawn - 0.5))
    return now + max(spread, min(asked, LONGEST_SECONDS))
