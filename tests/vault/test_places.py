"""Every sealed record is known by its place: one that is not would be lost with the first key that is rotated."""

from typing import Any

import pytest
from redis.asyncio import Redis

from broker.vault.places import NOTHING_SEALED, PLACES, place_of, records_in
from tests.backups.test_selection import documented_keys
from tests.stage import App, BrokerStage
from tests.stage.browser import Browser
from tests.stories.exporting import Exporter


@pytest.mark.parametrize("name", documented_keys())
def test_of_every_kind_of_record_it_is_decided_whether_something_in_it_is_sealed(name: str) -> None:
    decided = [
        pattern for pattern in (*(place.pattern for place in PLACES), *NOTHING_SEALED) if pattern.fullmatch(name)
    ]

    assert len(decided) == 1


@pytest.mark.parametrize("key", ["", "other", "sb:{a}:grant:more", "xsb:{a}:grant", "sb:{a}:handles", "sb:domain:{a}"])
def test_nothing_else_is_taken_for_one(key: str) -> None:
    assert place_of(key) is None


async def test_all_that_looks_sealed_after_a_journey_is_found_and_opens_where_it_lies(
    stage: BrokerStage, app: App, reports: App, redis: Redis
) -> None:
    answer = await app.standalone()
    await app.launched(stage.sandbox.launch("broker-launch", answer["patient"]))
    await app.authorize()  # a code that stays unused
    await app.browser.open(stage.sandbox.launch("broker-launch", answer["patient"]))  # a launch that does
    await app.browser.close()
    app.browser = Browser(stops_at=stage.sandbox.fhir_base.removesuffix("/api/FHIR/R4"))
    await app.authorize()  # an authorization that waits for the person
    await stage.broker.offer_reauthorization(answer["access_token"][4:16], lifetime=300)

    await an_export(stage, reports)

    looks_sealed, known = set(), set()
    async for name in redis.scan_iter(match="sb:*"):
        key, kind = name.decode(), await redis.type(name)
        value: Any = (
            await redis.get(name) if kind == b"string" else await redis.hgetall(name) if kind == b"hash" else {}
        )
        parts = {b"": value} if isinstance(value, bytes) else value
        looks_sealed |= {(key, part) for part, text in parts.items() if len(text) >= 97 and text[:1] == bytes([2])}
        place = place_of(key)
        for record in records_in(key, place, value) if place is not None else []:
            known.add((key, record.field.encode()))
            await stage.broker.grants._vault.open(record.context(stage.broker.settings.tenant), record.envelope)

    assert looks_sealed == known
    assert [place for place in PLACES if not any(place_of(key) is place for key, _ in known)] == []


async def an_export(stage: BrokerStage, reports: App) -> None:
    """Export until the manifest is there."""
    given = await reports.token(grant_type="client_credentials", scope="system/Patient.rs", resource=reports.base)
    export = Exporter(stage, reports, given.json()["access_token"])
    await export.manifest(await export.begun("Patient/$export?_type=Patient"))
