"""Deny by default: an app reaches the EHRs and scopes that its table names, by whichever endpoint, and nothing else."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from broker.store.connection import connect
from broker.store.embedded import EmbeddedServer
from tests.refusals.conftest import hash_of
from tests.refusals.refusal import assert_oauth_error, audited, nothing_sent
from tests.stage import App, BrokerStage, Sandbox, open_stage
from tests.stage.app import REDIRECT_URI
from tests.stage.broker import APP_SECRET_TEXT, days_ahead

pytestmark = pytest.mark.asyncio(loop_scope="module")

MORE = """
[[ehr]]
id = "other"
fhir_base = "{other_base}"

[[registration]]
id = "other-launch"
ehr = "other"
flow = "launch"
client_id = "broker-launch"
scopes = "launch/patient patient/*.cruds"

[[registration]]
id = "other-backend"
ehr = "other"
flow = "backend"
client_id = "broker-backend"
signing_algorithm = "RS384"
scopes = "system/*.cruds"

[[app]]
id = "nothing"
authentication = "client_secret_basic"
redirect_uris = ["{redirect_uri}"]
[[app.secret]]
hash = "{hash}"
expires = {expires}

[[app]]
id = "here"
authentication = "client_secret_basic"
redirect_uris = ["{redirect_uri}"]
[[app.secret]]
hash = "{hash}"
expires = {expires}
[[app.access]]
registration = "sandbox-launch"
scopes = "launch/patient patient/Patient.rs"
[[app.access]]
registration = "sandbox-backend"
scopes = "system/Patient.rs"
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(
    sandbox_process: Sandbox, valkey: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[BrokerStage]:
    sandbox_process.reset()
    redis = connect(valkey.url())
    await redis.flushall()
    more = MORE.format(
        other_base=sandbox_process.fhir_base.replace("127.0.0.1", "localhost"),
        redirect_uri=REDIRECT_URI,
        hash=hash_of(APP_SECRET_TEXT),
        expires=days_ahead(30),
    )
    async with open_stage(sandbox_process, redis, tmp_path_factory.mktemp("stage"), more=more) as stage:
        yield stage
    await redis.aclose()


@pytest_asyncio.fixture(loop_scope="module")
async def apps(stage: BrokerStage) -> AsyncIterator[dict[str, App]]:
    apps = {name: App(stage.base, name, auth=(name, APP_SECRET_TEXT)) for name in ("nothing", "here")}
    yield apps
    for app in apps.values():
        await app.close()


REACHES = {("here", "sandbox")}
PLACES = [(app, ehr) for app in ("nothing", "here") for ehr in ("sandbox", "other")]


def base_of(stage: BrokerStage, ehr: str) -> str:
    return stage.base.replace("/sandbox", f"/{ehr}")


@pytest.mark.parametrize(("name", "ehr"), PLACES)
async def test_an_app_can_authorize_at_the_ehrs_of_its_table_alone(
    stage: BrokerStage, apps: dict[str, App], name: str, ehr: str
) -> None:
    app = apps[name]
    asked = {"scope": "launch/patient patient/Patient.rs", "aud": base_of(stage, ehr)}
    if (name, ehr) in REACHES:
        assert (await app.exchange(await app.authorize(**asked)))["patient"]
        return
    cause = f"app '{name}' has no launch access to EHR '{ehr}'"
    with nothing_sent(stage.sandbox), audited(stage, "app.authorize", "denied", cause):
        landing = await app.authorize(**asked)

    assert landing.parameters["error"] == "unauthorized_client"
    assert "code" not in landing.parameters


@pytest.mark.parametrize(("name", "ehr"), PLACES)
async def test_an_app_has_client_credentials_at_the_ehrs_of_its_table_alone(
    stage: BrokerStage, apps: dict[str, App], name: str, ehr: str
) -> None:
    asked = {"grant_type": "client_credentials", "scope": "system/Patient.rs", "resource": base_of(stage, ehr)}
    if (name, ehr) in REACHES:
        assert (await apps[name].token(**asked)).json()["scope"] == "system/Patient.rs"
        return
    cause = f"app '{name}' has no backend access to EHR '{ehr}'"
    with nothing_sent(stage.sandbox), audited(stage, "handle.mint", "denied", cause):
        answer = await apps[name].token(**asked)

    assert_oauth_error(answer, 400, "unauthorized_client")


@pytest.mark.parametrize(
    "scope", ["system/Observation.rs", "system/Patient.cruds", "system/*.rs", "patient/Patient.rs"]
)
async def test_no_scope_is_given_that_the_table_does_not_name(
    stage: BrokerStage, apps: dict[str, App], scope: str
) -> None:
    answer = await apps["here"].token(grant_type="client_credentials", scope=scope, resource=stage.base)

    given = set(answer.json().get("scope", "").split())
    assert given <= {"system/Patient.rs", "system/Patient.r", "system/Patient.s"}
    assert answer.status_code == (200 if given else 400)


@pytest.mark.parametrize(
    ("ehr", "path", "status"),
    [
        ("sandbox", "Patient?_count=1", 200),
        ("sandbox", "Observation", 403),
        ("sandbox", "Patient?_revinclude=Observation:subject", 403),
        ("other", "Patient?_count=1", 401),
        ("nowhere", "Patient?_count=1", 404),
    ],
)
async def test_a_handle_reaches_what_the_table_names_alone(
    stage: BrokerStage, apps: dict[str, App], ehr: str, path: str, status: int
) -> None:
    app = apps["here"]
    given = await app.token(grant_type="client_credentials", scope="system/Patient.rs", resource=stage.base)
    before = stage.sandbox.counts()["fhir"]

    bearer = {"Authorization": f"Bearer {given.json()['access_token']}"}
    answer = await app.http.get(f"{base_of(stage, ehr)}/{path}", headers=bearer)

    assert answer.status_code == status
    assert stage.sandbox.counts()["fhir"] == before + (status == 200)
