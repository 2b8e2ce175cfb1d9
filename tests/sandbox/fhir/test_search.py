"""Search: what matches, how it is sorted, what comes along, what is ignored."""

import pytest
from starlette.testclient import TestClient

from sandbox.population.elements import Resource
from tests.sandbox.fhir.conftest import BASE, Ehr, assert_refused, ids

VITALS = "http://terminology.hl7.org/CodeSystem/observation-category|vital-signs"


def test_a_chart_is_found_by_patient_and_by_subject(backend: TestClient, ehr: Ehr, amy: Resource) -> None:
    expected = {observation["id"] for observation in ehr.chart("Observation", amy)}
    for reference in (amy["id"], f"Patient/{amy['id']}", f"{BASE}/Patient/{amy['id']}"):
        for parameter in ("patient", "subject", "subject:Patient"):
            bundle = backend.get("/Observation", params={parameter: reference, "_count": "100"}).json()
            assert set(ids(bundle)) == expected


@pytest.mark.parametrize(
    ("query", "kept"),
    [
        ("category=vital-signs", True),
        (f"category={VITALS}", True),
        ("category=laboratory", False),
        ("category=laboratory,vital-signs", True),
        ("category=http://else.where|vital-signs", False),
        ("category=http://terminology.hl7.org/CodeSystem/observation-category|", True),
        ("category=|vital-signs", False),
        ("category:not=laboratory", True),
        ("category:not=vital-signs", False),
        ("category:not=laboratory,vital-signs", False),
        ("category:missing=false", True),
        ("category:missing=true", False),
        ("code=8867-4", True),
        ("code=http://loinc.org|8867-4", True),
        ("code=http://loinc.org|8310-5", False),
        ("status=final", True),
        ("status=amended", False),
        ("date=ge2000-01-01&date=lt2100", True),
        ("date=lt2000", False),
        ("_lastUpdated=gt2000-01-01", True),
        ("_id=none", False),
    ],
)
def test_an_observation_is_kept_or_left_out(
    backend: TestClient, ehr: Ehr, amy: Resource, query: str, *, kept: bool
) -> None:
    pulse = next(o for o in ehr.chart("Observation", amy) if o["code"]["coding"][0]["code"] == "8867-4")
    bundle = backend.get(f"/Observation?_id={pulse['id']}&{query}").json()
    assert ids(bundle) == ([pulse["id"]] if kept else [])


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("family=shaw", True),
        ("family=Sh", True),
        ("family=haw", False),
        ("family:contains=haw", True),
        ("family:exact=shaw", False),
        ("family:exact=Shaw", True),
        ("given=amy&family=shaw", True),
        ("given=amy&family=lopez", False),
        ("name=Amy,Camila", True),
        ("birthdate=1987-02-20", True),
        ("birthdate=1987", True),
        ("birthdate=ge1987-02-20&birthdate=le1987-02-20", True),
        ("birthdate=gt1987-02-20", False),
        ("gender=female", True),
        ("gender=male", False),
        ("identifier=urn:oid:1.2.840.114350.1.13.0.1.7.5.737384.14|200001", True),
        ("identifier=200002", False),
        ("address-state=WI", True),
        ("active=true", True),
        ("email=amy.shaw0@example.com", True),
        ("_has:Condition:patient:code=195967001", True),
        ("_has:Condition:patient:code=44054006", False),
        ("general-practitioner:Practitioner.active=true", True),
        ("general-practitioner:Practitioner.active=false", False),
    ],
)
def test_amy_is_found_or_not(backend: TestClient, amy: Resource, query: str, *, found: bool) -> None:
    assert (amy["id"] in ids(backend.get(f"/Patient?_count=100&_sort=identifier&{query}").json())) == found


def test_active_problems_are_found_by_clinical_status(backend: TestClient, ehr: Ehr, camila: Resource) -> None:
    conditions = {condition["id"] for condition in ehr.chart("Condition", camila)}
    assert len(conditions) == 2
    url = f"/Condition?patient={camila['id']}&clinical-status="
    assert set(ids(backend.get(f"{url}active").json())) == conditions
    assert ids(backend.get(f"{url}resolved").json()) == []


def test_a_chained_search_follows_the_reference(backend: TestClient, ehr: Ehr, camila: Resource) -> None:
    expected = {condition["id"] for condition in ehr.chart("Condition", camila)}
    for query in ("patient.family=Lopez", "subject:Patient.name=camila", "patient.gender=female&patient.name=lopez"):
        assert set(ids(backend.get(f"/Condition?{query}").json())) == expected


def test_a_post_is_searched_by_its_form_and_not_by_its_url(backend: TestClient, ehr: Ehr, amy: Resource) -> None:
    """EP-22."""
    bundle = backend.post("/Encounter/_search?status=planned", data={"patient": amy["id"]}).json()
    assert set(ids(bundle)) == {encounter["id"] for encounter in ehr.chart("Encounter", amy)}
    assert bundle["link"][0]["url"] == f"{BASE}/Encounter?patient={amy['id']}"


def test_a_post_search_without_a_form_is_refused(backend: TestClient) -> None:
    assert_refused(backend.post("/Encounter/_search", json={}), 400, "structure")
    assert_refused(backend.get("/Encounter/_search"), 405, "not-supported")


