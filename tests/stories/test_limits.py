"""Handles that are limited beside their scope: by token exchange (RFC 8693), and by the policy of their app."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import httpx2
import pytest
from redis.asyncio import Redis

from broker.app import open_broker
from broker.settings.deployment import CertificateHeader
from broker.vault import LocalKeyring
from tests.stage import App, BrokerStage, Sandbox, open_stage
from tests.stage.broker import APP_SECRET_TEXT, KEY
from tests.stories.test_exchange import acting, ask, exchanged, introspected, records, revoke, statuses

SUMMARY = acting("summary", "growth-chart", "launch/patient patient/Patient.rs patient/Observation.rs")
PROXIES = CertificateHeader("Client-Cert", (ip_network("127.0.0.2"),))
SYSTEM = "system/Patient.rs system/Observation.rs"


@pytest.fixture
async def stage(sandbox: Sandbox, redis: Redis, tmp_path: Path) -> AsyncIterator[BrokerStage]:
    async with open_stage(sandbox, redis, tmp_path, more=SUMMARY, certificate_header=PROXIES) as stage:
        yield stage


@pytest.fixture
async def through_another_replica(stage: BrokerStage, app: App, tmp_path: Path) -> AsyncIterator[App]:
    """The same app; its requests reach a second broker on the same store, from 127.0.0.1."""
    async with (
        open_broker(
            stage.broker.settings,
            redis=stage.redis,
            kek=LocalKeyring([KEY]),
            audit_file=tmp_path / "second.jsonl",
            clock=stage.clock,
            keep_every=None,
        ) as second,
        httpx2.AsyncClient(transport=httpx2.ASGITransport(app=second.application)) as http,
    ):
        yield App(app.base, app.client_id, http=http)


@pytest.fixture
async def through_a_proxy(stage: BrokerStage, app: App) -> AsyncIterator[App]:
    """The same app; its requests come from the address of a declared proxy."""
    transport = httpx2.AsyncHTTPTransport(local_address="127.0.0.2")
    async with httpx2.AsyncClient(transport=transport, timeout=30) as http:
        yield App(app.base, app.client_id, http=http)


def asked(stage: BrokerStage) -> list[dict[str, str]]:
    """Return the parameters of the FHIR requests that reached the EHR."""
    return [entry["parameters"] for entry in stage.sandbox.journal("fhir")]


async def follow(app: App, handle: str, url: str) -> httpx2.Response:
    return await app.http.get(url, headers={"Authorization": f"Bearer {handle}"})


def next_link(page: dict[str, Any]) -> str | None:
    return next((str(link["url"]) for link in page["link"] if link["relation"] == "next"), None)


async def system_handle(reports: App) -> str:
    form = {"grant_type": "client_credentials", "resource": reports.base, "scope": SYSTEM}
    return str((await reports.token(**form)).json()["access_token"])


async def test_a_handle_is_limited_and_says_so_wherever_it_is_asked(app: App, stage: BrokerStage) -> None:
    """HB-05, HB-02, HB-09, OA-18."""
    given = await app.standalone()
    limits = {
        "types": "Patient Observation",
        "interactions": "search-type read",
        "max_count": "20",
        "read_only": "true",
        "network": "127.0.0.0/8 ::ffff:10.0.0.0/104",
    }
    told = {
        "types": "Observation Patient",
        "interactions": "read search-type",
        "max_count": 20,
        "read_only": True,
        "network": "10.0.0.0/8 127.0.0.0/8",
    }

    answer = await exchanged(app, given["access_token"], **limits)

    handle, patient = answer["access_token"], given["patient"]
    assert {name: answer[name] for name in told} == told
    described = await introspected(app, handle)
    assert {name: described[name] for name in told} == told
    assert "nbf" not in described
    assert "types" not in await introspected(app, given["access_token"])
    calls = stage.sandbox.counts()["fhir"]
    assert await statuses(app, f"Patient/{patient}", handle) == [200]
    for path in (f"Condition?patient={patient}", f"Patient/{patient}/_history", f"Patient/{patient}/Observation"):
        refused = await app.fhir(handle, path)
        assert (refused.status_code, refused.json()["issue"][0]["code"]) == (403, "forbidden")
        assert 'error="insufficient_scope"' in refused.headers["www-authenticate"]
    assert (await app.fhir(handle, "Observation", method="POST", json={})).status_code == 403
    assert stage.sandbox.counts()["fhir"] == calls + 1
    names = "types interactions max_count read_only network"
    assert records(stage, "handle.mint")[-1]["limits"] == names
    used = records(stage, "handle.use")
    assert {record["limits"] for record in used} == {names}
    assert {record["reason"].partition(": ")[2] for record in used if record["outcome"] == "denied"} == {
        "limit types: Condition.s is of none of them",
        "limit interactions: history-instance is not among them",
        "limit interactions: search-compartment is not among them",
        "limit interactions: create is not among them",
    }
    await app.fhir(given["access_token"], f"Patient/{patient}")
    assert "limits" not in records(stage, "handle.use")[-1]


async def test_what_is_exchanged_for_a_limited_handle_has_what_both_allow(app: App, summary: App) -> None:
    """HB-05: nothing widens, also not by way of another app."""
    given = await app.standalone()
    first = await exchanged(
        app, given["access_token"], types="Patient Observation", max_count="20", network="127.0.0.0/8"
    )

    second = await exchanged(
        summary, first["access_token"], types="Observation Encounter", max_count="50", network="127.0.0.0/24 ::/0"
    )
    third = await exchanged(summary, second["access_token"])

    for answer in (second, third):
        told = {name: answer[name] for name in ("types", "max_count", "network")}
        assert told == {"types": "Observation", "max_count": 20, "network": "127.0.0.0/24"}
    path = f"Patient/{given['patient']}"
    assert await statuses(summary, path, first["access_token"], third["access_token"]) == [200, 403]


@pytest.fixture
async def summary(stage: BrokerStage) -> AsyncIterator[App]:
    app = App(stage.base, "summary", auth=("summary", APP_SECRET_TEXT))
    yield app
    await app.close()


@pytest.mark.parametrize(
    ("first", "second", "error"),
    [
        ({"types": "Patient"}, {"types": "Observation"}, "invalid_scope"),
        ({"interactions": "read"}, {"interactions": "vread $everything"}, "invalid_scope"),
        ({"network": "127.0.0.0/8"}, {"network": "10.0.0.0/8 ::/0"}, "invalid_scope"),
        ({}, {"not_before": "99999999999"}, "invalid_scope"),
        ({}, {"not_after": "1"}, "invalid_request"),
        ({}, {"not_after": "soon"}, "invalid_request"),
        ({}, {"network": "127.0.0.1/8"}, "invalid_request"),
        ({}, {"interactions": "batch"}, "invalid_request"),
    ],
)
async def test_an_exchange_that_leaves_nothing_or_is_malformed_is_refused(
    app: App, stage: BrokerStage, first: dict[str, str], second: dict[str, str], error: str
) -> None:
    """HB-05."""
    handle = (await exchanged(app, (await app.standalone())["access_token"], **first))["access_token"]
    calls = stage.sandbox.counts()

    answer = await ask(app, handle, **second)

    assert (answer.status_code, answer.json()["error"]) == (400, error)
    assert answer.json()["error_description"].startswith(f"{next(iter(second))} ")
    assert stage.sandbox.counts() == calls


async def test_a_handle_works_in_its_time_and_no_longer(
    app: App, stage: BrokerStage, through_another_replica: App
) -> None:
    """HB-02: on every replica."""
    given = await app.standalone()
    path, now = f"Patient/{given['patient']}", stage.clock()
    ends = datetime.fromtimestamp(int(now) + 200, UTC).isoformat()

    answer = await exchanged(app, given["access_token"], not_before=f"{int(now) + 100}", not_after=ends)

    handle = answer["access_token"]
    assert answer["not_before"] == int(now) + 100
    assert 190 <= answer["expires_in"] <= 200, "the clock goes on"
    calls = stage.sandbox.counts()["fhir"]
    for replica in (app, through_another_replica):
        early = await replica.fhir(handle, path)
        assert (early.status_code, early.json()["issue"][0]["diagnostics"]) == (
            401,
            "The access token is not valid yet.",
        )
    assert stage.sandbox.counts()["fhir"] == calls
    assert await introspected(app, handle) == {"active": False}
    stage.clock.advance(101)
    assert [await statuses(replica, path, handle) for replica in (app, through_another_replica)] == [[200], [200]]
    described = await introspected(app, handle)
    assert described["nbf"] == int(now) + 100
    assert int(now) + 190 <= described["exp"] <= int(now) + 200
    assert "not_before" not in described
    stage.clock.advance(100)
    assert [await statuses(replica, path, handle) for replica in (app, through_another_replica)] == [[401], [401]]


async def test_every_limit_and_every_end_holds_on_every_replica(
    app: App, stage: BrokerStage, through_another_replica: App
) -> None:
    """HB-02, HB-08: one read of the store decides, wherever the request arrives."""
    given = await app.standalone()
    root, path = given["access_token"], f"Patient/{given['patient']}"
    narrow = (await exchanged(app, root, interactions="read", network="127.0.0.0/8"))["access_token"]
    narrower = (await exchanged(through_another_replica, narrow, types="Observation"))["access_token"]
    replicas = (app, through_another_replica)

    assert [await statuses(one, path, root, narrow, narrower) for one in replicas] == [[200, 200, 403]] * 2
    assert [await statuses(one, f"{path}/_history", root, narrow) for one in replicas] == [[200, 403]] * 2

    await revoke(through_another_replica, narrow)

    assert [await statuses(one, path, root, narrow, narrower) for one in replicas] == [[200, 401, 401]] * 2


async def test_a_handle_for_a_network_is_good_there_only(app: App, stage: BrokerStage, through_a_proxy: App) -> None:
    """HB-02, OA-25: the address that counts is the one that a declared proxy says, and nobody else's word for it."""
    given = await app.standalone()
    path, root = f"Patient/{given['patient']}", given["access_token"]
    outside, here = [
        (await exchanged(app, root, network=network))["access_token"]
        for network in ("203.0.113.0/24 2001:db8::/32", "127.0.0.1")
    ]
    calls = stage.sandbox.counts()["fhir"]

    async def status(caller: App, handle: str, forwarded: str | None = None) -> int:
        headers = {} if forwarded is None else {"X-Forwarded-For": forwarded}
        return (await caller.fhir(handle, path, headers=headers)).status_code

    for address in ("203.0.113.9", "::ffff:203.0.113.9", "2001:db8::1", "198.51.100.1, 203.0.113.9"):
        assert await status(through_a_proxy, outside, address) == 200, address
    for elsewhere in (None, "198.51.100.1", "203.0.113.9, 198.51.100.1", "2001:db9::1", "unknown", "203.0.113.9x"):
        assert await status(through_a_proxy, outside, elsewhere) == 401, elsewhere
    assert await status(app, here) == 200
    assert await status(app, outside, "203.0.113.9") == 401, "who is no proxy can claim what they like"
    assert await status(through_a_proxy, here, "203.0.113.9") == 401
    assert stage.sandbox.counts()["fhir"] == calls + 5
    denied = [record["reason"] for record in records(stage, "handle.use") if record["outcome"] == "denied"]
    assert set(denied) == {
        "invalid_token: limit network: the caller is elsewhere",
        "invalid_token: limit network: the caller's address is not known",
    }
    assert await introspected(app, outside) == {"active": False}, "who finds it elsewhere is told nothing"
    assert (await introspected(app, here))["active"]


