"""The one way to Redis: which server, how long it may take, and what happens when it does not answer.

A Redis that is gone is refused within a second: 0.2 seconds to wait for a free connection, then half a second to
connect, or 0.8 seconds for an answer on a connection that looked alive.

A command is sent at most once. Redis may have done what it did not live to answer, and a script that hands over a code
or turns a refresh handle would take its own second sending for a replay. Only connecting is tried again, because
nothing has been sent by then; a connection that died while idle is seen and replaced before it is used.
"""

import asyncio
import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias
from urllib.parse import parse_qs, urlsplit

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.exceptions import ConnectionError as NotConnectedError
from redis.exceptions import NoScriptError, RedisError, ResponseError
from redis.maint_notifications import MaintNotificationsConfig

from broker.clock import Clock
from broker.errors import ConfigurationError, StoreUnavailable
from broker.secret import Secret
from broker.store.embedded import EmbeddedServer, Fsync, running_url

WAIT_SECONDS: Final = 0.2  # for one of the pool's connections to be free
CONNECT_SECONDS: Final = 0.5  # TLS, AUTH and all tries together
ANSWER_SECONDS: Final = 0.8
IDLE_SECONDS: Final = 15  # a connection unused for longer is asked PING first
CONNECT_RETRIES: Final = 2
TLS_OPTIONS: Final = frozenset({"ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile"})
NO_STORE: Final = (
    "BROKER_REDIS_URL (or BROKER_REDIS_URL_FILE) is not set: name the Redis or Valkey that holds the grants, "
    "for example rediss://broker:PASSWORD@redis.internal:6379/0. To try the broker without one: broker demo"
)
UNREADABLE_URL: Final = (
    "the Redis URL must read redis://[user]:password@host:port/db, rediss://… for TLS, or unix://:password@/path?db=0, "
    "with special characters of the password percent-encoded; rediss:// also takes "
    + ", ".join(sorted(TLS_OPTIONS))
    + " after a question mark, and no other option is taken"
)

Value: TypeAlias = bytes | str | int | float


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


def connect(url: Secret, *, client_name: str = "broker", max_connections: int = 64) -> Redis:
    """Return a client of the Redis at `url`. It connects when first used, answers in bytes; `aclose()` closes it.

    TLS certificates and host names are always verified; no option of the URL can turn that off. A call that finds all
    of `max_connections` in use waits 0.2 seconds, then fails. Raises ConfigurationError for a URL of another form.
    """
    pool = _Pool(
        **_address(url),
        max_connections=max_connections,
        timeout=WAIT_SECONDS,
        client_name=client_name,
        driver_info=None,
        protocol=3,
        legacy_responses=False,
        decode_responses=False,
        socket_connect_timeout=CONNECT_SECONDS,
        socket_timeout=ANSWER_SECONDS,
        health_check_interval=IDLE_SECONDS,
        retry=Retry(NoBackoff(), 0),
        # With them a closed idle connection would go unnoticed, and the server could move us to another address.
        maint_notifications_config=MaintNotificationsConfig(enabled=False),
    )
    return Redis.from_pool(pool)


class _Pool(BlockingConnectionPool):
    """Hands out connections that are ready, or fails soon."""

    async def ensure_connection(self, connection: AbstractConnection) -> None:
        connect = super().ensure_connection
        retry = Retry(ExponentialWithJitterBackoff(base=0.02, cap=0.2), CONNECT_RETRIES, (NotConnectedError,))
        try:
            async with asyncio.timeout(CONNECT_SECONDS) as limit:
                await retry.call_with_retry(
                    lambda: connect(connection),
                    lambda _: connection.disconnect(),
                    # redis-py sends with asyncio.wait_for, which before Python 3.12 can swallow the cancellation.
                    lambda _: not limit.expired(),
                )
        except TimeoutError:
            raise NotConnectedError("no connection in time") from None


def _address(url: Secret) -> dict[str, Any]:
    """Parse the URL. What is wrong with it is never quoted: it may be a piece of the password."""
    with suppress(ValueError):
        parts = urlsplit(url.reveal())
        place = parts.hostname if parts.scheme != "unix" else parts.path
        allowed = {"db"} | (TLS_OPTIONS if parts.scheme == "rediss" else set())
        sound = place and parse_qs(parts.query, keep_blank_values=True).keys() <= allowed and not parts.fragment
        if sound and (parts.scheme == "unix" or re.fullmatch(r"/?\d*", parts.path)):
            return dict(parse_url(url.reveal()))
    raise ConfigurationError(UNREADABLE_URL)


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

    async def __call__(self, redis: Redis, keys: Sequence[str | bytes], args: Sequence[Value] = ()) -> Any:
        """Run it and return its answer, strings as bytes. Raises StoreUnavailable."""
        with store_errors():
            try:
                return await redis.evalsha(self._sha, len(keys), *keys, *args)
            except NoScriptError:  # nothing ran, so this is not a second sending
                return await redis.eval(self._text, len(keys), *keys, *args)


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What `broker check` wants to know. None: the server's ACL does not let us ask."""

    version: str | None
    """`Redis 7.0.15`, `Valkey 9.1.2`."""
    maxmemory_policy: str | None
    """Anything but `noeviction` lets Redis forget grants."""
    aof_enabled: bool | None
    clock_offset: float | None
    """Seconds that the server's clock is ahead of ours."""


async def server_facts(redis: Redis, clock: Clock) -> ServerFacts:
    """Ask the server about itself. Raises StoreUnavailable."""
    with store_errors():
        info = await _if_allowed(redis, "INFO") or {}
        before = clock()
        time = await _if_allowed(redis, "TIME")
        between = (before + clock()) / 2
    product = "Valkey" if "valkey_version" in info else "Redis"
    version = info.get("valkey_version") or info.get("redis_version")
    return ServerFacts(
        version=f"{product} {version}" if version else None,
        maxmemory_policy=info.get("maxmemory_policy"),
        aof_enabled=bool(info["aof_enabled"]) if "aof_enabled" in info else None,
        clock_offset=time[0] + time[1] / 1_000_000 - between if time else None,
    )


async def _if_allowed(redis: Redis, command: str) -> Any:
    try:
        return await redis.execute_command(command)  # type: ignore[no-untyped-call]
    except ResponseError:  # NOPERM, or "unknown command" where a hosting company renamed it
        return None
