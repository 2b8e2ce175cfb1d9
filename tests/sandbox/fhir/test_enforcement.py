"""Who may do what: the token, its scopes, its patient. A refusal is an OperationOutcome and nothing else."""

from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from sandbox.fhir.parameters import PARAMETERS
from sandbox.population.elements import Resource
from tests.sandbox.fhir.conftest import BASE, Ehr, assert_refused, ids

LABORATORY = "http://terminology.hl7.org/CodeSystem/observation-category|laboratory"


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/Patient"), ("GET", "/Nothing"), ("POST", "/"), ("PATCH", "/Patient/1"), ("GET", "/")]
)
def test_nothing_is_answered_without_a_live_token(ehr: Ehr, method: str, path: str) -> None:
    answer = ehr.anonymous().request(method, path)
    assert_refused(answer, 401, "login")
    assert answer.headers["www-authenticate"] == "Bearer"
    answer = ehr.anonymous().request(method, path, headers={"Authorization": "Bearer unknown"})
    assert_refused(answer, 401, "login")
    assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'


@pytest.mark.parametrize(
    ("scope", "method", "path", "status"),
    [
        ("user/Patient.read", "GET", "/Patient/{amy}", 200),
        ("user/Patient.read", "GET", "/Patient", 200),
        ("user/Patient.write", "GET", "/Patient/{amy}", 403),
        ("user/Patient.r", "GET", "/Patient/{amy}", 200),
        ("user/Patient.r", "GET", "/Patient/{amy}/_history", 200),
        ("user/Patient.r", "GET", "/Patient/{amy}/_history/1", 200),
        ("user/Patient.r", "GET", "/Patient", 403),
        ("user/Patient.s", "GET", "/Patient", 200),
        ("user/Patient.s", "POST", "/Patient/_search", 200),
        ("user/Patient.s", "GET", "/Patient/{amy}", 403),
        ("user/Patient.s", "GET", "/Patient/{amy}/_history", 403),
        ("user/Patient.c", "POST", "/Patient", 201),
        ("user/Patient.ruds", "POST", "/Patient", 403),
        ("user/Patient.u", "PUT", "/Patient/{amy}", 200),
        ("user/Patient.u", "PUT", "/Patient/new", 201),
        ("user/Patient.crds", "PUT", "/Patient/{amy}", 403),
        ("user/Patient.d", "DELETE", "/Patient/{amy}", 204),
        ("user/Patient.crus", "DELETE", "/Patient/{amy}", 403),
        ("user/Patient.*", "DELETE", "/Patient/{amy}", 204),
        ("user/Condition.cruds", "GET", "/Patient/{amy}", 403),
        ("user/Condition.cruds", "GET", "/Patient/none", 403),
        ("user/*.rs", "GET", "/Patient/{amy}", 200),
        ("system/Patient.rs", "GET", "/Patient/{amy}", 200),
        ("patient/Patient.rs", "GET", "/Patient/{amy}", 403),
        ("patient/*.rs", "GET", "/Practitioner", 403),
        ("patient/*.rs", "GET", "/Group", 403),
        ("launch/patient", "GET", "/Patient/{amy}", 403),
        ("", "GET", "/Patient/{amy}", 403),
    ],
)
def test_a_scope_opens_its_letters_and_no_others(
    ehr: Ehr, amy: Resource, *, scope: str, method: str, path: str, status: int
) -> None:
    """SC-02, SC-03. The token has no launch patient, so that `patient/` scopes open nothing."""
    answer = _act(ehr.client(scope), method, path.format(amy=amy["id"]), amy)
    assert answer == status


def _act(client: TestClient, method: str, path: str, patient: Resource) -> int:
    if path.endswith("/_search"):
        answer = client.request(method, path, data={"name": "x"})
    elif method in {"POST", "PUT"}:
        answer = client.request(method, path, json={**patient, "id": path.rpartition("/")[2]})
    else:
        answer = client.request(method, path)
    if answer.status_code == 403:
        assert_refused(answer, 403, "forbidden")
        assert answer.headers["www-authenticate"] == 'Bearer error="insufficient_scope"'
    return answer.status_code


