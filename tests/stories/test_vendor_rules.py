"""Rules of single vendors that hold for every EHR: own bases, own key sets, what is asked for once and never again."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest
from redis.asyncio import Redis

from tests.clients.patients import two_patients
from tests.ehr.server import ScriptedServer, reply, scripted_server
from tests.stage import App, BrokerStage, Sandbox, open_stage
from tests.stage.broker import EHR
from tests.stories.held import Held, audit_of, code_of, hold, upstream

SIBLING = """
[[ehr]]
id = "sibling"
fhir_base = "{base}"
authorize_audience = "{audience}"

[[registration]]
id = "sibling-launch"
ehr = "sibling"
flow = "launch"
client_id = "broker-sibling"
scopes = "launch/patient patient/*.rs"

[[app]]
id = "viewer"
authentication = "none"
redirect_uris = ["http://127.0.0.1:1/callback"]
[[app.access]]
registration = "sandbox-launch"
scopes = "launch/patient patient/*.rs"
[[app.access]]
registration = "sibling-launch"
scopes = "launch/patient patient/*.rs"
"""
TRIAL = """
[[ehr]]
id = "trial"
fhir_base = "{base}"
environment = "non_production"

[[registration]]
id = "trial-launch"
ehr = "trial"
environment = "non_production"
flow = "launch"
client_id = "broker-trial"
scopes = "launch/patient patient/*.rs"
"""


@pytest.fixture
async def siblings(sandbox: Sandbox, redis: Redis, tmp_path: Path) -> AsyncIterator[BrokerStage]:
    """Two FHIR bases of one EHR: the loopback's other name stands for the other version."""
    base = sandbox.fhir_base.replace("127.0.0.1", "localhost")
    more = SIBLING.format(base=base, audience=sandbox.fhir_base)
    async with open_stage(sandbox, redis, tmp_path, more=more) as stage:
        sandbox.register(
            client_id="broker-sibling",
            authentication="private_key_jwt",
            jwks_uri=f"{stage.public_url}/jwks/sibling-launch",
            redirect_uris=[f"{stage.public_url}/callback/sibling-launch"],
            scopes="launch/patient patient/*.rs",
        )
        yield stage


async def test_each_fhir_base_of_an_ehr_is_an_ehr_of_its_own(siblings: BrokerStage) -> None:
    """(PX-13) (PX-03) (OR-01): own grant, own context; a handle for one version's base opens no other's."""
    one = App(siblings.base, "viewer")
    other = App(siblings.base.replace(f"/{EHR}", "/sibling"), "viewer")
    scope = "launch/patient patient/*.rs"
    given = [await app.standalone(scope=scope) for app in (one, other)]
    handles = [answer["access_token"] for answer in given]
    paths = [f"Patient/{answer['patient']}" for answer in given]
    grants = [await siblings.broker.grants.read(handle[4:16]) for handle in handles]
    assert [grant.terms.ehr for grant in grants] == [EHR, "sibling"]
    assert len({grant.terms.fhir_base for grant in grants}) == 2
    for app, handle, path in zip((one, other), handles, paths, strict=True):
        assert (await app.fhir(handle, path)).status_code == 200
    before = upstream(siblings.sandbox)

    crossed = [await one.fhir(handles[1], paths[1]), await other.fhir(handles[0], paths[0])]

    assert [(answer.status_code, code_of(answer)) for answer in crossed] == [(401, "invalid_token")] * 2
    assert upstream(siblings.sandbox) == before
    await one.close()
    await other.close()


async def test_production_and_trial_have_key_sets_of_their_own_that_anybody_may_read_and_keep(
    sandbox: Sandbox, redis: Redis, tmp_path: Path
) -> None:
    """(RG-03) (RG-04) (RG-05) (EP-02) (EP-05) (EP-06): the same answer every time, and how long it may be kept."""
    more = TRIAL.format(base=sandbox.fhir_base.replace("127.0.0.1", "localhost"))
    async with open_stage(sandbox, redis, tmp_path, more=more) as stage, httpx2.AsyncClient(trust_env=False) as anybody:
        urls = [f"{stage.public_url}/jwks/{name}" for name in ("sandbox-launch", "trial-launch")]
        production, trial = [await anybody.get(url) for url in urls]
        again = await anybody.get(urls[0])

        assert (production.status_code, trial.status_code) == (200, 200)
        assert production.headers["cache-control"] == "public, max-age=300"
        assert production.headers["content-type"] == "application/json"
        assert again.content == production.content
        keys = [key for answer in (production, trial) for key in answer.json()["keys"]]
        assert len({key["kid"] for key in keys}) == len({key["x"] for key in keys}) == 2
        assert not any("d" in key for key in keys)
        assert upstream(sandbox) == 0


