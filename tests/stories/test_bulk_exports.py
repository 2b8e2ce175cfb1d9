"""A bulk export through the broker, from kick-off to the last file (BD-01 to BD-17)."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import httpx2
import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from broker.fair_use import places
from broker.flows.bulk.ask import TOLD_BYTES
from broker.store import keys
from broker.vault import RecordContext
from tests.stage import BrokerStage, Sandbox, open_stage
from tests.stage.prover import Prover
from tests.stories.exporting import APPS, ASYNC, SCOPE, SECRET, Exporter, exporter, sent, with_token
from tests.stories.held import until
from tests.stories.test_exchange import exchanged

TYPES = "Patient/$export?_type=Patient,Condition"


@pytest.fixture
async def bulk_stage(sandbox: Sandbox, redis: Redis, tmp_path: Path) -> AsyncIterator[BrokerStage]:
    async with open_stage(sandbox, redis, tmp_path, more=APPS) as stage:
        yield stage


@pytest.fixture
async def nightly(bulk_stage: BrokerStage) -> AsyncIterator[Exporter]:
    made = await exporter(bulk_stage)
    yield made
    await made.app.close()


def code_of(answer: Any) -> str:
    return str(answer.json()["issue"][0]["details"]["coding"][0]["code"])


async def test_an_export_is_begun_waited_for_and_fetched_at_the_broker_alone(nightly: Exporter) -> None:
    """(BD-01) (BD-03) (BD-08) (BD-09) (NC-19)"""
    job = await nightly.begun(TYPES)

    early = await nightly.app.fhir(nightly.handle, job)
    assert (early.status_code, early.headers["retry-after"], early.content) == (202, "5", b"")
    manifest = await nightly.manifest(job)

    assert manifest["request"] == f"{nightly.app.base}/{TYPES}"
    assert manifest["requiresAccessToken"] is True
    found = await nightly.exported(job)
    assert found.keys() == {"Patient", "Condition"}
    assert {name: len(found[name]) for name in found} == {entry["type"]: entry["count"] for entry in manifest["output"]}
    assert nightly.stage.sandbox.origin not in json.dumps(manifest)


@pytest.mark.parametrize("path", ["$export", "Patient/$export", "Group/{group}/$export"])
async def test_an_export_is_of_the_system_of_all_patients_or_of_a_group(nightly: Exporter, path: str) -> None:
    """(BD-01) (BD-16)"""
    group = (await nightly.app.fhir(nightly.handle, "Group?_count=1")).json()["entry"][0]["resource"]

    found = await nightly.exported(await nightly.begun(path.format(group=group["id"])))

    assert ("Organization" in found) is (path == "$export")
    if path.startswith("Group"):
        assert len(found["Patient"]) == len(group["member"])


@pytest.mark.parametrize("kick_off", ["get", "post"])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_the_ehr_is_asked_by_the_method_that_it_takes(
    sandbox: Sandbox, redis: Redis, tmp_path: Path, method: str, kick_off: str
) -> None:
    """(BD-02) (Q10)"""
    async with open_stage(sandbox, redis, tmp_path, more=APPS, ehr=f'bulk_kickoff = "{kick_off}"') as stage:
        nightly = await exporter(stage)
        parameters = {"resourceType": "Parameters", "parameter": [{"name": "_type", "valueString": "Group"}]}
        by_get: dict[str, Any] = {"path": "$export?_type=Group"}
        by_post: dict[str, Any] = {"path": "$export", "method": "POST", "json": parameters}

        job = await nightly.begun(
            headers={"Content-Type": "application/fhir+json"} if method == "POST" else {},
            **(by_get if method == "GET" else by_post),
        )

        assert (await nightly.exported(job)).keys() == {"Group"}
        asked = [entry["method"] for entry in sandbox.journal("fhir") if entry["path"].endswith("$export")]
        assert asked == ["POST" if kick_off == "post" else method]
        await nightly.app.close()


async def test_a_kick_off_is_passed_on_as_it_was_understood_and_nothing_else_of_it(nightly: Exporter) -> None:
    """(BD-01) (PX-04)"""
    headers = {"Cookie": "a=b", "X-Anything": "x", "Prefer": "respond-async, handling=lenient"}
    await nightly.begun("Patient/$export?_type=Patient&_type=Condition", headers=headers)

    (kick_off,) = [entry for entry in nightly.stage.sandbox.journal("fhir") if entry["path"].endswith("$export")]
    assert kick_off["path"].endswith("/Patient/$export")
    assert kick_off["parameters"] == {"_type": "Patient,Condition"}
    passed_on = {name: kick_off["headers"][name] for name in ("prefer", "accept")}
    assert passed_on == {"prefer": "respond-async", "accept": "application/fhir+json"}
    assert kick_off["headers"].keys().isdisjoint({"cookie", "x-anything"})


# How it stands


async def test_greedy_polls_never_reach_the_ehr(nightly: Exporter) -> None:
    """(BD-05) (NC-19)"""
    nightly.stage.sandbox.fault("bulk_retry_after", times=9)
    job = await nightly.begun(TYPES)
    first = await nightly.look(job)
    assert (first.status_code, first.headers["retry-after"], first.headers["x-progress"]) == (
        202,
        "14400",
        "in progress",
    )
    before = sent(nightly.stage.sandbox)

    nightly.wait(400)
    await nightly.renew()
    answers = [await nightly.app.fhir(nightly.handle, job) for _ in range(5)]

    assert {answer.status_code for answer in answers} == {202}
    assert {answer.headers["x-progress"] for answer in answers} == {"in progress"}
    assert all(13_990 <= int(answer.headers["retry-after"]) <= 14_000 for answer in answers)
    assert sent(nightly.stage.sandbox) == before
    nightly.wait(14_000)
    await nightly.renew()
    assert (await nightly.app.fhir(nightly.handle, job)).status_code == 202
    assert sent(nightly.stage.sandbox) == before + 1


async def test_a_status_that_fails_for_a_while_leaves_the_export_as_it_is(nightly: Exporter) -> None:
    """(BD-07)"""
    job = await nightly.begun(TYPES)
    nightly.stage.sandbox.fault("bulk_transient", retry_after=7)

    failed = await nightly.look(job)

    assert (failed.status_code, code_of(failed), failed.headers["retry-after"]) == (503, "ehr_unreachable", "7")
    early = await nightly.app.fhir(nightly.handle, job)
    assert (early.status_code, early.headers["retry-after"]) == (202, "7")
    assert (await nightly.manifest(job))["output"]


async def test_a_failure_at_the_length_of_a_manifest_is_none_that_can_be_read(nightly: Exporter) -> None:
    """(PX-12) It would be read while nobody else is served."""
    job = await nightly.begun(TYPES)
    nightly.stage.sandbox.fault("bulk_failed", document={"issue": [{"code": "processing"}], "text": "x" * TOLD_BYTES})

    answer = await nightly.look(job)

    assert (answer.status_code, code_of(answer)) == (502, "ehr_misbehaved")
    assert (await nightly.manifest(job))["output"]


async def test_an_export_that_failed_stays_so_and_the_ehr_is_not_asked_again(nightly: Exporter) -> None:
    """(BD-07)"""
    job = await nightly.begun(TYPES)
    nightly.stage.sandbox.fault("bulk_failed")
    failed = await nightly.look(job)
    before = sent(nightly.stage.sandbox)

    again = await nightly.look(job)

    for answer in (failed, again):
        assert (answer.status_code, answer.json()["issue"][0]["code"]) == (500, "processing")
    assert sent(nightly.stage.sandbox) == before


@pytest.mark.parametrize("fault", ["fhir_403", "fhir_429", "fhir_500", "bulk_failed"])
async def test_what_is_complete_stays_so_whatever_the_ehr_says_of_it_later(nightly: Exporter, fault: str) -> None:
    """(BD-07)"""
    job = await nightly.begun(TYPES)
    first = await nightly.manifest(job)
    nightly.wait(61)
    nightly.stage.sandbox.fault(fault)

    assert (await nightly.app.fhir(nightly.handle, job)).json() == first

    nightly.wait(301)
    await nightly.renew()
    assert (await nightly.app.fhir(nightly.handle, job)).json() == first


async def test_a_status_that_is_refused_says_nothing_of_the_export(nightly: Exporter) -> None:
    """(BD-07) (PX-09)"""
    job = await nightly.begun(TYPES)
    nightly.stage.sandbox.fault("fhir_403")

    assert (await nightly.look(job)).status_code == 403

    assert (await nightly.manifest(job))["output"]


async def test_an_ehr_that_is_asked_too_often_says_so_to_the_app(nightly: Exporter) -> None:
    """(BD-06)"""
    job = await nightly.begun(TYPES)
    nightly.stage.sandbox.fault("fhir_429", retry_after=30)

    answer = await nightly.look(job)

    assert (answer.status_code, answer.headers["retry-after"]) == (429, "30")
    early = await nightly.app.fhir(nightly.handle, job)
    assert (early.status_code, early.headers["retry-after"]) == (202, "30")


async def test_an_export_that_the_ehr_has_forgotten_is_gone(nightly: Exporter) -> None:
    job = await nightly.begun(TYPES)
    nightly.stage.sandbox.fault("bulk_gone")

    assert (await nightly.look(job)).status_code == 404
    before = sent(nightly.stage.sandbox)
    assert (await nightly.look(job)).status_code == 404
    assert sent(nightly.stage.sandbox) == before


async def test_the_status_can_come_in_a_header_from_the_ehr(nightly: Exporter) -> None:
    """(BD-04)"""
    nightly.stage.sandbox.fault("bulk_separate_status")
    job = await nightly.begun(TYPES)

    running = await nightly.look(job)

    assert (running.status_code, "x-export-status" in running.headers) == (202, False)
    assert (await nightly.manifest(job))["output"]


async def test_the_status_can_come_in_a_header_to_the_app(nightly: Exporter) -> None:
    """(BD-04)"""
    begun = await nightly.kick_off(TYPES, headers={"Prefer": "respond-async, separate-export-status"})
    assert begun.headers["preference-applied"] == "separate-export-status"
    job = nightly.path_of(begun.headers["content-location"])

    answers = [await nightly.app.fhir(nightly.handle, job), await nightly.look(job), await nightly.look(job)]

    told = [(answer.status_code, answer.headers["x-export-status"]) for answer in answers]
    assert told == [(200, "202"), (200, "202"), (200, "200")]
    assert answers[-1].json()["output"]


async def test_a_manifest_is_given_as_it_is_for_a_minute_and_then_fetched_anew(nightly: Exporter) -> None:
    """(OR-08) Links in it may have ended."""
    job = await nightly.begun(TYPES)
    first = await nightly.manifest(job)
    before = sent(nightly.stage.sandbox)
    assert (await nightly.app.fhir(nightly.handle, job)).json() == first
    assert sent(nightly.stage.sandbox) == before

    nightly.wait(61)
    nightly.stage.sandbox.fault("fhir_500")
    assert (await nightly.app.fhir(nightly.handle, job)).json() == first, "the EHR fails, and it is known all the same"
    nightly.wait(61)
    assert (await nightly.app.fhir(nightly.handle, job)).json() == first

    assert sent(nightly.stage.sandbox) == before + 2


async def test_a_manifest_in_parts_is_followed_from_one_to_the_next(nightly: Exporter) -> None:
    """(BD-17)"""
    nightly.stage.sandbox.fault("bulk_parts")
    job = await nightly.begun(f"{TYPES}&allowPartialManifests=true")
    part, types = await nightly.manifest(job), []
    while True:
        types += [entry["type"] for entry in part["output"]]
        for entry in part["output"]:
            answer = await nightly.file(entry["url"])
            assert answer.text.count("\n") == entry["count"]
        if "link" not in part:
            break
        ((relation, url),) = [(link["relation"], link["url"]) for link in part["link"]]
        assert relation == "next"
        part = (await nightly.file(url)).json()

    assert types == ["Patient", "Condition"]
    beyond = await nightly.app.fhir(nightly.handle, f"{job}/manifest-2")
    assert beyond.status_code == 404


async def test_booleans_that_are_strings_are_read(nightly: Exporter) -> None:
    """(NC-07)"""
    nightly.stage.sandbox.fault("bulk_string_booleans")
    job = await nightly.begun(TYPES)

    manifest = await nightly.manifest(job)

    assert manifest["requiresAccessToken"] is True
    assert (await nightly.file(manifest["output"][0]["url"])).status_code == 200


# Files


@pytest.mark.parametrize("required", [True, False])
async def test_storage_that_the_manifest_names_gets_no_token_whatever_it_says(
    nightly: Exporter, *, required: bool
) -> None:
    """(BD-10) (BD-11) (NC-18)"""
    nightly.stage.sandbox.fault("bulk_presigned", requires_access_token=required)

    found = await nightly.exported(await nightly.begun(TYPES))

    assert found.keys() == {"Patient", "Condition"}
    assert nightly.stage.sandbox.counts().get("storage.authorization", 0) == 0
    assert nightly.stage.sandbox.counts()["storage"] == 2


async def test_a_redirect_to_storage_is_followed_without_the_token(nightly: Exporter) -> None:
    """(BD-10) (OR-08) (PX-05) (NC-18)"""
    nightly.stage.sandbox.fault("bulk_storage")

    found = await nightly.exported(await nightly.begun(TYPES))

    assert found.keys() == {"Patient", "Condition"}
    assert nightly.stage.sandbox.counts().get("storage.authorization", 0) == 0
    assert nightly.stage.sandbox.counts()["storage"] == 2


async def test_a_file_without_token_at_the_ehr_s_own_host_counts_as_a_request_to_the_ehr(
    sandbox: Sandbox, redis: Redis, tmp_path: Path
) -> None:
    """(BD-10) (PX-11)"""
    elsewhere = sandbox.origin.replace("127.0.0.1", "localhost")
    limits = f'bulk_file_hosts = ["{elsewhere}"]\nfhir_requests_per_minute = 6\nfhir_burst = 1'
    async with open_stage(sandbox, redis, tmp_path, more=APPS, ehr=limits) as stage:
        nightly = await exporter(stage)
        sandbox.fault("bulk_presigned", requires_access_token=False)
        first, second = (await nightly.manifest(await nightly.begun(TYPES)))["output"]
        nightly.wait(10)

        answers = [await nightly.file(entry["url"]) for entry in (first, second)]

        assert [answer.status_code for answer in answers] == [200, 429]
        assert code_of(answers[1]) == "too_many_requests"
        assert sandbox.counts()["storage"] == 1
        assert sandbox.counts().get("storage.authorization", 0) == 0
        await nightly.app.close()


async def test_a_file_takes_a_place_wherever_it_lies(
    sandbox: Sandbox, redis: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(BD-10) (PX-11)"""
    monkeypatch.setattr(places, "PATIENCE_SECONDS", 0.05)
    async with open_stage(sandbox, redis, tmp_path, more=APPS, ehr="fhir_concurrency = 2") as stage:
        nightly = await exporter(stage)
        sandbox.fault("bulk_presigned", requires_access_token=False)
        manifest = await nightly.manifest(await nightly.begun(TYPES))
        another = await nightly.begun(TYPES)
        sandbox.clear_faults()
        sandbox.fault("fhir_delay", seconds=0.5)

        poll = asyncio.create_task(nightly.look(another))
        await until(lambda: not sandbox.faults())
        answer = await nightly.file(manifest["output"][0]["url"])

        assert (answer.status_code, code_of(answer)) == (503, "ehr_unreachable")
        assert sandbox.counts().get("storage", 0) == 0
        assert (await poll).status_code == 202
        assert (await nightly.file(manifest["output"][0]["url"])).status_code == 200
        await nightly.app.close()


