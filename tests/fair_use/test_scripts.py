"""The two scripts do, step by step, what the model does."""

from collections.abc import Iterator
from math import ceil
from typing import Any

import pytest
from hypothesis import given as examples
from hypothesis import settings
from hypothesis import strategies as st
from redis import Redis

from broker.fair_use.bucket import KEPT_SECONDS
from broker.fair_use.rate import Rate
from broker.store import keys
from broker.store.embedded import EmbeddedServer
from broker.store.scripts import script
from tests.fair_use.model import ModelBucket

BEGAN = 1_795_000_000.0
PAUSE = 90.0
KEY = keys.pace("ehr", "general")
RATES = [Rate.of(60, None), Rate.of(600, 40), Rate.of(60_000, None), Rate.of(1, None), Rate.of(None, None)]


class Scripts:
    """The bucket in Redis."""

    def __init__(self, redis: Redis, rate: Rate) -> None:
        self.redis, self._rate = redis, rate
        self._take = redis.register_script(script("take_lot")._text)
        self._hold = redis.register_script(script("hold_bucket")._text)
        redis.delete(KEY)

    def take(self, now: float, wanted: int) -> tuple[int, float, float]:
        args: list[str | float] = [
            repr(now),
            wanted,
            repr(self._rate.gap),
            self._rate.burst,
            PAUSE,
            KEPT_SECONDS * 1000,
        ]
        given, wait, held = self._take(keys=[KEY], args=args)
        return given, float(wait), float(held)

    def hold(self, now: float, seconds: float) -> None:
        self._hold(keys=[KEY], args=[repr(now), repr(seconds), PAUSE, KEPT_SECONDS * 1000])


@pytest.fixture(scope="module")
def client(valkey: EmbeddedServer) -> Iterator[Redis]:
    with Redis.from_url(valkey.url().reveal()) as client:
        yield client
        client.delete(KEY)


@settings(max_examples=100)
@examples(
    rate=st.sampled_from(RATES),
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("wait"), st.sampled_from([0.25, 1.0, 7.0, 61.0])),
            st.tuples(st.just("take"), st.integers(0, 20)),
            st.tuples(st.just("hold"), st.sampled_from([0.5, 5.0, PAUSE])),
        ),
        max_size=50,
    ),
)
def test_the_scripts_do_what_the_model_does(client: Redis, rate: Rate, steps: list[tuple[Any, ...]]) -> None:
    scripts, model, now, taken = Scripts(client, rate), ModelBucket(rate, PAUSE), BEGAN, 0
    for kind, value in steps:
        if kind == "wait":
            now += value
        elif kind == "hold":
            scripts.hold(now, value)
            model.hold(now, value)
        else:
            given, wait, held = scripts.take(now, value)
            expected = model.take(now, value)
            assert given == expected[0]
            assert (wait, held) == pytest.approx(expected[1:], abs=2e-3)
            taken += given

    assert rate.gap == 0 or taken <= rate.burst + (now - BEGAN) / rate.gap + 0.01
    assert not client.exists(KEY) or 0 < client.pttl(KEY) <= KEPT_SECONDS * 1000


def test_a_clock_that_was_set_back_leaves_no_bucket_empty_for_as_long_and_none_full(client: Redis) -> None:
    scripts = Scripts(client, Rate.of(60, 10))
    assert scripts.take(BEGAN + 3600, 10)[0] == 10
    scripts.hold(BEGAN + 3600, PAUSE)

    assert scripts.take(BEGAN, 10) == pytest.approx((0, 1.0, 0.0), abs=1e-3)
    assert scripts.take(BEGAN + 1, 10)[0] == 1


def test_a_shorter_pause_does_not_end_a_longer_one(client: Redis) -> None:
    scripts = Scripts(client, Rate.of(None, None))
    scripts.hold(BEGAN, 30.0)
    scripts.hold(BEGAN, 2.0)

    assert scripts.take(BEGAN + 3, 0)[2] == pytest.approx(27.0)


def test_a_bucket_is_kept_until_it_is_full_and_every_pause_over() -> None:
    """Then one that is gone is as good as one that is there."""
    slowest = Rate.of(1, 60)

    assert max(ceil(slowest.gap * slowest.burst), 3600) < KEPT_SECONDS
