"""Exports in line, where an EHR takes only so many at a time (OR-08)."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest
from redis.asyncio import Redis

from broker.bulk import jobs as limits
from tests.stage import BrokerStage, Sandbox, open_stage
from tests.stories.exporting import APPS, Exporter, exporter, sent

TYPES = "Patient/$export?_type=Patient"


@asynccontextmanager
async def exporters(
    sandbox: Sandbox, redis: Redis, folder: Path, *, ehr: str = ""
) -> AsyncIterator[tuple[BrokerStage, Exporter, Exporter]]:
    """Two apps of one registration, at an EHR that takes one export at a time."""
    async with open_stage(sandbox, redis, folder, more=APPS, ehr=ehr) as stage:
        sandbox.switch(one_bulk_job=True)
        nightly, research = await exporter(stage), await exporter(stage, "research")
        try:
            yield stage, nightly, research
        finally:
            await nightly.app.close()
            await research.app.close()


def kick_offs(sandbox: Sandbox) -> list[int]:
    return [entry["status"] for entry in sandbox.journal("fhir") if entry["path"].endswith("$export")]


async def stands(app: Exporter, job: str) -> str:
    """Ask for a status."""
    answer = await app.app.fhir(app.handle, job)
    assert answer.status_code == 202, answer.text
    return answer.headers.get("x-progress", "begun")


@pytest.mark.parametrize("ehr", ["bulk_jobs = 1", ""], ids=["the operator said so", "the EHR says 429"])
async def test_the_next_export_begins_when_the_one_before_has_ended(
    sandbox: Sandbox, redis: Redis, tmp_path: Path, ehr: str
) -> None:
    """(OR-08) (NC-19)"""
    async with exporters(sandbox, redis, tmp_path, ehr=ehr) as (_, nightly, research):
        first, second = await nightly.begun(TYPES), await research.begun(TYPES)

        waiting = await research.app.fhir(research.handle, second)
        assert (waiting.status_code, waiting.headers["x-progress"]) == (202, "in line")
        assert int(waiting.headers["retry-after"]) <= 120
        assert (await nightly.manifest(first))["output"]
        nightly.wait(121)
        assert await stands(research, second) == "begun"
        assert (await research.manifest(second))["output"]

        refused = kick_offs(sandbox).count(429)
        assert kick_offs(sandbox).count(202) == 2
        assert refused == (0 if ehr else 1)


async def test_apps_take_turns_and_one_with_many_exports_comes_again_after_the_others(
    sandbox: Sandbox, redis: Redis, tmp_path: Path
) -> None:
    """(OR-08)"""
    async with exporters(sandbox, redis, tmp_path, ehr="bulk_jobs = 1") as (_, nightly, research):
        running = await nightly.begun(TYPES)
        many = [await nightly.begun(TYPES) for _ in range(3)]
        one = await research.begun(TYPES)
        await nightly.manifest(running)
        nightly.wait(16)

        for job in many:
            assert await stands(nightly, job) == "in line"
        assert kick_offs(sandbox) == [202], "the other app's is next"
        await stands(research, one)
        assert kick_offs(sandbox) == [202, 202]
        await research.manifest(one)
        nightly.wait(16)
        for job in reversed(many):
            await stands(nightly, job)
        assert kick_offs(sandbox) == [202] * 3
        assert (await nightly.manifest(many[0]))["output"], "within an app, first come, first served"


async def test_who_waits_asks_the_ehr_for_nothing(sandbox: Sandbox, redis: Redis, tmp_path: Path) -> None:
    """(OR-08) (BD-05)"""
    async with exporters(sandbox, redis, tmp_path, ehr="bulk_jobs = 1") as (_, nightly, research):
        await nightly.begun(TYPES)
        job = await research.begun(TYPES)
        before = sent(sandbox)

        for _ in range(3):
            research.wait(16)
            assert await stands(research, job) == "in line"

        assert sent(sandbox) == before


async def test_a_cancelled_export_makes_room_and_one_in_line_leaves_it(
    sandbox: Sandbox, redis: Redis, tmp_path: Path
) -> None:
    """(OR-08) (BD-15)"""
    async with exporters(sandbox, redis, tmp_path, ehr="bulk_jobs = 1") as (_, nightly, research):
        first, second, third = await nightly.begun(TYPES), await nightly.begun(TYPES), await research.begun(TYPES)
        before = sent(sandbox)
        assert (await nightly.app.fhir(nightly.handle, second, method="DELETE")).status_code == 202
        assert sent(sandbox) == before, "the EHR knows nothing of it"

        assert (await nightly.app.fhir(nightly.handle, first, method="DELETE")).status_code == 202

        research.wait(16)
        await stands(research, third)
        assert kick_offs(sandbox) == [202, 202]


async def test_an_export_that_nobody_asks_for_in_line_holds_nobody_up(
    sandbox: Sandbox, redis: Redis, tmp_path: Path
) -> None:
    """(OR-08)"""
    async with exporters(sandbox, redis, tmp_path, ehr="bulk_jobs = 1") as (stage, nightly, research):
        running = await nightly.begun(TYPES)
        await research.begun(TYPES)
        mine = await nightly.begun(TYPES)
        await nightly.manifest(running)
        nightly.wait(80)

        await stands(nightly, mine)

        assert kick_offs(sandbox) == [202, 202]
        nightly.wait(86_500)
        assert await stage.broker.end_abandoned.look() == 3


async def test_a_full_line_takes_no_more(
    sandbox: Sandbox, redis: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(OR-08)"""
    monkeypatch.setattr(limits, "MOST_WAITING", 2)
    async with exporters(sandbox, redis, tmp_path, ehr="bulk_jobs = 1") as (_, nightly, research):
        for _ in range(3):
            await nightly.begun(TYPES)
        before = sent(sandbox)

        refused: httpx2.Response = await research.kick_off(TYPES)

        assert (refused.status_code, refused.headers["retry-after"]) == (429, "120")
        assert refused.json()["issue"][0]["code"] == "throttled"
        assert sent(sandbox) == before


