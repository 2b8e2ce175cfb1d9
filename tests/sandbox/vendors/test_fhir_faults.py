"""What goes wrong with pages, redirects, challenges and exports, and what the sandbox counts of it."""

from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest

from tests.sandbox.oauth.conftest import Start
from tests.sandbox.oauth.driver import FHIR_BASE, ORIGIN, Driver

BACKEND = {"grant_types": ["client_credentials"], "scopes": "system/*.rs", "redirect_uris": []}
SCOPE = "launch/patient patient/*.rs"
EXPORT = {"Prefer": "respond-async", "Accept": "application/fhir+json"}


async def token(ehr: Driver) -> str:
    return str((await ehr.tokens(scope=SCOPE))["access_token"])


async def backend_token(ehr: Driver) -> str:
    await ehr.register("backend", **BACKEND)
    return str((await ehr.token(grant_type="client_credentials", scope="system/*.rs")).json()["access_token"])


async def call(ehr: Driver, access_token: str, url: str, **headers: str) -> httpx2.Response:
    return await ehr.http.get(url, headers={"Authorization": f"Bearer {access_token}"} | headers)


def next_link(bundle: dict[str, Any]) -> str:
    return next(str(link["url"]) for link in bundle["link"] if link["relation"] == "next")


@pytest.mark.parametrize(
    ("fault", "parameters", "origin"),
    [
        ("paging_port", {}, "http://127.0.0.1:443"),
        ("paging_port", {"port": 8443}, "http://127.0.0.1:8443"),
        ("paging_internal_host", {}, "http://ehr.internal:8080"),
        ("paging_internal_host", {"origin": "http://localhost:9400"}, "http://localhost:9400"),
    ],
)
async def test_next_links_can_lead_elsewhere(ehr: Driver, fault: str, parameters: dict[str, Any], origin: str) -> None:
    """(PX-06)"""
    access_token = await token(ehr)
    await ehr.arm(fault, **parameters)
    first = (await ehr.fhir(access_token, "Observation?_count=1")).json()
    url = urlsplit(next_link(first))
    assert f"{url.scheme}://{url.netloc}" == origin
    assert first["link"][0]["url"].startswith(FHIR_BASE)
    second = await call(ehr, access_token, f"{url.path}?{url.query}")
    assert next_link(second.json()).startswith(origin)


async def test_a_fault_of_pages_leaves_other_answers_alone(ehr: Driver) -> None:
    tokens = await ehr.tokens(scope=SCOPE)
    await ehr.arm("paging_port")
    answer = await ehr.fhir(tokens["access_token"], f"Patient/{tokens['patient']}")
    assert answer.json()["resourceType"] == "Patient"
    refused = await ehr.fhir(tokens["access_token"], "Observation?_count=x")
    assert refused.status_code == 400


@pytest.mark.parametrize(("fault", "status", "code"), [("paging_401", 401, "login"), ("paging_gone", 410, "not-found")])
async def test_a_walk_can_end_in_the_middle(ehr: Driver, fault: str, status: int, code: str) -> None:
    """(PX-08, EP-21)"""
    access_token = await token(ehr)
    await ehr.arm(fault)
    first = await ehr.fhir(access_token, "Observation?_count=1")
    assert first.status_code == 200
    answer = await call(ehr, access_token, next_link(first.json()))
    assert (answer.status_code, answer.json()["issue"][0]["code"]) == (status, code)
    assert (await call(ehr, access_token, next_link(first.json()))).status_code == 200


async def test_a_challenge_can_name_a_patient(ehr: Driver) -> None:
    """(PX-10)"""
    await ehr.arm("fhir_401_phi")
    assert "MRN" in (await ehr.fhir(await token(ehr), "Patient")).headers["www-authenticate"]


@pytest.mark.parametrize("into", ["", "someone"])
async def test_a_merged_patient_redirects_to_another(ehr: Driver, into: str) -> None:
    """(PX-15)"""
    tokens = await ehr.tokens(scope=SCOPE)
    await ehr.arm("fhir_merged", into=into)
    answer = await ehr.fhir(tokens["access_token"], f"Patient/{tokens['patient']}")
    assert answer.status_code == 301
    assert "4107" in answer.json()["issue"][0]["diagnostics"]
    location = answer.headers["location"]
    assert location.startswith(f"{FHIR_BASE}/Patient/")
    assert location != f"{FHIR_BASE}/Patient/{tokens['patient']}"
    assert not into or location.endswith("/someone")


async def test_storage_takes_the_url_for_the_key_and_no_token_beside_it(ehr: Driver) -> None:
    """(OR-08, PX-05, BD-10)"""
    tokens = await ehr.tokens(scope=SCOPE)
    path = f"Patient/{tokens['patient']}"
    plain = await ehr.fhir(tokens["access_token"], path)
    await ehr.arm("fhir_storage")
    answer = await ehr.fhir(tokens["access_token"], path)
    url = answer.headers["location"]
    assert (answer.status_code, answer.content) == (307, b"")
    assert url.startswith("http://localhost:9400/storage/")
    assert "canary-storage-" in url
    refused = await call(ehr, tokens["access_token"], url)
    assert refused.status_code == 400
    assert "Only one auth mechanism" in refused.text
    fetched = await ehr.http.get(url)
    assert (fetched.content, fetched.headers["content-type"]) == (plain.content, plain.headers["content-type"])
    counts = await ehr.counts()
    assert (counts["storage"], counts["storage.authorization"]) == (2, 1)


