"""Exports in a real store, by a clock that a test moves."""

import pytest
from redis.asyncio import Redis

from broker.bulk import Jobs
from tests.stage.clock import MovableClock
from tests.stage.vault import a_vault


@pytest.fixture
def clock() -> MovableClock:
    return MovableClock()


@pytest.fixture
def jobs(redis: Redis, clock: MovableClock) -> Jobs:
    return Jobs(redis, a_vault(redis), "t", clock)