@pytest.mark.parametrize("approved", [True, False])
async def test_another_host_gets_the_token_only_where_the_operator_says_so(
    sandbox: Sandbox, redis: Redis, tmp_path: Path, *, approved: bool
) -> None:
    """(BD-11) (PX-03)"""
    elsewhere = sandbox.origin.replace("127.0.0.1", "localhost")
    hosts = f'bulk_file_hosts = ["{elsewhere}"]' if approved else ""
    async with open_stage(sandbox, redis, tmp_path, more=APPS, ehr=hosts) as stage:
        nightly = await exporter(stage)
        sandbox.fault("bulk_other_host")
        manifest = await nightly.manifest(await nightly.begun(TYPES))
        answer = await nightly.file(manifest["output"][0]["url"])

        assert with_token(sandbox, "localhost") == (1 if approved else 0)
        assert answer.status_code == (200 if approved else 502)
        if not approved:
            assert "bulk_file_hosts" in stage.audit_lines()[-1]
        await nightly.app.close()


async def test_a_file_comes_with_the_token_that_is_current_then(nightly: Exporter) -> None:
    """(BD-09) (PX-08)"""
    manifest = await nightly.manifest(await nightly.begun(TYPES))
    nightly.stage.sandbox.expire()
    await nightly.renew()

    answer = await nightly.file(manifest["output"][0]["url"])

    assert answer.status_code == 200
    assert answer.text.count("\n") == manifest["output"][0]["count"]


