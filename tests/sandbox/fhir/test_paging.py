"""Paging: opaque absolute links that name no type (PX-07), good for their owner alone."""

from itertools import count
from urllib.parse import parse_qs, urlsplit

import pytest
from starlette.testclient import TestClient

from sandbox.access import Access
from sandbox.fhir.outcome import FhirError
from sandbox.fhir.paging import KEPT_SESSIONS, Paging, Session, owner_of
from sandbox.fhir.query import Query
from sandbox.fhir.repository import Repository
from sandbox.fhir.rights import Rights
from sandbox.population.elements import Population, Resource
from tests.sandbox.fhir.conftest import BASE, Ehr, assert_refused, ids


def links(bundle: Resource) -> dict[str, str]:
    return {link["relation"]: link["url"] for link in bundle["link"]}


def test_following_next_visits_every_match_once(backend: TestClient, ehr: Ehr) -> None:
    bundle = backend.get("/Patient").json()
    visited = ids(bundle)
    assert len(visited) == 20
    while "next" in links(bundle):
        bundle = backend.get(links(bundle)["next"]).json()
        visited += ids(bundle)
        assert bundle["total"] == 200
    assert visited == [patient["id"] for patient in ehr.all("Patient")]


def test_a_next_link_is_absolute_and_names_no_type(backend: TestClient) -> None:
    """PX-07."""
    url = links(backend.get("/Observation?_count=10&category=laboratory").json())["next"]
    assert url.startswith(f"{BASE}?_getpages=")
    query = parse_qs(urlsplit(url).query)
    assert (query["_getpagesoffset"], query["_count"]) == (["10"], ["10"])


def test_previous_leads_back(backend: TestClient) -> None:
    first = backend.get("/Patient?_count=7").json()
    second = backend.get(links(first)["next"]).json()
    assert ids(backend.get(links(second)["previous"]).json()) == ids(first)
    assert "previous" not in links(backend.get(links(second)["previous"]).json())


def test_a_page_has_at_most_a_hundred_matches(backend: TestClient) -> None:
    assert len(ids(backend.get("/Observation?_count=1000").json())) == 100


def test_each_page_brings_its_own_inclusions(backend: TestClient, amy: Resource) -> None:
    first = backend.get(f"/Encounter?patient={amy['id']}&_count=1&_include=Encounter:patient").json()
    second = backend.get(links(first)["next"]).json()
    assert ids(first, "include") == ids(second, "include") == [amy["id"]]
    assert ids(first) != ids(second)


def test_another_client_cannot_turn_the_pages(ehr: Ehr, backend: TestClient) -> None:
    url = links(backend.get("/Patient").json())["next"]
    other = ehr.client("system/*.cruds", client_id="other")
    assert_refused(other.get(url), 410, "not-found")


def test_the_same_client_in_another_chart_cannot_turn_the_pages(ehr: Ehr, amy: Resource, camila: Resource) -> None:
    url = links(ehr.client("patient/*.rs", patient=amy["id"]).get("/Observation").json())["next"]
    assert_refused(ehr.client("patient/*.rs", patient=camila["id"]).get(url), 410, "not-found")
    assert ehr.client("patient/*.rs", patient=amy["id"]).get(url).status_code == 200


def test_a_page_shows_only_what_the_token_that_turns_it_opens(ehr: Ehr, amy: Resource) -> None:
    url = links(ehr.client("patient/*.rs", patient=amy["id"]).get("/Observation?_count=5").json())["next"]
    assert ids(ehr.client("patient/Condition.rs", patient=amy["id"]).get(url).json()) == []


def test_an_unknown_page_is_gone(backend: TestClient) -> None:
    assert_refused(backend.get("/?_getpages=unknown"), 410, "not-found")


@pytest.mark.parametrize("offset", ["-1", "x", "1e9", "99999999"])
def test_an_offset_is_a_number(backend: TestClient, offset: str) -> None:
    url = links(backend.get("/Patient").json())["next"].replace("offset=20", f"offset={offset}")
    assert_refused(backend.get(url), 400, "value")


def test_what_was_deleted_since_is_left_out(backend: TestClient, ehr: Ehr) -> None:
    url = links(backend.get("/Practitioner?_count=3").json())["next"]
    gone = ehr.all("Practitioner")[3]["id"]
    backend.delete(f"/Practitioner/{gone}")
    assert ids(backend.get(url).json()) == [p["id"] for p in ehr.all("Practitioner")[4:6]]


def test_the_oldest_pages_are_forgotten_first(population: Population) -> None:
    numbers = count(1)
    paging = Paging(Repository(population, lambda: 0.0), lambda: BASE, lambda: f"page-{next(numbers)}")
    rights = Rights(Access("app", frozenset({"user/Patient.rs"}), None))
    keys = tuple(("Patient", id_) for id_ in list(population["Patient"])[:2])
    for _ in range(KEPT_SESSIONS + 1):
        paging.first_page(Session(Query("Patient", count=1), keys, owner_of(rights)), BASE, rights)
    with pytest.raises(FhirError, match="gone"):
        paging.page({"_getpages": "page-1"}, rights)
    assert ids(paging.page({"_getpages": "page-2"}, rights)) == [id_ for _, id_ in keys]


def test_everything_is_the_whole_chart_in_pages(backend: TestClient, ehr: Ehr, camila: Resource) -> None:
    bundle = backend.get(f"/Patient/{camila['id']}/$everything?_count=50").json()
    found = ids(bundle)
    while "next" in links(bundle):
        bundle = backend.get(links(bundle)["next"]).json()
        found += ids(bundle)
    assert found[0] == camila["id"]
    assert len(found) == len(set(found)) == bundle["total"]
    for type_ in ("Observation", "Condition", "MedicationRequest", "DocumentReference", "Immunization"):
        chart = {resource["id"] for resource in ehr.chart(type_, camila)}
        assert chart
        assert chart <= set(found)
    assert camila["generalPractitioner"][0]["reference"].split("/")[1] in found


def test_everything_can_be_limited_to_types(backend: TestClient, ehr: Ehr, camila: Resource) -> None:
    bundle = backend.get(f"/Patient/{camila['id']}/$everything?_type=Condition").json()
    assert set(ids(bundle)) == {condition["id"] for condition in ehr.chart("Condition", camila)}


def test_everything_needs_a_patient_and_a_get(backend: TestClient, amy: Resource) -> None:
    assert_refused(backend.get("/Patient/none/$everything"), 404, "not-found")
    assert_refused(backend.delete(f"/Patient/{amy['id']}/$everything"), 405, "not-supported")
