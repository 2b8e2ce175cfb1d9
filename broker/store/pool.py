"""Connections that are ready in time, or refused in time.

A Redis that is gone is refused within a second: 0.2 seconds to wait for a free connection, then half a second to
connect, or 0.8 seconds for an answer on a connection that looked alive.
"""

import asyncio
from typing import Any, Final

from redis.asyncio import BlockingConnectionPool
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.exceptions import ConnectionError as NotConnectedError
from redis.maint_notifications import MaintNotificationsConfig

WAIT_SECONDS: Final = 0.2  # for one of the pool's connections to be free
CONNECT_SECONDS: Final = 0.5  # finding the primary, TLS, AUTH and all tries together
ANSWER_SECONDS: Final = 0.8
IDLE_SECONDS: Final = 15  # a connection unused for longer is asked PING first
CONNECT_RETRIES: Final = 2


class Pool(BlockingConnectionPool):
    """Hands out connections that are ready, or fails soon. A command on one of them is sent at most once."""

    def __init__(self, *, client_name: str, max_connections: int, **options: Any) -> None:
        super().__init__(
            **options,
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

    async def ensure_connection(self, connection: AbstractConnection) -> None:
        """Connect, or find that it is connected. Raises redis-py's ConnectionError after half a second."""
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
