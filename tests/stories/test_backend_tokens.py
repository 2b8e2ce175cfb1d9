"""Backend-services tokens: one for each registration, EHR and set of scopes, over all replicas (BS-07, BS-10)."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest

from broker.app import open_broker
from broker.grants import Grant, backend_grants
from broker.store import keys, pool
from broker.vault import LocalKeyring
from tests.stage import App, BrokerStage
from tests.stage.broker import APP_SECRET_TEXT, KEY
from tests.stories.held import LIFETIME, until

ASK = {"grant_type": "client_credentials", "scope": "system/Patient.rs"}


@pytest.fixture(autouse=True)
def _patient_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two replicas share a pool here: how busy the machine is must not decide who is refused."""
    for limit in ("WAIT_SECONDS", "CONNECT_SECONDS", "ANSWER_SECONDS"):
        monkeypatch.setattr(pool, limit, 10.0)


@asynccontextmanager
async def another(stage: BrokerStage) -> AsyncIterator[App]:
    """The app `reports` in front of a second replica."""
    async with open_broker(
        stage.broker.settings,
        redis=stage.redis,
        kek=LocalKeyring([KEY]),
        audit_file=stage.state / "another.jsonl",
        clock=stage.clock,
        keep_every=None,
    ) as broker:
        http = httpx2.AsyncClient(transport=httpx2.ASGITransport(app=broker.application), timeout=30)
        app = App(stage.base, "reports", auth=("reports", APP_SECRET_TEXT), http=http)
        yield app
        await app.close()


def asked(stage: BrokerStage) -> int:
    return int(stage.sandbox.counts().get("token.client_credentials", 0))


async def token(app: App, **changes: str) -> httpx2.Response:
    return await app.token(**{**ASK, "resource": app.base, **changes})


async def grant_of(stage: BrokerStage, answer: httpx2.Response) -> Grant:
    return await stage.broker.grants.read(answer.json()["access_token"][4:16])


async def due_at(stage: BrokerStage, grant: Grant) -> float | None:
    return await stage.redis.zscore(keys.due(keys.part(grant.tag), "sandbox"), grant.tag)


async def test_two_hundred_jobs_over_two_replicas_cause_one_token_request(stage: BrokerStage, reports: App) -> None:
    """(BS-10)"""
    async with another(stage) as other:
        stage.sandbox.fault("token_hold", seconds=0.5)

        answers = await asyncio.gather(*(token(app) for _ in range(100) for app in (reports, other)))

        assert [answer.status_code for answer in answers] == [200] * 200
        assert len({answer.json()["access_token"][4:16] for answer in answers}) == 1
        assert asked(stage) == 1


async def test_what_one_replica_was_refused_the_other_asks_for_itself_and_once(
    stage: BrokerStage, reports: App
) -> None:
    """(BS-10)"""
    async with another(stage) as other:
        stage.sandbox.fault("token_500")

        answers = await asyncio.gather(*(token(app) for _ in range(5) for app in (reports, other)))

        assert sorted({answer.status_code for answer in answers}) == [200, 503]
        assert asked(stage) == 2


async def test_a_replica_that_waits_for_another_does_so_for_fifteen_seconds(stage: BrokerStage, reports: App) -> None:
    """(BS-10)"""
    await token(reports)
    (pointer,) = [key.decode() async for key in stage.redis.scan_iter("sb:backend:*")]
    await stage.redis.delete(pointer)
    await stage.redis.set(f"{pointer}:lease", "of a replica that hangs")
    waiting = asyncio.create_task(token(reports))
    for _ in range(3):
        await asyncio.sleep(0.1)
        assert not waiting.done()
        stage.clock.advance(5.1)

    assert (await waiting).status_code == 503
    assert asked(stage) == 1

    await stage.redis.delete(f"{pointer}:lease")
    assert (await token(reports)).status_code == 200
    assert asked(stage) == 2


async def test_a_token_that_nobody_uses_is_not_renewed(stage: BrokerStage, reports: App) -> None:
    """(BS-10): not one request, however long it is idle."""
    stage.sandbox.fault("token_lifetime", seconds=LIFETIME)
    grant = await grant_of(stage, await token(reports))
    assert await due_at(stage, grant) == grant.renew_at
    for _ in range(20):
        stage.clock.advance(LIFETIME / 10)
        await stage.broker.keeper.look()

    assert asked(stage) == 1
    assert await due_at(stage, grant) is None


async def test_a_token_in_use_is_renewed_before_its_end_and_once_over_replicas(
    stage: BrokerStage, reports: App
) -> None:
    """(BS-10)"""
    stage.sandbox.fault("token_lifetime", seconds=20)  # the sandbox takes no assertion from further ahead
    answer = await token(reports)
    assert (await reports.fhir(answer.json()["access_token"], "Patient?_count=1")).status_code == 200

    async def is_in_use() -> bool:
        return (await grant_of(stage, answer)).is_in_use

    await until(is_in_use)
    stage.clock.advance(18.5)
    await asyncio.gather(*(stage.broker.keeper.look() for _ in range(3)))

    renewed = await grant_of(stage, answer)
    assert (renewed.generation, asked(stage)) == (2, 2)
    assert await due_at(stage, renewed) == renewed.renew_at
    stage.clock.advance(2)  # past the first token's end
    assert (await reports.fhir(answer.json()["access_token"], "Patient?_count=1")).status_code == 200
    assert asked(stage) == 2


async def test_a_set_of_scopes_that_is_asked_for_stays_known(stage: BrokerStage, reports: App) -> None:
    """(BS-07)"""
    await token(reports)
    (pointer,) = [key async for key in stage.redis.scan_iter("sb:backend:*")]
    await stage.redis.pexpire(pointer, 5_000)

    await token(reports)

    assert await stage.redis.pttl(pointer) > (backend_grants.KNOWN_SECONDS - 60) * 1000


async def test_a_grant_that_was_revoked_is_replaced_by_one_token_request(stage: BrokerStage, reports: App) -> None:
    """(BS-10)"""
    first = await grant_of(stage, await token(reports))
    await stage.broker.revoke_grant(first.tag, cause="test")

    answers = await asyncio.gather(*(token(reports) for _ in range(10)))

    tags = {answer.json()["access_token"][4:16] for answer in answers}
    assert len(tags) == 1
    assert first.tag not in tags
    assert asked(stage) == 2


async def test_new_grants_of_an_app_are_counted_over_all_replicas(
    stage: BrokerStage, reports: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(BS-04)"""
    monkeypatch.setattr(backend_grants, "MOST_ASKED", 2)
    scopes = ("system/Patient.rs", "system/Patient.r", "system/Patient.s")
    async with another(stage) as other:
        answers: list[Any] = [
            await token(app, scope=scope) for app, scope in zip((reports, other, other), scopes, strict=True)
        ]

        assert [answer.status_code for answer in answers] == [200, 200, 400]
        assert answers[-1].json()["error"] == "invalid_request"
        assert asked(stage) == 2
        assert (await token(other, scope=scopes[0])).status_code == 200, "it is known"
