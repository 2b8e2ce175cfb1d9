"""The broker proves itself at an EHR in each way there is: the same way for the code and for every refresh."""

import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from tests.ehr.server import reply, scripted_server
from tests.stage import App, BrokerStage, Sandbox, open_stage
from tests.stage.broker import APP_SECRET_TEXT, EHR, days_ahead

SECRET = "s/+: %2F?é"
RAW = {"basic_encoding": "raw", "client_secret": SECRET}
WAYS: dict[str, dict[str, Any]] = {
    "public": {"authentication": "none"},
    "basic, encoded": {"authentication": "client_secret_basic", "client": {"client_secret": SECRET}},
    "basic, raw": {"authentication": "client_secret_basic", "ehr": 'basic_encoding = "raw"', "client": RAW},
    "post": {"authentication": "client_secret_post", "client": {"client_secret": SECRET}},
    "ES384": {"authentication": "private_key_jwt"},
    "RS384": {"authentication": "private_key_jwt", "registration": 'signing_algorithm = "RS384"'},
    "with jku": {"authentication": "private_key_jwt", "registration": "send_jku = true"},
    "issuer as audience": {
        "authentication": "private_key_jwt",
        "ehr": 'assertion_audience = "issuer"',
        "client": {"assertion_aud": "issuer"},
    },
    "named audience": {
        "authentication": "private_key_jwt",
        "ehr": 'assertion_audience = "https://inside.example/token"',
        "client": {"assertion_aud": "https://inside.example/token"},
    },
    "id on refresh": {
        "authentication": "private_key_jwt",
        "ehr": 'client_id_in_body = "refresh"',
        "client": {"client_id_in_body": "refresh"},
    },
    "id always": {
        "authentication": "client_secret_basic",
        "ehr": 'client_id_in_body = "always"',
        "client": {"client_id_in_body": "always"},
    },
    "id never": {"authentication": "private_key_jwt", "client": {"client_id_in_body": "never"}},
}
ORACLE = """
[[registration]]
id = "secret-backend"
ehr = "second"
flow = "backend"
client_id = "broker-secret"
authentication = "client_secret_basic"
client_secret = "env:PATH"
secret_for_backend = true
scopes = "system/Patient.rs"

[[ehr]]
id = "second"
fhir_base = "{base}"

[[app]]
id = "nightly"
authentication = "client_secret_basic"
[[app.secret]]
hash = "{hash}"
expires = {expires}
[[app.access]]
registration = "secret-backend"
scopes = "system/Patient.rs"
"""

NAMED = {"public": (True, True), "post": (True, True), "id on refresh": (False, True), "id always": (True, True)}


@pytest.fixture(params=WAYS)
async def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def shown(way: str, sandbox: Sandbox, redis: Redis, tmp_path: Path) -> AsyncIterator[BrokerStage]:
    async with open_stage(sandbox, redis, tmp_path, **WAYS[way]) as stage:
        yield stage


async def test_code_and_refresh_are_proved_in_the_same_way(way: str, shown: BrokerStage) -> None:
    """TK-02, TK-03, TK-04, TK-07, CA-03, CA-05, CA-08, RF-01, OA-12, RG-08, NC-09: the EHR takes no other way."""
    app = shown.app()
    given = await app.standalone()
    shown.sandbox.expire()

    answer = await app.fhir(given["access_token"], f"Patient/{given['patient']}")

    assert answer.status_code == 200
    code, refresh = [one for one in shown.sandbox.journal("token") if one["client_id"] == "broker-launch"]
    assert ("client_id" in code["parameters"], "client_id" in refresh["parameters"]) == NAMED.get(way, (False, False))
    proof = set(code["parameters"]) - {"grant_type", "code", "redirect_uri", "code_verifier", "client_id"}
    assert proof == set(refresh["parameters"]) - {"grant_type", "refresh_token", "client_id"}
    assert code["authorization"] == refresh["authorization"] == way.startswith(("basic", "id always"))
    await app.close()


async def test_a_backend_registration_with_a_secret_works_where_it_is_wanted(
    sandbox: Sandbox, redis: Redis, tmp_path: Path
) -> None:
    """RG-09, OR-06: Oracle's system accounts."""
    digest = "sha256:" + hashlib.sha256(APP_SECRET_TEXT.encode()).hexdigest()
    base = sandbox.fhir_base.replace("127.0.0.1", "localhost")
    more = ORACLE.format(base=base, hash=digest, expires=days_ahead(30))
    async with open_stage(sandbox, redis, tmp_path, more=more) as stage:
        sandbox.register(
            client_id="broker-secret",
            authentication="client_secret_basic",
            client_secret=os.environ["PATH"],
            grant_types=["client_credentials"],
            scopes="system/Patient.rs",
        )
        app = stage.app("reports")
        app.client_id, app.auth = "nightly", ("nightly", APP_SECRET_TEXT)
        app.base = stage.base.replace(f"/{EHR}", "/second")
        answer = await app.token(grant_type="client_credentials", scope="system/Patient.rs", resource=app.base)
        await app.close()

    assert answer.status_code == 200, answer.text


MANY = """
[[ehr]]
id = "stranger"
fhir_base = "{base}"
token_endpoint = "{url}/token"
[[registration]]
id = "many"
ehr = ["sandbox", "stranger"]
flow = "backend"
client_id = "many"
authentication = "private_key_jwt"
scopes = "system/*.rs"
[[app]]
id = "batch"
authentication = "client_secret_basic"
[[app.secret]]
hash = "{hash}"
expires = {expires}
[[app.access]]
registration = "many"
scopes = "system/*.rs"
"""


async def test_an_ehr_that_does_not_know_a_registration_says_nothing_for_another(
    sandbox: Sandbox, redis: Redis, tmp_path: Path
) -> None:
    """EP-03: the broker leaves an EHR alone for a moment, and only that one."""
    refusing = reply('{"error":"invalid_client"}', status="401 Unauthorized")
    digest = "sha256:" + hashlib.sha256(APP_SECRET_TEXT.encode()).hexdigest()
    async with scripted_server({"/token": refusing}) as stranger:
        base = sandbox.fhir_base.replace("127.0.0.1", "localhost")
        more = MANY.format(base=base, url=stranger.url, hash=digest, expires=days_ahead(300))
        async with open_stage(sandbox, redis, tmp_path, more=more) as stage:
            keys_at = f"{stage.public_url}/jwks/many"
            proof = {"authentication": "private_key_jwt", "jwks_uri": keys_at, "grant_types": ["client_credentials"]}
            sandbox.register(client_id="many", scopes="system/*.rs", **proof)
            app = App(stage.base, "batch", auth=("batch", APP_SECRET_TEXT))
            asked = {"grant_type": "client_credentials", "scope": "system/Patient.rs"}
            refused = [await app.token(**asked, resource=stage.base.replace("/sandbox", "/stranger")) for _ in range(2)]
            known = await app.token(**asked, resource=stage.base)
            await app.close()

    assert [answer.status_code for answer in refused] == [502, 503]
    assert known.status_code == 200
    assert len(stranger.requests) == 1
