"""What may be asked of an EHR's token endpoint, and what a request that has ended says about the EHR. Pure."""

from dataclasses import dataclass
from math import ceil
from typing import Final, Literal, Self

from broker.errors import EhrAnswerLost, EhrRefused, EhrUnreachable
from broker.settings import EhrSettings

Lane = Literal["interactive", "launch", "background"]
"""Whether somebody waits for the answer: a caller whose token has ended, an operator; or whoever launches, which is
anybody: nobody has to be known for that, and what is asked is what he says."""
Verdict = Literal["answered", "failed", "neither"]

BACKGROUND_SHARE: Final = 0.75
"""Of what there is, work that nobody waits for takes no more; the rest is always there for who waits."""
LAUNCH_SHARE: Final = 0.9
"""Launches take no more, so that however many anybody begins, who has access already keeps it."""
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
        share = _share if lane == "background" else _launch_share
        return cls(share(every), share(in_a_row), gap, in_a_row)


def _share(of: int) -> int:
    return max(1, min(of - 1, int(of * BACKGROUND_SHARE)))


def _launch_share(of: int) -> int:
    return max(_share(of) + 1, int(of * LAUNCH_SHARE))


def verdict(error: BaseException | None, lane: Lane = "interactive") -> Verdict:
    """Say whether the EHR works; `neither` where nothing says so, or it asked for a pause.

    An answer that cannot be used counts as none (RF-05): more requests would only lose more refresh tokens. To a
    launch, a 5xx says nothing: some EHRs answer so to a code that somebody has made up.
    """
    if error is None or isinstance(error, EhrRefused):
        return "answered"
    if isinstance(error, EhrUnreachable):
        unheard = error.retry_after is None or (error.retry_after == 0 and lane != "launch")
        return "failed" if unheard and not error.ours else "neither"
    return "failed" if isinstance(error, EhrAnswerLost) else "neither"


@dataclass(frozen=True, slots=True)
class GateState:
    """How an EHR's gate is, for an operator."""

    name: Literal["open", "paused", "broken", "probing"]
    until: float | None
    """Seconds since 1970, where that is known."""
    under_way: int
    """Requests."""


def state_of(paused: float, broken: float, *, breaks: bool, under_way: int, now: float) -> GateState:
    """Say how a gate is at `now`: `probing` lets one request in at a time, until one is answered."""
    if now < paused:
        return GateState("paused", paused, under_way)
    if not breaks:
        return GateState("open", None, under_way)
    return GateState("broken", broken, under_way) if now < broken else GateState("probing", None, under_way)


def pause(error: BaseException | None, *, longest: float) -> float:
    """Return for how many seconds an EHR has asked to be left alone, `longest` at most; 0 where it has not."""
    if not isinstance(error, EhrUnreachable) or error.ours:
        return 0.0
    return min(error.retry_after or 0.0, longest)