def test_an_app_in_one_chart_cannot_read_another(
    ehr: Ehr, amys_app: TestClient, amy: Resource, camila: Resource
) -> None:
    assert amys_app.get(f"/Patient/{amy['id']}").status_code == 200
    for type_ in ("Observation", "Condition", "Binary", "DocumentReference", "Encounter", "Immunization"):
        other = next(r for r in ehr.all(type_) if f"Patient/{camila['id']}" in str(r))
        for path in ("", "/_history", "/_history/1"):
            assert_refused(amys_app.get(f"/{type_}/{other['id']}{path}"), 403, "forbidden")
    assert_refused(amys_app.get(f"/Patient/{camila['id']}"), 403, "forbidden")
    assert_refused(amys_app.get(f"/Patient/{camila['id']}/$everything"), 403, "forbidden")


@pytest.mark.parametrize("type_", sorted(set(PARAMETERS) - {"Basic", "Group", "Organization", "Practitioner"}))
def test_a_search_in_one_chart_finds_that_chart(ehr: Ehr, amys_app: TestClient, amy: Resource, type_: str) -> None:
    found = amys_app.get(f"/{type_}?_count=100").json()
    everyone = ehr.client("system/*.rs").get(f"/{type_}?_summary=count").json()
    assert 0 < found["total"] < everyone["total"] or type_ == "AllergyIntolerance"
    assert all(f"Patient/{amy['id']}" in str(entry) for entry in found["entry"])


@pytest.mark.parametrize(
    "query", ["patient={other}", "subject={other}", "patient={own},{other}", "patient=Patient/{other}"]
)
def test_a_search_for_another_patient_is_refused(
    amys_app: TestClient, amy: Resource, camila: Resource, query: str
) -> None:
    query = query.format(own=amy["id"], other=camila["id"])
    assert_refused(amys_app.get(f"/Observation?{query}"), 403, "forbidden")
    assert_refused(amys_app.get(f"/Patient?_id={camila['id']}"), 403, "forbidden")


def test_a_wide_scope_beside_a_narrow_one_opens_both(ehr: Ehr, amy: Resource, camila: Resource) -> None:
    app = ehr.client("patient/*.rs", "user/Condition.rs", patient=amy["id"])
    assert app.get(f"/Condition?patient={camila['id']}").json()["total"] == 2
    assert_refused(app.get(f"/Observation?patient={camila['id']}"), 403, "forbidden")


def test_shared_resources_can_be_read_but_not_written_from_a_chart(ehr: Ehr, amy: Resource) -> None:
    app = ehr.client("patient/*.cruds", patient=amy["id"])
    practitioner = ehr.all("Practitioner")[0]
    path = f"/Practitioner/{practitioner['id']}"
    assert app.get(path).json() == practitioner
    assert app.get("/Practitioner").json()["total"] == 6
    assert_refused(app.put(path, json=practitioner), 403, "forbidden")
    assert_refused(app.delete(path), 403, "forbidden")


def test_a_group_of_patients_is_not_part_of_a_chart(ehr: Ehr, amys_app: TestClient) -> None:
    assert_refused(amys_app.get(f"/Group/{ehr.all('Group')[0]['id']}"), 403, "forbidden")
    assert amys_app.get("/Group").json()["total"] == 0


def test_nothing_is_written_into_or_taken_out_of_another_chart(ehr: Ehr, amy: Resource, camila: Resource) -> None:
    app = ehr.client("patient/*.cruds", patient=amy["id"])
    own, other = ehr.chart("Observation", amy)[0], ehr.chart("Observation", camila)[0]
    assert_refused(app.post("/Observation", json=other), 403, "forbidden")
    assert_refused(app.put(f"/Observation/{own['id']}", json={**other, "id": own["id"]}), 403, "forbidden")
    assert_refused(app.put(f"/Observation/{other['id']}", json={**own, "id": other["id"]}), 403, "forbidden")
    assert_refused(app.delete(f"/Observation/{other['id']}"), 403, "forbidden")
    assert_refused(app.post("/Patient", json=amy), 403, "forbidden")
    assert app.put(f"/Observation/{own['id']}", json=own).status_code == 200


