"""What `broker check` wants to know of Redis."""

from dataclasses import dataclass
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from broker.clock import Clock
from broker.store.client import Durability
from broker.store.connection import store_errors

STRANGER: Final = "LASTSAVE"
"""Harmless, and of no use to the broker: a user that may send it may do more than the broker does."""
_WITHOUT_WAITING: Final[dict[Durability, tuple[str | int, ...]]] = {
    "primary": ("PING",),
    "replica": ("WAIT", 0, 1),
    "disk": ("WAITAOF", 0, 0, 1),
}


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What `broker check` wants to know of a primary. None: the server's ACL does not let us ask."""

    version: str | None = None
    """`Redis 7.0.15`, `Valkey 9.1.2`."""
    maxmemory_policy: str | None = None
    """Anything but `noeviction` lets Redis forget grants."""
    aof_enabled: bool | None = None
    clock_offset: float | None = None
    """Seconds that the server's clock is ahead of ours."""
    replicas: int | None = None
    """That are connected."""
    lag: int | None = None
    """Seconds since the slowest of them last said what it has."""
    has_least_replicas: bool | None = None
    """Whether it refuses writes when too few replicas keep up (`min-replicas-to-write`)."""
    can_wait: bool = False
    """Whether it has the command that the durability needs, and our user may send it."""
    may_too_much: bool = False
    """Whether our user may send what the broker never sends."""


async def server_facts(redis: Redis, clock: Clock, durability: Durability = "primary") -> ServerFacts:
    """Ask one server about itself. Raises StoreUnavailable."""
    with store_errors():
        info = await _if_allowed(redis, "INFO") or {}
        before = clock()
        time = await _if_allowed(redis, "TIME")
        between = (before + clock()) / 2
        stranger = await _if_allowed(redis, STRANGER)
        waited = await _if_allowed(redis, *_WITHOUT_WAITING[durability])
    product = "Valkey" if "valkey_version" in info else "Redis"
    version = info.get("valkey_version") or info.get("redis_version")
    lags = [of["lag"] for name, of in info.items() if name.startswith("slave") and isinstance(of, dict) and "lag" in of]
    return ServerFacts(
        version=f"{product} {version}" if version else None,
        maxmemory_policy=info.get("maxmemory_policy"),
        aof_enabled=bool(info["aof_enabled"]) if "aof_enabled" in info else None,
        clock_offset=time[0] + time[1] / 1_000_000 - between if time else None,
        replicas=info.get("connected_slaves"),
        lag=max(lags, default=None),
        has_least_replicas="min_slaves_good_slaves" in info if info else None,
        can_wait=waited is not None,
        may_too_much=stranger is not None,
    )


async def _if_allowed(redis: Redis, *command: str | int) -> Any:
    try:
        return await redis.execute_command(*command)  # type: ignore[no-untyped-call]
    except ResponseError:  # NOPERM, or "unknown command" where a hosting company renamed it
        return None
