"""What may be asked of an EHR's token endpoint, and what a request that has ended says about the EHR. Pure."""

from dataclasses import dataclass
from math import ceil
from typing import Final, Literal, Self

from broker.errors import EhrAnswerLost, EhrAnswerUnreadable, EhrError, EhrHeldBack, EhrUnreachable
from broker.settings import EhrSettings

Lane = Literal["interactive", "background"]
"""Whether somebody waits for the answer: a person who launches, a caller whose token has ended, an operator."""
Verdict = Literal["answered", "failed", "neither"]

BACKGROUND_SHARE: Final = 0.75
"""Of what there is, work that nobody waits for takes no more; the rest is always there for who waits."""
AT_ONCE_SHARE: Final = 0.25
"""Of a minute's requests, how many may be sent in a row. The rest follows evenly: no minute ever sees more than all."""
_MINUTE: Final = 60.0


@dataclass(frozen=True, slots=True)
class Limits:
    """For one lane at one EHR."""

    under_way: int
    """Requests that all lanes together may have under way when one more is let in."""
    in_a_row: int
    """Requests that may be sent at once after a pause."""
    gap: float
    """Seconds between two, once that many were sent."""
    in_a_row_of_all: int
    """What `in_a_row` is for whoever waits."""

    @classmethod
    def of(cls, ehr: EhrSettings, lane: Lane) -> Self:
        """Return the limits; whatever the settings, each lane may ask, and whoever waits finds one more than others."""
        every, per_minute = ehr.token_concurrency, ehr.token_requests_per_minute
        in_a_row = max(2, ceil(per_minute * AT_ONCE_SHARE))
        gap = _MINUTE / (per_minute - in_a_row)
        if lane == "interactive":
            return cls(every, in_a_row, gap, in_a_row)
        return cls(_share(every), _share(in_a_row), gap, in_a_row)


def _share(of: int) -> int:
    return max(1, min(of - 1, int(of * BACKGROUND_SHARE)))


def verdict(error: BaseException | None) -> Verdict:
    """Say whether the EHR answered; `neither` where it was not asked, or asked for a pause."""
    if isinstance(error, EhrHeldBack) or (isinstance(error, EhrUnreachable) and error.retry_after):
        return "neither"
    if isinstance(error, EhrUnreachable):
        return "failed"
    if isinstance(error, EhrAnswerLost):
        return "answered" if isinstance(error, EhrAnswerUnreadable) else "failed"
    return "answered" if error is None or isinstance(error, EhrError) else "neither"


def pause(error: BaseException | None, *, longest: float) -> float:
    """Return for how many seconds an EHR has asked to be left alone, `longest` at most; 0 where it has not."""
    if not isinstance(error, EhrUnreachable) or isinstance(error, EhrHeldBack):
        return 0.0
    return min(error.retry_after or 0.0, longest)
