"""Token exchange (RFC 8693): an app narrows its handle, or lets another app act for it."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from redis.asyncio import Redis

from broker.app import Broker, open_broker
from broker.errors import InvalidHandle
from broker.vault import LocalKeyring
from tests.stage import App, BrokerStage, Sandbox, open_stage
from tests.stage.broker import APP_SECRET_TEXT, KEY, stage_toml

GRANT_TYPE = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"
ACTING = """
[[app]]
id = "{id}"
authentication = "client_secret_basic"
redirect_uris = ["http://127.0.0.1:1/callback"]
exchange_from = ["{holder}"]
[[app.secret]]
hash = "{hash}"
expires = {expires}
[[app.access]]
registration = "sandbox-launch"
scopes = "{scopes}"
"""


def acting(id_: str, holder: str, scopes: str) -> str:
    """Write the table of an app that may exchange another's handles; its secret is the one of `reports`."""
    lines = stage_toml("http://127.0.0.1:1", "http://127.0.0.1:1").splitlines()
    found = {name: line for name in ("hash", "expires") for line in lines if line.startswith(f"{name} = ")}
    said = {name: line.partition(" = ")[2].strip('"') for name, line in found.items()}
    return ACTING.format(id=id_, holder=holder, scopes=scopes, **said)


SUMMARY = acting("summary", "growth-chart", "launch/patient patient/Patient.rs patient/Observation.rs")
ARCHIVE = acting("archive", "summary", "patient/Observation.rs")


@pytest.fixture
async def stage(sandbox: Sandbox, redis: Redis, tmp_path: Path) -> AsyncIterator[BrokerStage]:
    async with open_stage(sandbox, redis, tmp_path, more=SUMMARY + ARCHIVE) as stage:
        yield stage


@pytest.fixture
async def other_replica(stage: BrokerStage, tmp_path: Path) -> AsyncIterator[Broker]:
    async with open_broker(
        stage.broker.settings,
        redis=stage.redis,
        kek=LocalKeyring([KEY]),
        audit_file=tmp_path / "o.jsonl",
        clock=stage.clock,
    ) as broker:
        yield broker


@pytest.fixture
async def summary(stage: BrokerStage) -> AsyncIterator[App]:
    app = App(stage.base, "summary", auth=("summary", APP_SECRET_TEXT))
    yield app
    await app.close()


@pytest.fixture
async def archive(stage: BrokerStage) -> AsyncIterator[App]:
    app = App(stage.base, "archive", auth=("archive", APP_SECRET_TEXT))
    yield app
    await app.close()


async def ask(app: App, handle: str, **more: str) -> httpx2.Response:
    form = {"grant_type": GRANT_TYPE, "subject_token": handle, "subject_token_type": ACCESS_TOKEN}
    return await app.token(**form, **more)


async def exchanged(app: App, handle: str, **more: str) -> dict[str, Any]:
    answer = await ask(app, handle, **more)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def introspected(app: App, handle: str) -> dict[str, Any]:
    url = app.base.rpartition("/fhir/")[0] + "/oauth/introspect"
    form = {"token": handle} if app.auth else {"token": handle, "client_id": app.client_id}
    return dict((await app.http.post(url, data=form, auth=app.auth or httpx2.USE_CLIENT_DEFAULT)).json())


async def revoke(app: App, token: str) -> None:
    url = app.base.rpartition("/fhir/")[0] + "/oauth/revoke"
    form = {"token": token} if app.auth else {"token": token, "client_id": app.client_id}
    answer = await app.http.post(url, data=form, auth=app.auth or httpx2.USE_CLIENT_DEFAULT)
    assert answer.status_code == 200


async def statuses(app: App, path: str, *handles: str) -> list[int]:
    return [(await app.fhir(handle, path)).status_code for handle in handles]


def records(stage: BrokerStage, event: str) -> list[dict[str, Any]]:
    return [record for line in stage.audit_lines() if (record := json.loads(line))["event"] == event]


# An app and its own handle