@pytest.mark.parametrize(("accepted", "passed_on"), [("gzip", "gzip"), ("br, gzip;q=0.5", "gzip"), ("identity", None)])
async def test_a_compressed_file_stays_so_where_the_app_takes_it(
    nightly: Exporter, accepted: str, passed_on: str | None
) -> None:
    """(BD-12)"""
    nightly.stage.sandbox.fault("bulk_gzip")
    manifest = await nightly.manifest(await nightly.begun(TYPES))

    answer = await nightly.file(manifest["output"][0]["url"], **{"Accept-Encoding": accepted})

    assert answer.headers.get("content-encoding") == passed_on
    assert answer.text.count("\n") == manifest["output"][0]["count"]


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        ({"name": "fhir_html"}, 502, "ehr_misbehaved"),
        ({"name": "fhir_500"}, 502, "ehr_misbehaved"),
        ({"name": "fhir_429", "retry_after": 9}, 503, "ehr_unreachable"),
        ({"name": "fhir_403"}, 502, "ehr_error"),
        ({"name": "fhir_redirect", "location": "http://10.0.0.5/x"}, 502, "ehr_misbehaved"),
        ({"name": "fhir_redirect", "location": "http://169.254.169.254/latest/meta-data"}, 502, "ehr_misbehaved"),
        ({"name": "fhir_redirect", "location": "ftp://elsewhere.invalid/x"}, 502, "ehr_misbehaved"),
        ({"name": "fhir_redirect", "location": ""}, 502, "ehr_misbehaved"),
        ({"name": "fhir_drop", "times": 2}, 504, "ehr_answer_lost"),
    ],
    ids=str,
)
async def test_what_is_no_file_does_not_pass_for_one(
    nightly: Exporter, fault: dict[str, Any], status: int, code: str
) -> None:
    """(OA-04) (PX-05) (DS-15)"""
    manifest = await nightly.manifest(await nightly.begun(TYPES))
    nightly.stage.sandbox.fault(**fault)

    answer = await nightly.file(manifest["output"][0]["url"])

    assert (answer.status_code, code_of(answer)) == (status, code)


