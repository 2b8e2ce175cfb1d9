"""Real servers for each test process: a store, a simulated EHR; and for each test a clean broker in front of them."""

import asyncio
import gc
import os
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import uvloop
from hypothesis import HealthCheck, settings
from redis.asyncio import Redis

from broker.store.connection import connect
from broker.store.embedded import EmbeddedServer, wheel_server
from tests.ehr.certificates import self_signed
from tests.kms.openbao import OpenBao, running_openbao
from tests.stage import App, BrokerStage, Sandbox, open_stage, running_sandbox
from tests.stage.rsa import rsa_keys_made_once

LONG = [f"chaos/test_{name}.py" for name in ("bulk", "clocks", "failover", "outage")]
collect_ignore = [] if "TEST_EVERYTHING" in os.environ else LONG
"""What watches brokers for a while, and is run before a release: `TEST_EVERYTHING=1 ./run test`."""
ON_BOTH_LOOPS = frozenset({"test_closing.py", "test_ssrf_corpus.py", "test_upstream.py"})

# How long an example takes on a busy machine, or on its first run, decides nothing. Nor does chance: the same commit is
# judged by the same examples, and `TEST_EVERYTHING` looks for others.
settings.register_profile(
    "certain",
    deadline=None,
    derandomize="TEST_EVERYTHING" not in os.environ,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("certain")


def pytest_xdist_auto_num_workers() -> int:
    """Start one more process than there are processors: tests wait for servers half of their time."""
    return (os.cpu_count() or 1) + 1


def pytest_collection_finish() -> None:
    """Keep what was collected, which stays to the end, out of the garbage collector's rounds: it is a gigabyte."""
    gc.collect()
    gc.freeze()


def pytest_asyncio_loop_factories(item: pytest.Item) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Test on the loop that serves; what holds a transport itself on the one that an import would bring, too."""
    both = item.path.name in ON_BOTH_LOOPS
    return {"uvloop": uvloop.new_event_loop} | ({"asyncio": asyncio.new_event_loop} if both else {})


@pytest.fixture(scope="session", autouse=True)
def rsa_keys() -> Iterator[None]:
    with rsa_keys_made_once():
        yield


@pytest.fixture(scope="session", autouse=True)
def nobody_is_trusted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Believe nobody for TLS where a test says nothing: all that the world believes in would be read each time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(self_signed(tmp_path_factory.mktemp("nobody"))["certificate"]))
        patch.setattr("httpcore2.default_ssl_context", lambda **_: ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
        yield


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    with EmbeddedServer.start(tmp_path_factory.mktemp("store"), server=wheel_server()) as server:
        yield server


@pytest.fixture
async def redis(valkey: EmbeddedServer) -> AsyncIterator[Redis]:
    client = connect(valkey.url())
    await client.flushall()
    yield client
    await client.aclose()


@pytest.fixture(scope="session")
def sandbox_process() -> Iterator[Sandbox]:
    with running_sandbox() as sandbox:
        yield sandbox


@pytest.fixture(scope="session")
def openbao(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenBao]:
    with running_openbao(tmp_path_factory.mktemp("openbao")) as server:
        yield server


@pytest.fixture
def sandbox(sandbox_process: Sandbox) -> Sandbox:
    sandbox_process.reset()
    return sandbox_process


@pytest.fixture
async def stage(sandbox: Sandbox, redis: Redis, tmp_path: Path) -> AsyncIterator[BrokerStage]:
    async with open_stage(sandbox, redis, tmp_path) as stage:
        yield stage


@pytest.fixture
async def app(stage: BrokerStage) -> AsyncIterator[App]:
    app = stage.app()
    yield app
    await app.close()


@pytest.fixture
async def reports(stage: BrokerStage) -> AsyncIterator[App]:
    app = stage.app("reports")
    yield app
    await app.close()
