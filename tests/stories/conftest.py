"""A broker whose client at the EHR has a secret: it makes no assertion that a moved clock would put in the future."""

import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from broker.store.embedded import EmbeddedServer, wheel_server
from tests.stage import App, BrokerStage, Sandbox, open_stage
from tests.stories.held import Held, hold


@pytest.fixture
async def secret_stage(sandbox: Sandbox, redis: Redis, tmp_path: Path) -> AsyncIterator[BrokerStage]:
    async with open_stage(sandbox, redis, tmp_path, authentication="client_secret_basic") as stage:
        yield stage


@pytest.fixture
async def secret_app(secret_stage: BrokerStage) -> AsyncIterator[App]:
    app = secret_stage.app()
    yield app
    await app.close()


@pytest.fixture
async def held(secret_stage: BrokerStage, secret_app: App) -> Held:
    return await hold(secret_stage, secret_app)


@pytest.fixture
def own_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """A store of this test alone, to be stopped at will; short paths keep its socket in place."""
    with EmbeddedServer.start(tmp_path_factory.mktemp("s"), server=wheel_server()) as server:
        yield server
        os.kill(server.process_id, signal.SIGCONT)
