"""Handles: what an app holds instead of a token."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, cast

from redis.asyncio import Redis

from broker.clock import Clock
from broker.credentials import HANDLE, REFRESH_HANDLE, present
from broker.errors import InvalidGrant, InvalidHandle, NotFound, ReauthorizationRequired
from broker.grants import Grant, Grants
from broker.issued import IssuedRecords, Made
from broker.scopes import Scopes
from broker.secret import Secret
from broker.store import keys
from broker.store.connection import Script, store_errors
from broker.store.scripts import script

_ID_LENGTH: Final = 16


@dataclass(frozen=True, slots=True)
class Handle:
    """A handle's limits. It can do what these, its grant and its app's policy all allow."""

    id: str
    """Public: the first digits of its keyed hash. It stands in audit records and listings, and opens nothing."""
    tag: str
    app: str
    ehr: str
    scopes: Scopes
    family: str
    """The authorization of the app that this handle came from; reuse of its refresh handle ends all of it."""
    expires_at: float


@dataclass(frozen=True, slots=True)
class RefreshHandle:
    """What the app may trade for a new handle, once."""

    tag: str
    app: str
    ehr: str
    scopes: Scopes
    family: str
    digest: str


@dataclass(frozen=True, slots=True)
class Issued:
    """A new handle, and what goes with it."""

    handle: Secret
    expires_in: int
    """Seconds."""
    refresh_handle: Secret | None


class Handles:
    """Issues, redeems and ends handles."""

    def __init__(self, redis: Redis, records: IssuedRecords, grants: Grants, *, clock: Clock) -> None:
        self._redis = redis
        self._records = records
        self._grants = grants
        self._clock = clock
        self._issue: Script = script("issue_handle")
        self._end_family: Script = script("end_family")

    async def issue(
        self,
        *,
        tag: str,
        app: str,
        ehr: str,
        scopes: Scopes,
        family: str,
        lifetime: int,
        refresh_lifetime: int,
        announce: Callable[[str], None],
        spends: RefreshHandle | None = None,
    ) -> Issued:
        """Make a handle of `lifetime` seconds, with a refresh handle if `refresh_lifetime` is not 0.

        `announce` is told the handle's public id before anything is stored. A refresh handle keeps the scope of the one
        it replaces, however narrow the handle is (RFC 6749 §6).

        Raises `InvalidGrant` when the spent refresh handle is unknown or was used before (then its family is ended), or
        when the family has been ended; `ReauthorizationRequired` when the grant is gone.
        """
        limits = {"app": app, "ehr": ehr, "scopes": str(scopes), "family": family}
        handle = await self._records.make(HANDLE, "handle", tag, limits, lifetime=lifetime)
        refresh = None
        if refresh_lifetime:
            kept = {"scopes": str(spends.scopes)} if spends else {}
            refresh = await self._records.make(REFRESH_HANDLE, "refresh", tag, limits | kept, lifetime=refresh_lifetime)
        announce(handle.digest[:_ID_LENGTH])
        said = await self._store(tag, family, handle, lifetime, refresh, refresh_lifetime, spends)
        if said in {"unknown", "reused"}:
            await self.end_family(tag, family)
            raise InvalidGrant(f"a refresh handle of family {family} was {said}")
        if said == "ended":
            raise InvalidGrant(f"family {family} was ended meanwhile")
        if said != "ok":
            raise ReauthorizationRequired(f"grant {tag} is {said}")
        return Issued(handle.secret, lifetime, refresh.secret if refresh else None)

    async def _store(
        self,
        tag: str,
        family: str,
        handle: Made,
        lifetime: int,
        refresh: Made | None,
        refresh_lifetime: int,
        spends: RefreshHandle | None,
    ) -> str:
        beside = refresh.digest if refresh else ""
        spent = spends.digest if spends else ""
        said: bytes = await self._issue(
            self._redis,
            [
                keys.grant(tag),
                keys.handles(tag),
                keys.issued(tag, "handle", handle.digest),
                keys.issued(tag, "refresh", beside),
                keys.issued(tag, "refresh", spent),
                keys.issued(tag, "ended", family),
            ],
            [
                int(self._clock() * 1000),
                lifetime * 1000,
                handle.sealed,
                f"{family}:handle:{handle.digest}",
                refresh_lifetime * 1000,
                refresh.sealed if refresh else b"",
                f"{family}:refresh:{beside}",
                "1" if spends else "0",
            ],
        )
        return said.decode()

    async def redeem(self, text: str, ehr: str) -> tuple[Handle, Grant]:
        """Find a presented handle and its grant in one round trip. Raises `InvalidHandle`."""
        presented = present(HANDLE, text)
        if presented is None:
            raise InvalidHandle("malformed")
        tag, digest = presented.tag, self._records.digest("handle", presented.secret)
        with store_errors():
            async with self._redis.pipeline(transaction=False) as pipe:
                pipe.get(keys.issued(tag, "handle", digest))
                pipe.hgetall(keys.grant(tag))
                sealed, fields = await pipe.execute()
        if sealed is None or not fields:
            raise InvalidHandle("unknown, expired or revoked")
        handle = await self._open_handle(tag, digest, sealed)
        if handle is None:
            raise InvalidHandle(f"handle {digest[:_ID_LENGTH]} has expired")
        grant = await self._grants.unpack(tag, fields)
        if handle.ehr != ehr or grant.terms.ehr != ehr:
            raise InvalidHandle(f"handle {handle.id} is bound to EHR {handle.ehr}")
        if grant.state == "revoked":
            raise InvalidHandle(f"grant {tag} is revoked")
        return handle, grant

    async def find(self, text: str) -> tuple[Handle, Grant] | None:
        """Return a live handle for introspection, whichever EHR it is for; None when there is none."""
        presented = present(HANDLE, text)
        if presented is None:
            return None
        with store_errors():
            fields = cast("dict[bytes, bytes]", await self._redis.hgetall(keys.grant(presented.tag)))
        try:
            grant = await self._grants.unpack(presented.tag, fields)
            return await self.redeem(text, grant.terms.ehr)
        except (InvalidHandle, NotFound):
            return None

    async def find_refresh(self, text: str) -> RefreshHandle:
        """Return the refresh handle, used or not: `issue` decides that. Raises `InvalidGrant`."""
        presented = present(REFRESH_HANDLE, text)
        if presented is None:
            raise InvalidGrant("malformed refresh handle")
        tag, digest = presented.tag, self._records.digest("refresh", presented.secret)
        with store_errors():
            sealed = cast("bytes | None", await self._redis.hget(keys.issued(tag, "refresh", digest), "sealed"))
        if sealed is None:
            raise InvalidGrant("unknown or expired refresh handle")
        opened = await self._records.open("refresh", tag, digest, sealed)
        if opened is None:
            raise InvalidGrant("expired refresh handle")
        return RefreshHandle(tag=tag, digest=digest, **opened.fields)

    async def revoke(self, handle: Handle | RefreshHandle) -> None:
        """End one handle, or with a refresh handle its whole family (RFC 7009 §2.1)."""
        if isinstance(handle, RefreshHandle):
            await self.end_family(handle.tag, handle.family)
            return
        await self.revoke_by_id(handle.tag, handle.id)

    async def revoke_by_id(self, tag: str, handle_id: str) -> bool:
        """End the handle of that public id; False when there is none."""
        digests = [digest for digest in await self._digests(tag) if digest[:_ID_LENGTH] == handle_id]
        with store_errors():
            return bool(digests) and bool(await self._redis.delete(keys.issued(tag, "handle", digests[0])))

    async def end_family(self, tag: str, family: str) -> int:
        """End everything that came from one authorization of an app; returns how many records that were."""
        with store_errors():
            return int(
                await self._end_family(self._redis, [keys.handles(tag), keys.issued(tag, "ended", family)], [family])
            )

    async def live(self, tag: str) -> list[Handle]:
        """List the live handles of a grant, soonest end first."""
        digests = await self._digests(tag)
        with store_errors():
            async with self._redis.pipeline(transaction=False) as pipe:
                for digest in digests:
                    pipe.get(keys.issued(tag, "handle", digest))
                found: list[bytes | None] = await pipe.execute()
        live = [await self._open_handle(tag, d, sealed) for d, sealed in zip(digests, found, strict=True) if sealed]
        return [handle for handle in live if handle is not None]

    async def _digests(self, tag: str) -> list[str]:
        with store_errors():
            members = await self._redis.zrangebyscore(keys.handles(tag), self._clock() * 1000, "+inf")
        issued = [cast("bytes", member).decode().split(":") for member in members]
        return [digest for _, kind, digest in issued if kind == "handle"]

    async def _open_handle(self, tag: str, digest: str, sealed: bytes) -> Handle | None:
        opened = await self._records.open("handle", tag, digest, sealed)
        if opened is None:
            return None
        return Handle(id=digest[:_ID_LENGTH], tag=tag, expires_at=opened.expires_at, **opened.fields)
