"""Stores of more than one server, of real processes that end with the test: `primary_with_replicas`, `cluster`."""

from tests.topology.cluster import Cluster, running_cluster
from tests.topology.sentinels import Watched, running_watched
from tests.topology.server import Server, running_server

__all__ = ["Cluster", "Server", "Watched", "running_cluster", "running_server", "running_watched"]
