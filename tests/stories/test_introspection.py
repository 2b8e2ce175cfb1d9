"""Introspection tells what a handle can do now: what would be refused at every call is inactive (RFC 7662 §2.2)."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from redis.asyncio import Redis

from broker.app import open_broker
from broker.settings import Settings
from broker.vault import LocalKeyring
from tests.stage import App, BrokerStage, Sandbox, open_stage
from tests.stage.broker import APP_SECRET_TEXT, KEY
from tests.stories.test_exchange import SUMMARY, exchanged

NOBODY = "patient/Immunization.r"


@pytest.fixture
async def stage(sandbox: Sandbox, redis: Redis, tmp_path: Path) -> AsyncIterator[BrokerStage]:
    async with open_stage(sandbox, redis, tmp_path, more=SUMMARY) as stage:
        yield stage


@pytest.fixture
async def summary(stage: BrokerStage) -> AsyncIterator[App]:
    app = App(stage.base, "summary", auth=("summary", APP_SECRET_TEXT))
    yield app
    await app.close()


def changed(settings: Settings, client_id: str, **changes: Any) -> Settings:
    """Return the settings with one app's changed."""
    apps = [app.model_copy(update=changes) if app.id == client_id else app for app in settings.app]
    return settings.model_copy(update={"app": tuple(apps)})


def with_scopes(settings: Settings, client_id: str, scopes: str) -> Settings:
    """Return the settings with another policy for one app's launches."""
    (app,) = (app for app in settings.app if app.id == client_id)
    launch = [access.model_copy(update={"scopes": scopes}) for access in app.access]
    return changed(settings, client_id, access=tuple(launch))


def less(settings: Settings, what: str) -> Settings:
    """Return the settings with something taken away."""
    match what:
        case "EHR":
            ehrs = tuple(ehr.model_copy(update={"enabled": False}) for ehr in settings.ehr)
            return settings.model_copy(update={"ehr": ehrs})
        case "holder":
            return changed(settings, "growth-chart", access=())
        case "scopes":
            return with_scopes(settings, "growth-chart", NOBODY)
        case "exchange_from":
            return changed(settings, "summary", exchange_from=())
        case _:
            return settings


async def told(stage: BrokerStage, settings: Settings, app: App, handle: str, path: str) -> tuple[dict[str, Any], int]:
    """Start the broker again with these settings; return what it tells of the handle, and how a call with it ends."""
    async with (
        open_broker(settings, redis=stage.redis, kek=LocalKeyring([KEY]), audit_file=None, clock=stage.clock) as again,
        httpx2.AsyncClient(transport=httpx2.ASGITransport(app=again.application), base_url=stage.public_url) as http,
    ):
        said = await http.post("/oauth/introspect", data={"token": handle}, auth=app.auth or httpx2.USE_CLIENT_DEFAULT)
        read = await http.get(f"/fhir/sandbox/{path}", headers={"Authorization": f"Bearer {handle}"})
    return said.json(), read.status_code


@pytest.mark.parametrize(
    ("what", "status"), [("EHR", 404), ("holder", 403), ("scopes", 403), ("exchange_from", 403), ("nothing", 200)]
)
async def test_a_handle_that_is_refused_everywhere_is_inactive(
    stage: BrokerStage, app: App, summary: App, what: str, status: int
) -> None:
    """(HB-06) (IN-04): also where it is the one that it was exchanged from whose policy was taken away."""
    given = await app.standalone()
    handle = (await exchanged(summary, given["access_token"]))["access_token"]

    said, read = await told(stage, less(stage.broker.settings, what), summary, handle, f"Patient/{given['patient']}")

    assert read == status
    assert said["active"] is (status == 200)
    assert said == {"active": False} or said["client_id"] == "summary"


async def test_what_is_told_is_what_the_policy_has_left(stage: BrokerStage, app: App, summary: App) -> None:
    """(HB-06) (IN-02)"""
    given = await app.standalone()
    handle = (await exchanged(summary, given["access_token"]))["access_token"]
    narrower = with_scopes(stage.broker.settings, "summary", "patient/Patient.r")

    said, read = await told(stage, narrower, summary, handle, f"Patient/{given['patient']}")

    assert (said["active"], read) == (True, 200)
    assert [word for word in said["scope"].split() if "/Patient" in word or "/Obs" in word] == ["patient/Patient.r"]
