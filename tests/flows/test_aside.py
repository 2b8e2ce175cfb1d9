"""What takes long is done beside what the event loop does."""

import threading

import pytest

from broker.flows.aside import aside


@pytest.mark.parametrize(("length", "is_beside"), [((64 << 10) - 1, False), (64 << 10, True)])
async def test_work_on_a_long_body_keeps_nobody_waiting(length: int, *, is_beside: bool) -> None:
    assert (await aside(length, threading.get_ident) != threading.get_ident()) is is_beside


@pytest.mark.parametrize("length", [0, 1 << 20])
async def test_work_fails_as_it_would_by_itself(length: int) -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        await aside(length, int, "x")
