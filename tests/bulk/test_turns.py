"""Whose export is next: round among apps, in order within one, and nobody is held up by who does not ask (OR-08)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.bulk.turns import Line

HERE = {f"{app}:{number}": 1e9 for app in "abc" for number in range(9)}


def line(*waiting: str, running: int = 0, turns: dict[str, float] | None = None, held_until: float = 0.0) -> Line:
    return Line(running, [(name, float(at)) for at, name in enumerate(waiting)], HERE, turns or {}, held_until)


ORDERS = {
    "one app": (("a:1", "a:2", "a:3"), {}, ["a:1", "a:2", "a:3"]),
    "two apps take turns": (("a:1", "a:2", "a:3", "b:1"), {}, ["a:1", "b:1", "a:2", "a:3"]),
    "who had none for longest": (("a:1", "b:1", "c:1"), {"a": 3.0, "b": 1.0}, ["c:1", "b:1", "a:1"]),
    "rounds come before turns": (("a:1", "a:2", "b:1"), {"a": 1.0, "b": 2.0}, ["a:1", "b:1", "a:2"]),
}


@pytest.mark.parametrize(("waiting", "turns", "order"), ORDERS.values(), ids=ORDERS)
def test_apps_take_turns(waiting: tuple[str, ...], turns: dict[str, float], order: list[str]) -> None:
    assert line(*waiting, turns=turns).order(waiting[0], 0.0) == order


@pytest.mark.parametrize(
    ("running", "limit", "may"),
    [(0, 1, ["a:1"]), (1, 1, []), (2, 1, []), (0, 2, ["a:1", "a:2"]), (1, 2, ["a:1"]), (7, 0, ["a:1", "a:2", "a:3"])],
)
def test_as_many_begin_as_there_is_room_for_and_all_where_nobody_says_how_many(
    running: int, limit: int, may: list[str]
) -> None:
    here = line("a:1", "a:2", "a:3", running=running)

    assert [name for name, _ in here.waiting if here.is_next(name, limit, 0.0)] == may


def test_one_by_one_begins_where_the_ehr_has_refused_one_of_late() -> None:
    here = line("a:1", "a:2", running=3, held_until=10.0)

    assert [name for name, _ in here.waiting if here.is_next(name, 0, 11.0)] == ["a:1"]


def test_nobody_begins_while_the_ehr_takes_no_more() -> None:
    assert not line("a:1", held_until=10.0).is_next("a:1", 0, 9.9)
    assert line("a:1", held_until=10.0).is_next("a:1", 0, 10.0)


def test_who_does_not_ask_any_more_holds_nobody_up_and_keeps_its_place() -> None:
    waiting = [("a:1", 0.0), ("b:1", 1.0)]
    here = Line(0, waiting, {"a:1": 5.0, "b:1": 9.0})

    assert here.is_next("b:1", 1, 5.0)
    assert not here.is_next("b:1", 1, 4.9)
    assert here.is_next("a:1", 1, 6.0), "whoever asks is there"


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 8)), unique=True, min_size=1),
    st.dictionaries(st.sampled_from("abc"), st.floats(0, 100)),
    st.integers(0, 4),
    st.integers(1, 4),
)
def test_never_more_than_there_is_room_for_and_never_nobody(
    waiting: list[tuple[str, int]], turns: dict[str, float], running: int, limit: int
) -> None:
    names = [f"{app}:{number}" for app, number in waiting]
    here = line(*names, running=running, turns=turns)

    begins = [name for name in names if here.is_next(name, limit, 0.0)]

    assert len(begins) == min(len(names), max(0, limit - running))
    assert sorted(here.order(names[0], 0.0)) == sorted(names)


@given(st.integers(1, 8))
def test_an_app_with_one_export_waits_for_one_of_each_other_app_at_most(many: int) -> None:
    names = [f"a:{number}" for number in range(many)]
    here = line(*names, "b:1", turns={"a": 1.0})

    assert here.order("b:1", 0.0).index("b:1") == 0
    assert line(*names, "b:1", turns={"a": 1.0, "b": 2.0}).order("b:1", 0.0).index("b:1") == 1
