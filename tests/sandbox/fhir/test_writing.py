"""Create, update, delete, and their conditions."""

from datetime import UTC, datetime
from typing import Any

import pytest
from starlette.testclient import TestClient

from sandbox.population.elements import Resource
from tests.sandbox.fhir.conftest import BASE, Ehr, assert_refused, ids


@pytest.fixture
def note(amy: Resource) -> Resource:
    """An observation that nobody has stored yet."""
    return {
        "resourceType": "Observation",
        "status": "preliminary",
        "code": {"text": "Mood"},
        "subject": {"reference": f"Patient/{amy['id']}"},
        "identifier": [{"system": "urn:app", "value": "1"}],
    }


def test_a_create_answers_201_with_the_version_location(backend: TestClient, note: Resource) -> None:
    answer = backend.post("/Observation", json={**note, "id": "chosen-by-the-client"})
    assert answer.status_code == 201
    assert answer.headers["location"] == f"{BASE}/Observation/new-1/_history/1"
    assert answer.headers["etag"] == 'W/"1"'
    assert answer.headers["last-modified"] == "Wed, 18 Nov 2026 11:06:40 GMT"
    stored = answer.json()
    assert stored["meta"] == {"versionId": "1", "lastUpdated": "2026-11-18T11:06:40Z"}
    assert {**stored, "id": None, "meta": None} == {**note, "id": None, "meta": None}
    assert backend.get("/Observation/new-1").json() == stored


def test_the_server_alone_writes_id_version_and_time(backend: TestClient, note: Resource) -> None:
    claimed = {"id": 5, "meta": {"versionId": "99", "lastUpdated": "yesterday", "tag": [{"code": "mine"}]}}
    stored = backend.post("/Observation", json={**note, **claimed}).json()
    assert stored["id"] == "new-1"
    assert stored["meta"] == {"versionId": "1", "lastUpdated": "2026-11-18T11:06:40Z", "tag": [{"code": "mine"}]}


def test_what_was_created_is_found_in_the_chart(backend: TestClient, ehr: Ehr, amy: Resource, note: Resource) -> None:
    backend.post("/Observation", json=note)
    bundle = backend.get(f"/Observation?patient={amy['id']}&_count=100").json()
    assert ids(bundle)[-1] == "new-1"
    assert bundle["total"] == len(ehr.chart("Observation", amy)) + 1


def test_the_caller_can_prefer_no_body_or_an_outcome(backend: TestClient, note: Resource) -> None:
    minimal = backend.post("/Observation", json=note, headers={"Prefer": "return=minimal"})
    assert (minimal.status_code, minimal.content) == (201, b"")
    assert minimal.headers["location"].endswith("/_history/1")
    outcome = backend.post("/Observation", json=note, headers={"Prefer": "return=OperationOutcome"}).json()
    assert outcome["issue"][0]["severity"] == "information"
    full = backend.post("/Observation", json=note, headers={"Prefer": "return=representation"}).json()
    assert full["resourceType"] == "Observation"


