"""Batch and transaction: each entry with the caller's rights, a transaction whole or not at all (SC-09)."""

from typing import Any

import pytest
from starlette.testclient import TestClient

from sandbox.population.elements import Resource
from tests.sandbox.fhir.conftest import BASE, Ehr, assert_refused, ids


def entry(method: str, url: str, resource: Resource | None = None, **more: Any) -> Resource:
    request = {"method": method, "url": url, **{k: v for k, v in more.items() if k != "fullUrl"}}
    made = {"request": request, **({"resource": resource} if resource else {})}
    return {"fullUrl": more["fullUrl"], **made} if "fullUrl" in more else made


def send(client: TestClient, kind: str, *entries: Any) -> Resource:
    answer = client.post(BASE, json={"resourceType": "Bundle", "type": kind, "entry": list(entries)})
    assert answer.status_code == 200, answer.text
    bundle: Resource = answer.json()
    assert bundle["type"] == f"{kind}-response"
    return bundle


def statuses(bundle: Resource) -> list[str]:
    return [entry["response"]["status"] for entry in bundle["entry"]]


def observation(subject: str) -> Resource:
    return {
        "resourceType": "Observation",
        "status": "final",
        "code": {"text": "Mood"},
        "subject": {"reference": subject},
    }


def test_a_batch_answers_each_entry_for_itself(backend: TestClient, amy: Resource) -> None:
    bundle = send(
        backend,
        "batch",
        entry("GET", f"Patient/{amy['id']}"),
        entry("GET", "Patient/none"),
        entry("GET", "Condition?patient.family=Lopez"),
        entry("POST", "Observation", observation(f"Patient/{amy['id']}")),
    )
    assert statuses(bundle) == ["200 OK", "404 Not Found", "200 OK", "201 Created"]
    read, missing, found, created = bundle["entry"]
    assert read["resource"] == amy
    assert read["response"]["etag"] == 'W/"1"'
    assert missing["response"]["outcome"]["issue"][0]["code"] == "not-found"
    assert found["resource"]["total"] == 2
    assert created["response"]["location"] == f"{BASE}/Observation/{created['resource']['id']}/_history/1"


def test_a_batch_entry_needs_its_own_scope(ehr: Ehr, amy: Resource, camila: Resource) -> None:
    """SC-09."""
    app = ehr.client("patient/Patient.r", "patient/Observation.rs", patient=amy["id"])
    bundle = send(
        app,
        "batch",
        entry("GET", f"Patient/{amy['id']}"),
        entry("GET", f"Patient/{camila['id']}"),
        entry("GET", "Condition"),
        entry("GET", f"Observation?patient={camila['id']}"),
        entry("DELETE", f"Observation/{ehr.chart('Observation', amy)[0]['id']}"),
        entry("POST", "Observation", observation(f"Patient/{amy['id']}")),
    )
    assert statuses(bundle) == ["200 OK", *["403 Forbidden"] * 5]


def test_a_transaction_resolves_references_between_its_entries(backend: TestClient) -> None:
    bundle = send(
        backend,
        "transaction",
        entry("POST", "Observation", observation("urn:uuid:1"), fullUrl="urn:uuid:2"),
        entry("POST", "Patient", {"resourceType": "Patient"}, fullUrl="urn:uuid:1"),
    )
    stored, patient = (item["resource"] for item in bundle["entry"])
    assert stored["subject"]["reference"] == f"Patient/{patient['id']}"
    assert ids(backend.get(f"/Observation?patient={patient['id']}").json()) == [stored["id"]]


@pytest.mark.parametrize("full_url", [None, [], {}, 5])
def test_a_full_url_that_is_no_text_names_nothing(backend: TestClient, full_url: Any) -> None:
    patient = {"resourceType": "Patient", "name": [{"family": "None"}]}
    bundle = send(backend, "transaction", entry("POST", "Patient", patient, fullUrl=full_url))
    assert bundle["entry"][0]["resource"]["name"] == patient["name"]


def test_a_condition_on_an_unserved_type_is_refused(backend: TestClient) -> None:
    bad = entry("POST", "Slot", {"resourceType": "Slot"}, fullUrl="urn:uuid:1", ifNoneExist="status=free")
    answer = backend.post(BASE, json={"resourceType": "Bundle", "type": "transaction", "entry": [bad]})
    assert_refused(answer, 404, "not-supported")


