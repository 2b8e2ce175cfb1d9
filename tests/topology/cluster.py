"""A Redis Cluster of three primaries, with as many replicas as wanted."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from redis.crc import key_slot

from broker.secret import Secret
from tests.topology.server import PASSWORD, RECORDS, USER, Server, await_true, free_ports

PRIMARIES: Final = 3
SLOTS: Final = 16384
NODE_TIMEOUT_MS: Final = 1000


class Cluster:
    """A running cluster."""

    def __init__(self, servers: list[Server]) -> None:
        self.servers = servers

    def url(self, user: str = USER, password: str = PASSWORD) -> Secret:
        """Return the URL for the broker, with two of the nodes as seeds."""
        seeds = ",".join(f"127.0.0.1:{server.port}" for server in self.servers[:2])
        return Secret(f"redis+cluster://{user}:{password}@{seeds}")

    def owner(self, key: str) -> Server:
        """Return the primary that has a key now."""
        slot = key_slot(key.encode())
        for server in self.servers:
            if server.process is None or server.process.poll() is not None:
                continue
            for first, last, primary, *_ in server.ask("CLUSTER", "SLOTS"):
                if first <= slot <= last:
                    return next(server for server in self.servers if server.port == primary[1])
        raise AssertionError(f"no node has the slot of {key}")

    def primaries(self) -> list[Server]:
        """Return the servers that are primaries now."""
        alive = [server for server in self.servers if server.process is not None and server.process.poll() is None]
        return [server for server in alive if server.ask("ROLE")[0] == b"master"]

    def flush(self) -> None:
        """Empty all of it."""
        for server in self.primaries():
            server.ask("FLUSHALL")

    def move(self, slot: int, target: Server, *, finish: bool = True) -> None:
        """Move an empty slot, or with `finish=False` leave it half-way: importing there, migrating here."""
        source = next(
            server
            for server in self.primaries()
            for first, last, primary, *_ in server.ask("CLUSTER", "SLOTS")
            if first <= slot <= last and primary[1] == server.port
        )
        names = {server: _name(server) for server in (source, target)}
        target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", names[source])
        source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", names[target])
        if finish:
            for server in (target, source):
                server.ask("CLUSTER", "SETSLOT", slot, "NODE", names[target])


def _name(server: Server) -> str:
    answer: Any = server.ask("CLUSTER", "MYID")
    return str(answer.decode())


@contextmanager
def running_cluster(directory: Path, *lines: str, replicas: int = 0) -> Iterator[Cluster]:
    """Run three primaries and for each of them `replicas`."""
    ports = free_ports(PRIMARIES * (1 + replicas), with_bus=True)
    own = (
        "cluster-enabled yes",
        "cluster-config-file nodes.conf",
        f"cluster-node-timeout {NODE_TIMEOUT_MS}",
        "cluster-require-full-coverage no",
        "cluster-replica-validity-factor 0",
    )
    servers = [Server(directory / str(port), port, (*RECORDS, *own, *lines)) for port in ports]
    try:
        for server in servers:
            server.start()
        for server in servers:
            server.await_answer()
        _join(servers)
        yield Cluster(servers)
    finally:
        for server in servers:
            server.stop()


def _join(servers: list[Server]) -> None:
    share = SLOTS // PRIMARIES
    for n, server in enumerate(servers[:PRIMARIES]):
        last = SLOTS - 1 if n == PRIMARIES - 1 else (n + 1) * share - 1
        server.ask("CLUSTER", "ADDSLOTSRANGE", n * share, last)
    for n, server in enumerate(servers):
        server.ask("CLUSTER", "SET-CONFIG-EPOCH", n + 1)
    for server in servers[1:]:
        server.ask("CLUSTER", "MEET", "127.0.0.1", servers[0].port)
    await_true(lambda: all(_known(server) == len(servers) for server in servers))
    for n, server in enumerate(servers[PRIMARIES:]):
        server.ask("CLUSTER", "REPLICATE", _name(servers[n % PRIMARIES]))
    await_true(lambda: all(_is_ready(server) for server in servers), servers[0].said)


def _known(server: Server) -> int:
    nodes: Any = server.ask("CLUSTER", "SLOTS")
    links: Any = server.ask("CLUSTER", "LINKS")
    return len(links) // 2 + 1 if nodes else 0


def _is_ready(server: Server) -> bool:
    info: Any = server.ask("CLUSTER", "INFO")
    return b"cluster_state:ok" in info and server.replication().get("master_link_status", "up") == "up"