async def test_a_file_that_breaks_off_does_not_end_as_if_it_were_whole(nightly: Exporter) -> None:
    """(PX-12)"""
    manifest = await nightly.manifest(await nightly.begun(TYPES))
    nightly.stage.sandbox.fault("fhir_drop_mid_body")

    with pytest.raises(httpx2.RemoteProtocolError):
        await nightly.file(manifest["output"][0]["url"])


@pytest.mark.parametrize(
    "name", ["", "0", "0-0-0", "0-1-99", "1-1-0", "0-2-0", "9-9-9", "x", "0-1-0-0", "manifest-9", "-1-1-0"]
)
async def test_only_what_the_manifest_lists_is_fetched(nightly: Exporter, name: str) -> None:
    """(BD-11)"""
    job = await nightly.begun(TYPES)
    await nightly.manifest(job)
    before = sent(nightly.stage.sandbox)

    answer = await nightly.app.fhir(nightly.handle, f"{job}/{name}")

    assert answer.status_code in {403, 404}
    assert sent(nightly.stage.sandbox) == before


# Whose it is


async def test_an_export_is_of_the_app_that_began_it(nightly: Exporter) -> None:
    """(BD-14)"""
    job = await nightly.begun(TYPES)
    file = nightly.path_of((await nightly.manifest(job))["output"][0]["url"])
    other = await exporter(nightly.stage, "research")
    before = sent(nightly.stage.sandbox)

    answers = [
        await other.app.fhir(other.handle, job),
        await other.app.fhir(other.handle, job, method="DELETE"),
        await other.app.fhir(other.handle, file),
    ]

    assert [(answer.status_code, code_of(answer)) for answer in answers] == [(404, "not_found")] * 3
    assert sent(nightly.stage.sandbox) == before
    assert (await nightly.app.fhir(nightly.handle, file)).status_code == 200
    await other.app.close()