@pytest.mark.parametrize("subject", ["http://elsewhere.test/Patient/{}", "Patient/{}/x", "Group/{}", "#{}"])
def test_a_reference_that_only_looks_like_the_patient_is_not_the_chart(ehr: Ehr, amy: Resource, subject: str) -> None:
    app = ehr.client("patient/*.cruds", patient=amy["id"])
    observation = {**ehr.chart("Observation", amy)[0], "subject": {"reference": subject.format(amy["id"])}}
    assert_refused(app.post("/Observation", json=observation), 403, "forbidden")


def test_a_version_from_another_chart_stays_hidden(
    ehr: Ehr, backend: TestClient, amy: Resource, camila: Resource
) -> None:
    own = ehr.chart("Observation", amy)[0]
    path = f"/Observation/{own['id']}"
    backend.put(path, json={**own, "subject": {"reference": f"Patient/{camila['id']}"}})
    app = ehr.client("patient/*.rs", patient=amy["id"])
    assert_refused(app.get(path), 403, "forbidden")
    assert app.get(f"{path}/_history").json()["total"] == 1
    assert app.get(f"{path}/_history/1").status_code == 200
    assert_refused(app.get(f"{path}/_history/2"), 404, "not-found")


def test_a_granular_scope_opens_what_its_filter_admits(ehr: Ehr, amy: Resource) -> None:
    """SC-05."""
    app = ehr.client(f"patient/Observation.rs?category={LABORATORY}", patient=amy["id"])
    observations = ehr.chart("Observation", amy)
    laboratory = {o["id"] for o in observations if o["category"][0]["coding"][0]["code"] == "laboratory"}
    assert 0 < len(laboratory) < len(observations)
    assert set(ids(app.get("/Observation?_count=100").json())) == laboratory
    for observation in observations:
        expected = 200 if observation["id"] in laboratory else 403
        assert app.get(f"/Observation/{observation['id']}").status_code == expected


@pytest.mark.parametrize(
    "filter_", ["category", "shoe-size=9", "category:above=x", "patient.name=amy", "date=yesterday", "_has:x:y:z=1"]
)
def test_a_filter_that_cannot_be_evaluated_opens_nothing(ehr: Ehr, amy: Resource, filter_: str) -> None:
    """SC-06."""
    app = ehr.client(f"patient/Observation.rs?{filter_}", patient=amy["id"])
    assert app.get("/Observation").json()["total"] == 0


@pytest.mark.parametrize(
    ("scopes", "query", "status"),
    [
        (["Encounter.rs"], "_include=Encounter:patient", 403),
        (["Encounter.rs", "Patient.r"], "_include=Encounter:patient", 200),
        (["Encounter.rs", "Patient.s"], "_include=Encounter:patient", 403),
        (["Encounter.rs"], "_revinclude=Observation:encounter", 403),
        (["Encounter.rs", "Observation.s"], "_revinclude=Observation:encounter", 200),
        (["Encounter.rs"], "patient.name=amy", 403),
        (["Encounter.rs", "Patient.s"], "patient.name=amy", 200),
        (["Encounter.rs"], "_has:Observation:encounter:code=8867-4", 403),
        (["Encounter.rs", "Observation.s"], "_has:Observation:encounter:code=8867-4", 200),
        (["Encounter.rs", "Observation.s"], "_has:Observation:encounter:patient.name=amy", 403),
    ],
)
def test_a_search_needs_a_scope_for_every_type_it_looks_at(
    ehr: Ehr, amy: Resource, scopes: list[str], query: str, status: int
) -> None:
    app = ehr.client(*(f"patient/{scope}" for scope in scopes), patient=amy["id"])
    assert app.get(f"/Encounter?{query}").status_code == status


