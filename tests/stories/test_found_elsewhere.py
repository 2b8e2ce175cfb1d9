"""What a handle that was found says of the patient it is for, where or when it is of no use: nothing (HB-06)."""

from collections.abc import AsyncIterator
from ipaddress import ip_network
from pathlib import Path

import httpx2
import pytest
from redis.asyncio import Redis

from broker.settings.deployment import CertificateHeader
from tests.refusals.refusal import audited, nothing_sent
from tests.stage import App, BrokerStage, Sandbox, open_stage
from tests.stage.broker import APP_SECRET_TEXT
from tests.stories.test_exchange import acting, ask, exchanged, introspected, statuses

NO_SUBJECT = {
    "error": "invalid_request",
    "error_description": "subject_token is not valid: unknown, expired, revoked, or not for this client to exchange.",
}
NETWORK = "203.0.113.0/24"
POLICIES = """
[[app]]
id = "ward"
authentication = "none"
redirect_uris = ["http://127.0.0.1:1/callback"]
[app.limits]
network = ["203.0.113.0/24"]
[[app.access]]
registration = "sandbox-launch"
scopes = "launch/patient openid fhirUser offline_access patient/*.rs"
""" + acting("summary", "growth-chart", "launch/patient patient/Patient.rs")
PROXIES = CertificateHeader("Client-Cert", (ip_network("127.0.0.2"),))


@pytest.fixture
async def stage(sandbox: Sandbox, redis: Redis, tmp_path: Path) -> AsyncIterator[BrokerStage]:
    async with open_stage(sandbox, redis, tmp_path, more=POLICIES, certificate_header=PROXIES) as stage:
        yield stage


@pytest.fixture
async def ward(stage: BrokerStage) -> AsyncIterator[App]:
    """A public app whose policy names the network of its tablets; this one is elsewhere."""
    app = App(stage.base, "ward")
    yield app
    await app.close()


@pytest.fixture
async def within(stage: BrokerStage) -> AsyncIterator[httpx2.AsyncClient]:
    """A connection from that network, by way of a declared proxy."""
    transport = httpx2.AsyncHTTPTransport(local_address="127.0.0.2")
    async with httpx2.AsyncClient(transport=transport, headers={"X-Forwarded-For": "203.0.113.9"}) as http:
        yield http


async def refused(stage: BrokerStage, app: App, handle: str, cause: str) -> None:
    """Exchange it, and be told no more than of a handle that does not exist."""
    with nothing_sent(stage.sandbox), audited(stage, "handle.mint", "denied", cause, hides=[handle]):
        answer = await ask(app, handle)
    assert (answer.status_code, answer.json()) == (400, NO_SUBJECT)


async def test_a_public_app_exchanges_no_handle_outside_its_network(
    stage: BrokerStage, app: App, within: httpx2.AsyncClient
) -> None:
    """HB-02, HB-06: nor does it take the places of those that the app itself exchanges."""
    given = await app.standalone()
    handle = (await exchanged(app, given["access_token"], network=NETWORK))["access_token"]

    await refused(stage, app, handle, "limit network: the caller is elsewhere")

    at_home = App(app.base, app.client_id, http=within)
    narrower = (await exchanged(at_home, handle))["access_token"]
    assert await statuses(at_home, f"Patient/{given['patient']}", narrower) == [200]


async def test_a_public_app_exchanges_no_handle_outside_the_network_of_its_policy(
    stage: BrokerStage, ward: App, within: httpx2.AsyncClient
) -> None:
    """HB-02, HB-06."""
    handle = (await ward.standalone())["access_token"]

    await refused(stage, ward, handle, "limit network: the caller is elsewhere")

    assert await introspected(ward, handle) == {"active": False}
    assert (await exchanged(App(ward.base, ward.client_id, http=within), handle))["patient"]


async def test_no_app_exchanges_a_handle_before_its_time(stage: BrokerStage, app: App, summary: App) -> None:
    """HB-02, HB-06: as introspection has it."""
    root = (await app.standalone())["access_token"]
    handle = (await exchanged(app, root, not_before=f"{int(stage.clock()) + 100}"))["access_token"]

    for one in (app, summary):
        await refused(stage, one, handle, "limit not_before: it is too early")

    stage.clock.advance(101)
    for one in (app, summary):
        assert (await exchanged(one, handle))["patient"]


async def test_an_app_that_authenticates_exchanges_from_elsewhere_than_it_reads_from(app: App, summary: App) -> None:
    """HB-05: it has proved who it is, and what it gets is for that network, too."""
    given = await app.standalone()
    handle = (await exchanged(summary, given["access_token"], network=NETWORK))["access_token"]

    narrower = await exchanged(summary, handle)

    assert narrower["network"] == NETWORK
    assert await statuses(summary, f"Patient/{given['patient']}", narrower["access_token"]) == [401]


@pytest.fixture
async def summary(stage: BrokerStage) -> AsyncIterator[App]:
    app = App(stage.base, "summary", auth=("summary", APP_SECRET_TEXT))
    yield app
    await app.close()


async def test_a_refresh_handle_of_a_public_app_gives_nothing_outside_the_network_of_its_policy(
    stage: BrokerStage, ward: App, within: httpx2.AsyncClient
) -> None:
    """HB-02: it is not used up by that, so whoever found it cannot end the family, either."""
    refresh_handle = (await ward.standalone())["refresh_token"]
    form = {"grant_type": "refresh_token", "refresh_token": refresh_handle}

    with nothing_sent(stage.sandbox), audited(stage, "handle.mint", "denied", "limit network: the caller is elsewhere"):
        answer = await ward.token(**form)

    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")
    assert "patient" not in answer.text
    assert (await App(ward.base, ward.client_id, http=within).token(**form)).status_code == 200