@pytest.mark.parametrize("scope", ["system/Patient.rs", "system/Patient.r system/Condition.rs", "system/*.s"])
async def test_each_request_for_an_export_must_cover_all_of_it(nightly: Exporter, scope: str) -> None:
    """(BD-14)"""
    job = await nightly.begun(TYPES)
    file = nightly.path_of((await nightly.manifest(job))["output"][0]["url"])
    await nightly.renew(scope)
    before = sent(nightly.stage.sandbox)

    answers = [await nightly.app.fhir(nightly.handle, path) for path in (job, file)]
    answers += [await nightly.kick_off(TYPES), await nightly.app.fhir(nightly.handle, job, method="DELETE")]

    assert [(answer.status_code, code_of(answer)) for answer in answers] == [(403, "insufficient_scope")] * 4
    assert sent(nightly.stage.sandbox) == before


async def test_another_handle_that_covers_it_goes_on_with_an_export(nightly: Exporter) -> None:
    """(BD-09) (BD-14) Handles live for minutes, exports for hours."""
    job = await nightly.begun(TYPES)
    await nightly.renew("system/Patient.rs system/Condition.rs system/Observation.rs")

    assert (await nightly.exported(job)).keys() == {"Patient", "Condition"}


async def test_no_handle_no_export(nightly: Exporter) -> None:
    """(BD-14)"""
    job = await nightly.begun(TYPES)
    before = sent(nightly.stage.sandbox)

    for path in (job, f"{job}/0-1-0", "$export"):
        answer = await nightly.app.http.get(f"{nightly.app.base}/{path}", headers=ASYNC)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")

    assert sent(nightly.stage.sandbox) == before


