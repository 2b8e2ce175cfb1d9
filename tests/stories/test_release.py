"""Handles that are narrower than the EHR's token: what is answered is released only as far as it is theirs."""

import json
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest

from tests.stage import App, BrokerStage
from tests.stories.test_exchange import exchanged

CATEGORY = "http://terminology.hl7.org/CodeSystem/observation-category"
LAB = f"{CATEGORY}|laboratory"
SYSTEM = "system/Patient.rs system/Observation.rs"


@dataclass
class Two:
    """A system's handle, and what two patients have."""

    app: App
    stage: BrokerStage
    wide: str
    me: str
    other: str
    mine: list[dict[str, Any]]
    others: list[dict[str, Any]]

    async def narrowed(self, **limits: str) -> str:
        return str((await exchanged(self.app, self.wide, **limits))["access_token"])

    async def read(self, handle: str, path: str, **options: Any) -> httpx2.Response:
        answer = await self.app.fhir(handle, path, **options)
        if handle != self.wide:
            for hidden in (self.other, *(str(resource["id"]) for resource in self.others)):
                assert hidden not in answer.text.replace(path, "")
                assert hidden not in str(answer.headers)
        return answer

    def last(self, event: str) -> dict[str, Any]:
        return self.records(event)[-1]

    def records(self, event: str) -> list[dict[str, Any]]:
        return [record for line in self.stage.audit_lines() if (record := json.loads(line))["event"] == event]


@pytest.fixture
async def two(reports: App, stage: BrokerStage) -> Two:
    form = {"grant_type": "client_credentials", "resource": reports.base, "scope": SYSTEM}
    wide = (await reports.token(**form)).json()["access_token"]
    found = (await reports.fhir(wide, "Patient?_count=2")).json()["entry"]
    me, other = (entry["resource"]["id"] for entry in found)
    mine, others = [found_in(await reports.fhir(wide, f"Observation?patient={id_}&_count=100")) for id_ in (me, other)]
    return Two(reports, stage, wide, me, other, mine, others)


def found_in(answer: httpx2.Response) -> list[dict[str, Any]]:
    return [entry["resource"] for entry in answer.json()["entry"]]


def is_lab(resource: dict[str, Any]) -> bool:
    return any(coding["code"] == "laboratory" for category in resource["category"] for coding in category["coding"])


def ids(answer: httpx2.Response) -> list[str]:
    """The resources of a page; the last of its entries says that there may be more."""
    *entries, notice = answer.json()["entry"]
    assert notice["search"] == {"mode": "outcome"}
    assert notice["resource"]["issue"][0]["code"] == "suppressed"
    return [entry["resource"]["id"] for entry in entries]


async def test_a_handle_for_one_patient_reads_what_the_answer_shows_to_be_this_patients(two: Two) -> None:
    """PX-14, HB-02: byte by byte what the wide handle reads."""
    narrow = await two.narrowed(patient=two.me)
    path = f"Observation/{two.mine[0]['id']}"

    answer = await two.read(narrow, path)

    whole = await two.read(two.wide, path)
    assert (answer.status_code, answer.content) == (200, whole.content)
    assert answer.headers["etag"] == whole.headers["etag"]
    assert (await two.read(narrow, f"{path}/_history/1")).status_code == 200
    assert [record["reason"] for record in two.records("handle.use")[-3:]] == [
        "scope checked",
        "scope",
        "scope checked",
    ]


async def test_of_another_patients_resource_nothing_comes_back(two: Two) -> None:
    """PX-14, HB-02: no byte, no header; also where the app knows its version."""
    narrow = await two.narrowed(patient=two.me)
    path = f"Observation/{two.others[0]['id']}"
    etag = (await two.read(two.wide, path)).headers["etag"]

    for headers in ({}, {"If-None-Match": etag}, {"If-Modified-Since": "Sun, 01 Jan 2040 00:00:00 GMT"}):
        for where in (path, f"{path}/_history/1"):
            answer = await two.read(narrow, where, headers=headers)
            assert answer.status_code == 403
            (issue,) = answer.json()["issue"]
            assert (issue["code"], issue["details"]["coding"][0]["code"]) == ("suppressed", "answer_withheld")
            assert not {"etag", "last-modified", "content-location"} & set(answer.headers)
    denied = two.last("handle.answer")
    assert (denied["outcome"], denied["interaction"]) == ("denied", "vread Observation")
    assert denied["reason"].startswith("answer_withheld: ")
    history = await two.read(narrow, f"{path}/_history")
    assert (history.status_code, history.json().get("entry")) == (200, None)
    calls = two.stage.sandbox.counts()["fhir"]
    assert (await two.read(narrow, path, method="HEAD")).status_code == 403
    assert two.stage.sandbox.counts()["fhir"] == calls


async def test_in_a_batch_no_condition_tells_of_another_patients_resource(two: Two) -> None:
    """PX-14, HB-02: *not modified* would say that the app guessed its version."""
    narrow = await two.narrowed(patient=two.me)
    path = f"Observation/{two.others[0]['id']}"
    etag = (await two.read(two.wide, path)).headers["etag"]
    requests = [{"method": "GET", "url": path, "ifNoneMatch": tag} for tag in (etag, 'W/"99"')]
    bundle = {"resourceType": "Bundle", "type": "batch", "entry": [{"request": request} for request in requests]}

    answer = await two.app.fhir(narrow, "", method="POST", json=bundle)

    assert answer.status_code == 200
    first, second = answer.json()["entry"]
    assert first == second
    assert first["response"]["status"] == "403 Forbidden"


