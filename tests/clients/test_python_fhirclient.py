"""The `fhirclient` package, as published: it takes the broker for a SMART server."""

import asyncio
from collections.abc import Callable, Iterator

import pytest
from fhirclient.client import FHIRClient
from fhirclient.models.observation import Observation
from fhirclient.server import FHIRPermissionDeniedException, FHIRUnauthorizedException

from tests.clients.patients import patient_with_pages
from tests.stage import App, BrokerStage
from tests.stage.app import LAUNCH_URI, REDIRECT_URI

PAGE = 5
Connect = Callable[[str | None], FHIRClient]


@pytest.fixture
def connect(stage: BrokerStage) -> Iterator[Connect]:
    """Set up a client as a program that knows the base URL does, with or without a launch."""
    opened: list[FHIRClient] = []

    def connect(launch: str | None) -> FHIRClient:
        settings = {
            "app_id": "growth-chart",
            "api_base": stage.base,
            "redirect_uri": REDIRECT_URI,
            "scope": "offline_access patient/*.rs",
            "launch_token": launch,
        }
        opened.append(FHIRClient(settings=settings))
        return opened[-1]

    yield connect
    for client in opened:
        client.server.session.close()


async def authorize(client: FHIRClient, app: App) -> None:
    """Send the app's browser where the library says, and give the library what came back."""
    await asyncio.to_thread(client.prepare)
    landing = await app.browser.open(client.authorize_url)
    assert landing.url.startswith(REDIRECT_URI), landing
    await asyncio.to_thread(client.handle_callback, landing.url)


@pytest.fixture
async def authorized(connect: Connect, app: App) -> FHIRClient:
    client = connect(None)
    await authorize(client, app)
    return client


async def test_it_launches_standalone_and_reads_its_patient(authorized: FHIRClient) -> None:
    """From the capability statement's OAuth URIs to a patient (DS-11, AL-07, AL-12, TK-02, CX-01, PX-01)."""
    patient = await asyncio.to_thread(lambda: authorized.patient)

    assert authorized.server.auth.access_token.startswith("sbh_")
    assert patient.id == authorized.patient_id
    assert authorized.human_name(patient.name[0])


async def test_it_follows_an_ehr_launch(connect: Connect, app: App, stage: BrokerStage) -> None:
    """The launch value that the broker hands on is one that the library can redeem (AL-01, AL-06)."""
    chosen, _ = await patient_with_pages(stage, PAGE)
    landing = await app.browser.open(stage.sandbox.launch("broker-launch", chosen))
    assert landing.url.startswith(LAUNCH_URI)
    assert landing.parameters["iss"] == stage.base
    client = connect(landing.parameters["launch"])

    await authorize(client, app)

    assert client.patient_id == chosen
    assert (await asyncio.to_thread(lambda: client.patient)).id == chosen


async def test_it_searches_and_follows_next_links_to_the_end(connect: Connect, app: App, stage: BrokerStage) -> None:
    """Every page comes through the broker, and together they are all there is (PX-06)."""
    chosen, total = await patient_with_pages(stage, PAGE)
    landing = await app.browser.open(stage.sandbox.launch("broker-launch", chosen))
    client = connect(landing.parameters["launch"])
    await authorize(client, app)

    def walk() -> list[list[str]]:
        search = Observation.where({"patient": chosen, "_count": str(PAGE)})
        return [[entry.resource.id for entry in page.entry] for page in search.perform_iter(client.server)]

    pages = await asyncio.to_thread(walk)

    assert [len(page) for page in pages[:-1]] == [PAGE] * (len(pages) - 1)
    assert len(pages) > 1
    assert len({identifier for page in pages for identifier in page}) == total


async def test_it_refreshes_and_goes_on(authorized: FHIRClient) -> None:
    """A refresh gives another handle, and the library keeps the new refresh handle (RF-01, RF-03)."""
    auth = authorized.server.auth
    before = (auth.access_token, auth.refresh_token)

    assert await asyncio.to_thread(authorized.reauthorize)

    assert auth.access_token != before[0]
    assert auth.refresh_token != before[1]
    assert (await asyncio.to_thread(lambda: authorized.patient)).id == authorized.patient_id
    assert await asyncio.to_thread(authorized.reauthorize)


async def test_it_understands_what_the_broker_refuses(authorized: FHIRClient, stage: BrokerStage) -> None:
    """Its own exceptions are raised for 401 and 403 (OA-09)."""

    server = authorized.server
    with pytest.raises(FHIRPermissionDeniedException):
        await asyncio.to_thread(server.post_json, "Observation", {"resourceType": "Observation"})
    stage.clock.advance(301)
    with pytest.raises(FHIRUnauthorizedException):
        await asyncio.to_thread(server.request_json, f"Patient/{authorized.patient_id}")