async def test_a_patient_s_scopes_export_nothing(bulk_stage: BrokerStage) -> None:
    """(BD-14) (BS-04)"""
    app = bulk_stage.app()
    handle = (await app.standalone())["access_token"]
    before = sent(bulk_stage.sandbox)

    answer = await app.fhir(handle, "Patient/$export?_type=Patient", headers=ASYNC)

    assert (answer.status_code, code_of(answer)) == (403, "insufficient_scope")
    assert sent(bulk_stage.sandbox) == before
    await app.close()


async def test_a_handle_that_was_narrowed_to_one_patient_exports_nothing(nightly: Exporter) -> None:
    """(BD-14) (PX-14)"""
    bundle = (await nightly.app.fhir(nightly.handle, "Patient?_count=1")).json()
    given = await nightly.app.token(
        grant_type="urn:ietf:params:oauth:grant-type:token-exchange",
        subject_token=nightly.handle,
        subject_token_type="urn:ietf:params:oauth:token-type:access_token",
        patient=bundle["entry"][0]["resource"]["id"],
    )
    assert given.status_code == 200, given.text
    nightly.handle = given.json()["access_token"]
    before = sent(nightly.stage.sandbox)

    answer = await nightly.kick_off(TYPES)

    assert (answer.status_code, code_of(answer)) == (403, "insufficient_scope")
    assert sent(nightly.stage.sandbox) == before


async def test_a_scope_with_search_parameters_exports_nothing(nightly: Exporter) -> None:
    """(BD-14) (SC-05) What a file holds is not looked into, and a filter may be ignored."""
    await nightly.renew("system/Condition.rs?category=problem-list-item")
    before = sent(nightly.stage.sandbox)

    answers = [
        await nightly.kick_off(f"$export?_type=Condition{more}")
        for more in ("", "&_typeFilter=Condition%3Fcategory%3Dproblem-list-item")
    ]

    assert [(answer.status_code, code_of(answer)) for answer in answers] == [(403, "insufficient_scope")] * 2
    assert sent(nightly.stage.sandbox) == before


async def test_a_bound_handle_exports_with_proofs_alone_and_is_told_the_next_nonce(
    sandbox: Sandbox, redis: Redis, tmp_path: Path
) -> None:
    """(BD-14) (HB-03)"""
    async with open_stage(sandbox, redis, tmp_path, more=APPS, top="dpop_nonce = true") as stage:
        app = Prover(stage.base, "nightly", auth=("nightly", SECRET))
        asked = {"grant_type": "client_credentials", "scope": SCOPE, "resource": stage.base}
        app.nonce = (await app.token(**asked)).headers["dpop-nonce"]
        handle = (await app.token(**asked)).json()["access_token"]

        url, proof = f"{stage.base}/{TYPES}", app.proof("GET", f"{stage.base}/Patient/$export", token=handle)
        stolen = await app.http.get(url, headers={**ASYNC, "Authorization": f"Bearer {handle}"})
        begun = await app.http.get(url, headers={**ASYNC, "Authorization": f"DPoP {handle}", "DPoP": proof})

        assert (stolen.status_code, begun.status_code) == (401, 202)
        assert begun.headers["dpop-nonce"] == app.nonce
        await app.close()


@pytest.mark.parametrize(
    ("path", "options"),
    [
        ("$export", {"headers": {"Prefer": "return=minimal"}}),
        ("$export?_type=patient", {}),
        ("$export?_unknown=1", {}),
        ("Practitioner/$export", {}),
        ("%24export", {}),
        ("$export/", {}),
        ("$export", {"method": "HEAD"}),
        ("_bulk", {}),
    ],
)
async def test_what_cannot_be_checked_is_refused_before_an_export_is_begun(
    nightly: Exporter, path: str, options: dict[str, Any]
) -> None:
    """(BD-01)"""
    before = sent(nightly.stage.sandbox)

    answer = await nightly.kick_off(path, **options)

    assert answer.status_code == 403
    assert sent(nightly.stage.sandbox) == before
    assert json.loads(nightly.stage.audit_lines()[-1])["outcome"] == "denied"


