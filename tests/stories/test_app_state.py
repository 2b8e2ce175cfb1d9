"""SMART App State through the proxy: small `Basic` resources that an app keeps at the EHR (SMART 2.2, App State)."""

import hashlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from redis.asyncio import Redis

from tests.stage import App, BrokerStage, Sandbox, open_stage
from tests.stage.broker import APP_SECRET_TEXT, days_ahead
from tests.stories.held import FOREVER, code_of, upstream

SYSTEM, CODE = "https://app.example/state", "growth-chart-preferences"
APPS = """
[[app]]
id = "keeper"
authentication = "none"
redirect_uris = ["http://127.0.0.1:1/callback"]
[[app.access]]
registration = "sandbox-launch"
scopes = "launch/patient patient/Basic.cruds"

[[app]]
id = "reader"
authentication = "none"
redirect_uris = ["http://127.0.0.1:1/callback"]
[[app.access]]
registration = "sandbox-launch"
scopes = "launch/patient patient/Basic.rs"

[[app]]
id = "everybodys"
authentication = "client_secret_basic"
[[app.secret]]
hash = "sha256:{hash}"
expires = {expires}
[[app.access]]
registration = "sandbox-backend"
scopes = "system/Basic.cruds"
"""
HOSTILE = '<script>alert(1)</script> "relation":"next","url":"https://evil.example/" {{7*7}}'


@dataclass
class Keeper:
    """An app that keeps state, with its handle."""

    stage: BrokerStage
    app: App
    handle: str
    patient: str

    def state(self, value: str = "on", **members: Any) -> dict[str, Any]:
        return {
            "resourceType": "Basic",
            "code": {"coding": [{"system": SYSTEM, "code": CODE}]},
            "subject": {"reference": f"Patient/{self.patient}"},
            "extension": [{"url": f"{SYSTEM}/theme", "valueString": value}],
            **members,
        }

    async def send(self, method: str, path: str, body: object = None, **headers: str) -> httpx2.Response:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        if body is None:
            return await self.app.fhir(self.handle, path, method=method, headers=names)
        names["Content-Type"] = "application/fhir+json"
        return await self.app.fhir(self.handle, path, method=method, content=json.dumps(body), headers=names)


@pytest.fixture
async def state_stage(sandbox: Sandbox, redis: Redis, tmp_path: Path) -> AsyncIterator[BrokerStage]:
    digest = hashlib.sha256(APP_SECRET_TEXT.encode()).hexdigest()
    async with open_stage(sandbox, redis, tmp_path, more=APPS.format(hash=digest, expires=days_ahead(30))) as stage:
        yield stage


@pytest.fixture
async def keeper(state_stage: BrokerStage) -> AsyncIterator[Keeper]:
    app = App(state_stage.base, "keeper")
    given = await app.standalone(scope="launch/patient patient/Basic.cruds")
    yield Keeper(state_stage, app, given["access_token"], given["patient"])
    await app.close()


@pytest.fixture
async def everybodys(state_stage: BrokerStage) -> AsyncIterator[Keeper]:
    app = App(state_stage.base, "everybodys", auth=("everybodys", APP_SECRET_TEXT))
    given = await app.token(grant_type="client_credentials", scope="system/Basic.cruds", resource=app.base)
    yield Keeper(state_stage, app, given.json()["access_token"], "nobody")
    await app.close()


async def test_state_is_created_as_it_was_written_and_lies_at_the_brokers_address(keeper: Keeper) -> None:
    """(AS-01) (AS-02): with neither id nor version, and its one code and its texts untouched."""
    state = keeper.state(value="1.10 \u00e9")

    created = await keeper.send("POST", "Basic", state)
    stored = await keeper.send("GET", f"Basic/{created.json()['id']}")

    assert (created.status_code, created.headers["etag"]) == (201, 'W/"1"')
    assert created.headers["location"].startswith(f"{keeper.app.base}/Basic/")
    assert {name: stored.json()[name] for name in state} == state


async def test_state_may_be_as_large_as_servers_take_it(keeper: Keeper) -> None:
    """(AS-02): 256 KiB; the size is the EHR's to refuse."""
    state = keeper.state(value="x" * (256 * 1024 - 1024))

    created = await keeper.send("POST", "Basic", state)

    assert created.status_code == 201
    assert created.json()["extension"] == state["extension"]


