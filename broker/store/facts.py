"""What `broker check` wants to know of Redis."""

from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from broker.clock import Clock
from broker.store.connection import store_errors


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
