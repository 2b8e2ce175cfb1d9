"""Handles in the store: issued, redeemed, spent, ended."""

from collections.abc import Callable, Mapping
from typing import Any, Final, cast

from redis.asyncio import Redis

from broker.clock import Clock
from broker.credentials import HANDLE, REFRESH_HANDLE, Presented, present
from broker.dpop import WINDOW_SECONDS, DpopProof
from broker.errors import InvalidDpopProof, InvalidGrant, InvalidHandle, ReauthorizationRequired
from broker.grants import Grant, Grants
from broker.handles.handle import ID_LENGTH, UNBOUND, Ancestor, Confirmation, Handle, Issued, RefreshHandle
from broker.issued import IssuedRecords, Made
from broker.limits import Limits
from broker.remembered import Remembered
from broker.scopes import Scopes
from broker.secret import Secret
from broker.store import keys
from broker.store.connection import Script, store_errors
from broker.store.scripts import script
from broker.store.shared import SharedConnections

REMEMBERED: Final = 4096
"""How many handles a process need not open again, as long as the store still gives the very same record."""


def require_well_formed(text: str) -> Presented:
    """Raise `InvalidHandle` for what cannot be a handle of ours: no look-up and no cryptography is spent on that."""
    presented = present(HANDLE, text)
    if presented is None:
        raise InvalidHandle("malformed")
    return presented