async def test_an_app_narrows_its_handle(app: App, stage: BrokerStage) -> None:
    """HB-05, OA-18, HB-02, HB-09."""
    given = await app.standalone()
    patient = given["patient"]
    calls = stage.sandbox.counts()

    answer = await exchanged(app, given["access_token"], scope="patient/Patient.r", expires_in="60", resource=app.base)

    assert answer.pop("access_token").startswith("sbh_")
    assert answer.pop("need_patient_banner", None) in {None, True, False}
    assert {name: answer[name] for name in answer if name != "smart_style_url"} == {
        "issued_token_type": ACCESS_TOKEN,
        "token_type": "Bearer",
        "expires_in": 60,
        "scope": "patient/Patient.r",
        "patient": patient,
    }
    assert stage.sandbox.counts() == calls, "the EHR has no part in it"
    narrow = app.answers[-1].json()["access_token"]
    assert (await app.fhir(narrow, f"Patient/{patient}")).status_code == 200
    assert (await app.fhir(narrow, f"Observation?patient={patient}")).status_code == 403
    minted = records(stage, "handle.mint")[-1]
    assert (minted["outcome"], minted["handle"], minted["scope"]) == (
        "allowed",
        (await stage.broker.handles.redeem(narrow, "sandbox"))[0].id,
        "patient/Patient.r",
    )
    assert "actors" not in minted
    assert "act" not in await introspected(app, narrow)


async def test_an_exchange_that_asks_for_nothing_gives_the_same_without_a_refresh(app: App) -> None:
    """HB-05, OA-18."""
    given = await app.standalone()

    answer = await exchanged(app, given["access_token"])

    assert answer["scope"] == "fhirUser launch/patient openid patient/*.rs"
    assert "refresh_token" not in answer
    assert answer["fhirUser"] == given["fhirUser"]
    assert 290 <= answer["expires_in"] <= 300


async def test_what_is_exchanged_ends_no_later_than_what_it_is_exchanged_for(app: App, stage: BrokerStage) -> None:
    """HB-02, HB-05."""
    given = await app.standalone()
    stage.clock.advance(200)

    answer = await exchanged(app, given["access_token"], expires_in="3600")

    assert 90 <= answer["expires_in"] <= 100
    path = f"Patient/{given['patient']}"
    assert (await app.fhir(answer["access_token"], path)).status_code == 200
    stage.clock.advance(answer["expires_in"])
    assert (await app.fhir(answer["access_token"], path)).status_code == 401


@pytest.mark.parametrize("times", [1, 3])
async def test_a_handle_with_uses_works_that_many_times_over_all_replicas(
    app: App, stage: BrokerStage, other_replica: Broker, times: int
) -> None:
    """HB-02, HB-05."""
    given = await app.standalone()
    path = f"Patient/{given['patient']}"
    narrow = (await exchanged(app, given["access_token"], uses=str(times)))["access_token"]
    handle, _ = await other_replica.handles.redeem(narrow, "sandbox")
    calls = stage.sandbox.counts()["fhir"]

    answers = await asyncio.gather(*(app.fhir(narrow, path) for _ in range(8)))

    assert sorted(answer.status_code for answer in answers) == [200] * times + [401] * (8 - times)
    assert stage.sandbox.counts()["fhir"] == calls + times
    with pytest.raises(InvalidHandle, match="no uses left"):
        await other_replica.handles.take_use(handle)
    denied = [record for record in records(stage, "handle.use") if record["outcome"] == "denied"]
    assert {record["reason"] for record in denied} <= {
        f"invalid_token: handle {handle.id} has no uses left",
        "invalid_token: unknown, expired or revoked",
    }
    assert not (await introspected(app, narrow))["active"]
    assert (await ask(app, narrow)).status_code == 400
    assert (await app.fhir(given["access_token"], path)).status_code == 200


async def test_what_is_refused_takes_no_use(app: App, stage: BrokerStage) -> None:
    """HB-05."""
    given = await app.standalone()
    narrow = (await exchanged(app, given["access_token"], uses="1", scope="patient/Patient.r"))["access_token"]

    assert await statuses(app, "Patient/somebody-else", narrow, narrow) == [403, 403]
    unsendable = await app.fhir(narrow, f"Patient/{given['patient']}", headers={"If-Match": "x" * 5000})
    denied = records(stage, "handle.use")[-1]
    assert (unsendable.status_code, denied["outcome"], denied["registration"]) == (400, "denied", "sandbox-launch")
    assert await statuses(app, f"Patient/{given['patient']}", narrow, narrow) == [200, 401]


async def test_a_systems_handle_is_narrowed_to_one_patient(reports: App) -> None:
    """HB-02, HB-05."""
    form = {
        "grant_type": "client_credentials",
        "resource": reports.base,
        "scope": "system/Patient.rs system/Observation.rs",
    }
    wide = (await reports.token(**form)).json()["access_token"]
    found = (await reports.fhir(wide, "Patient?_count=2")).json()["entry"]
    one, another = (entry["resource"]["id"] for entry in found)

    answer = await exchanged(reports, wide, patient=one)

    narrow = answer["access_token"]
    assert answer["patient"] == one
    assert (await introspected(reports, narrow))["patient"] == one
    assert await statuses(reports, f"Patient/{one}", narrow) == [200]
    assert await statuses(reports, f"Observation?patient={one}", narrow) == [200]
    for path in (f"Patient/{another}", f"Observation?patient={another}", "?_type=Observation", "Observation/_history"):
        assert await statuses(reports, path, narrow) == [403]
    again = await exchanged(reports, narrow)
    assert again["patient"] == one
    assert await statuses(reports, f"Patient/{another}", again["access_token"]) == [403]
    refused = await ask(reports, narrow, patient=another)
    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_scope")


