"""Exports in the store: each step is taken once, whoever else takes it at the same time."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from redis.asyncio import Redis

from broker.bulk import Due, Job, Jobs, ListedFile, Listing, StoredJob
from broker.bulk import jobs as limits
from broker.bulk.file_lists import PAGE_FILES
from broker.errors import EhrUnreachable, NotFound, SealBroken, TooManyExports
from broker.interactions import Need
from broker.store import keys
from tests.stage.clock import MovableClock

MANY = 20
STATUS = "https://ehr.example/fhir/status/secret-of-the-ehr"


def a_job(clock: MovableClock, number: int = 1, app: str = "a", **changes: object) -> Job:
    made = Job(
        id=f"{number:032x}",
        ehr="ehr",
        registration="backend",
        flow="backend",
        app=app,
        tag="T" * 12,
        needs=(Need("Patient", "r"), Need("Patient", "s")),
        type="Patient",
        path="Patient/$export",
        query="_type=Patient",
        parameters="{}",
        method="GET",
        request="https://broker.example/fhir/ehr/Patient/$export",
        separate_status=False,
        began_at=clock(),
    )
    return replace(made, **changes)  # type: ignore[arg-type]  # fields by name


async def kept(redis: Redis) -> set[bytes]:
    """Return the names of all that is kept of exports."""
    return {name async for name in redis.scan_iter(match="sb:bulk*")}


async def begun(jobs: Jobs, job: Job) -> StoredJob:
    return await jobs.begin(job, abandoned_at=job.began_at + 1000)


async def test_a_job_is_read_as_it_was_written(jobs: Jobs, clock: MovableClock) -> None:
    listing = Listing(STATUS, 2, "shape", 7, '{"a":1}', "Sun, 29 Nov 2026 12:00:00 GMT")
    job = a_job(clock, progress="40%", polls=3, listings=(listing,), failure=(500, "{}"))
    stored = await begun(jobs, a_job(clock))

    written = await jobs.write(stored, job, next_at=5.0)

    assert await jobs.read("ehr", job.id) == written == StoredJob(job, 2)


async def test_nothing_of_a_job_is_in_the_store_in_clear(jobs: Jobs, clock: MovableClock, redis: Redis) -> None:
    stored = await begun(jobs, a_job(clock))
    await jobs.write(stored, stored.job.accepted(STATUS), next_at=0.0)
    await jobs.files.keep(stored.job, 0, 1, (ListedFile("output", STATUS, True, {"type": "Patient"}),))

    texts: list[Any] = []
    for name in await kept(redis):
        if b":files:" in name:
            texts.append(await redis.get(name))
        elif b":job:" in name:
            texts += (await redis.hgetall(name)).values()
    kept_text = b"".join(texts)

    assert len(texts) > 3
    assert b"secret-of-the-ehr" not in kept_text
    assert b"Patient" not in kept_text


async def test_a_job_opens_in_its_own_place_only(jobs: Jobs, clock: MovableClock, redis: Redis) -> None:
    await begun(jobs, a_job(clock, 1))
    await begun(jobs, a_job(clock, 2))
    sealed = await redis.hget(keys.bulk_job("ehr", a_job(clock, 1).id), "sealed")
    await redis.hset(keys.bulk_job("ehr", a_job(clock, 2).id), "sealed", sealed or b"")

    with pytest.raises(SealBroken):
        await jobs.read("ehr", a_job(clock, 2).id)


@pytest.mark.parametrize("id_", ["", "0" * 32, "x" * 32, "../" * 10, "0" * 31, "0" * 33, "\uff10" * 32])
async def test_what_is_no_job_is_not_found(jobs: Jobs, clock: MovableClock, id_: str) -> None:
    await begun(jobs, a_job(clock))

    with pytest.raises(NotFound):
        await jobs.read("ehr", id_)
    with pytest.raises(NotFound):
        await jobs.read("another", a_job(clock).id)


async def test_of_many_who_ask_at_once_one_asks_the_ehr_and_the_others_wait(jobs: Jobs, clock: MovableClock) -> None:
    """(BD-05)"""
    job = (await begun(jobs, a_job(clock))).job

    said = await asyncio.gather(*(jobs.claim(job, lasts=60) for _ in range(MANY)))

    assert said.count(0.0) == 1
    assert all(0 < at - clock() <= 60 for at in said if at)


async def test_nobody_asks_before_the_time_that_the_ehr_named(jobs: Jobs, clock: MovableClock) -> None:
    """(BD-05)"""
    stored = await begun(jobs, a_job(clock))
    stored = await jobs.write(stored, stored.job, next_at=clock() + 100)

    assert 99 < await jobs.claim(stored.job, lasts=60) - clock() <= 100
    assert await jobs.claim(stored.job, 1, lasts=60) == 0, "each manifest has its own time"
    clock.advance(101)
    assert await jobs.claim(stored.job, lasts=60) == 0


async def test_who_dies_while_asking_holds_the_others_up_for_a_minute(jobs: Jobs, clock: MovableClock) -> None:
    job = (await begun(jobs, a_job(clock))).job
    assert await jobs.claim(job, lasts=60) == 0
    clock.advance(60 + 1)

    assert await jobs.claim(job, lasts=60) == 0


async def test_of_many_who_write_one_does(jobs: Jobs, clock: MovableClock) -> None:
    stored = await begun(jobs, a_job(clock))

    async def write(number: int) -> bool:
        try:
            await jobs.write(stored, replace(stored.job, polls=number), next_at=0.0)
        except EhrUnreachable:
            return False
        return True

    assert sum(await asyncio.gather(*(write(number) for number in range(MANY)))) == 1


async def test_a_job_that_was_ended_does_not_come_back(jobs: Jobs, clock: MovableClock, redis: Redis) -> None:
    stored = await begun(jobs, a_job(clock))
    await jobs.end(stored.job)

    with pytest.raises(NotFound):
        await jobs.write(stored, stored.job, next_at=0.0)
    with pytest.raises(NotFound):
        await jobs.claim(stored.job, lasts=60)
    assert await kept(redis) == set()


@pytest.mark.parametrize(("limit", "let_in"), [(1, 1), (3, 3), (0, MANY)])
async def test_no_more_leave_the_line_than_may_run(jobs: Jobs, clock: MovableClock, limit: int, let_in: int) -> None:
    """(OR-08)"""
    made = [(await begun(jobs, a_job(clock, number))).job for number in range(MANY)]

    said = await asyncio.gather(*(jobs.take_turn(job, limit) for job in made))

    assert sum(said) == let_in
    line = await jobs.line(made[0])
    assert (line.running, len(line.waiting)) == (let_in, MANY - let_in)


async def test_a_turn_is_kept_until_the_job_runs_no_more(jobs: Jobs, clock: MovableClock) -> None:
    first, second = await begun(jobs, a_job(clock, 1)), await begun(jobs, a_job(clock, 2))
    assert await jobs.take_turn(first.job, 1)
    assert await jobs.take_turn(first.job, 1), "whoever took it and died takes it again"
    first = await jobs.write(first, first.job.accepted(STATUS), next_at=0.0)
    assert not await jobs.take_turn(second.job, 1)

    await jobs.write(first, replace(first.job, state="complete"), next_at=0.0)

    assert await jobs.take_turn(second.job, 1)


async def test_a_job_that_the_ehr_did_not_take_is_in_line_again_where_it_was(jobs: Jobs, clock: MovableClock) -> None:
    first, second = await begun(jobs, a_job(clock, 1)), await begun(jobs, a_job(clock, 2, began_at=clock() + 1))
    await jobs.take_turn(first.job, 1)
    first = await jobs.write(first, replace(first.job, state="starting"), next_at=0.0)
    await jobs.hold(first.job, clock() + 100)

    await jobs.write(first, replace(first.job, state="waiting"), next_at=clock() + 100)

    line = await jobs.line(first.job)
    assert (line.running, line.order(first.job.member, clock())) == (0, [first.job.member, second.job.member])
    assert 99 < line.held_until - clock() <= 100


async def test_no_more_wait_than_there_is_room_for(
    jobs: Jobs, clock: MovableClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MOST_WAITING", 3)

    async def begin(number: int) -> bool:
        try:
            await begun(jobs, a_job(clock, number))
        except TooManyExports:
            return False
        return True

    assert sum(await asyncio.gather(*(begin(number) for number in range(MANY)))) == 3
    assert len(await jobs.redis.zrange(keys.BULK_DUE, 0, -1)) == 3
    await jobs.take_turn(a_job(clock, 0), 1)
    monkeypatch.setattr(limits, "MOST_JOBS", 3)
    assert not await begin(99), "all there are count, too"


async def test_a_job_that_still_runs_at_the_ehr_is_kept_again_however_many_there_are(
    jobs: Jobs, clock: MovableClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(BD-15)"""
    stored = await begun(jobs, a_job(clock))
    running = stored.job.accepted(STATUS)
    await jobs.end(stored.job)
    monkeypatch.setattr(limits, "MOST_WAITING", 0)

    await jobs.keep_again(running, abandoned_at=clock() + 600)

    assert (await jobs.read("ehr", running.id)).job == running
    line = await jobs.line(running)
    assert (line.running, line.waiting) == (1, [])
    clock.advance(601)
    assert [due.id for due in await jobs.take_abandoned(again=clock() + 600, most=9)] == [running.id]