async def test_a_url_of_storage_cannot_be_guessed_and_ends_with_a_reset(ehr: Driver) -> None:
    await ehr.arm("fhir_storage")
    tokens = await ehr.tokens(scope=SCOPE)
    url = (await ehr.fhir(tokens["access_token"], f"Patient/{tokens['patient']}")).headers["location"]
    assert (await ehr.http.get(f"{url}x")).status_code == 403
    await ehr.http.post("/__reset")
    assert (await ehr.http.get(url)).status_code == 403


async def test_the_journal_does_not_hold_the_key_to_storage(ehr: Driver) -> None:
    tokens = await ehr.tokens(scope=SCOPE)
    await ehr.arm("fhir_storage")
    url = (await ehr.fhir(tokens["access_token"], f"Patient/{tokens['patient']}")).headers["location"]
    await ehr.http.get(url)
    assert "canary-" not in (await ehr.http.get("/__journal")).text


async def job(ehr: Driver, access_token: str) -> str:
    """Begin an export; returns where its status is."""
    answer = await call(ehr, access_token, f"{FHIR_BASE}/Patient/$export?_type=Patient", **EXPORT)
    assert answer.status_code == 202
    return str(answer.headers["content-location"])


async def test_an_export_can_go_on_for_hours(ehr: Driver) -> None:
    """(BD-05)"""
    access_token = await backend_token(ehr)
    status = await job(ehr, access_token)
    await ehr.arm("bulk_retry_after", times=3)
    for _ in range(3):
        answer = await call(ehr, access_token, status)
        assert (answer.status_code, answer.headers["retry-after"]) == (202, "14400")
    assert (await call(ehr, access_token, status)).headers["retry-after"] == "1"


async def test_a_status_can_fail_for_a_while(ehr: Driver) -> None:
    """(BD-07)"""
    access_token = await backend_token(ehr)
    status = await job(ehr, access_token)
    await ehr.arm("bulk_transient")
    failed = await call(ehr, access_token, status)
    assert (failed.status_code, failed.json()["issue"][0]["code"]) == (503, "transient")
    assert (await call(ehr, access_token, status)).status_code == 202


async def test_a_kick_off_can_be_too_much(ehr: Driver) -> None:
    """(OR-08)"""
    access_token = await backend_token(ehr)
    await ehr.arm("bulk_429")
    answer = await call(ehr, access_token, f"{FHIR_BASE}/$export", **EXPORT)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "120")


async def test_a_client_can_be_held_to_one_export(start: Start) -> None:
    """(OR-08)"""
    async with start(one_bulk_job=True) as ehr:
        access_token = await backend_token(ehr)
        first = await job(ehr, access_token)
        refused = await call(ehr, access_token, f"{FHIR_BASE}/$export", **EXPORT)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "120")
        await call(ehr, access_token, first)
        assert await job(ehr, access_token) != first
        repeated = await call(ehr, access_token, f"{FHIR_BASE}/$export?_type=Patient&_type=Group", **EXPORT)
        assert repeated.status_code == 429


async def test_a_released_export_makes_room_for_the_next(start: Start) -> None:
    """(OR-08, BD-15)"""
    async with start(one_bulk_job=True) as ehr:
        access_token = await backend_token(ehr)
        headers = {"Authorization": f"Bearer {access_token}"}
        assert (await ehr.http.delete(await job(ehr, access_token), headers=headers)).status_code == 202
        repeated = await call(ehr, access_token, f"{FHIR_BASE}/$export?_type=Patient&_type=Group", **EXPORT)
        assert repeated.status_code == 400


async def manifest(ehr: Driver, access_token: str, status: str) -> dict[str, Any]:
    await call(ehr, access_token, status)
    return dict((await call(ehr, access_token, status)).json())


async def test_a_manifest_can_have_strings_for_booleans(ehr: Driver) -> None:
    access_token = await backend_token(ehr)
    await ehr.arm("bulk_string_booleans")
    assert (await manifest(ehr, access_token, await job(ehr, access_token)))["requiresAccessToken"] == "true"


async def test_files_can_be_in_storage_behind_a_redirect(ehr: Driver) -> None:
    """(OR-08, BD-10)"""
    access_token = await backend_token(ehr)
    (file,) = (await manifest(ehr, access_token, await job(ehr, access_token)))["output"]
    plain = await call(ehr, access_token, file["url"])
    await ehr.arm("bulk_storage")
    answer = await call(ehr, access_token, file["url"])
    assert answer.status_code == 307
    assert (await ehr.http.get(answer.headers["location"])).content == plain.content
    assert (await ehr.counts())["storage.authorization"] == 0


@pytest.mark.parametrize("required", [True, False])
async def test_a_manifest_can_name_storage_itself(ehr: Driver, *, required: bool) -> None:
    """(BD-09, BD-10, BD-11)"""
    access_token = await backend_token(ehr)
    await ehr.arm("bulk_presigned", requires_access_token=required)
    found = await manifest(ehr, access_token, await job(ehr, access_token))
    (file,) = found["output"]
    assert found["requiresAccessToken"] is required
    assert file["url"].startswith("http://localhost:9400/storage/")
    content = (await ehr.http.get(file["url"])).content
    assert content.count(b"\n") == file["count"] == 9


async def test_an_origin_that_is_no_loopback_keeps_its_storage(start: Start) -> None:
    async with start(public_url="https://ehr.example") as ehr:
        await ehr.register()
        tokens = await ehr.tokens(scope=SCOPE, aud="https://ehr.example/api/FHIR/R4")
        await ehr.arm("fhir_storage")
        answer = await ehr.fhir(tokens["access_token"], f"Patient/{tokens['patient']}")
        assert answer.headers["location"].startswith("https://ehr.example/storage/")
        assert ORIGIN not in answer.headers["location"]