async def test_an_ehr_that_cannot_be_reached_keeps_who_was_in_line_and_nothing_of_who_was_not(
    sandbox: Sandbox, redis: Redis, tmp_path: Path
) -> None:
    """(BD-07)"""
    async with exporters(sandbox, redis, tmp_path, ehr="bulk_jobs = 1") as (_, nightly, research):
        sandbox.fault("bulk_kick_off_503")
        assert (await nightly.kick_off(TYPES)).status_code == 503
        first, second = await nightly.begun(TYPES), await research.begun(TYPES)
        await nightly.manifest(first)
        research.wait(16)
        sandbox.fault("bulk_kick_off_503")
        assert (await research.app.fhir(research.handle, second)).status_code == 503

        assert (await research.manifest(second))["output"]
        assert kick_offs(sandbox) == [503, 202, 503, 202]


async def test_a_kick_off_that_the_ehr_refuses_is_refused_in_its_words_and_leaves_nothing(
    sandbox: Sandbox, redis: Redis, tmp_path: Path
) -> None:
    """(BD-03)"""
    async with exporters(sandbox, redis, tmp_path) as (_, nightly, _research):
        answer = await nightly.kick_off(f"{TYPES}&_elements=id")

        assert (answer.status_code, answer.json()["issue"][0]["code"]) == (400, "not-supported")
        assert {name async for name in redis.scan_iter(match="sb:bulk*:job:*")} == set()


async def test_a_broker_that_died_while_it_asked_gives_that_export_up_and_says_so(
    sandbox: Sandbox, redis: Redis, tmp_path: Path
) -> None:
    """(BD-03) The EHR may have begun it: nobody knows where, so it is not asked again."""
    async with exporters(sandbox, redis, tmp_path, ehr="bulk_jobs = 1") as (stage, nightly, research):
        first, second = await nightly.begun(TYPES), await research.begun(TYPES)
        await nightly.manifest(first)
        exports = stage.broker.exports
        stored = await exports.read("sandbox", second.removeprefix("_bulk/"))
        await exports.take_turn(stored.job, 1)
        await exports.write(stored, stored.job.asked_for(), next_at=0.0)
        before = sent(sandbox)

        answers = [await research.app.fhir(research.handle, second) for _ in range(2)]

        assert [answer.status_code for answer in answers] == [504, 404]
        assert sent(sandbox) == before
        assert (await nightly.begun(TYPES)) is not None
        assert kick_offs(sandbox) == [202, 202], "it holds no place"
