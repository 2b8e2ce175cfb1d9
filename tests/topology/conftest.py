"""Stores of more than one server, one of each for all tests of a module."""

from collections.abc import AsyncIterator, Iterator

import pytest

from broker.secret import Secret
from broker.store.client import StoreClient
from broker.store.connection import connect
from tests.topology.cluster import Cluster, running_cluster
from tests.topology.sentinels import Watched, running_watched
from tests.topology.server import PASSWORD, USER, Server, running_server


@pytest.fixture(scope="module")
def cluster_of_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running_cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture
def cluster(cluster_of_module: Cluster) -> Cluster:
    """Three primaries, empty. A test that ends one of them makes its own."""
    cluster_of_module.flush()
    return cluster_of_module


@pytest.fixture(scope="module")
def watched_of_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    with running_watched(tmp_path_factory.mktemp("watched")) as watched:
        yield watched


@pytest.fixture
def watched(watched_of_module: Watched) -> Watched:
    """A primary, a replica and three sentinels, empty. A test that ends one of them makes its own."""
    watched_of_module.primary().ask("FLUSHALL")
    return watched_of_module


@pytest.fixture
def valkey_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """One server alone."""
    with running_server(tmp_path_factory.mktemp("alone") / "server") as server:
        yield server.port


@pytest.fixture(scope="module")
def server_of_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("server") / "server") as server:
        yield server


@pytest.fixture
def server(server_of_module: Server) -> Server:
    """One server alone, empty. A test that ends it makes its own."""
    server_of_module.ask("FLUSHALL")
    return server_of_module


@pytest.fixture
async def client(server: Server) -> AsyncIterator[StoreClient]:
    async with connect(Secret(f"redis://{USER}:{PASSWORD}@127.0.0.1:{server.port}/0")) as client:
        yield client