# Another app


async def test_another_app_acts_for_the_first_as_far_as_both_policies_go(
    app: App, summary: App, stage: BrokerStage
) -> None:
    """HB-05, OA-18, HB-09."""
    given = await app.standalone()
    patient = given["patient"]

    answer = await exchanged(summary, given["access_token"])

    handle = answer["access_token"]
    assert answer["scope"] == "launch/patient patient/Observation.rs patient/Patient.rs"
    assert await statuses(summary, f"Patient/{patient}", handle) == [200]
    assert await statuses(summary, f"Condition?patient={patient}", handle) == [403]
    told = await introspected(summary, handle)
    assert (told["client_id"], told["act"]) == ("summary", {"sub": "summary", "act": {"sub": "growth-chart"}})
    assert await introspected(app, handle) == {"active": False}, "it is another app's handle now"
    assert records(stage, "handle.mint")[-1]["actors"] == "growth-chart summary"
    used = [record for record in records(stage, "handle.use") if record["app"] == "summary"]
    assert {record["actors"] for record in used if record["outcome"] == "allowed"} == {"growth-chart summary"}
    assert "actors" not in next(record for record in records(stage, "handle.mint") if record["app"] == "growth-chart")


async def test_a_third_app_acts_for_the_second_and_not_for_the_first(app: App, summary: App, archive: App) -> None:
    """HB-05, OA-18."""
    given = await app.standalone()
    assert (await ask(archive, given["access_token"])).json()["error"] == "invalid_request"
    second = (await exchanged(summary, given["access_token"]))["access_token"]

    third = await exchanged(archive, second)

    assert third["scope"] == "patient/Observation.rs"
    assert (await introspected(archive, third["access_token"]))["act"] == {
        "sub": "archive",
        "act": {"sub": "summary", "act": {"sub": "growth-chart"}},
    }


async def test_a_chain_of_exchanges_has_an_end(app: App) -> None:
    """HB-05."""
    handle = (await app.standalone())["access_token"]
    for _ in range(4):
        handle = (await exchanged(app, handle))["access_token"]

    answer = await ask(app, handle)

    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")


async def test_a_handle_is_exchanged_a_bounded_number_of_times(app: App, stage: BrokerStage) -> None:
    """HB-05, HB-09: of those that were announced and not stored the trail says so, by the same id."""
    handle = (await app.standalone())["access_token"]

    answers = await asyncio.gather(*(ask(app, handle) for _ in range(35)))

    assert sorted(answer.status_code for answer in answers) == [200] * 32 + [400] * 3
    assert {answer.json().get("error") for answer in answers} == {None, "invalid_request"}
    refused = [record for record in records(stage, "handle.mint") if record["outcome"] == "denied"]
    assert len(refused) == 3
    announced = {record["handle"]: record for record in records(stage, "handle.mint") if record["outcome"] == "allowed"}
    for record in refused:
        before = announced[record["handle"]]
        assert {**record, "at": 0, "reason": "", "outcome": "allowed"} == {**before, "at": 0, "reason": ""}


# The end


@pytest.mark.parametrize("ended", ["handle", "family", "grant", "by an operator"])
async def test_what_is_exchanged_ends_at_once_with_what_it_was_exchanged_for(
    app: App, summary: App, stage: BrokerStage, other_replica: Broker, ended: str
) -> None:
    """HB-05, HB-08."""
    given = await app.standalone()
    root, path = given["access_token"], f"Patient/{given['patient']}"
    own = (await exchanged(app, root))["access_token"]
    delegated = (await exchanged(summary, own))["access_token"]
    assert await statuses(app, path, root, own, delegated) == [200, 200, 200]

    match ended:
        case "handle":
            await revoke(app, root)
        case "family":
            await revoke(app, given["refresh_token"])
        case "grant":
            await stage.broker.revoke_grant(root[4:16], cause="test")
        case "by an operator":
            handle, _ = await stage.broker.handles.redeem(root, "sandbox")
            assert await other_replica.handles.revoke_by_id(handle.tag, handle.id)

    assert await statuses(app, path, root, own, delegated) == [401, 401, 401]
    for text in (root, own, delegated):
        with pytest.raises(InvalidHandle):
            await other_replica.handles.redeem(text, "sandbox")
    assert (await ask(app, own)).json()["error"] == "invalid_request"


