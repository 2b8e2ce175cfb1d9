"""A browser, and the origins of its pages."""

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page

from tests.clients.chromium import PATIENCE_MILLISECONDS, running_chromium
from tests.clients.page_server import running_pages


@pytest.fixture(scope="module")
def pages() -> Iterator[str]:
    """The origin of the browser app."""
    with running_pages() as origin:
        yield origin


@pytest.fixture
def chart_origin() -> Iterator[str]:
    """The origin of an EHR's page that shows the app in a frame: `/frame.html?show=URL`."""
    with running_pages() as origin:
        yield origin


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chromium() -> AsyncIterator[Browser]:
    """One browser for a module; every test has a context of its own, so no cookies and no storage of another."""
    async with running_chromium() as browser:
        yield browser


@pytest_asyncio.fixture(loop_scope="module")
async def page(chromium: Browser) -> AsyncIterator[Page]:
    context = await chromium.new_context()
    context.set_default_timeout(PATIENCE_MILLISECONDS)
    yield await context.new_page()
    await context.close()
