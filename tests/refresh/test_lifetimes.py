"""What is learned of how long refresh tokens live, and when grants are expected to end."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.grants import Grant, LaunchContext, Terms
from broker.profiles import profile
from broker.refresh.ends import ObservedEnd
from broker.refresh.lifetimes import LEAST_ENDS, Expected, Learned, expect, learn
from broker.scopes import Scopes

DAY = 86_400.0
TERMS = Terms("ehr", "https://ehr.example", "r", "launch", "app", Scopes.parse("patient/*.rs"), LaunchContext())
GRANT = Grant(
    tag="t" * 12,
    terms=TERMS,
    state="active",
    generation=9,
    created_at=0,
    since=10 * DAY,
    renew_at=10 * DAY + 50,
    expires_at=10 * DAY + 100,
    refreshable=True,
    cause=None,
    sealed_tokens=b"",
)
NOTHING_KNOWN = profile("generic")


def used(*days: float) -> list[ObservedEnd]:
    """Ends of grants that were refreshed until an hour before."""
    return [ObservedEnd(age * DAY, 3600) for age in days]


def left(*days: float) -> list[ObservedEnd]:
    """Ends of grants that nobody refreshed for so long, at some age beyond that."""
    return [ObservedEnd(idle * DAY + 86_400, idle * DAY) for idle in days]


@pytest.mark.parametrize(
    ("ends", "learned"),
    [
        ([], None),
        (used(90, 90, 90, 90), None),
        (used(90, 90, 90, 90, 90), Learned("authorization", 90 * DAY, 5)),
        (used(88, 89, 90, 91, 92, 3, 40), Learned("authorization", 90 * DAY, 5)),
        (used(1, 5, 20, 45, 90, 180, 200), None),
        (used(90, 90, 90, 90, 90, 1, 2, 3, 4, 5, 6), None),
        (left(60, 60, 61, 62, 63), Learned("refresh", 61 * DAY, 5)),
        (left(60, 75, 90, 120, 200, 350), None),
        (used(90, 90, 90, 90, 90) + left(30, 30, 30, 30, 30, 30), Learned("authorization", 90 * DAY, 5)),
        (used(3, 30, 90) + left(30, 30, 30, 30, 30), Learned("refresh", 30 * DAY, 5)),
    ],
)
def test_a_rule_is_what_most_ends_agree_on_and_nothing_else(ends: list[ObservedEnd], learned: Learned | None) -> None:
    """RF-13."""
    assert learn(ends) == learned


@given(st.lists(st.builds(ObservedEnd, st.floats(0, 1e9), st.floats(0, 1e9)), max_size=40))
def test_whatever_was_observed_a_rule_has_ends_that_agree_with_it(ends: list[ObservedEnd]) -> None:
    rule = learn(ends)

    if rule is not None:
        near = [
            one for end in ends for one in (end.age, end.idle) if abs(one - rule.seconds) <= 0.25 * rule.seconds + 1
        ]
        assert rule.ends >= LEAST_ENDS
        assert len(near) >= LEAST_ENDS


LEARNED = Learned("authorization", 90 * DAY, 12)
IDLE = Learned("refresh", 30 * DAY, 7)


@pytest.mark.parametrize(
    ("grant", "learned", "known", "expected"),
    [
        ({}, None, {}, None),
        ({"expected_end": 40 * DAY}, LEARNED, {"refresh_idle": 5}, Expected(40 * DAY, "said", "the EHR said so")),
        (
            {},
            LEARNED,
            {"refresh_idle": 864_000},
            Expected(90 * DAY, "learned", "learned from 12 ends: 90 days after the last authorization"),
        ),
        (
            {},
            IDLE,
            {},
            Expected(40 * DAY, "learned", "learned from 7 ends: 30 days after the last refresh"),
        ),
        (
            {"reauthorized_at": 8 * DAY},
            LEARNED,
            {},
            Expected(98 * DAY, "learned", "learned from 12 ends: 90 days after the last authorization"),
        ),
        ({"since": 91 * DAY}, LEARNED, {}, None),
        (
            {"since": 91 * DAY},
            LEARNED,
            {"refresh_idle": 864_000},
            Expected(101 * DAY, "profile", "its profile: 10 days after the last refresh"),
        ),
        (
            {},
            None,
            {"refresh_lifetime": 2_592_000, "refresh_idle": 864_000},
            Expected(30 * DAY, "profile", "its profile: 30 days after the last authorization"),
        ),
        (
            {},
            None,
            {"refresh_idle": 7200},
            Expected(10 * DAY + 7200, "profile", "its profile: 2 hours after the last refresh"),
        ),
    ],
)
def test_a_grant_ends_when_the_ehr_says_or_as_was_learned_or_as_is_known_and_never_when_it_has_outlived_that(
    grant: dict[str, Any], learned: Learned | None, known: dict[str, int], expected: Expected | None
) -> None:
    """RF-13."""
    assert expect(replace(GRANT, **grant), learned, NOTHING_KNOWN.model_copy(update=known)) == expected


def test_oracles_grants_end_unused() -> None:
    """RF-13."""
    expected = expect(GRANT, None, profile("oracle"))

    assert expected == Expected(100 * DAY, "profile", "its profile: 90 days after the last refresh")
