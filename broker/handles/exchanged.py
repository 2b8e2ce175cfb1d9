"""Handles for handles (RFC 8693): each is narrower than the one it was exchanged for, and ends with it."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Final

from redis.asyncio import Redis

from broker.clock import Clock
from broker.credentials import HANDLE
from broker.errors import InvalidGrant, InvalidRequest, ReauthorizationRequired
from broker.handles.handle import ID_LENGTH, UNBOUND, Ancestor, Confirmation, Handle, Issued
from broker.issued import IssuedRecords, Made
from broker.limits import Limits, meet
from broker.scopes import Scopes
from broker.store import keys
from broker.store.connection import Script
from broker.store.scripts import script

MOST_EXCHANGES: Final = 4
"""From the handle that was issued first to the last one exchanged for it."""
MOST_DESCENDANTS: Final = 32
"""Live handles that hang on one issued handle, directly or over others: ending it stays one short step."""


class ExchangedHandles:
    """Issues handles for handles. `Handles` redeems and ends them like any other."""

    def __init__(self, redis: Redis, records: IssuedRecords, *, clock: Clock) -> None:
        self._redis = redis
        self._records = records
        self._clock = clock
        self._exchange: Script = script("exchange_handle")

    async def issue(
        self,
        subject: Handle,
        *,
        app: str,
        scopes: Scopes,
        lifetime: int,
        patient: str | None,
        uses: int | None,
        limits: Limits | None = None,
        announce: Callable[[str], None],
        bound_to: Confirmation = UNBOUND,
    ) -> Issued:
        """Make a handle of `lifetime` seconds for `app`; with `uses` it works that many times.

        It ends no later than `subject`, and keeps the subject's patient and limits where it has them; it is bound to
        what `bound_to` says. `announce` is told its public id before anything is stored. Raises
        `InvalidGrant` when the subject has ended meanwhile, `InvalidRequest` when too many hang together,
        `ReauthorizationRequired` when the grant is gone.
        """
        if len(subject.ancestors) >= MOST_EXCHANGES:
            raise _too_many(f"handle {subject.id} was exchanged {MOST_EXCHANGES} times")
        ancestors = (*subject.ancestors, Ancestor(subject.digest, subject.app, subject.counted))
        narrowed = meet((subject.limits, limits))
        record = {
            "app": app,
            "ehr": subject.ehr,
            "scopes": str(scopes),
            "family": subject.family,
            "patient": subject.patient or patient,
            "counted": uses is not None,
            "ancestors": [asdict(ancestor) for ancestor in ancestors],
            **bound_to.fields(),
            **({} if narrowed is None else {"limits": narrowed.members()}),
        }
        made = await self._records.make(
            HANDLE, "handle", subject.tag, record, lifetime=lifetime, ends_by=subject.expires_at
        )
        announce(made.digest[:ID_LENGTH])
        said = await self._store(subject, made, lifetime, uses or 0)
        if said == "crowded":
            raise _too_many(f"{MOST_DESCENDANTS} live handles were exchanged for {subject.root[:ID_LENGTH]}")
        if said == "ended":
            raise InvalidGrant(f"handle {subject.id} was ended meanwhile")
        if said != "ok":
            raise ReauthorizationRequired(f"grant {subject.tag} is {said}")
        return Issued(made.secret, lifetime)

    async def _store(self, subject: Handle, made: Made, lifetime: int, uses: int) -> str:
        tag, root = subject.tag, subject.root
        above = [ancestor.digest for ancestor in subject.ancestors]
        said: bytes = await self._exchange(
            self._redis,
            [
                keys.grant(tag),
                keys.handles(tag),
                keys.issued(tag, "handle", made.digest),
                keys.issued(tag, "handle", subject.digest),
                keys.issued(tag, "exchanged", root),
                keys.issued(tag, "uses", made.digest),
                keys.issued(tag, "ended", subject.family),
            ],
            [
                int(self._clock() * 1000),
                lifetime * 1000,
                made.sealed,
                f"{subject.family}:handle:{made.digest}",
                f"{subject.family}:exchanged:{root}",
                f"{subject.family}:uses:{made.digest}",
                ":".join([*above, subject.digest, made.digest]),
                MOST_DESCENDANTS,
                uses,
            ],
        )
        return said.decode()


def _too_many(detail: str) -> InvalidRequest:
    return InvalidRequest(detail, public="Too many tokens hang on subject_token already.")