async def test_an_abandoned_job_is_taken_by_one_and_comes_up_again(jobs: Jobs, clock: MovableClock) -> None:
    """(BD-15)"""
    job = (await begun(jobs, a_job(clock))).job
    due = Due("ehr", "backend", "a", job.id)
    assert await jobs.take_abandoned(again=clock() + 600, most=9) == []
    clock.advance(1001)

    taken = await asyncio.gather(*(jobs.take_abandoned(again=clock() + 600, most=9) for _ in range(MANY)))

    assert [one for some in taken for one in some] == [due]
    clock.advance(601)
    assert await jobs.take_abandoned(again=clock() + 600, most=9) == [due]
    await jobs.postpone(job, abandoned_at=clock() + 1000)
    clock.advance(601)
    assert await jobs.take_abandoned(again=clock() + 600, most=9) == []


async def test_what_is_forgotten_unread_leaves_no_trace_in_any_list(
    jobs: Jobs, clock: MovableClock, redis: Redis
) -> None:
    job = (await begun(jobs, a_job(clock))).job
    await jobs.take_turn(job, 1)
    await redis.delete(keys.bulk_job("ehr", job.id))
    clock.advance(1001)

    (due,) = await jobs.take_abandoned(again=clock() + 600, most=9)
    await jobs.forget(due)

    assert await kept(redis) == {keys.bulk_list("ehr", "turns", "backend").encode()}


