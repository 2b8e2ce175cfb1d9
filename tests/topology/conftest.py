"""Stores of more than one server, one of each for all tests of a module."""

from collections.abc import Iterator

import pytest

from tests.topology.cluster import Cluster, running_cluster
from tests.topology.sentinels import Watched, running_watched
from tests.topology.server import running_server


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
