from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeAlias

import httpx2
import pytest

from sandbox.app import create_app
from sandbox.oauth.id_tokens import SigningKey
from sandbox.settings import Settings
from tests.sandbox.oauth.driver import ORIGIN, Driver, Now

Start: TypeAlias = Callable[..., AbstractAsyncContextManager[Driver]]


@pytest.fixture(scope="session")
def signing_key() -> SigningKey:
    """Making one takes longer than most tests."""
    return SigningKey.generate()


@pytest.fixture
def start(signing_key: SigningKey) -> Start:
    """Start a sandbox of a few patients in this process, with settings of the test's choice."""

    @asynccontextmanager
    async def begin(**settings: Any) -> AsyncIterator[Driver]:
        now = Now()
        chosen = Settings(**{"public_url": ORIGIN, "patients": 9, "auto_approve": True, **settings})
        app = create_app(chosen, now, signing_key=signing_key)
        transport = httpx2.ASGITransport(app)
        async with app.router.lifespan_context(app), httpx2.AsyncClient(transport=transport, base_url=ORIGIN) as http:
            yield Driver(http, now)

    return begin


@pytest.fixture
async def ehr(start: Start) -> AsyncIterator[Driver]:
    """A sandbox that approves everything unseen, with one client that keeps a secret."""
    async with start() as driver:
        await driver.register()
        yield driver


@pytest.fixture
async def staffed_ehr(start: Start) -> AsyncIterator[Driver]:
    """A sandbox whose pages must be walked through."""
    async with start(auto_approve=False) as driver:
        await driver.register()
        yield driver
