"""Put a new authorization into a grant that exists: the same id, so that handles and bindings survive."""

from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Literal

from redis.asyncio import Redis

from broker.clock import Clock
from broker.errors import StoreUnacknowledged
from broker.grants.record import Grant
from broker.grants.records import SealedGeneration
from broker.grants.untold import Untold
from broker.store import keys
from broker.store.connection import Script
from broker.store.scripts import script

Said = Literal["ok", "gone", "revoked", "used", "stale"]
_TRIES: Final = 3


@dataclass(frozen=True, slots=True)
class Reauthorizing:
    """Writes the generation that a person authorized over the one that was read."""

    redis: Redis
    untold: Untold
    clock: Clock
    write: Script = field(default_factory=partial(script, "reauthorize_grant"))

    async def __call__(self, grant: Grant, following: SealedGeneration, *, link: str) -> Said:
        """Write `following` over `grant` and use the link up, by its keyed hash. Written again, it changes nothing.

        It counts once the store's policy is met (`BROKER_REDIS_DURABILITY`), or after three times that nobody
        acknowledged it: as with a refresh, what is written there is all there is. Raises `StoreUnavailable`.
        """
        for _ in range(_TRIES):
            with suppress(StoreUnacknowledged):
                return await self._write(grant, following, link)
        return "ok"

    async def _write(self, grant: Grant, following: SealedGeneration, link: str) -> Said:
        tag = grant.tag
        said: bytes = await self.write(
            self.redis,
            [keys.grant(tag), keys.lease(tag), keys.issued(tag, "reauthorize", link), keys.untold(tag)],
            [
                grant.generation,
                following.lives,
                following.grant.sealed_tokens or b"",
                *self.untold.mark(),
                *(part for pair in following.fields.items() for part in pair),
                "reauthorized_at",
                repr(self.clock()),
            ],
            durable=True,
        )
        if said == b"ok":
            self.untold.hint(tag)
        return said.decode()  # type: ignore[return-value]  # the script answers with these words only
