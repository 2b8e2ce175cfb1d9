"""Lots: however replicas take them and use them up, no more gets through than the bucket gives."""

from dataclasses import dataclass, field
from math import inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.fair_use.rate import FRESH_SECONDS, LOT_PART, Lot, Rate
from tests.fair_use.model import ModelBucket

BEGAN = 1_000_000.0


@pytest.mark.parametrize(
    ("per_minute", "burst", "rate"),
    [
        (None, None, Rate(0.0, 0, inf)),
        (60_000, None, Rate(0.001, 15_000, 937)),
        (60_000, 160, Rate(0.001, 160, 10)),
        (600, None, Rate(0.1, 150, 9)),
        (60, None, Rate(1.0, 15, 0)),
        (60, 3600, Rate(1.0, 3600, 1)),
        (4, None, Rate(15.0, 1, 0)),
        (1, None, Rate(60.0, 1, 0)),
        (6_000_000, None, Rate(0.00001, 1_500_000, 93_750)),
    ],
)
def test_a_limit_says_its_gap_its_burst_and_what_a_replica_may_hold(
    per_minute: int | None, burst: int | None, rate: Rate
) -> None:
    assert Rate.of(per_minute, burst) == rate


@given(st.integers(1, 6_000_000), st.none() | st.integers(1, 100_000))
def test_a_lot_is_a_small_part_of_the_bucket(per_minute: int, burst: int | None) -> None:
    rate = Rate.of(per_minute, burst)

    assert rate.lot <= rate.burst / LOT_PART
    assert rate.lot <= max(1, per_minute / 60)


def test_without_a_limit_nobody_waits_and_the_store_is_asked_for_news_alone() -> None:
    lot = Lot(Rate.of(None, None))

    assert all(lot.take(BEGAN) for _ in range(100_000))
    assert (lot.is_low(BEGAN), lot.wanted(5)) == (True, 0)
    lot.fill(BEGAN, given=0, empty_for=0.0, held_for=0.0)
    assert not lot.is_low(BEGAN + FRESH_SECONDS / 2)
    assert lot.is_low(BEGAN + FRESH_SECONDS)
    assert lot.closed(BEGAN) is None


def test_a_lot_is_filled_up_when_half_of_it_is_used_or_it_is_old() -> None:
    lot = Lot(Rate.of(600, 160))
    lot.fill(BEGAN, given=lot.wanted(0), empty_for=0.0, held_for=0.0)

    taken = 0
    while not lot.is_low(BEGAN):
        assert lot.take(BEGAN)
        taken += 1
    assert (taken, lot.left, lot.wanted(0), lot.wanted(3)) == (6, 4, 6, 9)
    lot.fill(BEGAN, given=6, empty_for=0.0, held_for=0.0)
    assert (lot.is_low(BEGAN), lot.is_low(BEGAN + FRESH_SECONDS)) == (False, True)


def test_of_a_small_bucket_nothing_is_taken_ahead_of_use() -> None:
    lot = Lot(Rate.of(60, None))

    assert (lot.wanted(1), lot.is_low(BEGAN)) == (1, False)


def test_a_pause_goes_before_all_that_is_left_and_the_longer_one_counts() -> None:
    lot = Lot(Rate.of(600, 160))
    lot.fill(BEGAN, given=10, empty_for=0.0, held_for=5.0)
    lot.hold(BEGAN, 3.0)

    assert (lot.take(BEGAN + 4.5), lot.closed(BEGAN + 4.5)) == (False, ("held", 0.5))
    assert lot.take(BEGAN + 5)


def test_an_empty_bucket_is_not_asked_again_before_it_has_one() -> None:
    lot = Lot(Rate.of(60, None))
    lot.fill(BEGAN, given=0, empty_for=0.75, held_for=0.0)

    assert lot.closed(BEGAN) == ("empty", 0.75)
    assert lot.closed(BEGAN + 0.75) is None


def test_a_clock_that_is_set_back_ends_what_was_said_of_later() -> None:
    """Else a pause of a second would last for as long as the clock was set back."""
    held, empty = Lot(Rate.of(None, None)), Lot(Rate.of(60, None))
    held.fill(BEGAN, given=0, empty_for=0.0, held_for=5.0)
    empty.fill(BEGAN, given=0, empty_for=0.75, held_for=0.0)

    assert (held.take(BEGAN - 3600), held.is_low(BEGAN - 3600)) == (True, True)
    assert empty.closed(BEGAN - 3600) is None


def test_a_lot_that_brings_no_news_of_a_pause_begins_none() -> None:
    lot = Lot(Rate.of(None, None))
    lot.fill(BEGAN + 3600, given=0, empty_for=0.0, held_for=0.0)

    assert lot.take(BEGAN)


@dataclass
class Replicas:
    """Some lots on one bucket."""

    rate: Rate
    now: float = BEGAN
    bucket: ModelBucket = field(init=False)
    lots: list[Lot] = field(init=False)
    let_through: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.bucket = ModelBucket(self.rate)
        self.lots = [Lot(self.rate) for _ in range(3)]

    def request(self, which: int, waiting: int) -> None:
        """One arrives, `waiting` others wait beside it where the store has to be asked."""
        lot = self.lots[which]
        if not lot.take(self.now) and lot.closed(self.now) is None:
            self._fill(lot, 1 + waiting)
            if not lot.take(self.now):
                return
            self._let_through()
            for _ in range(waiting):
                if lot.take(self.now):
                    self._let_through()
        elif lot.closed(self.now) is None or lot.left:
            self._let_through()
            if lot.is_low(self.now):
                self._fill(lot, 0)

    def _let_through(self) -> None:
        self.let_through.append(self.now)

    def _fill(self, lot: Lot, waiting: int) -> None:
        taken, wait, held = self.bucket.take(self.now, lot.wanted(waiting))
        lot.fill(self.now, given=taken, empty_for=wait, held_for=held)
        assert lot.left <= lot.rate.lot + waiting


STEPS: st.SearchStrategy[list[tuple[Any, ...]]] = st.lists(
    st.one_of(
        st.tuples(st.just("wait"), st.sampled_from([0.001, 0.1, 0.5, 1.0, 3.0, 20.0])),
        st.tuples(st.just("request"), st.integers(0, 2), st.integers(0, 6)),
    ),
    max_size=200,
)


@given(STEPS, st.sampled_from([(60, None), (600, None), (600, 40), (6000, 320), (30, 1)]))
def test_all_replicas_together_use_no_more_than_the_bucket_gives(
    steps: list[tuple[Any, ...]], limit: tuple[int, int | None]
) -> None:
    """From the beginning `burst` and one each gap; in any stretch of time no more than what replicas held before it."""
    rate = Rate.of(*limit)
    replicas = Replicas(rate)
    for kind, *what in steps:
        if kind == "wait":
            replicas.now += what[0]
        else:
            replicas.request(*what)

    times = replicas.let_through
    for first, start in enumerate(times):
        most = rate.burst + (times[-1] - start) / rate.gap + (0 if first == 0 else len(replicas.lots) * rate.lot)
        assert len(times) - first <= most + 1e-6
