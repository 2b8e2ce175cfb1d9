"""Which backend grant serves a registration with a set of scopes; over all replicas one asks for it (BS-07, BS-10)."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from redis.asyncio import Redis

from broker.clock import Clock, Entropy
from broker.credentials import KeyedHash, random_text
from broker.errors import EhrUnreachable, StoreUnavailable
from broker.grants.record import Grant
from broker.grants.records import Grants
from broker.scopes import Scopes
from broker.store import keys
from broker.store.connection import Script
from broker.store.scripts import script
from broker.store.shared import SharedConnections

KNOWN_SECONDS: Final = 86_400
"""A set of scopes that no app has asked for in so long gets a grant of its own the next time."""
LEASE_SECONDS: Final = 60.0
"""Longer than the longest token request; how long others wait at most before one of them asks in a dead one's place."""
WAIT_SECONDS: Final = 15.0
"""How long an app waits for a token request of another replica."""
HELD_SECONDS: Final = 5.0
"""When an app may come again whose wait was in vain."""
MOST_ASKED: Final = 30
ASKED_SECONDS: Final = 60.0
"""How many new grants one app may ask for in that time: there are more sets of scopes than an EHR should have token
requests."""
_POLL_SECONDS: Final = 0.05


@dataclass(frozen=True, slots=True)
class Purpose:
    """What a backend grant is for."""

    registration: str
    fhir_base: str
    scopes: Scopes

    def __str__(self) -> str:
        return f"{self.registration}\0{self.fhir_base}\0{self.scopes}"


@dataclass(frozen=True, slots=True)
class BackendGrants:
    """Finds the grant of a purpose; where there is none, one replica has it made and the others wait for it."""

    redis: Redis
    shared: SharedConnections
    grants: Grants
    keyed_hash: KeyedHash
    clock: Clock
    entropy: Entropy
    claiming: Script = field(default_factory=partial(script, "claim_backend"))
    settling: Script = field(default_factory=partial(script, "settle_backend"))
    counting: Script = field(default_factory=partial(script, "count_asked"))

    async def find(self, purpose: Purpose) -> Grant | None:
        """Return the grant there is. Raises `StoreUnavailable`."""
        pointer = keys.backend(self._digest(purpose))
        tag, _ = await self.shared.read(("GET", pointer), ("PEXPIRE", pointer, str(KNOWN_SECONDS * 1000)))
        return None if tag is None else await self._usable(tag.decode(), purpose)

    async def once(self, purpose: Purpose, make: Callable[[], Awaitable[Grant]]) -> Grant:
        """Return the grant there is, or have it made if nobody else does.

        Raises `EhrUnreachable` when another replica takes too long, and whatever `make` raises.
        """
        owner, give_up, useless = random_text(self.entropy), self.clock() + WAIT_SECONDS, ""
        try:
            while (found := await self._claim(purpose, owner, useless)) != ["claimed"]:
                if found[0] == "known":
                    if (grant := await self._usable(found[1], purpose)) is not None:
                        return grant
                    useless = found[1]
                elif self.clock() >= give_up:
                    raise EhrUnreachable("another replica's token request has not ended", retry_after=HELD_SECONDS)
                else:
                    await asyncio.sleep(_POLL_SECONDS)
            made = await make()
        except BaseException:
            with suppress(StoreUnavailable):
                await self._settle(purpose, owner, "")
            raise
        tag = await self._settle(purpose, owner, made.tag)
        return made if tag == made.tag else await self._usable(tag, purpose) or made

    async def may_ask(self, app: str) -> bool:
        """Count one more new grant of this app; False where it has had too many of late."""
        now_ms, name = int(self.clock() * 1000), random_text(self.entropy)
        args: list[str | int] = [now_ms, int(ASKED_SECONDS * 1000), MOST_ASKED, name]
        return bool(await self.counting(self.redis, [keys.asked(app)], args))

    async def _claim(self, purpose: Purpose, owner: str, useless: str) -> list[str]:
        args: list[str | int] = [owner, int(LEASE_SECONDS * 1000), KNOWN_SECONDS * 1000, useless]
        said: list[bytes] = await self.claiming(self.redis, self._keys(purpose), args)
        return [word.decode() for word in said]

    async def _settle(self, purpose: Purpose, owner: str, tag: str) -> str:
        known: bytes | None = await self.settling(self.redis, self._keys(purpose), [owner, tag, KNOWN_SECONDS * 1000])
        return known.decode() if known else ""

    async def _usable(self, tag: str, purpose: Purpose) -> Grant | None:
        (fields,) = await self.shared.read(("HGETALL", keys.grant(tag)))
        if not fields:
            return None
        grant = await self.grants.unpack(tag, fields)
        # The pointer is not sealed: whoever could write to the store could turn it to another grant.
        ours = grant.terms.flow == "backend" and grant.terms.registration == purpose.registration
        return grant if grant.state == "active" and ours else None

    def _keys(self, purpose: Purpose) -> list[str]:
        digest = self._digest(purpose)
        return [keys.backend(digest), keys.backend_lease(digest)]

    def _digest(self, purpose: Purpose) -> str:
        return self.keyed_hash("backend", str(purpose))
