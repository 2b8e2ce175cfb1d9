from collections.abc import AsyncIterator

import pytest

from broker.egress import Egress
from tests.ehr.server import ScriptedServer, scripted_server


@pytest.fixture
async def ehr() -> AsyncIterator[ScriptedServer]:
    async with scripted_server() as server:
        yield server


@pytest.fixture
async def egress() -> AsyncIterator[Egress]:
    egress = Egress(allow_loopback_http=True)
    yield egress
    await egress.close()