async def test_a_search_by_a_handle_for_one_patient_finds_this_patients_alone(two: Two) -> None:
    """PX-14, HB-02: whatever it asks; what goes to the EHR says whom."""
    narrow = await two.narrowed(patient=two.me)
    mine = {str(resource["id"]) for resource in two.mine}

    for path in ("Observation?_count=100", f"Observation?patient={two.me}&_count=100"):
        answer = await two.read(narrow, path)
        assert set(ids(answer)) <= mine
        assert "total" not in answer.json()
    assert set(ids(await two.read(narrow, "Observation?_count=100"))) == mine
    assert two.stage.sandbox.journal("fhir")[-1]["parameters"] == {"_count": "100", "patient": two.me}
    assert ids(await two.read(narrow, "Patient")) == [two.me]
    included = await two.read(narrow, f"Observation?patient={two.me}&_include=Observation:patient&_count=100")
    assert set(ids(included)) == {two.me, *mine}
    assert ids(await two.read(narrow, f"Patient?_id={two.me}&_revinclude=Observation:patient"))[0] == two.me
    form = await two.read(narrow, "Observation/_search", method="POST", data={"_count": "100"})
    assert set(ids(form)) == mine


async def test_pages_are_checked_like_the_first_one(two: Two) -> None:
    """PX-07, PX-14."""
    narrow = await two.narrowed(patient=two.me)
    path: str | None = "Observation?_include=Observation:patient&_count=3"
    seen: set[str] = set()
    while path:
        answer = await two.read(narrow, path)
        seen |= set(ids(answer))
        links = {link["relation"]: link["url"] for link in answer.json()["link"]}
        assert "last" not in links
        path = links["next"].removeprefix(two.app.base).lstrip("/") if "next" in links else None

    assert seen == {two.me, *(str(resource["id"]) for resource in two.mine)}


async def test_in_the_answer_to_a_batch_what_is_not_covered_is_refused_at_its_place(two: Two) -> None:
    """PX-14, SC-09."""
    narrow = await two.narrowed(patient=two.me)
    urls = [f"Observation/{two.mine[0]['id']}", f"Observation/{two.others[0]['id']}", f"Patient/{two.me}"]
    entries = [{"request": {"method": "GET", "url": url}} for url in urls]
    body = {"resourceType": "Bundle", "type": "batch", "entry": entries}

    headers = {"content-type": "application/fhir+json"}
    answer = await two.read(narrow, "", method="POST", content=json.dumps(body), headers=headers)

    first, second, third = answer.json()["entry"]
    assert first["resource"] == two.mine[0]
    assert second["response"]["status"] == "403 Forbidden"
    assert "resource" not in second
    assert third["resource"]["id"] == two.me


async def test_a_granular_scope_holds_for_reads_searches_and_histories(two: Two) -> None:
    """SC-05: where the EHR's own token has the whole type."""
    narrow = await two.narrowed(scope=f"system/Observation.rs?category={LAB}")
    lab = next(resource for resource in two.mine if is_lab(resource))
    vital = next(resource for resource in two.mine if not is_lab(resource))

    assert (await two.app.fhir(narrow, f"Observation/{lab['id']}")).json() == lab
    refused = await two.app.fhir(narrow, f"Observation/{vital['id']}")
    assert refused.status_code == 403
    assert str(vital["id"]) not in refused.text
    found = await two.app.fhir(narrow, f"Observation?patient={two.me}&_count=100")
    assert {resource["id"] for resource in found_in(found)} == {o["id"] for o in two.mine if is_lab(o)}
    assert two.stage.sandbox.journal("fhir")[-1]["parameters"]["category"] == LAB
    assert two.last("handle.use")["reason"] == "scope added"
    assert (await two.app.fhir(narrow, f"Observation/{vital['id']}/_history")).json().get("entry") is None


async def test_where_the_ehr_does_not_say_what_it_can_search_by_the_answer_is_checked(two: Two) -> None:
    """SC-05: all pages say the same, however much they withhold."""
    two.stage.sandbox.fault("metadata_500", times=-1)
    narrow = await two.narrowed(scope=f"system/Observation.rs?category={LAB}", patient=two.me)

    found = await two.read(narrow, "Observation?_count=100")

    assert two.last("handle.use")["reason"] == "scope bound added checked"
    assert two.stage.sandbox.journal("fhir")[-1]["parameters"] == {"_count": "100", "patient": two.me}
    assert set(ids(found)) == {o["id"] for o in two.mine if is_lab(o)}
    assert ids(await two.read(narrow, "Observation?code=none")) == []


async def test_a_scope_that_neither_a_search_nor_an_answer_can_show_opens_nothing(two: Two) -> None:
    """SC-06."""
    narrow = await two.narrowed(scope="system/Observation.rs?date=gt2020")
    calls = two.stage.sandbox.counts()["fhir"]

    for path in ("Observation/1", f"Observation?patient={two.me}&_include=Observation:has-member:Observation"):
        answer = await two.app.fhir(narrow, path)
        assert (answer.status_code, answer.json()["issue"][0]["code"]) == (403, "forbidden")
        assert two.last("handle.use")["reason"].startswith("insufficient_scope: ")
    assert two.stage.sandbox.counts()["fhir"] == calls


async def test_an_error_of_the_ehr_passes_as_it_is(two: Two) -> None:
    narrow = await two.narrowed(patient=two.me)

    missing = await two.read(narrow, "Observation/nowhere")

    assert missing.status_code == 404
    assert missing.json() == (await two.read(two.wide, "Observation/nowhere")).json()
