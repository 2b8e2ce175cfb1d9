"""What the rooms hold: a client of one server that knows when a write counts as kept."""

from typing import Any, Final, Literal, Self, TypeAlias

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.asyncio.connection import Connection

from broker.store.pool import ANSWER_SECONDS, Pool

Durability: TypeAlias = Literal["primary", "replica", "disk"]
"""Who must have a write that may not be lost: the server that answers, a replica of it, or its append-only file."""
REPLICA_MILLISECONDS: Final = 500
DISK_MILLISECONDS: Final = 1_500
"""With `appendfsync everysec` a write is on disk within a second."""
ACKNOWLEDGEMENT: Final[dict[Durability, tuple[str | int, ...]]] = {
    "replica": ("WAIT", 1, REPLICA_MILLISECONDS),
    "disk": ("WAITAOF", 1, 0, DISK_MILLISECONDS),
}


class StoreClient(Redis):
    """redis-py's client with the store's policy."""

    durability: Durability = "primary"

    @classmethod
    def of(cls, pool: Pool, durability: Durability = "primary") -> Self:
        """Return a client that closes its pool."""
        client = cls(connection_pool=pool)
        client.auto_close_connection_pool = True
        client.durability = durability
        return client

    def pipeline(self, transaction: bool = False, shard_hint: str | None = None) -> "StorePipeline":  # noqa: FBT001, FBT002 - redis-py's signature
        """Return one round trip of several commands, which are not atomic: what must be is a script."""
        return StorePipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)


class StorePipeline(Pipeline):
    """Waits longer for a disk than for an answer."""

    async def parse_response(self, connection: Connection, command_name: str | bytes, **options: Any) -> Any:
        """Read one answer."""
        if command_name == "WAITAOF":
            return await connection.read_response(timeout=DISK_MILLISECONDS / 1000 + ANSWER_SECONDS)
        return await super().parse_response(connection, command_name, **options)
