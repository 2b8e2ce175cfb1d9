"""One stage for a module: a refusal changes nothing, so the next one finds everything as it was."""

import hashlib
import json
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime

import pytest
import pytest_asyncio

from broker.credentials import APP_SECRET, mint
from broker.store.connection import connect
from broker.store.embedded import EmbeddedServer
from tests.refusals.keys import Keys, KeyServer, running_key_server
from tests.stage import App, BrokerStage, MovableClock, Sandbox, open_stage
from tests.stage.app import LAUNCH_URI, REDIRECT_URI
from tests.stage.broker import days_ahead

MORE = """
[[ehr]]
id = "other"
fhir_base = "{other_base}"

[[registration]]
id = "other-launch"
ehr = "other"
flow = "launch"
client_id = "broker-launch"
scopes = "launch launch/patient patient/*.cruds"
app = "second"

[[registration]]
id = "unlaunched"
ehr = "other"
flow = "launch"
client_id = "broker-launch"
scopes = "patient/*.rs"

[[app]]
id = "second"
authentication = "none"
redirect_uris = ["{redirect_uri}", "{redirect_uri}?tab=2"]
launch_uri = "{launch_uri}"
[[app.access]]
registration = "sandbox-launch"
scopes = "launch launch/patient patient/Patient.rs"
[[app.access]]
registration = "other-launch"
scopes = "launch launch/patient patient/*.rs"

[[app]]
id = "paired"
authentication = "client_secret_basic"
[[app.secret]]
id = "older"
hash = "{older}"
expires = {older_ends}
[[app.secret]]
id = "newer"
hash = "{newer}"
expires = {newer_ends}
[[app.access]]
registration = "sandbox-backend"
scopes = "system/Patient.rs"

[[app]]
id = "twin"
authentication = "private_key_jwt"
jwks = {twins}
[[app.access]]
registration = "sandbox-backend"
scopes = "system/Patient.rs"

[[app]]
id = "signed"
authentication = "private_key_jwt"
jwks = {jwks}
[[app.access]]
registration = "sandbox-backend"
scopes = "system/Patient.rs"

"""
FETCHED = """
[[app]]
id = "{id}"
authentication = "private_key_jwt"
jwks_uri = "{jwks_uri}"
[[app.access]]
registration = "sandbox-backend"
scopes = "system/Patient.rs"
"""
"""An app whose keys are fetched; those whose keys change in a test have that test to themselves."""


OLDER = mint(APP_SECRET, "", lambda count: b"\2" * count).reveal()
NEWER = mint(APP_SECRET, "", lambda count: b"\3" * count).reveal()
OLDER_ENDS = int(time.time()) + 86400


def hash_of(secret: str) -> str:
    return "sha256:" + hashlib.sha256(secret.encode()).hexdigest()


@pytest.fixture(scope="session")
def keys() -> Keys:
    return Keys.generate()


@pytest.fixture(scope="module")
def running_keys(keys: Keys) -> Iterator[KeyServer]:
    with running_key_server(keys.published()) as server:
        yield server


@pytest.fixture
def key_server(running_keys: KeyServer, keys: Keys) -> Iterator[KeyServer]:
    """Where apps publish their keys; afterwards it has the good ones again."""
    yield running_keys
    running_keys.key_set = keys.published()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(
    sandbox_process: Sandbox,
    valkey: EmbeddedServer,
    keys: Keys,
    running_keys: KeyServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[BrokerStage]:
    sandbox_process.reset()
    redis = connect(valkey.url())
    await redis.flushall()
    more = MORE.format(
        other_base=sandbox_process.fhir_base.replace("127.0.0.1", "localhost"),
        redirect_uri=REDIRECT_URI,
        launch_uri=LAUNCH_URI,
        jwks=inline_table(keys.published()),
        twins=inline_table({"keys": [key.as_dict(private=False) for key in (keys.ec, keys.foreign)]}),
        older=hash_of(OLDER),
        older_ends=datetime.fromtimestamp(OLDER_ENDS, UTC).isoformat(),
        newer=hash_of(NEWER),
        newer_ends=days_ahead(30),
    )
    more += "".join(FETCHED.format(id=id_, jwks_uri=running_keys.url) for id_ in ("fetched", "rotated", "lone"))
    async with open_stage(
        sandbox_process, redis, tmp_path_factory.mktemp("stage"), ehr="fhir_longest_pause = 0", more=more
    ) as stage:  # else the EHR would be left alone in the next test
        yield stage
    await redis.aclose()


@pytest.fixture(autouse=True)
def no_faults(sandbox_process: Sandbox) -> Iterator[None]:
    yield
    sandbox_process.clear_faults()


@pytest.fixture
def borrowed_clock(stage: BrokerStage) -> Iterator[MovableClock]:
    """The stage's clock, put right again afterwards."""
    ahead = stage.clock._ahead
    yield stage.clock
    stage.clock._ahead = ahead


@pytest_asyncio.fixture(loop_scope="module")
async def app(stage: BrokerStage) -> AsyncIterator[App]:
    app = stage.app()
    yield app
    await app.close()


@pytest_asyncio.fixture(loop_scope="module")
async def second(stage: BrokerStage) -> AsyncIterator[App]:
    """Another public app, at the same EHR."""
    app = stage.app("second")
    yield app
    await app.close()


@pytest_asyncio.fixture(loop_scope="module")
async def reports(stage: BrokerStage) -> AsyncIterator[App]:
    app = stage.app("reports")
    yield app
    await app.close()


@pytest_asyncio.fixture(loop_scope="module")
async def patients(reports: App) -> list[str]:
    """Two patients of the EHR."""
    answer = await reports.token(grant_type="client_credentials", scope="system/Patient.rs", resource=reports.base)
    bundle = (await reports.fhir(answer.json()["access_token"], "Patient?_count=2")).json()
    return [str(entry["resource"]["id"]) for entry in bundle["entry"]]


def inline_table(value: object) -> str:
    """Write JSON's objects, lists and texts as TOML on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name} = {inline_table(member)}" for name, member in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(inline_table, value)) + "]"
    return json.dumps(value)
