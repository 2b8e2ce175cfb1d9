"""Work over the whole store outlives a short outage, and no other error."""

import pytest

from broker.errors import KeyUnavailable, StoreUnavailable
from broker.flows.persist import AGAIN_SECONDS, TRIES, persist


class Work:
    """Fails some times before it does what it is for."""

    def __init__(self, fails: int, error: Exception | None = None) -> None:
        self.fails = fails
        self.error = error or StoreUnavailable("ConnectionError")
        self.tries = 0
        self.told: list[str] = []
        self.slept: list[float] = []

    async def __call__(self) -> str:
        self.tries += 1
        if self.tries <= self.fails:
            raise self.error
        return "done"

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


async def run(work: Work) -> str:
    return await persist(work, tell=work.told.append, sleep=work.sleep)


@pytest.mark.parametrize("fails", [0, 1, TRIES - 1])
async def test_it_begins_again_until_the_store_is_back(fails: int) -> None:
    work = Work(fails)

    assert await run(work) == "done"

    assert work.slept == [AGAIN_SECONDS] * fails
    assert work.told == ["the store is away (ConnectionError); going on in 5 s"] * fails


async def test_a_store_that_stays_away_ends_it() -> None:
    work = Work(TRIES)

    with pytest.raises(StoreUnavailable):
        await run(work)

    assert work.tries == TRIES


async def test_what_is_no_outage_of_the_store_ends_it_at_once() -> None:
    work = Work(1, KeyUnavailable("the KMS does not answer"))

    with pytest.raises(KeyUnavailable):
        await run(work)

    assert (work.tries, work.slept) == (1, [])
