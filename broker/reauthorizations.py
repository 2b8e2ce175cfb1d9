"""Links by which a person authorizes an existing grant again: one-time, hours-long, kept as a keyed hash."""

from dataclasses import dataclass, field
from functools import partial
from typing import Final, cast

from redis.asyncio import Redis

from broker.clock import Clock, Entropy
from broker.credentials import REAUTHORIZATION, present, random_text
from broker.errors import InvalidRequest
from broker.grants import Grant
from broker.issued import IssuedRecords
from broker.secret import Secret
from broker.store import keys
from broker.store.connection import Script, store_errors
from broker.store.scripts import script

LONGEST_SECONDS: Final = 7 * 86_400
MOST_BEGUN: Final = 10
BEGUN_SECONDS: Final = 600.0
"""How many launches one link begins in that time: each costs the EHR a request or two, and the store a record."""
_GONE: Final = "This link is unknown, used or expired. Ask for a new one."


@dataclass(frozen=True, slots=True)
class Link:
    """What a link stands for."""

    tag: str
    digest: str
    ehr: str
    authorized_at: float
    """When the grant was last authorized, as the link was made: another authorization since then ends it, too."""


@dataclass(frozen=True, slots=True)
class Reauthorizations:
    """Makes links and finds them. One is used up by the script that gives its grant new tokens."""

    redis: Redis
    records: IssuedRecords
    clock: Clock
    entropy: Entropy
    counting: Script = field(default_factory=partial(script, "count_asked"))

    async def make(self, grant: Grant, lifetime: int) -> Secret:
        """Make the text of a link that lives so many seconds. Raises `StoreUnavailable`."""
        fields = {"ehr": grant.terms.ehr, "authorized_at": grant.authorized_at}
        made = await self.records.make(REAUTHORIZATION, "reauthorize", grant.tag, fields, lifetime=lifetime)
        key = keys.issued(grant.tag, "reauthorize", made.digest)
        with store_errors():
            await self.redis.set(key, made.sealed, px=lifetime * 1000)
        return made.secret

    async def find(self, text: str) -> Link:
        """Return what a link stands for; it stays good. Raises `InvalidRequest` when it is not one, or no more."""
        presented = present(REAUTHORIZATION, text)
        if presented is None:
            raise InvalidRequest("malformed link", public=_GONE)
        tag, digest = presented.tag, self.records.digest("reauthorize", presented.secret)
        with store_errors():
            sealed = cast("bytes | None", await self.redis.get(keys.issued(tag, "reauthorize", digest)))
        opened = await self.records.open("reauthorize", tag, digest, sealed) if sealed else None
        if opened is None:
            raise InvalidRequest("unknown, used or expired link", public=_GONE)
        return Link(tag=tag, digest=digest, **opened.fields)

    async def may_begin(self, link: Link) -> bool:
        """Count one more launch by this link; False where it has had too many of late."""
        now_ms, name = int(self.clock() * 1000), random_text(self.entropy)
        key = keys.issued(link.tag, "begun", link.digest)
        args: list[str | int] = [now_ms, int(BEGUN_SECONDS * 1000), MOST_BEGUN, name]
        return bool(await self.counting(self.redis, [key], args))
