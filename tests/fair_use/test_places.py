"""Who has the places at an EHR, and who gets the next one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import EhrUnreachable
from broker.fair_use import places as module
from broker.fair_use.places import LANES, Lane, Places


class Crowd:
    """Requests that hold or want a place, in the order in which each got its own."""

    def __init__(self, most: int) -> None:
        self.places = Places(most)
        self.got: list[str] = []
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._leaving: dict[str, asyncio.Event] = {}

    async def come(self, *names: str, app: str = "a", lane: Lane = "interactive") -> None:
        for name in names:
            self._leaving[name] = asyncio.Event()
            self._tasks[name] = asyncio.create_task(self._stay(name, app, lane))
        await asyncio.sleep(0)

    async def leave(self, *names: str) -> None:
        for name in names:
            self._leaving[name].set()
        for _ in range(4):
            await asyncio.sleep(0)

    async def give_up(self, *names: str) -> None:
        for name in names:
            self._tasks[name].cancel()
        await asyncio.gather(*(self._tasks[name] for name in names), return_exceptions=True)

    async def _stay(self, name: str, app: str, lane: Lane) -> None:
        leave = await self.places.enter(app, lane)
        try:
            self.got.append(name)
            await self._leaving[name].wait()
        finally:
            leave()

    async def end(self) -> None:
        await self.give_up(*self._tasks)


@asynccontextmanager
async def crowd(most: int) -> AsyncIterator[Crowd]:
    crowd = Crowd(most)
    yield crowd
    await crowd.end()
    assert is_untouched(crowd.places), "a place was lost"


def is_untouched(places: Places) -> bool:
    return not (places._taken or any(places._in_lane.values()) or any(places._lines.values()))


async def test_one_app_never_has_all_places() -> None:
    """One that takes its answers slowly would keep all others out."""
    async with crowd(4) as it:
        await it.come("a1", "a2", "a3", "a4", app="a")
        assert it.got == ["a1", "a2", "a3"]
        await it.come("b1", app="b")
        assert it.got == ["a1", "a2", "a3", "b1"]

        await it.leave("b1")
        assert "a4" not in it.got
        await it.leave("a1")
        assert it.got[-1] == "a4"


async def test_the_background_never_has_all_places_however_many_apps_it_is() -> None:
    async with crowd(4) as it:
        for app in "abcd":
            await it.come(app, app=app, lane="background")
        assert it.got == ["a", "b", "c"]
        await it.come("person", app="e")
        assert it.got[-1] == "person"

        await it.leave("a")
        assert it.got[-1] == "d"


async def test_who_waits_for_an_answer_comes_before_the_background() -> None:
    async with crowd(2) as it:
        await it.come("a1", app="a")
        await it.come("b1", app="b")
        await it.come("c1", app="c", lane="background")
        await it.come("d1", app="d")
        await it.leave("a1")
        assert it.got == ["a1", "b1", "d1"]
        await it.leave("b1")
        assert it.got[-1] == "c1"


async def test_whoever_comes_while_others_wait_for_the_same_does_not_go_before_them() -> None:
    async with crowd(2) as it:
        await it.come("a1", app="a")
        await it.come("b1", app="b")
        await it.come("c1", app="c")
        assert not it.places.take("d", "interactive")
        await it.leave("a1")
        assert it.got[-1] == "c1"


async def test_apps_take_turns_however_many_one_sends() -> None:
    async with crowd(2) as it:
        await it.come("x", app="x")
        await it.come("y", app="y")
        await it.come("a1", "a2", "a3", app="a")
        await it.come("b1", app="b")
        for gone in ("x", "a1", "b1", "a2"):
            await it.leave(gone)
        assert it.got[2:] == ["a1", "b1", "a2", "a3"]


async def test_an_app_at_its_own_end_keeps_nobody_waiting_behind_it() -> None:
    async with crowd(8) as it:
        await it.come(*(f"a{n}" for n in range(9)), app="a")
        assert len(it.got) == 6
        await it.come("b1", "b2", app="b")
        assert it.got[6:] == ["b1", "b2"]


async def test_whoever_gives_up_leaves_no_gap_in_the_line() -> None:
    async with crowd(2) as it:
        await it.come("x", app="x")
        await it.come("y", app="y")
        await it.come("a1", "a2", "a3", app="a")
        await it.give_up("a2")
        await it.leave("x")
        await it.leave("a1")
        assert it.got[2:] == ["a1", "a3"]


async def test_whoever_gives_up_at_the_moment_that_it_is_its_turn_hands_the_place_on() -> None:
    async with crowd(2) as it:
        await it.come("x", app="x")
        await it.come("y", app="y")
        await it.come("a1", app="a")
        await it.come("b1", app="b")
        it._leaving["x"].set()
        await asyncio.sleep(0)  # the place is a1's, and it does not know yet
        await it.give_up("a1")
        await it.leave()
        assert it.got[2:] == ["b1"]


async def test_who_waits_too_long_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.01)
    async with crowd(2) as it:
        await it.come("x", app="x")
        await it.come("y", app="y")
        with pytest.raises(EhrUnreachable, match="fhir_concurrency") as raised:
            await it.places.enter("a", "interactive")
        assert raised.value.ours


@given(
    st.integers(2, 9),
    st.lists(
        st.one_of(
            st.tuples(st.just("come"), st.sampled_from("abc"), st.sampled_from(LANES)),
            st.tuples(st.sampled_from(["leave", "give_up"]), st.integers(0, 40)),
        ),
        max_size=40,
    ),
)
def test_no_place_is_lost_and_none_is_given_twice(most: int, steps: list[tuple[Any, ...]]) -> None:
    async def play() -> None:
        async with crowd(most) as it:
            names: list[str] = []
            for kind, *what in steps:
                if kind == "come":
                    names.append(f"{what[0]}{len(names)}")
                    await it.come(names[-1], app=what[0], lane=what[1])
                elif names:
                    await (it.leave if kind == "leave" else it.give_up)(names[what[0] % len(names)])
                    await asyncio.sleep(0)
                taken, lanes = it.places._taken, it.places._in_lane
                assert sum(taken.values()) == sum(lanes.values()) <= most
                assert max([*taken.values(), lanes["background"]]) <= max(1, most * 3 // 4)
                for lane in LANES:  # nobody waits who could go
                    assert not any(it.places._has_room(app, lane) for app in it.places._lines[lane])

    asyncio.run(play())