@pytest.mark.parametrize(("sort", "reverse"), [("date", False), ("-date", True)])
def test_results_are_sorted_by_date(backend: TestClient, amy: Resource, sort: str, *, reverse: bool) -> None:
    bundle = backend.get(f"/Encounter?patient={amy['id']}&_sort={sort}").json()
    starts = [entry["resource"]["period"]["start"] for entry in bundle["entry"]]
    assert len(starts) > 1
    assert starts == sorted(starts, reverse=reverse)


def test_results_are_sorted_by_name_and_then_by_birth_date(backend: TestClient) -> None:
    bundle = backend.get("/Patient?_sort=family,-birthdate&_count=100").json()
    patients = [(e["resource"]["name"][0]["family"].lower(), e["resource"]["birthDate"]) for e in bundle["entry"]]
    assert patients == sorted(sorted(patients, key=lambda p: p[1], reverse=True), key=lambda p: p[0])


def test_matches_carry_an_absolute_url_and_their_mode(backend: TestClient, amy: Resource) -> None:
    bundle = backend.get(f"/Patient?_id={amy['id']}").json()
    assert bundle == {
        "resourceType": "Bundle",
        "type": "searchset",
        "total": 1,
        "link": [{"relation": "self", "url": f"{BASE}/Patient?_id={amy['id']}"}],
        "entry": [{"fullUrl": f"{BASE}/Patient/{amy['id']}", "resource": amy, "search": {"mode": "match"}}],
    }


def test_included_resources_come_once_and_do_not_count(backend: TestClient, ehr: Ehr, amy: Resource) -> None:
    bundle = backend.get(f"/Encounter?patient={amy['id']}&_include=Encounter:subject").json()
    assert ids(bundle, "include") == [amy["id"]]
    assert bundle["total"] == len(ehr.chart("Encounter", amy)) > 1


def test_an_inclusion_can_name_one_target_type(backend: TestClient, amy: Resource) -> None:
    url = f"/Patient?_id={amy['id']}&_include=Patient:general-practitioner"
    practitioner = amy["generalPractitioner"][0]["reference"].split("/")[1]
    assert ids(backend.get(f"{url}:Practitioner").json(), "include") == [practitioner]
    assert ids(backend.get(f"{url}:Organization").json(), "include") == []


def test_what_refers_to_a_match_can_come_along(backend: TestClient, ehr: Ehr, camila: Resource) -> None:
    bundle = backend.get(f"/Patient?_id={camila['id']}&_revinclude=Condition:patient").json()
    assert set(ids(bundle, "include")) == {condition["id"] for condition in ehr.chart("Condition", camila)}


@pytest.mark.parametrize("query", ["_summary=count", "_count=0"])
def test_a_count_has_a_total_and_no_entries(backend: TestClient, query: str) -> None:
    bundle = backend.get(f"/Patient?{query}").json()
    assert (bundle["total"], "entry" in bundle) == (200, False)
    assert [link["relation"] for link in bundle["link"]] == ["self"]


def test_an_unknown_parameter_is_ignored_with_a_warning(backend: TestClient, amy: Resource) -> None:
    bundle = backend.get(f"/Patient?_id={amy['id']}&shoe-size=9").json()
    warning = bundle["entry"][0]
    assert (warning["search"]["mode"], warning["resource"]["issue"][0]["severity"]) == ("outcome", "warning")
    assert "shoe-size" in warning["resource"]["issue"][0]["diagnostics"]
    assert bundle["link"][0]["url"] == f"{BASE}/Patient?_id={amy['id']}"
    assert ids(bundle) == [amy["id"]]


def test_an_unknown_parameter_is_refused_when_handling_is_strict(backend: TestClient) -> None:
    answer = backend.get("/Patient?shoe-size=9", headers={"Prefer": "handling=strict"})
    assert "shoe-size" in assert_refused(answer, 400, "not-supported")


@pytest.mark.parametrize(
    "query",
    [
        "birthdate=yesterday",
        "birthdate=2026-13-01",
        "birthdate=2026-W10",
        "birthdate=ge",
        "_count=-1",
        "_count=many",
        "_sort=shoe-size",
        "name:phonetic=x",
        "gender=",
        "_include=Patient:shoe-size",
        "_include=Encounter:patient",
        "_include=Patient:name",
        "_revinclude=Slot:patient",
        "_has:Condition:patient=1",
        "_has:Slot:patient:code=1",
        "_has:Condition=1",
        "_has:Condition:patient:shoe-size=1",
        "gender:missing=perhaps",
        "general-practitioner.name=x",
        "general-practitioner:Patient.name=x",
        "name.family=x",
    ],
)
def test_a_search_that_makes_no_sense_is_refused(backend: TestClient, query: str) -> None:
    answer = backend.get(f"/Patient?{query}")
    assert answer.json()["resourceType"] == "OperationOutcome"
    assert answer.status_code == 400


def test_a_comma_can_be_escaped(backend: TestClient, amy: Resource) -> None:
    street = amy["address"][0]["line"][0]
    assert amy["id"] in ids(backend.get("/Patient", params={"address": street}).json())
    assert ids(backend.get("/Patient", params={"address": f"x\\,{street}"}).json()) == []


def test_the_last_day_of_time_can_be_stored_and_found(backend: TestClient, amy: Resource) -> None:
    subject = {"reference": f"Patient/{amy['id']}"}
    encounter = {
        "resourceType": "Encounter",
        "status": "planned",
        "class": {"code": "AMB"},
        "subject": subject,
        "period": {"start": "9999-12-31"},
    }
    id_ = backend.post("/Encounter", json=encounter).json()["id"]
    assert ids(backend.get("/Encounter?date=gt9000").json())[-1] == id_