@pytest.mark.parametrize(
    ("method", "path"), [("PUT", "$export"), ("DELETE", "Patient/$export"), ("POST", "_bulk/x"), ("PATCH", "_bulk/x/y")]
)
async def test_an_export_has_no_other_methods(nightly: Exporter, method: str, path: str) -> None:
    """(HB-09): they are refused like any FHIR request that cannot be interpreted, and leave a record."""
    before = sent(nightly.stage.sandbox)

    assert (await nightly.kick_off(path, method=method)).status_code == 403

    assert sent(nightly.stage.sandbox) == before
    record = json.loads(nightly.stage.audit_lines()[-1])
    assert (record["event"], record["outcome"], record["app"]) == ("handle.use", "denied", "nightly")


# How it ends


async def test_an_app_ends_its_export_and_nothing_of_it_is_left(nightly: Exporter, redis: Redis) -> None:
    """(BD-15)"""
    job = await nightly.begun(TYPES)
    file = nightly.path_of((await nightly.manifest(job))["output"][0]["url"])

    assert (await nightly.app.fhir(nightly.handle, job, method="DELETE")).status_code == 202

    before = sent(nightly.stage.sandbox)
    for path, method in ((job, "GET"), (job, "DELETE"), (file, "GET")):
        assert (await nightly.app.fhir(nightly.handle, path, method=method)).status_code == 404
    assert sent(nightly.stage.sandbox) == before
    left = {name async for name in redis.scan_iter(match="sb:bulk*")}
    assert left == {b"sb:bulk:{sandbox}:turns:sandbox-backend"}


async def test_a_handle_that_may_only_read_ends_no_export(nightly: Exporter) -> None:
    """(BD-14, HB-02): whoever was passed it can follow the export, and take it from nobody."""
    job = await nightly.begun(TYPES)
    reading = (await exchanged(nightly.app, nightly.handle, read_only="true"))["access_token"]
    before = sent(nightly.stage.sandbox)

    answer = await nightly.app.fhir(reading, job, method="DELETE")

    assert (answer.status_code, code_of(answer)) == (403, "insufficient_scope")
    assert sent(nightly.stage.sandbox) == before
    record = json.loads(nightly.stage.audit_lines()[-1])
    assert (record["event"], record["outcome"]) == ("bulk.cancel", "denied")
    assert record["reason"] == "insufficient_scope: limit read_only: ending an export is no reading"
    assert (await nightly.app.fhir(reading, job)).status_code == 202


async def test_an_export_that_the_ehr_cannot_be_told_to_end_is_kept(nightly: Exporter) -> None:
    """(BD-15)"""
    job = await nightly.begun(TYPES)
    nightly.stage.sandbox.fault("bulk_transient")

    answer = await nightly.app.fhir(nightly.handle, job, method="DELETE")

    assert (answer.status_code, code_of(answer)) == (503, "ehr_unreachable")
    assert (await nightly.app.fhir(nightly.handle, job, method="DELETE")).status_code == 202


async def test_an_export_that_nobody_asks_for_is_ended_at_the_ehr(nightly: Exporter, redis: Redis) -> None:
    """(BD-15)"""
    stage = nightly.stage
    job = await nightly.begun(TYPES)
    await nightly.look(job)
    nightly.wait(86_300)
    assert await stage.broker.end_abandoned.look() == 0
    nightly.wait(1000)

    assert await stage.broker.end_abandoned.look() == 1

    deleted = [entry for entry in stage.sandbox.journal("fhir") if entry["method"] == "DELETE"]
    assert [entry["status"] for entry in deleted] == [202]
    assert {name async for name in redis.scan_iter(match="sb:bulk*:job:*")} == set()
    await nightly.renew()
    assert (await nightly.app.fhir(nightly.handle, job)).status_code == 404
    events = [json.loads(line) for line in stage.audit_lines()]
    assert [event["outcome"] for event in events if event["event"] == "bulk.abandon"] == ["allowed"]


