"""What reviewers tried from the side of apps, and what came of it: each of these once worked."""

import asyncio
from pathlib import Path
from typing import Any

import httpx2
import pytest
from redis.asyncio import Redis

from broker.app import open_broker
from broker.grants import backend_grants
from broker.grants.backend_grants import MOST_ASKED
from broker.vault import LocalKeyring
from broker.web import parameters
from tests.refusals.refusal import logged
from tests.stage import App, BrokerStage, Sandbox, open_stage
from tests.stage.broker import APP_SECRET_TEXT, KEY
from tests.stories.held import until
from tests.stories.test_exchange import ACCESS_TOKEN, GRANT_TYPE, SUMMARY, acting, exchanged

SUMMARYS = ("summary", APP_SECRET_TEXT)
WIDE = acting("wide", "growth-chart", "system/*.rs").replace("sandbox-launch", "sandbox-backend")
SLOW_FORM = (
    b"POST /oauth/token HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n"
    b"Content-Length: 100\r\n\r\ngrant_type=refresh"
)


async def slow_form(stage: BrokerStage) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(stage.public_url.rpartition(":")[2]))
    writer.write(SLOW_FORM)
    await writer.drain()
    return reader, writer


async def test_a_handle_that_may_not_be_a_bearers_is_not_laundered_by_another_app(
    sandbox: Sandbox, redis: Redis, tmp_path: Path
) -> None:
    """(HB-03, OA-18)"""
    async with open_stage(sandbox, redis, tmp_path, more=SUMMARY) as stage:
        app, summary = stage.app(), App(stage.base, "summary", auth=SUMMARYS)
        given = await app.standalone()
        before = (await exchanged(summary, given["access_token"]))["access_token"]
        path, settings = f"/fhir/sandbox/Patient/{given['patient']}", stage.broker.settings
        held = tuple(
            one.model_copy(update={"dpop": "required" if one.id == app.client_id else one.dpop}) for one in settings.app
        )
        async with (
            open_broker(
                settings.model_copy(update={"app": held}),
                redis=redis,
                kek=LocalKeyring([KEY]),
                audit_file=tmp_path / "held.jsonl",
                clock=stage.clock,
            ) as broker,
            httpx2.AsyncClient(
                transport=httpx2.ASGITransport(app=broker.application), base_url=stage.public_url
            ) as http,
        ):
            for handle in (given["access_token"], before):
                assert (await http.get(path, headers={"Authorization": f"Bearer {handle}"})).status_code == 401
            form = {
                "grant_type": GRANT_TYPE,
                "subject_token": given["access_token"],
                "subject_token_type": ACCESS_TOKEN,
            }
            answer = await http.post("/oauth/token", data=form, auth=SUMMARYS)
            assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
            asked: list[tuple[dict[str, str], Any]] = [
                ({"token": given["access_token"], "client_id": app.client_id}, httpx2.USE_CLIENT_DEFAULT),
                ({"token": before}, SUMMARYS),
            ]
            for question, auth in asked:
                said = (await http.post("/oauth/introspect", data=question, auth=auth)).json()
                assert said == {"active": False}
        await app.close()
        await summary.close()


async def test_filters_that_an_app_thinks_of_are_not_each_a_grant_of_the_ehrs(reports: App, stage: BrokerStage) -> None:
    """(BS-04, SC-05)"""
    form = {"grant_type": "client_credentials", "resource": reports.base}
    answers = [await reports.token(**form, scope=f"system/Observation.rs?code=x{number}") for number in range(40)]

    assert {answer.status_code for answer in answers} == {200}
    assert stage.sandbox.counts()["token.client_credentials"] == 1
    given = answers[7].json()
    assert given["scope"] == "system/Observation.rs?code=x7"
    handle = given["access_token"]
    assert (await reports.fhir(handle, "Observation?code=x7")).status_code == 200
    for path, sent in (("Observation?code=x8", "code=x8&code=x7"), ("Observation", "code=x7")):
        answer = await reports.fhir(handle, path)
        assert (answer.status_code, answer.json().get("entry")) == (200, None)
        assert answer.json()["link"][0]["url"] == f"{reports.base}/Observation?{sent}"


async def test_an_app_has_only_so_many_new_grants_asked_for_at_a_time(
    sandbox: Sandbox, redis: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(BS-04)"""
    monkeypatch.setattr(backend_grants, "ASKED_SECONDS", 20.0)  # the sandbox takes no assertion from further ahead
    async with open_stage(sandbox, redis, tmp_path, more=WIDE) as stage:
        app = App(stage.base, "wide", auth=("wide", APP_SECRET_TEXT))
        form = {"grant_type": "client_credentials", "resource": stage.base}
        letters = [left + right for left in "abcdefgh" for right in "abcdefgh"]
        scopes = [f"system/Observation.rs system/Made{name}.r" for name in letters[: MOST_ASKED + 1]]
        answers = [await app.token(**form, scope=scope) for scope in scopes]

        assert [answer.status_code for answer in answers] == [200] * MOST_ASKED + [400]
        assert answers[-1].json()["error"] == "invalid_request"
        assert sandbox.counts()["token.client_credentials"] == MOST_ASKED
        assert (await app.token(**form, scope=scopes[0])).status_code == 200
        stage.clock.advance(20)
        assert (await app.token(**form, scope=scopes[-1])).status_code == 200
        await app.close()


async def test_a_form_that_stalls_is_given_up(stage: BrokerStage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parameters, "FORM_SECONDS", 0.2)
    with logged("the form stalled"):
        reader, writer = await slow_form(stage)
        async with asyncio.timeout(5):
            answer = await reader.readuntil(b"}")
    assert answer.startswith(b"HTTP/1.1 400")
    assert b"The body came too slowly." in answer
    writer.close()


async def test_an_app_that_leaves_in_the_middle_of_a_form_is_nothing_unforeseen(stage: BrokerStage) -> None:
    before = len(stage.audit_lines())
    _, writer = await slow_form(stage)
    writer.close()
    await until(lambda: len(stage.audit_lines()) > before)
    (line,) = stage.audit_lines()[before:]
    assert '"event":"request.unreadable","outcome":"denied"' in line
    assert "the app went away while sending" in line
