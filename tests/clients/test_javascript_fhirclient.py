"""The JavaScript `fhirclient`, as published, in a real browser, on an origin that is not the broker's."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect
from playwright.async_api import Error as PlaywrightError

from broker.store.connection import connect
from broker.store.embedded import EmbeddedServer
from tests.clients.chromium import PATIENCE_MILLISECONDS
from tests.clients.patients import patient_with_pages, two_patients
from tests.stage import BrokerStage, Sandbox, open_stage
from tests.stage.broker import SANDBOX_SCOPES

pytestmark = pytest.mark.asyncio(loop_scope="module")

PAGE = 5
MORE = """
[[registration]]
id = "browser-launch"
ehr = "sandbox"
flow = "launch"
client_id = "broker-browser"
scopes = "launch launch/patient openid fhirUser offline_access patient/*.rs"
app = "browser-app"

[[app]]
id = "browser-app"
authentication = "none"
redirect_uris = ["{origin}/index.html"]
launch_uri = "{origin}/launch.html"
[[app.access]]
registration = "browser-launch"
scopes = "launch launch/patient openid fhirUser offline_access patient/*.rs"
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(
    chromium: Browser,
    pages: str,
    sandbox_process: Sandbox,
    valkey: EmbeddedServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[BrokerStage]:
    """A broker that knows the browser app; nothing here changes it, so one does for all."""
    sandbox_process.reset()
    redis = connect(valkey.url())
    await redis.flushall()
    more = MORE.format(origin=pages)
    async with open_stage(sandbox_process, redis, tmp_path_factory.mktemp("stage"), more=more) as stage:
        sandbox_process.register(
            client_id="broker-browser",
            authentication="private_key_jwt",
            jwks_uri=f"{stage.public_url}/jwks/browser-launch",
            redirect_uris=[f"{stage.public_url}/callback/browser-launch"],
            launch_uri=f"{stage.public_url}/launch/browser-launch",
            scopes=SANDBOX_SCOPES,
            refresh="rotate",
        )
        yield stage
    await redis.aclose()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def charted(stage: BrokerStage) -> tuple[str, int]:
    """A patient with several pages of observations, and how many observations there are."""
    return await patient_with_pages(stage, PAGE)


async def launch_standalone(page: Page, stage: BrokerStage, pages: str) -> str:
    """Open the app as a bookmark does; returns the patient that it shows."""
    await page.goto(f"{pages}/launch.html?iss={stage.base}")
    return await shown_patient(page)


async def launch_from_ehr(page: Page, stage: BrokerStage, patient: str) -> str:
    """Open the app as the chart's button does; returns the patient that it shows."""
    await page.goto(stage.sandbox.launch("broker-browser", patient))
    return await shown_patient(page)


async def shown_patient(page: Page) -> str:
    await expect(page.locator("#patient")).not_to_be_empty(timeout=PATIENCE_MILLISECONDS)
    return str(await page.locator("#patient").text_content())


async def ask(page: Page, expression: str, argument: Any = None) -> Any:
    """Evaluate an expression over `client`, the library's own object, and `given`."""
    return await page.evaluate(f"async (given) => {{ const client = await smart; return {expression}; }}", argument)


async def token_response(page: Page) -> dict[str, Any]:
    return dict(await ask(page, "client.state.tokenResponse"))


async def test_it_launches_standalone_and_reads_its_patient(page: Page, stage: BrokerStage, pages: str) -> None:
    """Discovery, token and FHIR answer another origin (AL-07, AL-12, CO-01)."""
    shown = await launch_standalone(page, stage, pages)

    given = await token_response(page)
    assert given["patient"] == shown
    assert given["access_token"].startswith("sbh_")
    assert "code=" not in page.url


async def test_it_follows_an_ehr_launch(page: Page, stage: BrokerStage, charted: tuple[str, int]) -> None:
    """From the chart's button through both authorization servers to the patient of the chart (AL-01, AL-06, CO-01)."""
    patient, _ = charted

    assert await launch_from_ehr(page, stage, patient) == patient
    assert await ask(page, "client.getState('serverUrl')") == stage.base


async def test_it_pages_to_the_end(page: Page, stage: BrokerStage, charted: tuple[str, int]) -> None:
    """`pageLimit: 0` follows every next link, and all of them lead to the broker (PX-06, CO-01)."""
    patient, total = charted
    await launch_from_ehr(page, stage, patient)

    found = await ask(
        page, "client.request(given, {pageLimit: 0, flat: true})", f"Observation?patient={patient}&_count={PAGE}"
    )

    assert len({observation["id"] for observation in found}) == total
    assert {observation["subject"]["reference"] for observation in found} == {f"Patient/{patient}"}


async def test_it_refreshes_when_it_names_itself(page: Page, stage: BrokerStage, pages: str) -> None:
    """With `refreshTokenWithClientId`, which the library has for servers that want it (RF-01, RF-03)."""
    shown = await launch_standalone(page, stage, pages)
    before = await token_response(page)
    await page.evaluate("FHIR.oauth2.settings.refreshTokenWithClientId = true")

    await ask(page, "client.refresh()")

    after = await token_response(page)
    assert after["access_token"] != before["access_token"]
    assert after["refresh_token"] != before["refresh_token"]
    assert await ask(page, "client.patient.read().then((patient) => patient.id)") == shown


async def test_it_refreshes_as_it_is(page: Page, stage: BrokerStage, pages: str) -> None:
    """Without any setting it sends no `client_id`: the refresh handle names its app (RF-01, RF-03)."""
    shown = await launch_standalone(page, stage, pages)
    before = await token_response(page)

    await ask(page, "client.refresh()")

    assert (await token_response(page))["access_token"] != before["access_token"]
    assert await ask(page, "client.patient.read().then((patient) => patient.id)") == shown


async def test_it_refreshes_before_the_handle_ends(page: Page, stage: BrokerStage, pages: str) -> None:
    """The app asks for data five minutes later, and knows nothing of a refresh (RF-01, CO-01)."""
    shown = await launch_standalone(page, stage, pages)
    before = await token_response(page)
    await page.evaluate("FHIR.oauth2.settings.refreshTokenWithClientId = true")
    await page.clock.set_system_time(time.time() + before["expires_in"] - 5)

    assert await ask(page, "client.patient.read().then((patient) => patient.id)") == shown

    assert (await token_response(page))["access_token"] != before["access_token"]


async def test_two_tabs_show_their_own_patients(page: Page, stage: BrokerStage) -> None:
    """Both launch at once in one browser, with the same cookies (AL-21)."""
    one, other = await two_patients(stage)
    second = await page.context.new_page()

    shown = await asyncio.gather(launch_from_ehr(page, stage, one), launch_from_ehr(second, stage, other))

    assert list(shown) == [one, other]


async def test_a_refusal_reaches_the_library_with_its_status(page: Page, stage: BrokerStage, pages: str) -> None:
    """Errors are readable across origins, so the app sees 403 and not a network error (CO-02, OA-09)."""
    await launch_standalone(page, stage, pages)

    with pytest.raises(PlaywrightError, match="Forbidden"):
        await ask(page, "client.request('Patient/somebody-else')")
    assert await ask(page, "client.request('Patient/somebody-else').catch((error) => error.status)") == 403
    assert await ask(page, "client.request('Observation/there-is-none').catch((error) => error.status)") == 404


async def test_it_works_in_a_frame_of_the_ehr(
    page: Page, stage: BrokerStage, charted: tuple[str, int], chart_origin: str
) -> None:
    """Three origins of one site; a frame of another site needs the cookies that only https has (AL-22)."""
    patient, _ = charted
    launch = quote(stage.sandbox.launch("broker-browser", patient), safe="")

    await page.goto(f"{chart_origin}/frame.html?show={launch}")

    await expect(page.frame_locator("#app").locator("#patient")).to_have_text(patient, timeout=PATIENCE_MILLISECONDS)
