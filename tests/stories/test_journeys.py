"""The main job, end to end, on real parts: store, EHR, HTTP."""

from tests.stage import App, BrokerStage

PATIENT = "patient"


async def first_patient(stage: BrokerStage) -> str:
    return str(stage.sandbox.journal("issued")[-1]["patient"])


async def test_a_standalone_launch_ends_with_a_handle_that_reads_fhir(app: App, stage: BrokerStage) -> None:
    """AL-07, CO-03, HB-02."""
    response = await app.standalone()

    assert response["access_token"].startswith("sbh_")
    assert response["token_type"] == "Bearer"
    assert response["expires_in"] == 300
    assert response["scope"] == "fhirUser launch/patient offline_access openid patient/*.rs"
    patient = await app.fhir(response["access_token"], f"Patient/{response['patient']}")
    assert patient.status_code == 200
    assert patient.json()["id"] == response["patient"]
    assert stage.sandbox.counts()["token.authorization_code"] == 1


async def test_an_ehr_launch_opens_the_app_with_a_launch_of_the_brokers_own(app: App, stage: BrokerStage) -> None:
    """AL-01, CX-01, CX-02."""
    chosen = await some_patient(app)
    response = await app.launched(stage.sandbox.launch("broker-launch", chosen))

    assert response["patient"] == chosen
    assert "encounter" in response
    assert (await app.fhir(response["access_token"], f"Patient/{chosen}")).json()["id"] == chosen


async def some_patient(app: App) -> str:
    return str((await app.standalone())["patient"])


async def test_a_backend_app_reads_across_patients(reports: App) -> None:
    """BS-02, BS-04, OA-07."""
    answer = await reports.token(grant_type="client_credentials", scope="system/Patient.rs", resource=reports.base)

    assert answer.status_code == 200, answer.text
    assert "refresh_token" not in answer.json()
    bundle = (await reports.fhir(answer.json()["access_token"], "Patient?_count=5")).json()
    assert len({entry["resource"]["id"] for entry in bundle["entry"]}) == 5


async def test_a_search_is_walked_page_by_page_without_leaving_the_broker(reports: App, stage: BrokerStage) -> None:
    """PX-06, PX-07."""
    answer = await reports.token(grant_type="client_credentials", scope="system/Patient.rs", resource=reports.base)
    handle, url, pages = answer.json()["access_token"], "Patient?_count=50", 0
    while url:
        bundle = (await reports.fhir(handle, url)).json()
        assert all(entry["fullUrl"].startswith(f"{stage.base}/") for entry in bundle["entry"])
        links = {link["relation"]: link["url"] for link in bundle["link"]}
        assert all(link.startswith(f"{stage.base}") for link in links.values())
        pages, url = pages + 1, links.get("next", "").removeprefix(stage.base).lstrip("/")
    assert pages == 4
