"""A launch in a frame of another site, where no cookie of the broker's survives, in a real browser (AL-22, NC-20).

Over http the broker's cookies are SameSite=Lax, so a frame of another site has none of them; what is left is the tab's
session storage. A browser that is told to block all storage of third parties has neither: there only https works, with
its partitioned cookie.
"""

import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

import pytest
import pytest_asyncio
from playwright.async_api import Page, async_playwright, expect

from broker.store.connection import connect
from broker.store.embedded import EmbeddedServer
from tests.clients.chromium import FLAGS, PATIENCE_MILLISECONDS, find_chromium
from tests.clients.test_javascript_fhirclient import MORE
from tests.stage import BrokerStage, Sandbox, open_stage
from tests.stage.broker import SANDBOX_SCOPES

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture
def chart(chart_origin: str) -> str:
    """The EHR's page, on a site that is neither the broker's nor the app's."""
    return chart_origin.replace("127.0.0.1", "localhost")


@pytest_asyncio.fixture(loop_scope="module")
async def page(tmp_path: Path) -> AsyncIterator[Page]:
    """A page of a browser whose owner has not blocked third parties; a private window blocks them."""
    (tmp_path / "Default").mkdir()
    (tmp_path / "Default" / "Preferences").write_text(json.dumps({"profile": {"cookie_controls_mode": 0}}))
    program = find_chromium(os.environ)
    async with async_playwright() as playwright:
        context = await playwright.chromium.launch_persistent_context(tmp_path, executable_path=program, args=FLAGS)
        context.set_default_timeout(15_000)
        yield await context.new_page()
        await context.close()


@pytest_asyncio.fixture(loop_scope="module")
async def stage(
    pages: str,
    chart: str,
    sandbox_process: Sandbox,
    valkey: EmbeddedServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[BrokerStage]:
    sandbox_process.reset()
    redis = connect(valkey.url())
    await redis.flushall()
    more = MORE.format(origin=pages).replace(
        'app = "browser-app"', f'app = "browser-app"\nframe_ancestors = ["{chart}"]'
    )
    async with open_stage(sandbox_process, redis, tmp_path_factory.mktemp("stage"), more=more) as stage:
        sandbox_process.register(
            client_id="broker-browser",
            authentication="private_key_jwt",
            jwks_uri=f"{stage.public_url}/jwks/browser-launch",
            redirect_uris=[f"{stage.public_url}/callback/browser-launch"],
            launch_uri=f"{stage.public_url}/launch/browser-launch",
            scopes=SANDBOX_SCOPES,
        )
        yield stage
    await redis.aclose()


async def a_patient(stage: BrokerStage) -> str:
    app = stage.app()
    patient = str((await app.standalone())["patient"])
    await app.close()
    return patient


async def test_the_tab_carries_the_launch_where_cookies_do_not(page: Page, stage: BrokerStage, chart: str) -> None:
    """AL-22, CB-11, NC-20: the callback, the app's own request and the way back, all in a frame of another site."""
    patient = await a_patient(stage)
    launch = quote(stage.sandbox.launch("broker-browser", patient), safe="")

    await page.goto(f"{chart}/frame.html?show={launch}")

    await expect(page.frame_locator("#app").locator("#patient")).to_have_text(patient, timeout=PATIENCE_MILLISECONDS)
    kept = await page.context.cookies(stage.public_url)
    assert [one["name"] for one in kept if one["name"].startswith("sb_launch_")] == []


async def test_a_page_of_a_site_that_is_not_named_shows_nothing(page: Page, stage: BrokerStage, chart: str) -> None:
    """CB-11."""
    launch = stage.sandbox.launch("broker-browser", await a_patient(stage))
    other = chart.replace("localhost", "127.0.0.1")
    refused: list[str] = []
    page.on("console", lambda message: refused.append(message.text))

    await page.goto(f"{other}/frame.html?show={quote(launch, safe='')}", wait_until="commit")
    await expect(page.frame_locator("#app").locator("#patient")).to_have_count(0, timeout=PATIENCE_MILLISECONDS)
    while not any("frame-ancestors" in text for text in refused):  # the browser says it in no other way
        await page.wait_for_timeout(20)

    assert stage.sandbox.counts()["token.authorization_code"] == 1, "the patient's, and none for the frame"
