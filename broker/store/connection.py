"""The one way to Redis: which servers, and what happens when they do not answer.

A command is sent at most once. Redis may have done what it did not live to answer, and a script that hands over a code
or turns a refresh handle would take its own second sending for a replay. Only connecting is tried again, because
nothing has been sent by then, and a command that a cluster redirects, because nothing ran; a connection that died while
idle is seen and replaced before it is used.
"""

import hashlib
import re
from collections.abc import Awaitable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias

from redis.asyncio.connection import SSLConnection
from redis.exceptions import NoScriptError, RedisError, ResponseError

from broker.errors import ConfigurationError, StoreUnacknowledged, StoreUnavailable
from broker.secret import Secret
from broker.store.address import Node, StoreAddress
from broker.store.client import ACKNOWLEDGEMENT, Durability, StoreClient
from broker.store.cluster import ClusterClient
from broker.store.embedded import EmbeddedServer, Fsync, running_url
from broker.store.pool import Pool
from broker.store.sentinel import SentinelClient, Sentinels, ToPrimary, ToPrimaryByTls

SENTINEL_CONNECTIONS: Final = 8
NO_STORE: Final = (
    "BROKER_REDIS_URL (or BROKER_REDIS_URL_FILE) is not set: name the Redis or Valkey that holds the grants, "
    "for example rediss://broker:PASSWORD@redis.internal:6379/0. To try the broker without one: broker demo"
)
UNACKNOWLEDGED: Final = "unacknowledged"
"""The write is on the primary; neither replica nor disk, whichever was asked for, had it in time."""

Value: TypeAlias = bytes | str | int | float


class Executes(Protocol):
    """What a command can be sent by: a client, or the connection that many share."""

    def execute_command(self, *command: Any) -> Awaitable[Any]:
        """Send it at most once. Raises redis-py's errors."""
        ...


@contextmanager
def resolve(
    url: Secret | None, *, state_dir: Path, allow_embedded: bool, fsync: Fsync = "everysec"
) -> Iterator[Secret]:
    """Yield the URL of the store: the one given, else that of the server under `state_dir`, started if need be.

    A server that was started here is stopped on leaving. Raises ConfigurationError without a URL where
    `allow_embedded` is false: a production process never falls back to a server of its own.
    """
    if url is not None:
        yield url
    elif not allow_embedded:
        raise ConfigurationError(NO_STORE)
    elif running := running_url(state_dir):
        yield running
    else:
        with EmbeddedServer.start(state_dir, fsync=fsync) as server:
            yield server.url()


def connect(
    url: Secret, *, client_name: str = "broker", max_connections: int = 64, durability: Durability = "primary"
) -> StoreClient:
    """Return a client of the Redis at `url`. It connects when first used, answers in bytes; `aclose()` closes it.

    TLS certificates and host names are always verified; no option of the URL can turn that off. A call that finds all
    of `max_connections` to a server in use waits for one while that server answers, for 5 seconds at most. What is
    written `durable` counts when who `durability` names has it. Raises ConfigurationError for a URL of another form.
    """
    address = StoreAddress.parse(url)
    open_pool = partial(Pool, client_name=client_name, max_connections=max_connections)

    def open_node(node: Node) -> StoreClient:
        return StoreClient.of(open_pool(**address.options, host=node.host, port=node.port), durability)

    if address.kind == "cluster":
        return ClusterClient.to(address.nodes, open_node, durability)
    if address.kind == "sentinel":
        sentinels = _sentinels(address, client_name)
        by_tls = address.options.get("connection_class") is SSLConnection
        options = address.options | {"connection_class": ToPrimaryByTls if by_tls else ToPrimary}
        return SentinelClient.by(sentinels, open_pool(**options, sentinels=sentinels), durability)
    return StoreClient.of(open_pool(**address.options), durability)


def _sentinels(address: StoreAddress, client_name: str) -> Sentinels:
    open_pool = partial(Pool, client_name=client_name, max_connections=SENTINEL_CONNECTIONS, **address.sentinel_options)
    clients = [StoreClient.of(open_pool(host=node.host, port=node.port)) for node in address.nodes]
    return Sentinels(clients, address.service)


@contextmanager
def store_errors() -> Iterator[None]:
    """Turn whatever Redis or the way to it raises into StoreUnavailable; put it around the store calls alone.

    The detail is the kind of failure in one word. The text of redis-py's errors goes nowhere: it can hold keys,
    arguments and addresses.
    """
    try:
        yield
    except (RedisError, OSError) as error:
        raise StoreUnavailable(_kind(error)) from None


def _kind(error: Exception) -> str:
    """Name the server's own error code (`NOPERM`, `OOM`, `WRONGTYPE`) where there is one, else the class."""
    if isinstance(error, ResponseError):
        code = error.status_code or str(error).partition(" ")[0]
        if re.fullmatch(r"[A-Z]{2,20}", code):
            return code
    return type(error).__name__


class Script:
    """A Lua script, sent by its SHA-1 and in full only to a server that does not know it yet.

    Use commands of Redis 7.0 alone, name every key in `keys`, and answer with values, never with an error reply: an
    error means StoreUnavailable.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()

    async def __call__(
        self, redis: Executes, keys: Sequence[str | bytes], args: Sequence[Value] = (), *, durable: bool = False
    ) -> Any:
        """Run it and return its answer, strings as bytes. Raises StoreUnavailable.

        With `durable` the answer counts only once the store's policy is met (`BROKER_REDIS_DURABILITY`). Where it is
        not met in time, the write is there all the same: call again, which must change nothing then.
        """
        with store_errors():
            try:
                return await _run(redis, ("EVALSHA", self._sha, len(keys), *keys, *args), durable=durable)
            except NoScriptError:  # nothing ran, so this is not a second sending
                return await _run(redis, ("EVAL", self._text, len(keys), *keys, *args), durable=durable)


async def _run(redis: Executes, command: Sequence[Value], *, durable: bool) -> Any:
    """Send the command, and on the same connection the wait for whoever else must have what it wrote."""
    if not durable:
        return await redis.execute_command(*command)
    if not isinstance(redis, StoreClient):
        raise TypeError("only a client of the store waits until others have a write, too")
    if (wait := ACKNOWLEDGEMENT.get(redis.durability)) is None:
        return await redis.execute_command(*command)  # type: ignore[no-untyped-call]
    async with redis.pipeline(transaction=False) as pipe:
        pipe.execute_command(*command)
        pipe.execute_command(*wait)
        answer, acknowledged = await pipe.execute(raise_on_error=False)
    for error in (answer, acknowledged):
        if isinstance(error, Exception):
            raise error
    if (acknowledged[0] if isinstance(acknowledged, list) else acknowledged) < 1:
        raise StoreUnacknowledged(UNACKNOWLEDGED)
    return answer
