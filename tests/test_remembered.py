"""What is remembered: never more than was said, never anything else than what it depends on gives."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.apps import App
from broker.errors import InsufficientScope
from broker.policy import EffectiveScopes, decide, effective_scopes
from broker.remembered import Remembered
from tests.test_policy import app, ask, grant, handle, known

SCOPES = ("patient/*.rs", "patient/Observation.rs", "patient/*.cruds", "patient/Patient.r", "user/*.rs")


@given(st.lists(st.integers(0, 20)), st.integers(1, 5))
def test_no_more_is_kept_than_was_said_and_the_oldest_goes_first(numbers: list[int], most: int) -> None:
    remembered, model = Remembered[int, str](most), list[int]()
    for number in numbers:
        assert remembered.get(number) == (str(number) if number in model else None)
        if number not in model:
            assert remembered.keep(number, str(number)) == str(number)
            model = [*model, number][-most:]


@given(st.lists(st.tuples(*[st.sampled_from(SCOPES)] * 2, st.sampled_from(["launch", "backend"])), max_size=12))
def test_what_is_left_of_scopes_is_the_same_remembered_or_not(asked: list[tuple[str, str, str]]) -> None:
    """Each record that it depends on makes a difference, also one that comes back (SC-01)."""
    find_app = known(app("patient/*.rs"))
    effective = EffectiveScopes(find_app)
    for held, granted, flow in asked * 2:
        of_grant = grant(granted)
        of_grant = replace(of_grant, terms=replace(of_grant.terms, flow=flow))  # type: ignore[arg-type]  # one of the two
        try:
            expected = effective_scopes(handle(held), of_grant, find_app)
        except InsufficientScope:
            with pytest.raises(InsufficientScope):
                effective(handle(held), of_grant)
        else:
            assert effective(handle(held), of_grant) == expected


def test_a_decision_does_not_work_out_again_what_is_remembered() -> None:
    asked, of_policy = list[str](), known(app("patient/*.rs"))

    def find_app(app_id: str) -> App | None:
        asked.append(app_id)
        return of_policy(app_id)

    effective = EffectiveScopes(find_app)
    for _ in range(3):
        decide(handle("patient/*.rs"), grant("patient/*.rs"), of_policy, ask("GET", "Observation"), effective=effective)

    assert asked == ["app"]
