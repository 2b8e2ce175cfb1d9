"""A primary with replicas, and three sentinels that watch it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from broker.secret import Secret
from tests.topology.server import PASSWORD, RECORDS, USER, Server, await_true, free_ports

SERVICE: Final = "grants"
SENTINELS: Final = 3
DOWN_AFTER_MS: Final = 1000


class Watched:
    """A running primary, its replicas and sentinels."""

    def __init__(self, servers: list[Server], sentinels: list[Server]) -> None:
        self.servers = servers
        self.sentinels = sentinels

    def url(self, user: str = USER, password: str = PASSWORD) -> Secret:
        """Return the URL for the broker."""
        sentinels = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return Secret(f"redis+sentinel://{user}:{password}@{sentinels}/{SERVICE}/0")

    def primary(self) -> Server:
        """Return the server that a running sentinel calls the primary."""
        for sentinel in self.sentinels:
            if sentinel.process is not None and sentinel.process.poll() is None:
                answer: Any = sentinel.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)
                return next(server for server in self.servers if server.port == int(answer[1]))
        raise AssertionError("no sentinel runs")

    def await_another(self, old: Server) -> Server:
        """Return the next primary once it is one."""
        await_true(lambda: self.primary() is not old and self.primary().ask("ROLE")[0] == b"master")
        return self.primary()


@contextmanager
def running_watched(directory: Path, *lines: str, replicas: int = 1) -> Iterator[Watched]:
    """Run a primary with `replicas` and three sentinels."""
    ports = free_ports(1 + replicas + SENTINELS)
    servers = [
        Server(directory / str(port), port, (*RECORDS, *lines, *([f"replicaof 127.0.0.1 {ports[0]}"] if n else [])))
        for n, port in enumerate(ports[: 1 + replicas])
    ]
    watching = (
        f"sentinel monitor {SERVICE} 127.0.0.1 {ports[0]} 2",
        f"sentinel auth-user {SERVICE} {USER}",
        f"sentinel auth-pass {SERVICE} {PASSWORD}",
        f"sentinel down-after-milliseconds {SERVICE} {DOWN_AFTER_MS}",
        f"sentinel failover-timeout {SERVICE} 5000",
    )
    sentinels = [Server(directory / str(port), port, watching, sentinel=True) for port in ports[1 + replicas :]]
    try:
        for server in servers:
            server.start()
        for server in servers:
            server.await_answer()
        await_true(lambda: servers[0].replication()["connected_slaves"] == replicas)
        for sentinel in sentinels:
            sentinel.start()
        await_true(lambda: all(_knows(sentinel, replicas) for sentinel in sentinels), sentinels[0].said)
        yield Watched(servers, sentinels)
    finally:
        for server in (*sentinels, *servers):
            server.stop()


def _knows(sentinel: Server, replicas: int) -> bool:
    """Tell whether it can do a failover: it knows the others and all replicas."""
    with sentinel.client() as client:
        state = client.sentinel_master(SERVICE)
    return (state["num-other-sentinels"], state["num-slaves"]) == (SENTINELS - 1, replicas)
