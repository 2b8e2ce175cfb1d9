"""When an event is tried again, and when no more."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.webhooks.retries import GIVE_UP_SECONDS, LONGEST_SECONDS, next_try


@pytest.mark.parametrize(
    ("tries", "asked", "drawn", "pause"),
    [
        (1, 0, 0.5, 5),
        (2, 0, 0.5, 20),
        (3, 0, 0.5, 80),
        (4, 0, 0.5, 320),
        (6, 0, 0.5, 5120),
        (7, 0, 0.5, 20_480),
        (8, 0, 0.5, 21_600),
        (99, 0, 0.5, 21_600),
        (1, 0, 0.0, 3.75),
        (1, 0, 1.0, 6.25),
        (1, 60, 0.5, 60),
        (4, 60, 0.5, 320),
        (1, 86_400, 0.5, 21_600),
    ],
)
def test_pauses_grow_fourfold_up_to_six_hours_or_as_the_receiver_asks(
    tries: int, asked: float, drawn: float, pause: float
) -> None:
    assert next_try(tries, first=0, now=1000, asked=asked, drawn=drawn) == 1000 + pause


@pytest.mark.parametrize(("age", "given_up"), [(GIVE_UP_SECONDS - 1, False), (GIVE_UP_SECONDS, True)])
def test_an_event_is_given_up_after_three_days(age: float, *, given_up: bool) -> None:
    assert (next_try(20, first=50, now=50 + age, asked=0, drawn=0) is None) == given_up


@given(st.integers(1, 1000), st.floats(0, 1e9), st.floats(0, 1))
def test_no_pause_is_shorter_than_the_first_or_longer_than_the_longest(tries: int, asked: float, drawn: float) -> None:
    at = next_try(tries, first=0, now=0, asked=asked, drawn=drawn)

    assert at is not None
    assert 3.75 <= at <= 1.25 * LONGEST_SECONDS
