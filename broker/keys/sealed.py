"""Make a key once, for all replicas."""

from collections.abc import Awaitable, Callable
from typing import cast

from redis.asyncio import Redis

from broker.store import keys
from broker.store.connection import store_errors
from broker.vault import RecordContext, Vault


async def create_once(
    redis: Redis, vault: Vault, *, tenant: str, name: str, make: Callable[[], Awaitable[bytes]], ehr: str = ""
) -> bytes:
    """Return the key of that name; if there is none, the first replica to store one makes it for all.

    `ehr`: the one that it is for, where it serves no other.

    It has no expiry: it is in use until an operator retires it. Raises `StoreUnavailable`, `SealBroken`.
    """
    context = RecordContext(kind="key", id=name, tenant=tenant)
    key = keys.sealed_key(name)
    with store_errors():
        sealed = cast("bytes | None", await redis.get(key))
    if sealed is None:
        candidate = await vault.seal(context, await make(), ehr=ehr)
        with store_errors():
            await redis.set(key, candidate, nx=True)
            sealed = cast("bytes", await redis.get(key))
    return await vault.open(context, sealed)