async def test_an_exchanged_handle_ends_alone_with_what_hangs_on_it(app: App, summary: App) -> None:
    """HB-05, HB-08."""
    given = await app.standalone()
    root, path = given["access_token"], f"Patient/{given['patient']}"
    own, sibling = [(await exchanged(app, root))["access_token"] for _ in range(2)]
    delegated = (await exchanged(summary, own))["access_token"]

    await revoke(summary, own)
    assert await statuses(app, path, own) == [200], "it is not the other app's to end"
    await revoke(app, own)

    assert await statuses(app, path, root, sibling, own, delegated) == [200, 200, 401, 401]


async def test_no_exchange_outlives_the_revocation_that_it_races(app: App) -> None:
    """HB-05, HB-08."""
    for _ in range(3):
        given = await app.standalone()
        root = given["access_token"]
        own = (await exchanged(app, root))["access_token"]

        asking = asyncio.gather(*(ask(app, own) for _ in range(12)))
        await revoke(app, root)
        answers = await asking

        issued = [answer.json()["access_token"] for answer in answers if answer.status_code == 200]
        assert {answer.status_code for answer in answers} <= {200, 400}
        assert set(await statuses(app, f"Patient/{given['patient']}", root, own, *issued)) == {401}


# A lost answer, and who is meant


FORGIVING = SUMMARY.replace('exchange_from = ["growth-chart"]', "refresh_grace = 10").replace(
    "patient/Patient.rs patient", "offline_access patient/Patient.rs patient"
)


@pytest.fixture
async def forgiving(sandbox: Sandbox, redis: Redis, tmp_path: Path) -> AsyncIterator[BrokerStage]:
    async with open_stage(sandbox, redis, tmp_path, more=FORGIVING) as stage:
        yield stage


async def refresh(app: App, handle: str) -> httpx2.Response:
    return await app.token(grant_type="refresh_token", refresh_token=handle)


async def test_a_lost_answer_costs_no_launch_where_the_settings_say_so(forgiving: BrokerStage) -> None:
    """RF-03, OA-24, HB-09."""
    app = App(forgiving.base, "summary", auth=("summary", APP_SECRET_TEXT))
    first = await app.standalone(scope="launch/patient offline_access patient/Patient.rs")
    path = f"Patient/{first['patient']}"
    lost = (await refresh(app, first["refresh_token"])).json()
    forgiving.clock.advance(9)

    again = (await refresh(app, first["refresh_token"])).json()

    assert await statuses(app, path, again["access_token"], lost["access_token"]) == [200, 401]
    assert records(forgiving, "handle.mint")[-1]["reason"].startswith("a spent refresh handle within its grace")
    third = (await refresh(app, again["refresh_token"])).json()
    assert await statuses(app, path, third["access_token"]) == [200]

    assert (await refresh(app, lost["refresh_token"])).json()["error"] == "invalid_grant"
    assert await statuses(app, path, third["access_token"], again["access_token"]) == [401, 401], "two had it"
    await app.close()


@pytest.mark.parametrize(("forgiven", "late"), [([0], 0), ([9], 0), ([], 11)])
async def test_a_second_lost_answer_or_a_late_one_ends_the_family(
    forgiving: BrokerStage, forgiven: list[float], late: float
) -> None:
    """RF-03, OA-24."""
    app = App(forgiving.base, "summary", auth=("summary", APP_SECRET_TEXT))
    first = await app.standalone(scope="launch/patient offline_access patient/Patient.rs")
    live = (await refresh(app, first["refresh_token"])).json()
    for pause in forgiven:
        forgiving.clock.advance(pause)
        live = (await refresh(app, first["refresh_token"])).json()
    path = f"Patient/{first['patient']}"
    assert await statuses(app, path, live["access_token"]) == [200]

    forgiving.clock.advance(late)
    answer = await refresh(app, first["refresh_token"])

    assert answer.json()["error"] == "invalid_grant"
    assert await statuses(app, path, live["access_token"]) == [401]
    await app.close()


async def test_a_public_app_refreshes_without_naming_itself(app: App) -> None:
    """RF-01, RF-03: SMART App Launch step 7 asks for no client_id."""
    given = await app.standalone()
    url = app.base.rpartition("/fhir/")[0] + "/oauth/token"

    answer = await app.http.post(url, data={"grant_type": "refresh_token", "refresh_token": given["refresh_token"]})

    assert answer.status_code == 200, answer.text
    path = f"Patient/{given['patient']}"
    assert await statuses(app, path, answer.json()["access_token"]) == [200]
