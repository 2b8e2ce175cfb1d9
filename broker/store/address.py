"""What `BROKER_REDIS_URL` says: one server, the sentinels of one, or the nodes of a cluster."""

import re
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple, TypeAlias
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit, urlunsplit

from redis.asyncio.connection import SSLConnection, UnixDomainSocketConnection, parse_url

from broker.errors import ConfigurationError
from broker.secret import Secret

SENTINEL_PORT: Final = 26379
SERVER_PORT: Final = 6379
TLS_OPTIONS: Final = frozenset({"ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile"})
SENTINEL_OPTIONS: Final = frozenset({"sentinel_username", "sentinel_password"})
UNREADABLE_URL: Final = (
    "the Redis URL must read redis://[user]:password@host:port/db, or unix://:password@/path?db=0, or "
    "redis+sentinel://[user]:password@sentinel1:26379,sentinel2:26379/NAME/db with the name of the primary, or "
    "redis+cluster://[user]:password@node1:6379,node2:6379, "
    "with special characters of the password percent-encoded and rediss instead of redis for TLS; rediss takes "
    + ", ".join(sorted(TLS_OPTIONS))
    + " after a question mark, sentinels "
    + " and ".join(sorted(SENTINEL_OPTIONS))
    + ", and no other option is taken"
)

Kind: TypeAlias = Literal["server", "sentinel", "cluster"]

_SCHEMES: Final[dict[str, Kind]] = {
    "unix": "server",
    "redis": "server",
    "rediss": "server",
    "redis+sentinel": "sentinel",
    "rediss+sentinel": "sentinel",
    "redis+cluster": "cluster",
    "rediss+cluster": "cluster",
}


class Node(NamedTuple):
    """Where a server listens."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class StoreAddress:
    """A store, as far as the URL tells."""

    kind: Kind
    nodes: tuple[Node, ...]
    """Sentinels, or some nodes of a cluster; empty for one server."""
    options: dict[str, Any] = field(repr=False)
    """Of a connection to a server that holds records: credentials, TLS, database."""
    service: str = ""
    """The name by which the sentinels know the primary."""
    sentinel_options: dict[str, Any] = field(default_factory=dict, repr=False)
    """Of a connection to a sentinel."""

    def is_private(self) -> bool:
        """Tell whether nobody on a network can read along: TLS, a Unix socket, or this machine's loopback."""
        hosts = [node.host for node in self.nodes] or [str(self.options.get("host", "localhost"))]
        near = all(host == "localhost" or host.startswith("127.") or host == "::1" for host in hosts)
        return near or self.options.get("connection_class") in {SSLConnection, UnixDomainSocketConnection}

    @classmethod
    def parse(cls, url: Secret) -> "StoreAddress":
        """Read the URL. Raises ConfigurationError, which never quotes it: any piece may be one of the password."""
        with suppress(ValueError):
            return _parse(url.reveal())
        raise ConfigurationError(UNREADABLE_URL)


def _parse(url: str) -> StoreAddress:
    """Raise ValueError for everything that would be misread, or make the connection weaker."""
    parts = urlsplit(url)
    kind = _SCHEMES.get(parts.scheme)
    plain, _, _ = parts.scheme.partition("+")
    query = parse_qs(parts.query, keep_blank_values=True)
    allowed = TLS_OPTIONS if plain == "rediss" else frozenset()
    if kind == "server":
        place = parts.hostname if plain != "unix" else parts.path
        sound = place and query.keys() <= allowed | {"db"} and (plain == "unix" or re.fullmatch(r"/?\d*", parts.path))
        _require(sound and not parts.fragment)
        return StoreAddress("server", (), dict(parse_url(url)))
    allowed |= SENTINEL_OPTIONS if kind == "sentinel" else frozenset()
    path = re.fullmatch(r"/([\w.-]{1,64})(/\d+)?" if kind == "sentinel" else r"()(/0?)?", parts.path)
    if kind is None or path is None or parts.fragment or not query.keys() <= allowed:
        raise ValueError
    who, _, where = parts.netloc.rpartition("@")
    nodes = tuple(_node(text, SENTINEL_PORT if kind == "sentinel" else SERVER_PORT) for text in where.split(","))
    tls = [(name, value) for name, value in parse_qsl(parts.query) if name in TLS_OPTIONS]
    first = f"{who}@any" if who else "any"
    options = dict(parse_url(urlunsplit((plain, first, path[2] or "", urlencode(tls), ""))))
    del options["host"]
    asking = {name: value for name, value in options.items() if name not in {"username", "password", "db"}}
    asking |= {name.removeprefix("sentinel_"): query[name][0] for name in SENTINEL_OPTIONS & query.keys()}
    return StoreAddress(kind, nodes, options, path[1], asking if kind == "sentinel" else {})


def _node(text: str, port: int) -> Node:
    parts = urlsplit(f"//{text}")
    _require(parts.hostname and parts.netloc == text and "@" not in text)
    return Node(str(parts.hostname), parts.port or port)


def _require(sound: object) -> None:
    if not sound:
        raise ValueError