def test_a_transaction_refers_to_what_exists_already(backend: TestClient, amy: Resource) -> None:
    bundle = send(
        backend,
        "transaction",
        entry(
            "POST",
            "Patient",
            {"resourceType": "Patient"},
            fullUrl="urn:uuid:1",
            ifNoneExist=f"identifier={amy['identifier'][0]['value']}",
        ),
        entry("POST", "Observation", observation("urn:uuid:1")),
    )
    assert statuses(bundle) == ["200 OK", "201 Created"]
    assert bundle["entry"][1]["resource"]["subject"]["reference"] == f"Patient/{amy['id']}"


def test_a_transaction_acts_in_the_order_of_fhir_and_answers_in_its_own(
    backend: TestClient, ehr: Ehr, amy: Resource
) -> None:
    old = ehr.chart("Observation", amy)[0]
    bundle = send(
        backend,
        "transaction",
        entry("GET", f"Observation?_id={old['id']}"),
        entry("PUT", "Observation/mine", {**observation(f"Patient/{amy['id']}"), "id": "mine"}),
        entry("DELETE", f"Observation/{old['id']}"),
    )
    assert statuses(bundle) == ["200 OK", "201 Created", "204 No Content"]
    assert bundle["entry"][0]["resource"]["total"] == 0


def test_a_transaction_is_undone_whole_when_one_entry_fails(backend: TestClient, ehr: Ehr, amy: Resource) -> None:
    old = ehr.chart("Observation", amy)[0]
    before = backend.get(f"/Observation?patient={amy['id']}&_count=100").json()
    entries = [
        entry("DELETE", f"Observation/{old['id']}"),
        entry("POST", "Observation", observation(f"Patient/{amy['id']}")),
        entry("PUT", f"Patient/{amy['id']}", {**amy, "active": False}, ifMatch='W/"9"'),
    ]
    answer = backend.post(BASE, json={"resourceType": "Bundle", "type": "transaction", "entry": entries})
    assert "entry 2" in assert_refused(answer, 412, "conflict")
    assert backend.get(f"/Observation?patient={amy['id']}&_count=100").json() == before
    assert backend.get(f"/Observation/{old['id']}/_history").json()["total"] == 1


def test_a_transaction_with_one_forbidden_entry_is_refused_whole(ehr: Ehr, amy: Resource, camila: Resource) -> None:
    """SC-09."""
    app = ehr.client("patient/Observation.cruds", patient=amy["id"])
    entries = [entry("POST", "Observation", observation(f"Patient/{p['id']}")) for p in (amy, camila)]
    answer = app.post(BASE, json={"resourceType": "Bundle", "type": "transaction", "entry": entries})
    assert_refused(answer, 403, "forbidden")
    assert app.get("/Observation?_summary=count").json()["total"] == len(ehr.chart("Observation", amy))


@pytest.mark.parametrize(
    "bad",
    [
        "text",
        {},
        {"request": []},
        entry("GET", "http://elsewhere.test/Patient/1"),
        entry("GET", "//elsewhere.test/Patient/1"),
        entry("GET", ""),
        entry("PATCH", "Patient/1"),
        entry("POST", "Patient/_search"),
        entry("POST", ""),
        entry("POST", "Patient"),
        entry("POST", "Patient", {"resourceType": "Observation"}),
        entry("GET", "http://[broken"),
    ],
)
def test_an_entry_that_is_no_call_is_refused(backend: TestClient, bad: Any) -> None:
    assert statuses(send(backend, "batch", bad)) == ["400 Bad Request"]
    answer = backend.post(BASE, json={"resourceType": "Bundle", "type": "transaction", "entry": [bad]})
    assert answer.status_code == 400


@pytest.mark.parametrize(
    "bundle", [{"type": "searchset"}, {}, {"type": "batch", "entry": {}}, {"type": ["batch"], "entry": []}]
)
def test_only_batches_and_transactions_are_processed(backend: TestClient, bundle: Resource) -> None:
    assert backend.post(BASE, json={"resourceType": "Bundle", **bundle}).status_code == 400


def test_the_base_takes_get_and_post_only(backend: TestClient) -> None:
    answer = backend.delete(BASE)
    assert_refused(answer, 405, "not-supported")
    assert answer.headers["allow"] == "GET, POST"
