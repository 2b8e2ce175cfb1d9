"""The EHR launch, from the EHR's button to the context in the token response."""

import pytest

from tests.stage import App, BrokerStage
from tests.stage.app import LAUNCH_URI

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def launch_url(public: App, stage: BrokerStage) -> tuple[str, str]:
    patient = str((await public.standalone())["patient"])
    return patient, stage.sandbox.launch("broker-launch", patient)


async def test_the_app_is_launched_with_iss_and_launch(public: App, stage: BrokerStage) -> None:
    """smart_app_launch, smart_launch_received (AL-01): the `iss` is the broker's FHIR base."""
    _, url = await launch_url(public, stage)
    landing = await public.browser.open(url)

    assert landing.url.startswith(f"{LAUNCH_URI}?")
    assert landing.parameters.keys() == {"iss", "launch"}
    assert landing.parameters["iss"] == public.base


async def test_patient_encounter_banner_and_style_arrive(public: App, stage: BrokerStage) -> None:
    """smart_token_response_body, g10_patient_context, g10_encounter_context (CX-01, CX-02, CX-05, CX-07)."""
    patient, url = await launch_url(public, stage)
    response = await public.launched(url)

    assert response["patient"] == patient
    assert isinstance(response["encounter"], str)
    assert response["need_patient_banner"] in (True, False)
    assert response["smart_style_url"].startswith("http")
    answer = await public.fhir(response["access_token"], f"Encounter/{response['encounter']}")
    assert (answer.status_code, answer.json()["id"]) == (200, response["encounter"])


async def test_an_ehr_launch_ends_with_an_id_token_and_a_refresh_token(public: App, stage: BrokerStage) -> None:
    """smart_ehr_launch_stu2 with openid and offline_access (SC-11, SC-12)."""
    _, url = await launch_url(public, stage)
    response = await public.launched(url)

    assert response["id_token"].count(".") == 2
    assert response["refresh_token"].startswith("sbr_")


async def test_a_launch_that_nobody_made_is_refused(public: App) -> None:
    """g10_smart_invalid_launch_param (AL-06): the app is told, and gets no code."""
    landing = await public.authorize(scope="launch patient/*.rs", launch="SMART_BAD_LAUNCH")

    assert landing.parameters["error"] == "invalid_request"
    assert "code" not in landing.parameters