def test_inclusions_stay_in_the_chart(
    ehr: Ehr, amys_app: TestClient, backend: TestClient, amy: Resource, camila: Resource
) -> None:
    own = ehr.chart("Observation", amy)[0]
    other = ehr.chart("Encounter", camila)[0]
    backend.put(f"/Observation/{own['id']}", json={**own, "encounter": {"reference": f"Encounter/{other['id']}"}})
    bundle = amys_app.get(f"/Observation?_id={own['id']}&_include=Observation:encounter").json()
    assert (ids(bundle), ids(bundle, "include")) == ([own["id"]], [])
    camilas_app = ehr.client("patient/*.rs", patient=camila["id"])
    bundle = camilas_app.get(f"/Encounter?_id={other['id']}&_revinclude=Observation:encounter&_count=100").json()
    assert ids(bundle) == [other["id"]]
    assert own["id"] not in ids(bundle, "include")
    assert len(ids(bundle, "include")) >= 8
    assert amys_app.get(f"/Observation?encounter:Encounter.patient={camila['id']}").json()["total"] == 0


def test_everything_holds_only_the_types_the_scopes_open(ehr: Ehr, amy: Resource) -> None:
    app = ehr.client("patient/Patient.r", "patient/Condition.r", patient=amy["id"])
    bundle = app.get(f"/Patient/{amy['id']}/$everything").json()
    assert [entry["resource"]["resourceType"] for entry in bundle["entry"]] == ["Patient", "Condition"]
    assert bundle["total"] == 2
    no_patient = ehr.client("patient/Condition.rs", patient=amy["id"])
    assert_refused(no_patient.get(f"/Patient/{amy['id']}/$everything"), 403, "forbidden")


def test_a_conditional_create_needs_the_right_to_search(ehr: Ehr, amy: Resource) -> None:
    app = ehr.client("user/Patient.c")
    answer = app.post("/Patient", json=amy, headers={"If-None-Exist": "family=Shaw"})
    assert_refused(answer, 403, "forbidden")


TEXT = st.text(max_size=20)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), TEXT),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
)
SEGMENTS = st.one_of(st.sampled_from([*PARAMETERS, "_search", "_history", "$everything"]), TEXT)
NAMES = st.one_of(st.sampled_from([*PARAMETERS["Observation"], "_include", "_revinclude", "_sort", "_count"]), TEXT)
PATHS = sorted({path for p in PARAMETERS["Observation"].values() for path in p.paths if path[0] not in {"id", "meta"}})
fuzzed = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


@fuzzed
@given(
    method=st.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE"]),
    segments=st.lists(SEGMENTS, max_size=4),
    query=st.dictionaries(NAMES, TEXT, max_size=3),
    body=JSON,
)
def test_no_request_leads_out_of_the_chart_or_breaks_the_server(
    ehr: Ehr, amy: Resource, *, method: str, segments: list[str], query: dict[str, str], body: object
) -> None:
    app = ehr.client("patient/*.cruds", patient=amy["id"])
    url = f"{BASE}/" + "/".join(quote(segment, safe="") for segment in segments)
    answer = app.request(method, url, params=query, json=body)
    assert answer.status_code < 500
    assert "Camila" not in answer.text


@fuzzed
@given(path=st.sampled_from(PATHS), element=JSON)
def test_whatever_is_stored_can_be_searched(backend: TestClient, *, path: tuple[str, ...], element: Any) -> None:
    searched = next(p for p in PARAMETERS["Observation"].values() if path in p.paths)
    for name in reversed(path):
        element = {name: element}
    stored = backend.put("/Observation/mine", json={"resourceType": "Observation", "id": "mine", **element})
    assert stored.status_code in {200, 201, 422}
    value = "2026" if searched.kind == "date" else "x"
    answer = backend.get(f"/Observation?_id=mine&{searched.name}={value}&_sort={searched.name}")
    assert answer.status_code == 200
