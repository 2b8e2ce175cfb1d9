"""What the metadata of an EHR lists is found out by trying: each word holds where it stands, and fails where not."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio

from broker.store.connection import connect
from broker.store.embedded import EmbeddedServer
from tests.onc.kit import TOKEN_EXCHANGE, code_form
from tests.refusals.conftest import inline_table
from tests.refusals.keys import Keys, proof
from tests.stage import App, BrokerStage, Sandbox, open_stage, running_sandbox
from tests.stage.app import REDIRECT_URI
from tests.stage.broker import SANDBOX_SCOPES

pytestmark = pytest.mark.asyncio(loop_scope="module")

EVERY_SCOPE = "launch/patient launch/encounter openid fhirUser offline_access online_access patient/*.read user/*.cruds"
MORE = f"""
[[ehr]]
id = "small"
fhir_base = "%(small)s"

[[ehr]]
id = "nightly"
fhir_base = "%(nightly)s"

[[registration]]
id = "small-launch"
ehr = "small"
flow = "launch"
client_id = "broker-small"
scopes = "launch/patient launch/encounter online_access patient/*.rs user/*.rs"

[[registration]]
id = "nightly-backend"
ehr = "nightly"
flow = "backend"
client_id = "broker-nightly"
scopes = "system/*.rs"

[[app]]
id = "walk-in"
authentication = "private_key_jwt"
jwks = %(jwks)s
redirect_uris = ["{REDIRECT_URI}"]
[[app.access]]
registration = "small-launch"
scopes = "launch/patient launch/encounter online_access user/*.rs"

[[app]]
id = "night-reader"
authentication = "private_key_jwt"
jwks = %(jwks)s
[[app.access]]
registration = "nightly-backend"
scopes = "system/Patient.rs"
"""
TRIED = {
    "client-public",
    "client-confidential-symmetric",
    "client-confidential-asymmetric",
    "launch-ehr",
    "launch-standalone",
    "sso-openid-connect",
    "permission-offline",
    "permission-online",
    "permission-patient",
    "permission-user",
    "context-standalone-patient",
    "context-standalone-encounter",
}
REGISTRATIONS = {"sandbox": "sandbox-launch", "small": "small-launch", "nightly": "nightly-backend"}


@pytest.fixture(scope="module")
def small() -> Iterator[Sandbox]:
    with running_sandbox() as sandbox:
        yield sandbox


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(
    sandbox_process: Sandbox,
    small: Sandbox,
    valkey: EmbeddedServer,
    keys: Keys,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[BrokerStage]:
    """Three EHRs: one with everything, one of few words, one for backend apps alone."""
    sandbox_process.reset()
    redis = connect(valkey.url())
    await redis.flushall()
    nightly = small.fhir_base.replace("127.0.0.1", "localhost")
    more = MORE % {"small": small.fhir_base, "nightly": nightly, "jwks": inline_table(keys.published())}
    async with open_stage(sandbox_process, redis, tmp_path_factory.mktemp("stage"), more=more) as stage:
        small.register(
            client_id="broker-small",
            authentication="private_key_jwt",
            jwks_uri=f"{stage.public_url}/jwks/small-launch",
            redirect_uris=[f"{stage.public_url}/callback/small-launch"],
            launch_uri=f"{stage.public_url}/launch/small-launch",
            scopes=SANDBOX_SCOPES + " launch/encounter user/*.rs",
        )
        small.register(
            client_id="broker-nightly",
            authentication="private_key_jwt",
            jwks_uri=f"{stage.public_url}/jwks/nightly-backend",
            grant_types=["client_credentials"],
            scopes="system/*.rs",
        )
        yield stage
    await redis.aclose()


def apps_of(stage: BrokerStage, ehr: str) -> Iterator[tuple[str, App]]:
    """Every app of the file, as one that was given this EHR's address."""
    base = f"{stage.public_url}/fhir/{ehr}"
    for settings in stage.broker.settings.app:
        known = stage.app(settings.id)
        yield settings.authentication, App(base, settings.id, auth=known.auth)