async def test_who_changes_what_another_has_changed_since_is_told_and_changes_nothing(keeper: Keeper) -> None:
    """(AS-03): If-Match and ETag pass as they are, and 412 comes back."""
    id_ = (await keeper.send("POST", "Basic", keeper.state())).json()["id"]
    path = f"Basic/{id_}"

    first = await keeper.send("PUT", path, keeper.state("off", id=id_), If_Match='W/"1"')
    stale = [
        await keeper.send("PUT", path, keeper.state("lost", id=id_), If_Match='W/"1"'),
        await keeper.send("DELETE", path, If_Match='W/"1"'),
    ]
    stored = await keeper.send("GET", path)
    deleted = await keeper.send("DELETE", path, If_Match='W/"2"')
    gone = await keeper.send("GET", path)

    assert (first.status_code, first.headers["etag"]) == (200, 'W/"2"')
    assert [answer.status_code for answer in stale] == [412, 412]
    assert [answer.json()["resourceType"] for answer in stale] == ["OperationOutcome"] * 2
    assert stored.json()["extension"][0]["valueString"] == "off"
    assert (deleted.status_code, gone.status_code) == (204, 410)


async def test_state_is_found_by_code_and_by_whose_it_is_or_that_it_is_nobodys(
    keeper: Keeper, everybodys: Keeper
) -> None:
    """(AS-04): the modifier's colon and the code's bar arrive as they were meant."""
    own = (await keeper.send("POST", "Basic", keeper.state())).json()["id"]
    shared = {name: value for name, value in everybodys.state().items() if name != "subject"}
    of_all = (await everybodys.send("POST", "Basic", shared)).json()["id"]

    by_subject = await keeper.send("GET", f"Basic?code={SYSTEM}%7C{CODE}&subject=Patient/{keeper.patient}")
    nobodys = await everybodys.send("GET", f"Basic?code={SYSTEM}%7C{CODE}&subject:missing=true")
    escaped = await everybodys.send("GET", f"Basic?code={SYSTEM}%7C{CODE}&subject%3Amissing=true")

    assert [entry["resource"]["id"] for entry in by_subject.json()["entry"]] == [own]
    for answer in (nobodys, escaped):
        assert [entry["resource"]["id"] for entry in answer.json()["entry"]] == [of_all]


async def test_hostile_state_comes_back_as_data_and_is_kept_by_the_ehr_alone(keeper: Keeper) -> None:
    """(AS-05): not as a page, not as a link, and nowhere in the broker's own store or trail."""
    created = await keeper.send("POST", "Basic", keeper.state(HOSTILE))

    stored = await keeper.send("GET", f"Basic/{created.json()['id']}")

    assert stored.json()["extension"][0]["valueString"] == HOSTILE
    assert stored.headers["content-type"].startswith("application/fhir+json")
    assert stored.headers["x-content-type-options"] == "nosniff"
    kept = [await keeper.stage.redis.dump(key) async for key in keeper.stage.redis.scan_iter("*")]
    assert kept
    assert not any(b"alert(1)" in (value or b"") for value in kept)
    assert not any("alert(1)" in line for line in keeper.stage.audit_lines())


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "Basic"), ("GET", "Basic?code=x"), ("PUT", "Basic/1"), ("DELETE", "Basic/1")]
)
async def test_every_call_needs_a_handle_and_the_scope_for_it(state_stage: BrokerStage, method: str, path: str) -> None:
    """(AS-06): reading is no right to write, and without a handle nothing is asked of the EHR."""
    app = App(state_stage.base, "reader")
    given = await app.standalone(scope="launch/patient patient/Basic.rs")
    reader = Keeper(state_stage, app, given["access_token"], given["patient"])
    before = upstream(state_stage.sandbox)

    nobody = await app.http.request(method, f"{app.base}/{path}")
    answer = None if method == "GET" else await reader.send(method, path, reader.state())
    await app.close()

    assert nobody.status_code == 401
    assert answer is None or (answer.status_code, code_of(answer)) == (403, "insufficient_scope")
    assert upstream(state_stage.sandbox) == before


async def test_an_associated_endpoint_of_the_ehr_is_neither_offered_nor_sent_a_token(
    state_stage: BrokerStage, sandbox: Sandbox
) -> None:
    """(AS-01) (AS-06): taking it up is a MAY; a token goes to the FHIR base it was granted for."""
    place = f"{sandbox.origin}/state"
    listed = {"url": place, "capabilities": ["smart-app-state"]}
    sandbox.fault("discovery_members", times=FOREVER, set={"associated_endpoints": [listed]})
    app = App(state_stage.base, "keeper")

    given = await app.standalone(scope="launch/patient patient/Basic.cruds")
    offered = await app.endpoints()
    answer = await app.fhir(given["access_token"], f"associated/0/Basic?code={CODE}")
    await app.close()

    assert "associated_endpoints" not in offered
    assert place not in json.dumps(offered)
    assert (answer.status_code, code_of(answer)) == (403, "uninterpretable_interaction")
    assert sandbox.journal("fhir") == []
