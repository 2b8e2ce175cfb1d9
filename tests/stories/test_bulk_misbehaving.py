"""An EHR whose answers about an export are of no use: behind the sandbox's kick-off, each byte is the test's."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from broker.flows.bulk import status
from tests.ehr.server import ScriptedServer, reply, scripted_server
from tests.stage import Sandbox, open_stage
from tests.stories.exporting import APPS, Exporter, exporter
from tests.stories.held import code_of, until

TYPES = "Patient/$export?_type=Patient"
FAILED = {"resourceType": "OperationOutcome", "issue": [{"code": "processing"}]}


@asynccontextmanager
async def exporting(
    sandbox: Sandbox, redis: Redis, folder: Path, *, ehr: str = ""
) -> AsyncIterator[tuple[Exporter, ScriptedServer]]:
    """Give an app, and the server that its export's status will be at."""
    async with scripted_server() as status_at:
        hosts = f'bulk_file_hosts = ["{status_at.url}"]\n{ehr}'
        async with open_stage(sandbox, redis, folder, more=APPS, ehr=hosts) as stage:
            nightly = await exporter(stage)
            sandbox.fault("bulk_location", url=f"{status_at.url}/job")
            yield nightly, status_at
            await nightly.app.close()


def json_reply(document: Any, *headers: str, status: str = "200 OK") -> bytes:
    return reply(json.dumps(document).encode(), "Content-Type: application/json", *headers, status=status)


def told(app: Exporter) -> list[tuple[str, str, str | None]]:
    """Return what the audit trail says of exports: event, outcome, and the code of the reason."""
    lines = [json.loads(line) for line in app.stage.audit_lines()]
    return [
        (line["event"], line["outcome"], line.get("reason", "").partition(":")[0] or None)
        for line in lines
        if line["event"].startswith("bulk.")
    ]


@pytest.mark.parametrize(
    "answer",
    [
        json_reply(FAILED, "X-Export-Status: 999"),
        json_reply(FAILED, "X-Export-Status: 600"),
        json_reply(FAILED, status="777 Odd"),
        json_reply(FAILED, "X-Export-Status: 399"),
        json_reply(FAILED, "X-Export-Status: 000"),
    ],
    ids=["header 999", "header 600", "status 777", "header 399", "header 000"],
)
async def test_a_status_that_there_is_not_is_no_failure(
    sandbox: Sandbox, redis: Redis, tmp_path: Path, answer: bytes
) -> None:
    """(BD-07) HTTP has no such status to tell an app (RFC 9110 §15)."""
    async with exporting(sandbox, redis, tmp_path) as (nightly, status_at):
        job = await nightly.begun(TYPES)
        status_at.answers["/job"] = answer

        answers = [await nightly.look(job), await nightly.look(job)]

        assert [(one.status_code, code_of(one)) for one in answers] == [(502, "ehr_misbehaved")] * 2
        status_at.answers["/job"] = json_reply({"output": []})
        nightly.wait(300)
        await nightly.renew()
        assert (await nightly.look(job)).status_code == 200, "it goes on"


@pytest.mark.parametrize("path", ["/j#f", "/j\\x", "/j x"], ids=["fragment", "backslash", "blank"])
async def test_an_export_at_a_url_that_is_never_called_is_not_accepted(
    sandbox: Sandbox, redis: Redis, tmp_path: Path, path: str
) -> None:
    """(BD-03) (DS-15) Nobody could ask for it, or end it, and it would hold its place for a day."""
    async with exporting(sandbox, redis, tmp_path, ehr="bulk_jobs = 1") as (nightly, _):
        sandbox.clear_faults()
        sandbox.fault("bulk_location", url=f"{sandbox.origin}{path}")

        refused = await nightly.kick_off(TYPES)

        assert (refused.status_code, code_of(refused)) == (502, "ehr_misbehaved")
        sandbox.clear_faults()
        assert (await nightly.look(await nightly.begun(TYPES))).headers.get("x-progress") != "in line"


async def test_a_next_manifest_at_a_url_that_is_never_called_is_not_kept(
    sandbox: Sandbox, redis: Redis, tmp_path: Path
) -> None:
    """(BD-17) (DS-15)"""
    async with exporting(sandbox, redis, tmp_path) as (nightly, status_at):
        job = await nightly.begun(TYPES)
        link = {"relation": "next", "url": f"{status_at.url}/next#2"}
        status_at.answers["/job"] = json_reply({"output": [], "link": [link]})

        answer = await nightly.look(job)

        assert (answer.status_code, code_of(answer)) == (502, "ehr_misbehaved")


