"""A headless Chromium that was installed on this machine. Nothing is downloaded, and no name is looked up outside."""

import os
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

import pytest
from playwright.async_api import Browser, async_playwright

PATIENCE_MILLISECONDS: Final = 20_000
"""On a busy machine."""
PROGRAMS: Final = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
FLAGS: Final = ["--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost"]
"""Chromium's own sandbox does not start as root, as CI runs; it opens nothing here but the tests' own pages."""


def find_chromium(environ: Mapping[str, str]) -> str:
    """Return the program; without one the test is skipped, or fails where `CI_BROWSER=required` says so."""
    for name in PROGRAMS:
        if found := shutil.which(name, path=environ.get("PATH", "")):
            return found
    reason = f"there is no Chromium on this machine ({', '.join(PROGRAMS)})"
    if environ.get("CI_BROWSER") == "required":
        pytest.fail(reason)
    pytest.skip(reason)


@asynccontextmanager
async def running_chromium() -> AsyncIterator[Browser]:
    """Start it, and end it with the block."""
    program = find_chromium(os.environ)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=program, args=FLAGS)
        try:
            yield browser
        finally:
            await browser.close()
