"""Read, vread, history, Binary and what every answer carries."""

import re
from base64 import b64decode

import pytest
from starlette.testclient import TestClient

from sandbox.population.elements import Resource
from tests.sandbox.fhir.conftest import BASE, Ehr, assert_refused


def test_a_read_answers_the_resource_with_its_version(backend: TestClient, amy: Resource) -> None:
    answer = backend.get(f"/Patient/{amy['id']}")
    assert answer.json() == amy
    assert answer.headers["content-type"] == "application/fhir+json; charset=utf-8"
    assert answer.headers["etag"] == 'W/"1"'
    assert answer.headers["last-modified"] == "Mon, 02 Mar 2020 15:00:00 GMT"
    assert answer.headers["cache-control"] == "no-store"


def test_a_version_the_caller_holds_is_not_sent_again(backend: TestClient, amy: Resource) -> None:
    answer = backend.get(f"/Patient/{amy['id']}", headers={"If-None-Match": 'W/"1"'})
    assert (answer.status_code, answer.content) == (304, b"")


def test_a_head_request_is_answered_as_a_get(backend: TestClient, amy: Resource) -> None:
    answer = backend.head(f"/Patient/{amy['id']}")
    assert (answer.status_code, answer.headers["etag"]) == (200, 'W/"1"')


def test_the_request_id_comes_back(backend: TestClient, ehr: Ehr) -> None:
    assert backend.get("/Patient/none", headers={"X-Request-Id": "r-1"}).headers["x-request-id"] == "r-1"
    assert "x-request-id" not in backend.get("/Patient/none").headers


def test_an_unknown_id_is_404(backend: TestClient) -> None:
    assert_refused(backend.get("/Patient/none"), 404, "not-found")


def test_an_unserved_type_is_404(backend: TestClient) -> None:
    assert_refused(backend.get("/Slot"), 404, "not-supported")


def test_an_unknown_operation_is_404(backend: TestClient, amy: Resource) -> None:
    assert_refused(backend.get(f"/Patient/{amy['id']}/$match"), 404, "not-supported")


def test_xml_is_not_spoken_outside_metadata(backend: TestClient) -> None:
    assert_refused(backend.get("/Patient?_format=xml"), 406, "not-supported")


def test_patch_is_405_and_says_what_would_do(backend: TestClient, amy: Resource) -> None:
    answer = backend.patch(f"/Patient/{amy['id']}", json=[])
    assert_refused(answer, 405, "not-supported")
    assert answer.headers["allow"] == "GET, PUT, DELETE"


@pytest.mark.parametrize("url", [BASE, f"{BASE}/", f"{BASE}?name=x"])
def test_the_base_itself_is_not_searched(backend: TestClient, url: str) -> None:
    assert_refused(backend.get(url, follow_redirects=False), 400, "not-supported")


def test_every_version_can_be_read_and_the_history_is_newest_first(
    backend: TestClient, ehr: Ehr, amy: Resource
) -> None:
    ehr.now = 1_795_000_000.0
    backend.put(f"/Patient/{amy['id']}", json={**amy, "active": False})
    path = f"/Patient/{amy['id']}/_history"
    assert backend.get(f"{path}/1").json()["active"] is True
    second = backend.get(f"{path}/2")
    assert (second.json()["active"], second.headers["etag"]) == (False, 'W/"2"')
    history = backend.get(path).json()
    assert (history["type"], history["total"]) == ("history", 2)
    assert history["link"] == [{"relation": "self", "url": f"{BASE}{path}"}]
    assert [entry["response"]["etag"] for entry in history["entry"]] == ['W/"2"', 'W/"1"']
    assert [entry["request"]["method"] for entry in history["entry"]] == ["PUT", "POST"]
    assert_refused(backend.get(f"{path}/3"), 404, "not-found")


def test_history_remembers_a_deletion(backend: TestClient, ehr: Ehr, amy: Resource) -> None:
    note = ehr.chart("DocumentReference", amy)[0]
    path = f"/DocumentReference/{note['id']}"
    backend.delete(path)
    assert_refused(backend.get(path), 410, "deleted")
    assert_refused(backend.get(f"{path}/_history/2"), 410, "deleted")
    entries = backend.get(f"{path}/_history").json()["entry"]
    assert [entry["request"]["method"] for entry in entries] == ["DELETE", "POST"]
    assert "resource" not in entries[0]
    assert backend.get(f"{path}/_history/1").json() == note


def test_a_binary_is_sent_as_what_it_is(backend: TestClient, ehr: Ehr) -> None:
    binary = ehr.all("Binary")[0]
    answer = backend.get(f"/Binary/{binary['id']}")
    assert answer.headers["content-type"] == "text/plain"
    assert answer.content == b64decode(binary["data"])
    assert re.match(b"Progress note\n", answer.content)


def test_a_binary_is_a_resource_for_who_asks_for_fhir(backend: TestClient, ehr: Ehr) -> None:
    binary = ehr.all("Binary")[0]
    answer = backend.get(f"/Binary/{binary['id']}", headers={"Accept": "application/fhir+json"})
    assert answer.json() == binary
