"""Bulk Data: what an export holds, and whom it belongs to."""

import json
from typing import Any

import httpx2
import pytest
from starlette.testclient import TestClient

from sandbox.population.elements import Resource
from tests.sandbox.fhir.conftest import BASE, Ehr, assert_refused

ASYNC = {"Prefer": "respond-async", "Accept": "application/fhir+json"}


def kicked_off(client: TestClient, path: str, **parameters: str) -> str:
    answer = client.get(path, params=parameters, headers=ASYNC)
    assert (answer.status_code, answer.content) == (202, b""), answer.text
    return str(answer.headers["content-location"])


def manifest(client: TestClient, status: str) -> dict[str, Any]:
    running = client.get(status)
    assert (running.status_code, running.headers["x-progress"]) == (202, "in progress")
    complete = client.get(status)
    assert (complete.status_code, complete.headers["content-type"]) == (200, "application/json")
    assert "expires" in complete.headers
    return dict(complete.json())


def exported(client: TestClient, path: str, **parameters: str) -> dict[str, list[Resource]]:
    """Return the resources of an export by type."""
    output = manifest(client, kicked_off(client, path, **parameters))["output"]
    files: dict[str, list[Resource]] = {}
    for file in output:
        answer = client.get(file["url"])
        assert answer.headers["content-type"] == "application/fhir+ndjson"
        files[file["type"]] = [json.loads(line) for line in answer.text.splitlines()]
        assert len(files[file["type"]]) == file["count"]
    return files


def test_an_export_of_the_system_holds_everything(backend: TestClient, ehr: Ehr) -> None:
    """(BD-03, BD-08)"""
    files = exported(backend, "/$export")
    assert {type_: len(resources) for type_, resources in files.items()} == {
        type_: len(resources) for type_, resources in ehr.population.items()
    }


def test_a_manifest_says_what_was_asked_and_when(backend: TestClient) -> None:
    """(BD-08)"""
    found = manifest(backend, kicked_off(backend, "/Patient/$export", _type="Patient,Condition"))
    assert found["request"] == f"{BASE}/Patient/$export?_type=Patient%2CCondition"
    assert found["requiresAccessToken"] is True
    assert found["transactionTime"].startswith("2026-")
    assert (found["deleted"], found["error"]) == ([], [])
    assert [file["type"] for file in found["output"]] == ["Patient", "Condition"]


def test_an_export_of_patients_leaves_out_what_is_nobody_s(backend: TestClient) -> None:
    assert exported(backend, "/Patient/$export").keys().isdisjoint({"Organization", "Practitioner", "Group"})


def test_an_export_of_a_group_holds_its_members(backend: TestClient, ehr: Ehr) -> None:
    group = ehr.all("Group")[0]
    members = {member["entity"]["reference"].removeprefix("Patient/") for member in group["member"]}
    files = exported(backend, f"/Group/{group['id']}/$export", _type="Patient")
    assert {patient["id"] for patient in files["Patient"]} == members
    assert_refused(backend.get("/Group/none/$export", headers=ASYNC), 404, "not-found")


def test_an_export_can_be_limited_in_time(backend: TestClient, ehr: Ehr) -> None:
    times = sorted({patient["meta"]["lastUpdated"] for patient in ehr.all("Patient")})
    middle = times[len(times) // 2]
    files = exported(backend, "/Patient/$export", _type="Patient", _since=middle)
    assert {p["id"] for p in files.get("Patient", [])} == {
        p["id"] for p in ehr.all("Patient") if p["meta"]["lastUpdated"] > middle
    }


def test_an_export_can_be_asked_for_by_post(backend: TestClient) -> None:
    """(BD-02)"""
    parameters = {"resourceType": "Parameters", "parameter": [{"name": "_type", "valueString": "Group"}]}
    answer = backend.post("/$export", json=parameters, headers=ASYNC)
    assert [file["type"] for file in manifest(backend, answer.headers["content-location"])["output"]] == ["Group"]


@pytest.mark.parametrize(
    "body",
    [
        {"resourceType": "Patient"},
        {"resourceType": "Parameters", "parameter": 1},
        {"resourceType": "Parameters", "parameter": [1]},
    ],
)
def test_a_post_is_a_parameters_resource(backend: TestClient, body: object) -> None:
    assert_refused(backend.post("/$export", json=body, headers=ASYNC), 400, "structure")


@pytest.mark.parametrize(
    ("query", "code"),
    [("_outputFormat=csv", "not-supported"), ("_elements=id", "not-supported"), ("_since=yesterday", "value")],
)
def test_what_an_export_cannot_do_is_refused(backend: TestClient, query: str, code: str) -> None:
    assert_refused(backend.get(f"/$export?{query}", headers=ASYNC), 400, code)


def test_an_export_is_asynchronous_and_says_so(backend: TestClient) -> None:
    """(BD-01)"""
    assert_refused(backend.get("/$export"), 400, "invalid")
    assert_refused(backend.delete("/$export", headers=ASYNC), 405, "not-supported")


def test_an_export_holds_only_what_the_scopes_open(ehr: Ehr) -> None:
    """(BD-14)"""
    client = ehr.client("system/Condition.rs")
    assert exported(client, "/$export").keys() == {"Condition"}
    assert_refused(client.get("/$export?_type=Patient", headers=ASYNC), 403, "forbidden")


@pytest.mark.parametrize("scope", ["patient/*.rs", "user/*.rs"])
def test_an_export_needs_system_scopes(ehr: Ehr, amy: Resource, scope: str) -> None:
    """(BD-14)"""
    assert_refused(ehr.client(scope, patient=amy["id"]).get("/$export", headers=ASYNC), 403, "forbidden")


def test_an_export_belongs_to_the_client_that_began_it(backend: TestClient, ehr: Ehr) -> None:
    """(BD-14)"""
    status = kicked_off(backend, "/$export", _type="Group")
    (file,) = manifest(backend, status)["output"]
    other = ehr.client("system/*.rs", client_id="other")
    for answer in (other.get(status), other.delete(status), other.get(file["url"])):
        assert_refused(answer, 404, "not-found")
    assert backend.get(file["url"]).status_code == 200


def test_a_deleted_export_is_gone_with_its_files(backend: TestClient) -> None:
    """(BD-15)"""
    status = kicked_off(backend, "/$export", _type="Group")
    (file,) = manifest(backend, status)["output"]
    assert backend.delete(status).status_code == 202
    for answer in (backend.get(status), backend.get(file["url"]), backend.delete(status)):
        assert_refused(answer, 404, "not-found")


@pytest.mark.parametrize("number", ["1", "-1", "x", "²"])
def test_a_file_is_one_of_the_manifest(backend: TestClient, number: str) -> None:
    status = kicked_off(backend, "/$export", _type="Group")
    assert_refused(backend.get(f"{status}/{number}"), 404, "not-found")
    assert_refused(backend.post(status), 405, "not-supported")
    assert_refused(backend.post(f"{status}/0"), 405, "not-supported")


def test_a_status_needs_a_token(ehr: Ehr, backend: TestClient) -> None:
    answer: httpx2.Response = ehr.anonymous().get(kicked_off(backend, "/$export"))
    assert_refused(answer, 401, "login")
