"""The `fhirpy` package, as published. It brings no OAuth of its own, so the handle is given to it."""

from typing import Any

import pytest
from fhirpy import AsyncFHIRClient
from fhirpy.base.exceptions import AuthorizationError, ForbiddenError, ResourceNotFound

from tests.clients.patients import patient_with_pages
from tests.stage import App, BrokerStage

PAGE = 5


def connect(app: App, given: dict[str, Any]) -> AsyncFHIRClient:
    return AsyncFHIRClient(app.base, authorization=f"{given['token_type']} {given['access_token']}")


@pytest.fixture
async def given(app: App, stage: BrokerStage) -> dict[str, Any]:
    """A token response after an EHR launch, with a patient who has several pages of observations."""
    chosen, _ = await patient_with_pages(stage, PAGE)
    return await app.launched(stage.sandbox.launch("broker-launch", chosen))


async def test_it_reads_after_an_ehr_launch(app: App, given: dict[str, Any]) -> None:
    """The handle is all it needs (AL-01, PX-01)."""
    patient = await connect(app, given).get("Patient", given["patient"])

    assert (patient["resourceType"], patient["id"]) == ("Patient", given["patient"])


async def test_it_reads_after_a_standalone_launch(app: App) -> None:
    """The patient of the context can be read (AL-07, CX-01)."""
    given = await app.standalone()

    patients = connect(app, given).resources("Patient").search(_id=given["patient"])

    assert (await patients.get())["id"] == given["patient"]


async def test_it_searches_and_pages_to_the_end(app: App, given: dict[str, Any], stage: BrokerStage) -> None:
    """`fetch_all` follows next links, which all lead to the broker (PX-06, PX-07)."""
    observations = connect(app, given).resources("Observation").search(patient=given["patient"]).limit(PAGE)

    total, before = (await observations.fetch_raw())["total"], stage.sandbox.counts()["fhir"]
    found = await observations.fetch_all()

    assert total > PAGE
    assert len({observation["id"] for observation in found}) == total
    assert stage.sandbox.counts()["fhir"] - before == -(-total // PAGE)


async def test_it_goes_on_with_the_handle_of_a_refresh(app: App, given: dict[str, Any]) -> None:
    """The app refreshes, and the next handle works as the first did (RF-01, RF-03)."""
    answer = await app.token(grant_type="refresh_token", refresh_token=given["refresh_token"])
    again = answer.json()

    patient = await connect(app, again).get("Patient", given["patient"])

    assert again["access_token"] != given["access_token"]
    assert patient["id"] == given["patient"]


async def test_it_understands_what_the_broker_refuses(app: App, given: dict[str, Any], stage: BrokerStage) -> None:
    """Its own exceptions are raised for 401, 403 and 404 (OA-09)."""
    client = connect(app, given)
    with pytest.raises(ForbiddenError, match="insufficient_scope"):
        await client.resource("Observation", status="final").save()
    with pytest.raises(ResourceNotFound):
        await client.get("Observation", "there-is-none")
    stage.clock.advance(301)
    with pytest.raises(AuthorizationError, match="invalid_token"):
        await client.get("Patient", given["patient"])
