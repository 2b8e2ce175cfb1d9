"""Patients to launch with, asked of the EHR's own records by the stage's backend app."""

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from tests.stage import BrokerStage

Search = Callable[[str], Awaitable[dict[str, Any]]]


async def patient_with_pages(stage: BrokerStage, page: int) -> tuple[str, int]:
    """Return a patient with at least two pages of observations, and how many observations there are."""
    async with _backend(stage, "system/Observation.rs") as search:
        found = await search("Observation?_count=200")
        subjects = Counter(entry["resource"]["subject"]["reference"] for entry in found["entry"])
        chosen = subjects.most_common(1)[0][0].removeprefix("Patient/")
        own = await search(f"Observation?patient={chosen}&_count=1")
    assert own["total"] > page
    return chosen, int(own["total"])


async def two_patients(stage: BrokerStage) -> tuple[str, str]:
    """Return two different patients."""
    async with _backend(stage, "system/Patient.rs") as search:
        one, other = [entry["resource"]["id"] for entry in (await search("Patient?_count=2"))["entry"]]
    return one, other


@asynccontextmanager
async def _backend(stage: BrokerStage, scope: str) -> AsyncIterator[Search]:
    reports = stage.app("reports")
    try:
        given = (await reports.token(grant_type="client_credentials", scope=scope, resource=reports.base)).json()

        async def search(path: str) -> dict[str, Any]:
            return dict((await reports.fhir(given["access_token"], path)).json())

        yield search
    finally:
        await reports.close()
