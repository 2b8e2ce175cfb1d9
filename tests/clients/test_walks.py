"""Two hundred pages, turned by libraries as published, and all of them at the broker, though the token dies on the way.

How the EHR writes its links is different for each of them (NC-17).
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest
from fhirclient.models.observation import Observation
from fhirclient.server import FHIRServer
from fhirpy import AsyncFHIRClient
from redis.asyncio import Redis

from tests.stage import BrokerStage, Sandbox, open_stage

PAGES: Final = 200
EXPIRED_AFTER: Final = 100
Walk = Callable[[str, str], AsyncIterator[list[str]]]
"""Gives the ids of each page, from a FHIR base and a handle on."""


async def with_fhirclient(base: str, handle: str) -> AsyncIterator[list[str]]:
    auth = {"app_id": "reports", "access_token": handle}
    server = FHIRServer(None, state={"base_uri": f"{base}/", "auth_type": "oauth2", "auth": auth})
    pages: Iterator[Any] = await asyncio.to_thread(Observation.where({"_count": "1"}).perform_iter, server)
    try:
        while page := await asyncio.to_thread(next, pages, None):
            yield [entry.resource.id for entry in page.entry]
    finally:
        server.session.close()


async def with_fhirpy(base: str, handle: str) -> AsyncIterator[list[str]]:
    client = AsyncFHIRClient(base, authorization=f"Bearer {handle}")
    async for observation in client.resources("Observation").limit(1):
        yield [observation["id"]]


async def with_httpx(base: str, handle: str) -> AsyncIterator[list[str]]:
    async with httpx2.AsyncClient(trust_env=False, headers={"Authorization": f"Bearer {handle}"}) as http:
        url: str | None = f"{base}/Observation?_count=1"
        while url is not None:
            bundle = (await http.get(url)).raise_for_status().json()
            yield [entry["resource"]["id"] for entry in bundle["entry"]]
            url = next((link["url"] for link in bundle["link"] if link["relation"] == "next"), None)


@pytest.mark.parametrize(
    ("walk", "links", "fault", "origin"),
    [
        pytest.param(with_fhirclient, "opaque", None, None, id="fhirclient"),
        pytest.param(with_fhirpy, "session-id", "paging_internal_host", "http://EHR.internal:8080", id="fhirpy"),
        pytest.param(with_httpx, "page-context", "paging_port", "http://127.0.0.1:443", id="httpx"),
    ],
)
async def test_two_hundred_pages_are_turned_at_the_broker(
    sandbox: Sandbox, redis: Redis, tmp_path: Path, walk: Walk, links: str, fault: str | None, origin: str | None
) -> None:
    """(NC-17) (PX-03) (PX-06) (PX-07) (PX-08)."""
    ehr = f'aliases = ["{origin}/api/FHIR/R4"]' if origin else ""
    async with open_stage(sandbox, redis, tmp_path, ehr=ehr) as stage:
        sandbox.switch(page_links=links)
        if fault is not None:
            sandbox.fault(fault)
        handle = await handle_of(stage)
        found: list[str] = []

        async for page in walk(stage.base, handle):
            found += page
            if len(found) == EXPIRED_AFTER:
                sandbox.expire()
            if len(found) == PAGES:
                break

    assert len(set(found)) == PAGES
    statuses = [asked["status"] for asked in sandbox.journal("fhir")]
    assert (statuses.count(200), statuses.count(401)) == (PAGES, 1)
    assert sandbox.counts()["token.client_credentials"] == 2


async def handle_of(stage: BrokerStage) -> str:
    reports = stage.app("reports")
    form = {"grant_type": "client_credentials", "scope": "system/Observation.rs", "resource": reports.base}
    answer = await reports.token(**form)
    await reports.close()
    return str(answer.json()["access_token"])
