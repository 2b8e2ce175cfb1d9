"""The way to a primary that sentinels watch: asked for anew with each connection.

All sentinels are asked at once, and the first whose primary says itself that it is one is believed. So neither a dead
sentinel nor one that has not heard of the failover keeps anybody waiting, and no read comes from a replica.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any, Self

from redis.asyncio.connection import Connection, SSLConnection
from redis.exceptions import ConnectionError as NotConnectedError
from redis.exceptions import ReadOnlyError, RedisError

from broker.store.address import Node
from broker.store.client import Durability, StoreClient
from broker.store.pool import Pool


class Sentinels:
    """Some sentinels of one primary."""

    def __init__(self, clients: Sequence[StoreClient], service: str) -> None:
        self._clients = clients
        self._service = service
        self.primary: Node | None = None
        """The last one that a connection was made to."""

    async def primaries(self) -> AsyncIterator[Node]:
        """Yield each address that some sentinel names, as their answers come in."""
        asking = [asyncio.ensure_future(self._ask(client)) for client in self._clients]
        named: set[Node] = set()
        try:
            for answer in asyncio.as_completed(asking):
                node = await answer
                if node is not None and node not in named:
                    named.add(node)
                    yield node
        finally:
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)

    async def _ask(self, client: StoreClient) -> Node | None:
        try:
            answer = await client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service)  # type: ignore[no-untyped-call]
        except (RedisError, OSError):
            return None
        return Node(answer[0].decode(), int(answer[1])) if answer else None

    async def close(self) -> None:
        """Close the connections to the sentinels."""
        for client in self._clients:
            await client.aclose()


class _ToPrimary:
    """Part of a connection: it leads to the primary of the moment, and ends when that is one no more."""

    def __init__(self, *, sentinels: Sentinels, **options: Any) -> None:
        super().__init__(**options)
        self.sentinels = sentinels
        self.host, self.port = "", 0

    @property
    def leads_to_primary(self) -> bool:
        """Whether no other connection has found out that there is a new one."""
        return self.sentinels.primary in {None, (self.host, self.port)}

    async def connect(self: Any) -> None:
        if self.is_connected:
            if self.leads_to_primary:
                return
            await self.disconnect()
        async with aclosing(self.sentinels.primaries()) as primaries:
            async for node in primaries:
                if await self._connects_to(node):
                    self.sentinels.primary = node
                    return
        raise NotConnectedError("no sentinel names a primary that answers")

    async def _connects_to(self: Any, node: Node) -> bool:
        self.host, self.port = node
        try:
            await super().connect()  # type: ignore[misc] # of the class that this is mixed into
            await self.send_command("ROLE", check_health=False)
            role = await self.read_response()
        except (RedisError, OSError):
            await self.disconnect()
            return False
        if role[0] == b"master":
            return True
        await self.disconnect()
        return False

    async def read_response(self: Any, *args: Any, **options: Any) -> Any:
        try:
            return await super().read_response(*args, **options)  # type: ignore[misc] # as above
        except ReadOnlyError:  # it was made a replica under us
            await self.disconnect()
            raise


class ToPrimary(_ToPrimary, Connection):
    """A connection to the primary."""


class ToPrimaryByTls(_ToPrimary, SSLConnection):
    """The same by TLS."""


class SentinelClient(StoreClient):
    """A client of the primary that closes the way to its sentinels, too."""

    sentinels: Sentinels

    @classmethod
    def by(cls, sentinels: Sentinels, pool: Pool, durability: Durability) -> Self:
        """Return a client whose `pool` makes connections that ask these sentinels."""
        client = cls.of(pool, durability)
        client.sentinels = sentinels
        return client

    async def aclose(self, close_connection_pool: bool | None = None) -> None:  # noqa: FBT001 - redis-py's signature
        """Close everything."""
        await super().aclose(close_connection_pool)
        await self.sentinels.close()