async def test_an_abandoned_export_comes_up_again_where_the_ehr_could_not_be_told(nightly: Exporter) -> None:
    """(BD-15)"""
    await nightly.begun(TYPES)
    nightly.wait(86_500)
    nightly.stage.sandbox.fault("bulk_transient")

    assert await nightly.stage.broker.end_abandoned.look() == 1
    assert await nightly.stage.broker.end_abandoned.look() == 0
    nightly.wait(601)
    assert await nightly.stage.broker.end_abandoned.look() == 1
    nightly.wait(601)
    assert await nightly.stage.broker.end_abandoned.look() == 0


@pytest.mark.parametrize("harm", ["damaged", "key away", "of another version"])
async def test_an_export_whose_record_cannot_be_read_keeps_no_other_from_ending(
    nightly: Exporter, redis: Redis, harm: str
) -> None:
    """(BD-15)"""
    stage, exports = nightly.stage, nightly.stage.broker.exports
    first, unread, last = [(await nightly.begun(TYPES)).removeprefix("_bulk/") for _ in range(3)]
    record, place = keys.bulk_job("sandbox", unread), RecordContext("bulk", f"sandbox:{unread}", exports.tenant)
    sealed = cast("bytes", await redis.hget(record, "sealed"))
    harmed = {
        "damaged": sealed[:-1] + bytes([sealed[-1] ^ 1]),
        "key away": sealed[:1] + bytes(len(sealed) - 1),
        "of another version": await exports.vault.seal(place, b"{}", ehr="sandbox"),
    }
    await redis.hset(record, "sealed", harmed[harm])
    nightly.wait(86_500)

    with capture_logs() as logs:
        assert await stage.broker.end_abandoned.look() == 3

    deleted = [entry["path"] for entry in stage.sandbox.journal("fhir") if entry["method"] == "DELETE"]
    assert len(set(deleted)) == 2
    assert not await redis.exists(*(keys.bulk_job("sandbox", job) for job in (first, last)))
    may_open_later = 0 if harm == "damaged" else 1
    running = await redis.zcard(keys.bulk_list("sandbox", "running", "sandbox-backend"))
    kept = (await redis.exists(record), await redis.zcard(keys.BULK_DUE), running)
    assert kept == (may_open_later,) * 3, "what never opens holds no place"
    waits = [entry["exports"] for entry in logs if entry["event"] == "abandoned_exports_wait"]
    assert waits == [1] * may_open_later
    told = [
        line["reason"].partition(":")[0] for line in map(json.loads, stage.audit_lines()) if line["outcome"] == "failed"
    ]
    assert told == [] if may_open_later else told[-1] == "seal_broken"


async def test_each_call_to_the_ehr_is_written_down_first_and_no_patient_in_it(nightly: Exporter) -> None:
    """(blueprint §5.9)"""
    job = await nightly.begun(TYPES)
    manifest = await nightly.manifest(job)
    await nightly.file(manifest["output"][0]["url"])
    await nightly.app.fhir(nightly.handle, job, method="DELETE")

    events = [json.loads(line) for line in nightly.stage.audit_lines()]
    told = [(event["event"], event.get("status")) for event in events if event["event"].startswith("bulk.")]
    assert told == [
        ("bulk.accept", None),
        ("bulk.begin", None),
        ("bulk.answer", 202),
        ("bulk.poll", None),
        ("bulk.answer", 202),
        ("bulk.poll", None),
        ("bulk.answer", 200),
        ("bulk.file", None),
        ("bulk.answer", 200),
        ("bulk.cancel", None),
        ("bulk.answer", 202),
    ]
    bulk = [event for event in events if event["event"].startswith("bulk.")]
    assert {event["job"] for event in bulk} == {job.removeprefix("_bulk/")}
    assert {event["interaction"] for event in bulk} == {"operation Patient $export"}


async def test_what_an_app_asks_about_exports_counts_toward_its_limit(
    sandbox: Sandbox, redis: Redis, tmp_path: Path
) -> None:
    """Polls too, whoever answers them; over it the EHR hears nothing (PX-11)."""
    limited = APPS.replace('id = "nightly"\n', 'id = "nightly"\nrequests_per_minute = 6\nburst = 3\n')
    assert limited != APPS
    async with open_stage(sandbox, redis, tmp_path, more=limited) as stage:
        nightly = await exporter(stage)
        job = await nightly.begun(TYPES)
        before = sandbox.counts()

        answers = [await nightly.app.fhir(nightly.handle, job) for _ in range(4)]

        assert [answer.status_code for answer in answers] == [202, 202, 429, 429]
        assert code_of(answers[-1]) == "too_many_requests"
        assert sandbox.counts() == before
        await nightly.app.close()