class Handles:
    """Issues, redeems and ends handles."""

    def __init__(
        self, redis: Redis, shared: SharedConnections, records: IssuedRecords, grants: Grants, *, clock: Clock
    ) -> None:
        self._redis = redis
        self._shared = shared
        self._opened: Remembered[tuple[str, bytes], Handle] = Remembered(REMEMBERED)
        self._records = records
        self._grants = grants
        self._clock = clock
        self._issue: Script = script("issue_handle")
        self._end: Script = script("end_handle")
        self._end_family: Script = script("end_family")
        self._take_use: Script = script("take_use")
        self._redeem_with_proof: Script = script("redeem_with_proof")

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
        grace: int = 0,
        bound_to: Confirmation = UNBOUND,
    ) -> Issued:
        """Make a handle of `lifetime` seconds, with a refresh handle if `refresh_lifetime` is not 0.

        `announce` is told the handle's public id before anything is stored. A refresh handle keeps the scope of the one
        it replaces, however narrow the handle is (RFC 6749 §6). One that was spent is forgiven once, for `grace`
        seconds, if nobody has used the refresh handle that was issued for it: the pair of that time ends. It is
        bound to what `bound_to` says; its refresh handle only to the key, since who has a certificate to bind to
        authenticates by it (RFC 8705 §4).

        Raises `InvalidGrant` when the spent refresh handle is unknown or was used before (then its family is ended), or
        when the family has been ended; `ReauthorizationRequired` when the grant is gone.
        """
        record = {"app": app, "ehr": ehr, "scopes": str(scopes), "family": family}
        handle = await self._records.make(HANDLE, "handle", tag, record | bound_to.fields(), lifetime=lifetime)
        refresh = None
        if refresh_lifetime:
            kept = {"scopes": str(spends.scopes if spends else scopes), "jkt": bound_to.jkt}
            refresh = await self._records.make(REFRESH_HANDLE, "refresh", tag, record | kept, lifetime=refresh_lifetime)
        announce(handle.digest[:ID_LENGTH])
        said = await self._store(tag, family, handle, lifetime, refresh, refresh_lifetime, spends, grace)
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
        grace: int,
    ) -> str:
        beside = refresh.digest if refresh else ""
        spent = spends.digest if spends else ""
        said: bytes = await self._issue(
            self._shared,
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
                grace * 1000 if spends and spends.spent else 0,
            ],
        )
        return said.decode()

    async def redeem(self, text: str, ehr: str, proof: DpopProof | None = None) -> tuple[Handle, Grant]:
        """Find a presented handle and its grant, and use its DPoP proof up, in one round trip.

        Raises `InvalidHandle`, also for a bound handle without a proof or with one of another key, and for a proof with
        a handle that is not bound; `InvalidDpopProof` for one that was used before.
        """
        handle, grant = await self._find(text, ehr, proof)
        if handle.jkt != (proof.jkt if proof else None):
            raise InvalidHandle(
                f"handle {handle.id} is bound to {'no' if handle.jkt is None else 'another' if proof else 'a'} key",
                needs_proof=handle.jkt is not None,
            )
        return handle, grant

    async def _find(self, text: str, ehr: str | None, proof: DpopProof | None = None) -> tuple[Handle, Grant]:
        presented = require_well_formed(text)
        tag, digest = presented.tag, self._records.digest("handle", presented.secret)
        handle_key, grant_key = keys.issued(tag, "handle", digest), keys.grant(tag)
        if proof is None:
            sealed, fields = await self._read(handle_key, grant_key)
        else:
            mark = keys.issued(tag, "proof", self._records.digest("dpop", Secret(f"{proof.jkt}\0{proof.jti}")))
            sealed, fields = await self._read_with_proof(handle_key, grant_key, mark)
        if sealed is None or not fields:
            raise InvalidHandle("unknown, expired or revoked")
        handle = await self._open_handle(tag, digest, sealed)
        if handle is None:
            raise InvalidHandle(f"handle {digest[:ID_LENGTH]} has expired")
        grant = await self._grants.unpack(tag, fields)
        if handle.ehr != grant.terms.ehr or ehr not in {None, handle.ehr}:
            raise InvalidHandle(f"handle {handle.id} is bound to EHR {handle.ehr}")
        if grant.state == "revoked":
            raise InvalidHandle(f"grant {tag} is revoked")
        return handle, grant

    async def _read(self, handle_key: str, grant_key: str) -> tuple[bytes | None, Mapping[bytes, bytes]]:
        sealed, fields = await self._shared.read(("GET", handle_key), ("HGETALL", grant_key))
        return sealed, fields

    async def _read_with_proof(
        self, handle_key: str, grant_key: str, mark: str
    ) -> tuple[bytes | None, Mapping[bytes, bytes]]:
        keep = 2 * WINDOW_SECONDS * 1000
        sealed, *rest = await self._redeem_with_proof(self._shared, [handle_key, grant_key, mark], [keep])
        if sealed is None:
            return None, {}
        flat, fresh = rest
        if not fresh:
            raise InvalidDpopProof("the proof was used before")
        return sealed, dict(zip(flat[::2], flat[1::2], strict=True))

    async def find(self, text: str) -> tuple[Handle, Grant] | None:
        """Return a live handle for introspection, whichever EHR it is for; None when there is none."""
        try:
            return await self._find(text, None)
        except InvalidHandle:
            return None

    async def find_refresh(self, text: str) -> RefreshHandle:
        """Return the refresh handle, used or not: `issue` decides that. Raises `InvalidGrant`."""
        presented = present(REFRESH_HANDLE, text)
        if presented is None:
            raise InvalidGrant("malformed refresh handle")
        tag, digest = presented.tag, self._records.digest("refresh", presented.secret)
        with store_errors():
            found = self._redis.hmget(keys.issued(tag, "refresh", digest), ["sealed", "used"])
            sealed, used = cast("tuple[bytes | None, bytes | None]", await found)
        if sealed is None:
            raise InvalidGrant("unknown or expired refresh handle")
        opened = await self._records.open("refresh", tag, digest, sealed)
        if opened is None:
            raise InvalidGrant("expired refresh handle")
        return RefreshHandle(tag=tag, digest=digest, spent=used == b"1", **opened.fields)

    async def take_use(self, handle: Handle) -> None:
        """Take one use of a handle whose uses are counted, on whichever replica. Raises `InvalidHandle` after the last.

        A handle that was exchanged takes one of each that it was exchanged for as well, where those are counted. With
        the last one the handle ends, and all that was exchanged for it; the request that took it goes on.
        """
        on = [keys.issued(handle.tag, "exchanged", handle.root)]
        counters = [keys.issued(handle.tag, "uses", digest) for digest in handle.counters]
        if counters and not await self._take_use(self._shared, on + counters):
            raise InvalidHandle(f"handle {handle.id} has no uses left")

    async def revoke(self, handle: Handle | RefreshHandle) -> None:
        """End one handle and all exchanged for it, or with a refresh handle its whole family (RFC 7009 §2.1)."""
        if isinstance(handle, RefreshHandle):
            await self.end_family(handle.tag, handle.family)
            return
        await self._revoke(handle)

    async def revoke_by_id(self, tag: str, handle_id: str) -> bool:
        """End the handle of that public id, and all exchanged for it; False when there is none."""
        found = [handle for handle in await self.live(tag) if handle.id == handle_id]
        return bool(found) and await self._revoke(found[0])

    async def _revoke(self, handle: Handle) -> bool:
        tag, digest = handle.tag, handle.digest
        with store_errors():
            on = [keys.issued(tag, "handle", digest), keys.issued(tag, "exchanged", handle.root)]
            return bool(await self._end(self._redis, on, [digest]))

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

    async def held(self, tag: str) -> int:
        """Count the handles and refresh handles of a grant that have not expired."""
        return len([kind for _, kind, _ in await self._members(tag) if kind in {"handle", "refresh"}])

    async def _digests(self, tag: str) -> list[str]:
        return [digest for _, kind, digest in await self._members(tag) if kind == "handle"]

    async def _members(self, tag: str) -> list[list[str]]:
        """Return family, kind and digest of what was handed out and has not expired."""
        with store_errors():
            members = await self._redis.zrangebyscore(keys.handles(tag), self._clock() * 1000, "+inf")
        return [cast("bytes", member).decode().split(":") for member in members]

    async def _open_handle(self, tag: str, digest: str, sealed: bytes) -> Handle | None:
        known = self._opened.get((digest, sealed))
        if known is not None:
            return known if known.expires_at > self._clock() else None
        opened = await self._records.open("handle", tag, digest, sealed)
        if opened is None:
            return None
        handle = Handle(digest=digest, tag=tag, expires_at=opened.expires_at, **_as_values(opened.fields))
        return self._opened.keep((digest, sealed), handle)


def _as_values(fields: dict[str, Any]) -> dict[str, Any]:
    ancestors = tuple(Ancestor(**ancestor) for ancestor in fields.get("ancestors", ()))
    limited = {"limits": Limits.of_members(fields["limits"])} if "limits" in fields else {}
    return fields | {"ancestors": ancestors} | limited
