"""The way to the primary: past sentinels that are gone or behind, and never to a replica."""

from pathlib import Path
from typing import Any

import pytest

from broker.errors import ConfigurationError, StoreUnavailable
from broker.secret import Secret
from broker.store.address import Node, StoreAddress
from broker.store.connection import connect, store_errors
from tests.topology import Watched, running_server
from tests.topology.sentinels import SERVICE
from tests.topology.server import PASSWORD, USER

CANARY = "canary-password"


async def test_a_sentinel_that_is_gone_is_made_up_for_by_another(watched: Watched) -> None:
    url = Secret(watched.url().reveal().replace("@", "@127.0.0.1:1,"))
    async with connect(url) as redis:
        assert await redis.set("sb:{tag}:grant", "1")
    assert watched.primary().ask("GET", "sb:{tag}:grant") == b"1"


async def test_a_sentinel_that_is_frozen_keeps_nobody_waiting(watched: Watched) -> None:
    watched.sentinels[0].freeze()
    try:
        async with connect(watched.url()) as redis:
            assert await redis.ping()
    finally:
        watched.sentinels[0].thaw()


async def test_a_sentinel_that_takes_a_replica_for_the_primary_is_not_believed(watched: Watched) -> None:
    replica = next(server for server in watched.servers if server is not watched.primary())
    behind = Secret(f"redis+sentinel://{USER}:{PASSWORD}@127.0.0.1:{replica.port}/{SERVICE}/0")
    async with connect(watched.url()) as redis:
        sentinels = redis.connection_pool.connection_kwargs["sentinels"]
        await redis.ping()
        sentinels.primary = Node("127.0.0.1", replica.port)  # as if another connection had been told so

        assert await redis.set("sb:{tag}:grant", "1")
        assert sentinels.primary == Node("127.0.0.1", watched.primary().port)
    async with connect(behind) as redis:  # a replica knows nothing of sentinels' commands
        with pytest.raises(StoreUnavailable, match=r"^ConnectionError$"), store_errors():
            await redis.ping()


async def test_a_name_that_no_sentinel_knows_is_a_store_failure(watched: Watched) -> None:
    async with connect(Secret(watched.url().reveal().replace(f"/{SERVICE}/", "/nobody/"))) as redis:
        with pytest.raises(StoreUnavailable, match=r"^ConnectionError$"), store_errors():
            await redis.ping()


async def test_a_primary_that_became_a_replica_is_left_at_its_first_refusal(tmp_path: Path, watched: Watched) -> None:
    primary = watched.primary()
    async with connect(watched.url(), max_connections=1) as redis:
        await redis.set("sb:{tag}:grant", "1")
        connection: Any = redis.connection_pool._available_connections[0]
        with running_server(tmp_path / "other", f"replicaof 127.0.0.1 {primary.port}") as other:
            connection._writer.close()
            connection._reader = connection._writer = None
            connection.host, connection.port = "127.0.0.1", other.port
            await connection.connect_check_health()
            redis.connection_pool.connection_kwargs["sentinels"].primary = Node("127.0.0.1", other.port)

            with pytest.raises(StoreUnavailable, match=r"^(READONLY|ReadOnlyError)$"), store_errors():
                await redis.set("sb:{tag}:grant", "2")
            assert not connection.is_connected

        assert await redis.set("sb:{tag}:grant", "3")
    assert primary.ask("GET", "sb:{tag}:grant") == b"3"


# The URL


def test_a_url_of_sentinels_says_who_is_asked_and_with_what() -> None:
    url = "redis+sentinel://broker:p%40ss@one,[::1]:5000/grants/2?sentinel_username=asker&sentinel_password=w%26rd"

    address = StoreAddress.parse(Secret(url))

    assert (address.kind, address.service) == ("sentinel", "grants")
    assert address.nodes == (Node("one", 26379), Node("::1", 5000))
    assert address.options == {"username": "broker", "password": "p@ss", "db": 2}
    assert address.sentinel_options == {"username": "asker", "password": "w&rd"}


def test_a_url_of_a_cluster_says_where_its_nodes_are() -> None:
    address = StoreAddress.parse(Secret("rediss+cluster://:pw@one:1,two?ssl_ca_certs=/ca.pem"))

    assert (address.kind, address.nodes) == ("cluster", (Node("one", 1), Node("two", 6379)))
    assert address.options["password"] == "pw"
    assert address.options["ssl_ca_certs"] == "/ca.pem"


@pytest.mark.parametrize(
    "url",
    [
        f"redis+cluster://:{CANARY}@",
        f"redis+cluster://:{CANARY}@one,,two",
        f"redis+cluster://:{CANARY}@one:{CANARY}",
        f"redis+cluster://:{CANARY}@one/1",
        f"redis+cluster://:{CANARY}@one?db=1",
        f"redis+cluster://:{CANARY}@one?ssl_ca_certs=/ca.pem",
        f"redis+cluster://:{CANARY}@one?read_from_replicas=true",
        f"redis+cluster://:{CANARY}@one#{CANARY}",
        f"redis+cluster://:{CANARY}/slash@one",
        f"rediss+cluster://:{CANARY}@one?ssl_cert_reqs=none",
        f"redis+sentinel://:{CANARY}@one",
        f"redis+sentinel://:{CANARY}@one/",
        f"redis+sentinel://:{CANARY}@one/a b/0",
        f"redis+sentinel://:{CANARY}@one/grants/first",
        f"redis+sentinel://:{CANARY}@one/grants?password={CANARY}",
        f"redis+sentinel://:{CANARY}@one/grants?ssl_ca_certs=/ca.pem",
        f"rediss+sentinel://:{CANARY}@one/grants?ssl_check_hostname=false",
        f"unix+cluster://:{CANARY}@/socket",
        f"redis+other://:{CANARY}@one",
    ],
)
def test_a_url_that_is_misread_or_weakens_a_connection_is_refused_and_not_quoted(url: str) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        connect(Secret(url))

    assert "the Redis URL must read" in str(refusal.value)
    assert CANARY not in f"{refusal.value}{refusal.value!r}"


def test_the_password_is_in_no_representation() -> None:
    url = f"redis+sentinel://operator:{CANARY}@one/grants?sentinel_password={CANARY}"

    for text in (url, f"redis+cluster://operator:{CANARY}@one"):
        client = connect(Secret(text))
        assert CANARY not in f"{client!r}{client}{client.connection_pool!r}{StoreAddress.parse(Secret(text))!r}"
