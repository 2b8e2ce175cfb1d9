from dataclasses import replace

import pytest

from broker.grants import Grant, LaunchContext, Terms
from broker.refresh.keeper import MOST_BEGUN, Pace, Step, next_step, next_try
from broker.scopes import Scopes

KEPT = Grant(
    tag="t" * 12,
    terms=Terms(
        "ehr", "https://ehr.example", "r", "launch", "app", Scopes.parse("patient/*.rs"), LaunchContext(patient="p")
    ),
    state="active",
    generation=1,
    created_at=1000,
    since=1000,
    renew_at=1070,
    expires_at=1100,
    refreshable=True,
    cause=None,
    sealed_tokens=b"",
    used_at=1000,
)
PATIENTLESS = replace(KEPT, terms=replace(KEPT.terms, context=LaunchContext()))


@pytest.mark.parametrize(
    ("grant", "now", "step"),
    [
        (KEPT, 1069.9, "wait"),
        (KEPT, 1070, "renew"),
        (KEPT, 1099.9, "renew"),
        (KEPT, 1100, "let_go"),
        (replace(KEPT, hold_until=1080), 1079, "wait"),
        (replace(KEPT, hold_until=1080), 1080, "renew"),
        (replace(KEPT, used_at=0), 1060, "let_go"),
        (replace(KEPT, used_at=0), 1059.9, "wait"),
        (replace(KEPT, state="suspended"), 1070, "let_go"),
        (replace(KEPT, state="uncertain"), 1070, "let_go"),
        (replace(KEPT, state="revoked"), 1070, "let_go"),
        (replace(KEPT, refreshable=False), 1070, "let_go"),
        (PATIENTLESS, 1000, "renew"),
        (replace(PATIENTLESS, hold_until=1005), 1000, "wait"),
        (replace(PATIENTLESS, generation=2), 1000, "wait"),
    ],
)
def test_a_grant_is_kept_while_it_lives_and_somebody_uses_it(grant: Grant, now: float, step: Step) -> None:
    """RF-07, CX-11."""
    assert next_step(grant, needed=True, now=now, unused_seconds=1060) == step


@pytest.mark.parametrize(
    ("used_at", "now", "step"),
    [
        (1000, 1069.9, "wait"),
        (1000, 1070, "let_go"),
        (999, 1070, "let_go"),
        (1000.1, 1069.9, "wait"),
        (1000.1, 1070, "renew"),
        (1069, 1099.9, "renew"),
        (1069, 1100, "let_go"),
    ],
)
def test_another_grant_is_renewed_ahead_of_its_end_if_it_was_used_since_the_last_renewal(
    used_at: float, now: float, step: Step
) -> None:
    """RF-06."""
    grant = replace(KEPT, used_at=used_at)

    assert next_step(grant, needed=False, now=now, unused_seconds=float("inf")) == step


def test_a_late_event_loop_halves_what_is_begun_and_a_quick_one_adds_to_it() -> None:
    pace = Pace(most=40)

    pace.heard(0.051)
    assert pace.most == 20
    pace.heard(0.049)
    assert pace.most == 24
    for _ in range(10):
        pace.heard(1.0)
    assert pace.most == 1
    for _ in range(100):
        pace.heard(0.0)
    assert pace.most == MOST_BEGUN


@pytest.mark.parametrize(("left", "pause"), [(3600, 450), (800, 100), (120, 15), (1, 15), (-5, 15)])
def test_an_ehr_that_is_down_for_long_is_asked_less_often_and_never_too_late(left: float, pause: float) -> None:
    """RF-07, RF-08."""
    assert next_try(KEPT, now=KEPT.expires_at - left) == KEPT.expires_at - left + pause
