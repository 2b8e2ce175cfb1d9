import time

import pytest

from broker.errors import StoreUnavailable
from broker.refresh import insisting
from broker.refresh.insisting import insist


class Write:
    """A write that fails the first times, each of which takes a while."""

    def __init__(self, *, fails: int, seconds: float) -> None:
        self.left, self.seconds, self.tried = fails, seconds, 0

    async def __call__(self) -> str:
        self.tried += 1
        if self.left > 0:
            self.left -= 1
            time.sleep(self.seconds)  # noqa: ASYNC251  # the process stands still, and its loop with it
            raise StoreUnavailable("TimeoutError")
        return "written"


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(insisting, "INSIST_SECONDS", 0.02)
    monkeypatch.setattr(insisting, "_AGAIN_SECONDS", 0.0)


async def test_a_process_that_stood_still_for_too_long_tries_once_more() -> None:
    """RF-05: by SIGSTOP, say, with the only refresh token there is in its hand."""
    write = Write(fails=1, seconds=0.03)

    assert await insist(write) == "written"


async def test_a_store_that_stays_away_is_given_up() -> None:
    write = Write(fails=1_000_000, seconds=0.005)

    with pytest.raises(StoreUnavailable):
        await insist(write)

    assert 3 <= write.tried <= 10