@pytest.mark.parametrize("style", ["opaque", "session-id", "page-context"])
async def test_a_cap_holds_for_every_page_of_a_search(reports: App, stage: BrokerStage, style: str) -> None:
    """HB-02, PX-07: the request that goes on is the one that was decided on."""
    stage.sandbox.switch(page_links=style)
    wide = await system_handle(reports)
    narrow = (await exchanged(reports, wide, max_count="2"))["access_token"]
    everybody = (await reports.fhir(wide, "Patient?_count=50")).json()
    ids = [entry["resource"]["id"] for entry in everybody["entry"]][:8]
    begun = len(asked(stage))

    found: list[str] = []
    url: str | None = f"{reports.base}/Patient?_count=50"
    while url and len(found) < len(ids):
        page = (await follow(reports, narrow, url)).json()
        assert len(page["entry"]) <= 2
        found += [entry["resource"]["id"] for entry in page["entry"]]
        url = next_link(page)

    assert found == ids
    assert [parameters["_count"] for parameters in asked(stage)[begun:]] == ["2"] * 4

    by_form = await reports.fhir(
        narrow,
        "Patient/_search",
        method="POST",
        content=b"_count=50",
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    )
    assert len(by_form.json()["entry"]) == 2


async def test_pages_behind_opaque_links_are_of_the_search_that_a_handle_may_do(
    reports: App, stage: BrokerStage
) -> None:
    """PX-07, HB-02: the broker's part of the link says what it goes on with."""
    wide = await system_handle(reports)
    searching, reading = [
        (await exchanged(reports, wide, interactions=names))["access_token"] for names in ("search-type", "read")
    ]
    url = next_link((await reports.fhir(searching, "Patient?_count=2")).json())
    assert url
    assert "_sbpage=" in url

    answers = [await follow(reports, handle, url) for handle in (searching, reading)]

    assert [answer.status_code for answer in answers] == [200, 403]
    denied = records(stage, "handle.use")[-1]["reason"]
    assert denied == "insufficient_scope: limit interactions: search-type is not among them"