@pytest.mark.parametrize("count", [0, 1, PAGE_FILES, PAGE_FILES + 1, 20 * PAGE_FILES + 7])
async def test_files_are_kept_in_their_order_and_found_by_their_place(
    jobs: Jobs, clock: MovableClock, redis: Redis, count: int
) -> None:
    """(BD-08)"""
    job = a_job(clock)
    files = tuple(
        ListedFile("output", f"{STATUS}/{n}", n % 2 == 0, {"type": "Patient", "count": n}) for n in range(count)
    )
    listing = Listing(STATUS, 4, "", count, "{}")

    await jobs.files.keep(job, 1, 4, files)

    assert await jobs.files.all(job, 1, listing) == list(files)
    for place in {0, count // 2, count - 1} if count else set():
        assert await jobs.files.file(job, 1, listing, place) == files[place]
    await jobs.files.forget(job, 1, listing)
    assert await kept(redis) == set()


async def test_a_page_of_files_opens_in_its_own_place_only(jobs: Jobs, clock: MovableClock, redis: Redis) -> None:
    job, listing = a_job(clock), Listing(STATUS, 1, "", 1, "{}")
    await jobs.files.keep(job, 0, 1, (ListedFile("output", STATUS, True, {}),))
    await redis.rename(keys.bulk_files("ehr", f"{job.id}.0.1.0"), keys.bulk_files("ehr", f"{job.id}.1.1.0"))

    with pytest.raises(SealBroken):
        await jobs.files.all(job, 1, listing)
    with pytest.raises(NotFound):
        await jobs.files.all(job, 0, listing)
