from typing import Any

import pytest

from broker.errors import (
    EhrAnswerLost,
    EhrAnswerUnreadable,
    EhrHeldBack,
    EhrMisbehaved,
    EhrRefused,
    EhrUnreachable,
    StoreUnavailable,
)
from broker.refresh.limits import GateState, Lane, Limits, Verdict, pause, state_of, verdict
from broker.settings import EhrSettings


def ehr(**settings: Any) -> EhrSettings:
    return EhrSettings(id="general", fhir_base="https://ehr.example/r4", **settings)


@pytest.mark.parametrize(
    ("concurrency", "per_minute", "lane", "limits"),
    [
        (64, 6000, "interactive", Limits(64, 1500, 60 / 4500, 1500)),
        (64, 6000, "background", Limits(48, 1125, 60 / 4500, 1500)),
        (64, 6000, "launch", Limits(57, 1350, 60 / 4500, 1500)),
        (8, 60, "interactive", Limits(8, 15, 60 / 45, 15)),
        (8, 60, "launch", Limits(7, 13, 60 / 45, 15)),
        (8, 60, "background", Limits(6, 11, 60 / 45, 15)),
        (2, 6, "interactive", Limits(2, 2, 15.0, 2)),
        (2, 6, "launch", Limits(2, 2, 15.0, 2)),
        (2, 6, "background", Limits(1, 1, 15.0, 2)),
        (3, 7, "background", Limits(2, 1, 12.0, 2)),
    ],
)
def test_background_work_takes_three_quarters_and_never_the_last_one(
    concurrency: int, per_minute: int, lane: Lane, limits: Limits
) -> None:
    assert Limits.of(ehr(token_concurrency=concurrency, token_requests_per_minute=per_minute), lane) == limits


@pytest.mark.parametrize("per_minute", [*range(6, 200), 1000, 6000, 1_000_000])
def test_no_minute_can_see_more_requests_than_are_allowed(per_minute: int) -> None:
    """Those in a row, and what may follow within the minute; and it is not much less either."""
    limits = Limits.of(ehr(token_requests_per_minute=per_minute), "interactive")

    most = limits.in_a_row + 60 / limits.gap

    assert most == pytest.approx(per_minute)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (None, "answered"),
        (EhrRefused("", error="invalid_grant"), "answered"),
        (EhrRefused("", error="invalid_client"), "answered"),
        (EhrMisbehaved("HTML, or a URL that may not be called"), "neither"),
        (EhrAnswerUnreadable("2xx without a token"), "failed"),
        (EhrUnreachable("the client certificate cannot be used", ours=True), "neither"),
        (EhrUnreachable("no connection"), "failed"),
        (EhrUnreachable("status 502", retry_after=0.0), "failed"),
        (EhrUnreachable("status 429", retry_after=7.0), "neither"),
        (EhrAnswerLost("no answer within 10 s"), "failed"),
        (EhrHeldBack("nothing was sent", retry_after=1.0), "neither"),
        (StoreUnavailable("TimeoutError"), "neither"),
        (ValueError(), "neither"),
        (KeyboardInterrupt(), "neither"),
    ],
)
def test_what_a_request_says_about_its_ehr(error: BaseException | None, said: Verdict) -> None:
    """(RF-08): an EHR that says no works; one that asks for a pause is not broken; what was not sent says nothing."""
    assert verdict(error) == said


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (EhrRefused("", error="invalid_grant"), "answered"),
        (EhrUnreachable("status 502", retry_after=0.0), "neither"),
        (EhrUnreachable("status 429", retry_after=7.0), "neither"),
        (EhrUnreachable("no connection"), "failed"),
        (EhrAnswerLost("no answer within 10 s"), "failed"),
    ],
)
def test_what_a_request_that_anybody_can_cause_says(error: BaseException, said: Verdict) -> None:
    assert verdict(error, "launch") == said


@pytest.mark.parametrize(
    ("paused", "broken", "breaks", "name", "until"),
    [
        (0.0, 0.0, False, "open", None),
        (99.0, 99.0, False, "open", None),
        (101.0, 0.0, False, "paused", 101.0),
        (101.0, 105.0, True, "paused", 101.0),
        (100.0, 105.0, True, "broken", 105.0),
        (0.0, 100.0, True, "probing", None),
    ],
)
def test_how_a_gate_is(paused: float, broken: float, breaks: bool, name: Any, until: float | None) -> None:  # noqa: FBT001 - a table's column
    assert state_of(paused, broken, breaks=breaks, under_way=3, now=100.0) == GateState(name, until, 3)


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (EhrUnreachable("status 503", retry_after=7.5), 7.5),
        (EhrUnreachable("status 429", retry_after=86_400.0), 900.0),
        (EhrUnreachable("status 500", retry_after=0.0), 0.0),
        (EhrUnreachable("no connection"), 0.0),
        (EhrHeldBack("ours, not the EHR's", retry_after=7.5), 0.0),
        (EhrRefused("", error="invalid_grant"), 0.0),
        (None, 0.0),
    ],
)
def test_a_pause_is_what_the_ehr_itself_asked_for(error: BaseException | None, seconds: float) -> None:
    assert pause(error, longest=900.0) == seconds
