"""A broker for a module, with the apps that the kits register: public, symmetric, asymmetric, backend."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
import pytest_asyncio

from broker.store.connection import connect
from broker.store.embedded import EmbeddedServer
from tests.onc.kit import BACKEND, CONFIDENTIAL, KEYED, LIMITED
from tests.refusals.conftest import inline_table
from tests.refusals.keys import Keys
from tests.stage import App, BrokerStage, Sandbox, open_stage
from tests.stage.app import REDIRECT_URI
from tests.stage.broker import APP_SECRET_TEXT

MORE = f"""
[[app]]
id = "{KEYED}"
authentication = "private_key_jwt"
jwks = %(jwks)s
redirect_uris = ["{REDIRECT_URI}"]
[[app.access]]
registration = "sandbox-launch"
scopes = "launch/patient openid fhirUser offline_access patient/*.rs user/Practitioner.rs"

[[app]]
id = "{BACKEND}"
authentication = "private_key_jwt"
jwks = %(jwks)s
[[app.access]]
registration = "sandbox-backend"
scopes = "system/Patient.rs"

[[app]]
id = "{LIMITED}"
authentication = "none"
redirect_uris = ["{REDIRECT_URI}"]
origins = ["https://limited.example"]
[[app.access]]
registration = "sandbox-launch"
scopes = "launch/patient openid offline_access patient/Patient.rs patient/Condition.rs patient/Observation.rs"
"""


@pytest.fixture(scope="session")
def keys() -> Keys:
    return Keys.generate()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(
    sandbox_process: Sandbox, valkey: EmbeddedServer, keys: Keys, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[BrokerStage]:
    sandbox_process.reset()
    redis = connect(valkey.url())
    await redis.flushall()
    more = MORE % {"jwks": inline_table(keys.published())}
    async with open_stage(sandbox_process, redis, tmp_path_factory.mktemp("stage"), more=more) as stage:
        yield stage
    await redis.aclose()


@pytest.fixture(autouse=True)
def no_faults(sandbox_process: Sandbox) -> Iterator[None]:
    yield
    sandbox_process.clear_faults()


@asynccontextmanager
async def closing(app: App) -> AsyncIterator[App]:
    yield app
    await app.close()


@pytest_asyncio.fixture(loop_scope="module")
async def public(stage: BrokerStage) -> AsyncIterator[App]:
    async with closing(stage.app()) as app:
        yield app


@pytest_asyncio.fixture(loop_scope="module")
async def confidential(stage: BrokerStage) -> AsyncIterator[App]:
    async with closing(App(stage.base, CONFIDENTIAL, auth=(CONFIDENTIAL, APP_SECRET_TEXT))) as app:
        yield app


@pytest_asyncio.fixture(loop_scope="module")
async def keyed(stage: BrokerStage) -> AsyncIterator[App]:
    async with closing(App(stage.base, KEYED)) as app:
        yield app


@pytest_asyncio.fixture(loop_scope="module")
async def limited(stage: BrokerStage) -> AsyncIterator[App]:
    async with closing(App(stage.base, LIMITED)) as app:
        yield app