async def test_manifests_say_no_more_beside_their_files_than_is_read_at_each_poll(
    sandbox: Sandbox, redis: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(BD-17) (PX-12)"""
    monkeypatch.setattr(status, "JOB_BYTES", 3000)
    async with exporting(sandbox, redis, tmp_path) as (nightly, status_at):
        job = await nightly.begun(TYPES)
        link = {"relation": "next", "url": f"{status_at.url}/next"}
        status_at.answers["/job"] = json_reply({"output": [], "link": [link], "extension": "x" * 1500})
        status_at.answers["/next"] = json_reply({"output": [], "extension": "x" * 1500})

        first = await nightly.look(job)
        second = await nightly.file(first.json()["link"][0]["url"])

        assert (first.status_code, second.status_code, code_of(second)) == (200, 502, "ehr_misbehaved")
        assert "say more than" in nightly.stage.audit_lines()[-1]


@pytest.mark.parametrize("continues", [[], {}, ["x"], 1, None], ids=str)
async def test_a_file_that_goes_on_in_what_is_no_url_goes_on_nowhere(
    sandbox: Sandbox, redis: Redis, tmp_path: Path, continues: object
) -> None:
    """(BD-08)"""
    async with exporting(sandbox, redis, tmp_path) as (nightly, status_at):
        job = await nightly.begun(TYPES)
        status_at.answers["/job"] = json_reply({"output": [{"url": "/file", "continuesInFile": continues}]})

        ((entry,),) = [(await nightly.manifest(job))["output"]]

        assert entry.keys() == {"url"}


async def test_a_manifest_of_no_use_is_written_down_and_asked_for_again_a_little_later(
    sandbox: Sandbox, redis: Redis, tmp_path: Path
) -> None:
    """(BD-07) (blueprint §5.9)"""
    async with exporting(sandbox, redis, tmp_path) as (nightly, status_at):
        job = await nightly.begun(TYPES)
        status_at.answers["/job"] = json_reply([])

        assert (await nightly.look(job)).status_code == 502

        early = await nightly.app.fhir(nightly.handle, job)
        assert (early.status_code, early.headers["retry-after"]) == (202, "5")
        assert told(nightly)[-3:] == [
            ("bulk.poll", "allowed", None),
            ("bulk.answer", "allowed", None),
            ("bulk.answer", "failed", "ehr_misbehaved"),
        ]
        status_at.answers["/job"] = json_reply({"output": []})
        assert (await nightly.look(job)).json()["output"] == []


async def test_no_header_that_is_passed_on_shows_the_token(sandbox: Sandbox, redis: Redis, tmp_path: Path) -> None:
    """(HB-07) (BD-06)"""
    async with exporting(sandbox, redis, tmp_path) as (nightly, status_at):
        job = await nightly.begun(TYPES)

        async def echo(writer: asyncio.StreamWriter) -> None:
            _, token = status_at.requests[-1].headers["authorization"].split()
            writer.write(reply(b"", f"X-Progress: {token[:80]}", status="202 Accepted"))

        status_at.answers["/job"] = echo
        answer = await nightly.look(job)

        _, token = status_at.requests[-1].headers["authorization"].split()
        assert len(token) < 80
        assert answer.headers["x-progress"] == "[removed]"


@pytest.mark.parametrize("is_told", [True, False], ids=["the EHR is told", "the EHR is busy"])
async def test_an_export_that_is_cancelled_while_the_ehr_accepts_it_is_ended_there(
    sandbox: Sandbox, redis: Redis, tmp_path: Path, *, is_told: bool
) -> None:
    """(BD-15) (blueprint §5.9) At once, or when the EHR has time: none runs on there unknown."""
    async with exporting(sandbox, redis, tmp_path, ehr="bulk_jobs = 1") as (nightly, status_at):
        running, job = await nightly.begun(TYPES), await nightly.begun(TYPES)
        status_at.answers["/job"] = reply(b"", status="202 Accepted")
        assert (await nightly.app.fhir(nightly.handle, running, method="DELETE")).status_code == 202
        nightly.wait(16)
        before = len(told(nightly))
        sandbox.fault("fhir_delay", seconds=0.5)
        poll = asyncio.create_task(nightly.app.fhir(nightly.handle, job))
        await until(lambda: all(fault["name"] != "fhir_delay" for fault in sandbox.faults()))
        status_at.answers["/job"] = reply(b"", status="202 Accepted" if is_told else "503 Busy")

        cancelled = await nightly.app.fhir(nightly.handle, job, method="DELETE")

        assert (cancelled.status_code, (await poll).status_code) == (202, 404)
        assert told(nightly)[before:] == [
            ("bulk.begin", "allowed", None),
            ("bulk.cancel", "allowed", None),
            ("bulk.answer", "allowed", None),
            ("bulk.cancel", "allowed", None),
            ("bulk.answer", "allowed", None),
            *([] if is_told else [("bulk.answer", "failed", "ehr_unreachable")]),
            ("bulk.answer", "failed", "not_found"),
        ]
        status_at.answers["/job"] = reply(b"", status="202 Accepted")
        asked = len(status_at.requests)
        nightly.wait(601)
        assert await nightly.stage.broker.end_abandoned.look() == (0 if is_told else 1)
        assert [one.method for one in status_at.requests[asked:]] == ([] if is_told else ["DELETE"])
        assert {name async for name in redis.scan_iter(match="sb:bulk*:job:*")} == set()