@asynccontextmanager
async def before_the_sandbox(sandbox: Sandbox, redis: Redis, state: Path) -> AsyncIterator[tuple[Held, ScriptedServer]]:
    """A FHIR server that answers what the test says; the authorization server is the sandbox's."""
    async with scripted_server() as front, httpx2.AsyncClient(trust_env=False) as client:
        configuration = await client.get(f"{sandbox.fhir_base}/.well-known/smart-configuration")
        front.answers["/fhir/.well-known/smart-configuration"] = reply(configuration.content)
        async with open_stage(
            sandbox,
            redis,
            state,
            fhir_base=f"{front.url}/fhir",
            ehr=f'authorize_audience = "{sandbox.fhir_base}"',
        ) as stage:
            app = stage.app()
            try:
                yield await hold(stage, app), front
            finally:
                await app.close()


@pytest.mark.parametrize("code", ["4127", "4130", "4131", "4133", "4134", "4135", "59133"])
@pytest.mark.parametrize("status", ["400 Bad Request", "403 Forbidden", "429 Too Many Requests"])
async def test_what_epic_says_of_breaking_the_glass_or_of_too_much_is_told_and_not_asked_again(
    sandbox: Sandbox, redis: Redis, tmp_path: Path, code: str, status: str
) -> None:
    """(EP-21) (PX-09): the app gets the vendor's code; there is neither a second request nor a refresh."""
    coding = {"system": "urn:oid:1.2.840.114350.1.13.0.1.7.2.657369", "code": code}
    outcome = {
        "resourceType": "OperationOutcome",
        "issue": [{"severity": "fatal", "code": "forbidden", "details": {"coding": [coding]}}],
    }
    async with before_the_sandbox(sandbox, redis, tmp_path) as (held, front):
        front.answers[f"/fhir/{held.path}"] = reply(
            json.dumps(outcome), "Content-Type: application/fhir+json", status=status
        )

        answer = await held.read()

        assert (answer.status_code, answer.json()) == (int(status[:3]), outcome)
        assert [request.target for request in front.requests].count(f"/fhir/{held.path}") == 1
        assert held.refreshes() == 0


async def test_a_patient_who_was_merged_is_not_read_with_a_handle_for_one_patient(held: Held) -> None:
    """(PX-05, PX-15): the other id may be another person's chart, which the handle was not given for."""
    held.stage.sandbox.fault("fhir_merged")

    answer = await held.read()

    assert (answer.status_code, code_of(answer)) == (502, "ehr_misbehaved")
    assert "merged into another one" in answer.json()["issue"][0]["diagnostics"]
    assert "location" not in answer.headers
    assert held.stage.sandbox.counts()["fhir"] == 1


async def test_a_patient_who_was_merged_is_read_where_the_handle_may_read_the_other_record(
    stage: BrokerStage, reports: App
) -> None:
    """(PX-15): each request to the EHR has its record; which one was read stands in a header."""
    one, other = await two_patients(stage)
    form = {"grant_type": "client_credentials", "scope": "system/Patient.rs", "resource": reports.base}
    handle = (await reports.token(**form)).json()["access_token"]
    before = upstream(stage.sandbox), len(audit_of(stage, "handle.use"))
    stage.sandbox.fault("fhir_merged", into=other)

    answer = await reports.fhir(handle, f"Patient/{one}")

    assert (answer.status_code, answer.json()["id"]) == (200, other)
    assert answer.headers["content-location"] == f"{stage.base}/Patient/{other}"
    assert (upstream(stage.sandbox), len(audit_of(stage, "handle.use"))) == (before[0] + 2, before[1] + 2)


@pytest.mark.parametrize("into", ["../../admin", "x?y=z", "x/_history/1", "SAME", ""])
async def test_a_redirect_that_names_no_other_record_of_the_type_is_not_followed(
    stage: BrokerStage, reports: App, into: str
) -> None:
    """(PX-05): one redirect is followed, and that to one more record alone."""
    one, other = await two_patients(stage)
    form = {"grant_type": "client_credentials", "scope": "system/Patient.rs", "resource": reports.base}
    handle = (await reports.token(**form)).json()["access_token"]
    before = upstream(stage.sandbox)
    for target in [one if into == "SAME" else into] if into else [other, one]:
        stage.sandbox.fault("fhir_merged", into=target)

    answer = await reports.fhir(handle, f"Patient/{one}")

    assert (answer.status_code, code_of(answer)) == (502, "ehr_misbehaved")
    assert upstream(stage.sandbox) == before + (1 if into else 2)