async def tried(stage: BrokerStage, ehr: str, keys: Keys) -> set[str]:
    """Find out by doing it: as each app, ask for everything, and see what comes back."""
    found: set[str] = set()
    for authentication, app in apps_of(stage, ehr):
        assertion = keys.assertion(app.client_id, f"{stage.public_url}/oauth/token")
        signed = proof(assertion) if authentication == "private_key_jwt" else {}
        landing = await app.authorize(scope=EVERY_SCOPE)
        if "code" in landing.parameters:
            answer = await app.token(**code_form(app, landing.parameters["code"]), **signed)
            assert answer.status_code == 200, answer.text
            found |= words_of(answer.json()) | {"launch-standalone"}
        else:
            form = {"grant_type": "client_credentials", "scope": "system/Patient.rs", "resource": app.base}
            answer = await app.token(**form, **signed)
        if answer.status_code == 200:
            found.add(CLIENTS[authentication])
        await app.close()
    if await is_launched(stage, ehr):
        found.add("launch-ehr")
    return found


CLIENTS = {
    "none": "client-public",
    "client_secret_basic": "client-confidential-symmetric",
    "private_key_jwt": "client-confidential-asymmetric",
}


def words_of(response: dict[str, Any]) -> set[str]:
    """Return the capabilities that a token response shows."""
    scope = response["scope"].split()
    shown = {
        "sso-openid-connect": "id_token" in response,
        "permission-offline": "offline_access" in scope and "refresh_token" in response,
        "permission-online": "online_access" in scope and "refresh_token" in response,
        "permission-patient": any(word.startswith("patient/") for word in scope),
        "permission-user": any(word.startswith("user/") for word in scope),
        "context-standalone-patient": "launch/patient" in scope and "patient" in response,
        "context-standalone-encounter": "launch/encounter" in scope and "encounter" in response,
    }
    return {word for word, shows in shown.items() if shows}


async def is_launched(stage: BrokerStage, ehr: str) -> bool:
    """Whether the EHR's button would get past the broker's door."""
    app = stage.app()
    iss = next(settings.fhir_base for settings in stage.broker.settings.ehr if settings.id == ehr)
    url = f"{stage.public_url}/launch/{REGISTRATIONS[ehr]}"
    answer = await app.http.get(url, params={"iss": iss, "launch": "some-launch"})
    await app.close()
    return answer.status_code == 303


@pytest.mark.parametrize("ehr", ["sandbox", "small", "nightly"])
async def test_what_is_listed_is_what_works(stage: BrokerStage, keys: Keys, ehr: str) -> None:
    """well_known_capabilities_stu2 (DS-16, DS-17): nothing is listed in vain, and nothing that works is kept back."""
    app = stage.app()
    said = (await app.http.get(f"{stage.public_url}/fhir/{ehr}/.well-known/smart-configuration")).json()
    await app.close()

    assert set(said["capabilities"]) & TRIED == await tried(stage, ehr, keys)


async def test_a_backend_server_has_no_authorization_endpoint(stage: BrokerStage) -> None:
    """DS-04, DS-05: what nobody can be launched at, and whoever signs nobody in, says so by leaving it out."""
    app = stage.app()
    said = (await app.http.get(f"{stage.public_url}/fhir/nightly/.well-known/smart-configuration")).json()
    await app.close()

    assert not {"authorization_endpoint", "issuer", "jwks_uri"} & said.keys()
    assert said["grant_types_supported"] == ["client_credentials", TOKEN_EXCHANGE]
    assert said["response_types_supported"] == []
    assert said["token_endpoint_auth_methods_supported"] == ["private_key_jwt"]
    assert said["scopes_supported"] == ["system/Patient.rs"]
    assert said["code_challenge_methods_supported"] == ["S256"]