def test_an_update_makes_the_next_version(backend: TestClient, ehr: Ehr, note: Resource) -> None:
    stored = backend.post("/Observation", json=note).json()
    ehr.now += 60
    answer = backend.put("/Observation/new-1", json={**stored, "status": "final"}, headers={"If-Match": 'W/"1"'})
    assert (answer.status_code, answer.headers["etag"]) == (200, 'W/"2"')
    updated = datetime.fromtimestamp(ehr.now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert answer.json()["meta"] == {"versionId": "2", "lastUpdated": updated}
    assert backend.get("/Observation/new-1").json()["status"] == "final"


def test_a_stale_update_changes_nothing(backend: TestClient, note: Resource) -> None:
    stored = backend.post("/Observation", json=note).json()
    backend.put("/Observation/new-1", json=stored)
    answer = backend.put("/Observation/new-1", json={**stored, "status": "final"}, headers={"If-Match": 'W/"1"'})
    assert_refused(answer, 412, "conflict")
    assert backend.get("/Observation/new-1").json()["status"] == "preliminary"


def test_an_update_of_nothing_creates_unless_a_version_is_named(backend: TestClient, note: Resource) -> None:
    named = backend.put("/Observation/mine", json={**note, "id": "mine"}, headers={"If-Match": 'W/"1"'})
    assert_refused(named, 412, "conflict")
    created = backend.put("/Observation/mine", json={**note, "id": "mine"})
    assert (created.status_code, created.headers["location"]) == (201, f"{BASE}/Observation/mine/_history/1")


def test_an_update_can_move_a_resource_to_another_chart(
    backend: TestClient, amy: Resource, camila: Resource, note: Resource
) -> None:
    stored = backend.post("/Observation", json=note).json()
    backend.put("/Observation/new-1", json={**stored, "subject": {"reference": f"Patient/{camila['id']}"}})
    assert "new-1" not in ids(backend.get(f"/Observation?patient={amy['id']}&_count=100").json())
    assert "new-1" not in ids(backend.get(f"/Patient/{amy['id']}/$everything?_count=100").json())
    assert "new-1" in ids(backend.get(f"/Observation?patient={camila['id']}&_count=100").json())


def test_a_deleted_resource_is_gone_and_can_come_back(backend: TestClient, note: Resource) -> None:
    stored = backend.post("/Observation", json=note).json()
    assert backend.delete("/Observation/new-1").status_code == 204
    assert_refused(backend.get("/Observation/new-1"), 410, "deleted")
    assert ids(backend.get("/Observation?_id=new-1").json()) == []
    assert backend.delete("/Observation/new-1").status_code == 204
    again = backend.put("/Observation/new-1", json=stored)
    assert (again.status_code, again.headers["etag"]) == (201, 'W/"3"')


def test_deleting_what_never_was_is_404(backend: TestClient) -> None:
    assert_refused(backend.delete("/Observation/none"), 404, "not-found")


def test_a_delete_can_name_the_version(backend: TestClient, note: Resource) -> None:
    backend.post("/Observation", json=note)
    assert_refused(backend.delete("/Observation/new-1", headers={"If-Match": 'W/"2"'}), 412, "conflict")
    assert backend.delete("/Observation/new-1", headers={"If-Match": 'W/"1"'}).status_code == 204


def test_a_conditional_create_creates_once(backend: TestClient, amy: Resource) -> None:
    person = {"resourceType": "Patient", "identifier": [{"system": "urn:app", "value": "42"}]}
    condition = {"If-None-Exist": "identifier=urn:app|42"}
    first = backend.post("/Patient", json=person, headers=condition)
    second = backend.post("/Patient", json=person, headers=condition)
    assert (first.status_code, second.status_code) == (201, 200)
    assert first.headers["location"] == second.headers["location"]
    assert backend.get("/Patient?_summary=count").json()["total"] == 201


def test_a_conditional_create_is_refused_when_several_match(backend: TestClient) -> None:
    answer = backend.post("/Patient", json={"resourceType": "Patient"}, headers={"If-None-Exist": "gender=female"})
    assert_refused(answer, 412, "conflict")


@pytest.mark.parametrize("criteria", ["", "shoe-size=9", "_count=1"])
def test_a_condition_that_decides_nothing_is_refused(backend: TestClient, criteria: str) -> None:
    answer = backend.post("/Patient", json={"resourceType": "Patient"}, headers={"If-None-Exist": criteria})
    assert_refused(answer, 400, "not-supported")


def test_raw_content_becomes_a_binary_of_the_chart_it_names(
    backend: TestClient, amys_app: TestClient, amy: Resource
) -> None:
    headers = {"Content-Type": "application/pdf", "X-Security-Context": f"Patient/{amy['id']}"}
    assert backend.post("/Binary", content=b"%PDF-1.7", headers=headers).status_code == 201
    answer = amys_app.get("/Binary/new-1")
    assert (answer.content, answer.headers["content-type"]) == (b"%PDF-1.7", "application/pdf")


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        (b"", {}, 400),
        (b"not json", {}, 400),
        (b"[]", {}, 400),
        (b'{"resourceType": "Patient"}', {}, 400),
        (b'{"resourceType": "Observation", "meta": []}', {}, 400),
        (b'{"resourceType": "Observation", "valueQuantity": NaN}', {}, 400),
        (b"[" * 100_000, {}, 400),
        (b"<Observation/>", {"Content-Type": "application/fhir+xml"}, 415),
    ],
)
def test_a_body_that_is_no_such_resource_is_refused(
    backend: TestClient, content: bytes, headers: dict[str, str], status: int
) -> None:
    answer = backend.post("/Observation", content=content, headers={"Content-Type": "application/json", **headers})
    assert answer.status_code == status
    assert answer.json()["resourceType"] == "OperationOutcome"


@pytest.mark.parametrize(("levels", "status"), [(99, 201), (100, 400), (900, 400)])
def test_a_resource_is_nested_at_most_a_hundred_deep(
    backend: TestClient, note: Resource, levels: int, status: int
) -> None:
    element: Any = []
    for _ in range(levels - 1):
        element = [element]
    assert backend.post("/Observation", json={**note, "extension": element}).status_code == status


@pytest.mark.parametrize(
    "elements",
    [
        {"code": {"coding": "8867-4"}},
        {"code": {"coding": ["8867-4"]}},
        {"code": 5},
        {"status": 5},
        {"subject": "Patient/1"},
        {"effectiveDateTime": "yesterday"},
        {"effectiveDateTime": 2026},
        {"effectivePeriod": {"start": "soon"}},
        {"effectivePeriod": {"start": 5}},
    ],
)
def test_what_search_could_not_read_later_is_not_stored(
    backend: TestClient, note: Resource, elements: dict[str, Any]
) -> None:
    assert_refused(backend.post("/Observation", json={**note, **elements}), 422, "invalid")
    assert_refused(backend.put("/Observation/mine", json={**note, **elements, "id": "mine"}), 422, "invalid")
    assert_refused(backend.get("/Observation/mine"), 404, "not-found")


@pytest.mark.parametrize(
    "binary",
    [
        {"contentType": "text/plain", "data": "not base64!"},
        {"contentType": "text/plain", "data": 5},
        {"contentType": "text/plain\r\nX-Other: 1", "data": ""},
        {"contentType": "text", "data": ""},
        {"data": ""},
    ],
)
def test_a_binary_that_could_not_be_sent_is_not_stored(backend: TestClient, binary: dict[str, Any]) -> None:
    assert_refused(backend.post("/Binary", json={"resourceType": "Binary", **binary}), 422, "invalid")


@pytest.mark.parametrize(("url_id", "body_id"), [("a", "b"), ("a", None), ("a_b", "a_b"), ("x" * 65, "x" * 65)])
def test_an_update_needs_one_fhir_id(backend: TestClient, note: Resource, url_id: str, body_id: str | None) -> None:
    answer = backend.put(f"/Observation/{url_id}", json={**note, "id": body_id})
    assert answer.status_code == 400