POLICY = """
[[app]]
id = "kiosk"
authentication = "none"
redirect_uris = ["http://127.0.0.1:1/callback"]
[app.limits]
interactions = ["read", "search-type"]
max_count = 5
[[app.access]]
registration = "sandbox-launch"
scopes = "launch/patient patient/*.cruds"
[app.access.limits]
read_only = true
network = ["127.0.0.0/8"]
"""


async def test_a_policy_limits_every_handle_of_its_app(sandbox: Sandbox, redis: Redis, tmp_path: Path) -> None:
    """HB-02: what is issued and what is exchanged for it, as the policy is when the handle is used."""
    async with open_stage(sandbox, redis, tmp_path, more=POLICY) as stage:
        kiosk = App(stage.base, "kiosk")
        given = await kiosk.standalone(scope="launch/patient patient/*.cruds")
        root, patient = given["access_token"], given["patient"]
        narrow = (await exchanged(kiosk, root, max_count="50", types="Patient Observation"))["access_token"]

        for handle in (root, narrow):
            assert await statuses(kiosk, f"Patient/{patient}", handle) == [200]
            assert await statuses(kiosk, f"Patient/{patient}/_history", handle) == [403]
            assert await statuses(kiosk, f"Observation?patient={patient}&_count=50", handle) == [200]
            assert asked(stage)[-1]["_count"] == "5"
            assert (await kiosk.fhir(handle, f"Observation/{patient}", method="DELETE")).status_code == 403
        told: dict[str, Any] = await introspected(kiosk, narrow)
        assert json.loads(json.dumps(told)) == told
        assert {name: told.get(name) for name in ("types", "interactions", "max_count", "read_only", "network")} == {
            "types": "Observation Patient",
            "interactions": "read search-type",
            "max_count": 5,
            "read_only": True,
            "network": "127.0.0.0/8",
        }
        await kiosk.close()
