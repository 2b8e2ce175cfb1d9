"""An app meets the broker's URLs only, and may use each of them wherever the EHR takes its own (PX-06)."""

from typing import Any

import pytest

from tests.stage import App, BrokerStage
from tests.stories.held import code_of, upstream

SCOPE = "launch/patient patient/Patient.rs patient/Observation.cruds"


def observation(subject: str, code: str = "8867-4") -> dict[str, Any]:
    concept = {"coding": [{"system": "http://loinc.org", "code": code}]}
    return {"resourceType": "Observation", "status": "final", "code": concept, "subject": {"reference": subject}}


@pytest.fixture
async def given(app: App) -> dict[str, Any]:
    return await app.standalone(scope=SCOPE)


async def stored(app: App, handle: str, path: str) -> Any:
    return (await app.fhir(handle, path)).json()


async def test_a_resource_is_stored_with_the_references_that_it_has_at_the_ehr(
    stage: BrokerStage, app: App, given: dict[str, Any]
) -> None:
    handle, patient = given["access_token"], given["patient"]

    created = await app.fhir(
        handle, "Observation", method="POST", json=observation(f"{stage.base}/Patient/{patient}"),
        headers={"Content-Type": "application/fhir+json"},
    )  # fmt: skip

    assert created.status_code == 201
    location = created.headers["location"]
    assert location.startswith(f"{stage.base}/Observation/")
    found = await stored(app, handle, location.removeprefix(f"{stage.base}/").partition("/_history")[0])
    assert found["subject"]["reference"] == f"Patient/{patient}"


@pytest.mark.parametrize("by", ["url", "form"])
async def test_a_search_may_name_a_resource_as_the_app_knows_it(
    stage: BrokerStage, app: App, given: dict[str, Any], by: str
) -> None:
    handle, patient = given["access_token"], given["patient"]
    whole = await stored(app, handle, f"Observation?subject=Patient/{patient}&_count=200")
    pairs = {"subject": f"{stage.base}/Patient/{patient}", "_count": "200"}

    if by == "url":
        answer = await app.fhir(handle, "Observation", params=pairs)
    else:
        answer = await app.fhir(handle, "Observation/_search", method="POST", data=pairs)

    assert answer.status_code == 200, answer.text
    assert answer.json()["total"] == whole["total"] > 0


async def test_another_patient_is_not_named_by_a_url_either(
    stage: BrokerStage, app: App, given: dict[str, Any]
) -> None:
    """(PX-14)."""
    before = upstream(stage.sandbox)

    answer = await app.fhir(given["access_token"], "Observation", params={"subject": f"{stage.base}/Patient/another"})

    assert (answer.status_code, code_of(answer)) == (403, "insufficient_scope")
    assert upstream(stage.sandbox) == before


async def test_a_conditional_create_looks_for_what_the_app_named(
    stage: BrokerStage, app: App, given: dict[str, Any]
) -> None:
    """(PX-11): the second one finds the first."""
    handle, subject = given["access_token"], f"{stage.base}/Patient/{given['patient']}"
    asked: dict[str, Any] = {
        "method": "POST",
        "json": observation(subject, "once"),
        "headers": {"If-None-Exist": f"code=once&subject={subject}"},
    }

    statuses = [(await app.fhir(handle, "Observation", **asked)).status_code for _ in range(2)]

    assert statuses == [201, 200]


async def test_a_transaction_goes_on_with_the_urls_of_the_ehr(
    stage: BrokerStage, app: App, given: dict[str, Any]
) -> None:
    handle, patient = given["access_token"], given["patient"]
    entries = [
        {
            "fullUrl": f"{stage.base}/Observation/new",
            "resource": observation(f"{stage.base}/Patient/{patient}"),
            "request": {"method": "POST", "url": f"{stage.base}/Observation"},
        },
        {"request": {"method": "GET", "url": f"{stage.base}/Patient/{patient}"}},
    ]

    answer = await app.fhir(
        handle, "", method="POST", json={"resourceType": "Bundle", "type": "batch", "entry": entries}
    )

    assert answer.status_code == 200, answer.text
    assert [entry["response"]["status"][:3] for entry in answer.json()["entry"]] == ["201", "200"]
    assert stage.sandbox.origin not in answer.text
