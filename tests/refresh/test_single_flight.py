import asyncio
import gc

from broker.single_flight import SingleFlight


class Work:
    """Counts how often it is started, and ends when told to."""

    def __init__(self) -> None:
        self.started = 0
        self.ended = False
        self.end = asyncio.Event()

    async def __call__(self) -> int:
        self.started += 1
        number = self.started
        await self.end.wait()
        self.ended = True
        return number


class BrokenError(Exception):
    pass


async def turn() -> None:
    """Let every task that can run do so."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_whoever_comes_while_it_runs_gets_the_same_result() -> None:
    flight, work = SingleFlight[int](), Work()
    callers = [asyncio.create_task(flight.run("a", work)) for _ in range(50)]
    await turn()
    work.end.set()

    assert await asyncio.gather(*callers) == [1] * 50
    assert work.started == 1


async def test_another_key_runs_on_its_own() -> None:
    flight, work = SingleFlight[int](), Work()
    work.end.set()

    assert sorted(await asyncio.gather(flight.run("a", work), flight.run("b", work))) == [1, 2]


async def test_the_next_call_after_the_end_starts_anew() -> None:
    flight, work = SingleFlight[int](), Work()
    work.end.set()

    assert [await flight.run("a", work), await flight.run("a", work)] == [1, 2]


async def test_who_comes_when_the_work_has_ended_but_nobody_was_told_yet_starts_anew() -> None:
    """Such a caller would not wait: one that asks until it gets something would hold up everything, for ever."""
    flight, work = SingleFlight[int](), Work()
    work.end.set()
    first, late = flight.start("a", work), list[asyncio.Future[int]]()
    asyncio.get_running_loop().call_soon(lambda: late.append(flight.start("a", work)))

    assert await first == 1
    assert await late[0] == 2
    await turn()
    assert flight._running == {}


async def test_a_caller_that_leaves_changes_nothing_for_the_others() -> None:
    flight, work = SingleFlight[int](), Work()
    first, second = (asyncio.create_task(flight.run("a", work)) for _ in range(2))
    await turn()

    first.cancel()
    await turn()
    work.end.set()

    assert await second == 1
    assert first.cancelled()
    assert work.started == 1


async def test_the_work_goes_on_when_every_caller_has_left() -> None:
    """A refresh is never cut off half-way."""
    flight, work = SingleFlight[int](), Work()
    caller = asyncio.create_task(flight.run("a", work))
    await turn()

    caller.cancel()
    await turn()
    work.end.set()
    await flight.close()

    assert work.ended


async def test_a_late_caller_joins_work_that_was_left_alone() -> None:
    flight, work = SingleFlight[int](), Work()
    caller = asyncio.create_task(flight.run("a", work))
    await turn()
    caller.cancel()
    late = asyncio.create_task(flight.run("a", work))
    await turn()
    work.end.set()

    assert await late == 1


async def test_an_error_reaches_every_waiter_and_the_next_call_starts_anew() -> None:
    flight, start = SingleFlight[int](), asyncio.Event()

    async def broken() -> int:
        await start.wait()
        raise BrokenError

    callers = [asyncio.create_task(flight.run("a", broken)) for _ in range(3)]
    await turn()
    start.set()
    outcomes = await asyncio.gather(*callers, return_exceptions=True)

    assert [type(outcome) for outcome in outcomes] == [BrokenError] * 3
    work = Work()
    work.end.set()
    assert await flight.run("a", work) == 1


async def test_an_error_that_nobody_waited_for_is_not_reported_as_forgotten() -> None:
    flight, start = SingleFlight[int](), asyncio.Event()
    reported: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))

    async def broken() -> int:
        await start.wait()
        raise BrokenError

    flight.start("a", broken)
    caller = asyncio.create_task(flight.run("b", broken))
    await turn()
    caller.cancel()
    await turn()
    start.set()
    await turn()
    del caller
    gc.collect()

    assert reported == []


async def test_work_can_be_started_without_waiting_for_it() -> None:
    flight, work = SingleFlight[int](), Work()
    started = flight.start("a", work)
    joined = asyncio.create_task(flight.run("a", work))
    await turn()
    assert not started.done()
    work.end.set()

    assert [await started, await joined, work.started] == [1, 1, 1]


async def test_closing_waits_for_what_runs() -> None:
    flight, work = SingleFlight[int](), Work()
    caller = asyncio.create_task(flight.run("a", work))
    await turn()
    closing = asyncio.create_task(flight.close())
    await turn()
    assert not closing.done()

    work.end.set()
    await closing

    assert await caller == 1


async def test_closing_when_nothing_runs_is_done_at_once() -> None:
    flight = SingleFlight[int]()

    async with asyncio.timeout(1):
        await flight.close()

    assert flight._running == {}


async def test_nothing_is_kept_after_the_end() -> None:
    flight, work = SingleFlight[int](), Work()
    work.end.set()
    for key in "abc":
        await flight.run(key, work)
    await turn()

    assert flight._running == {}
