"""Handles: what an app holds instead of a token, and the one-time codes and launches that lead to one.

Only the keyed hash of what was handed out is in Redis, as the name of a record that is itself sealed.
"""

import json
from dataclasses import dataclass
from typing import Any, Final, cast

from redis.asyncio import Redis

from broker.clock import Clock, Entropy
from broker.credentials import CODE, HANDLE, LAUNCH, REFRESH_HANDLE, KeyedHash, mint, present
from broker.errors import InvalidGrant, InvalidHandle, InvalidRequest, NotFound, ReauthorizationRequired
from broker.grants import Grant, Grants
from broker.scopes import Scopes
from broker.secret import Secret
from broker.store import keys
from broker.store.connection import Script, store_errors
from broker.store.scripts import script
from broker.vault import RecordContext, Vault

CODE_SECONDS: Final = 60
"""CB-03: a code is used at once."""
LAUNCH_SECONDS: Final = 120
REPLAY_SECONDS: Final = 600
"""A used code is remembered this long, so that its replay ends what it gave."""
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
class Code:
    """What an authorization code stands for (RFC 6749 §4.1.2)."""

    tag: str
    app: str
    ehr: str
    redirect_uri: str
    code_challenge: str
    scopes: Scopes
    family: str


@dataclass(frozen=True, slots=True)
class AppLaunch:
    """A one-time `launch` value of the broker's own, handed to an app's launch URI."""

    tag: str
    app: str
    ehr: str
    browser: str
    """Keyed hash of the cookie of the browser that finished the EHR's launch (CB-02)."""


@dataclass(frozen=True, slots=True)
class Issued:
    """A new handle, and what goes with it."""

    handle: Secret
    handle_id: str
    expires_in: int
    refresh_handle: Secret | None


class Handles:
    """Issues, redeems and ends handles."""

    def __init__(
        self,
        redis: Redis,
        vault: Vault,
        grants: Grants,
        keyed_hash: KeyedHash,
        *,
        tenant: str,
        clock: Clock,
        entropy: Entropy,
    ) -> None:
        self._redis = redis
        self._vault = vault
        self._grants = grants
        self._hash = keyed_hash
        self._tenant = tenant
        self._clock = clock
        self._entropy = entropy
        self._issue: Script = script("issue_handle")
        self._end_family: Script = script("end_family")
        self._take_code: Script = script("take_code")

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
        spends: RefreshHandle | None = None,
    ) -> Issued:
        """Make a handle of `lifetime` seconds, with a refresh handle if `refresh_lifetime` is not 0.

        A refresh handle keeps the scope of the one it replaces, however narrow the handle is (RFC 6749 §6).

        Raises `InvalidGrant` when the spent refresh handle is unknown or was used before (then its family is ended),
        `ReauthorizationRequired` when the grant is gone.
        """
        now = self._clock()
        limits = {"app": app, "ehr": ehr, "scopes": str(scopes), "family": family}
        kept = str(spends.scopes) if spends else str(scopes)
        handle, digest, member, sealed = await self._make(
            HANDLE, "handle", tag, limits | {"expires_at": now + lifetime}
        )
        refresh, refresh_digest, refresh_member, refresh_sealed = None, digest, "", b""
        if refresh_lifetime:
            refresh, refresh_digest, refresh_member, refresh_sealed = await self._make(
                REFRESH_HANDLE, "refresh", tag, limits | {"scopes": kept}
            )
        with store_errors():
            said: bytes = await self._issue(
                self._redis,
                [
                    keys.grant(tag),
                    keys.handles(tag),
                    keys.issued(tag, "handle", digest),
                    keys.issued(tag, "refresh", refresh_digest),
                    keys.issued(tag, "refresh", spends.digest if spends else digest),
                ],
                [
                    int(now * 1000),
                    lifetime * 1000,
                    sealed,
                    member,
                    refresh_lifetime * 1000,
                    refresh_sealed,
                    refresh_member,
                    family,
                    "1" if spends else "0",
                ],
            )
        if said in {b"unknown", b"reused"}:
            await self.end_family(tag, family)
            raise InvalidGrant(f"a refresh handle of family {family} was {said.decode()}")
        if said != b"ok":
            raise ReauthorizationRequired(f"grant {tag} is {said.decode()}")
        return Issued(handle, digest[:_ID_LENGTH], lifetime, refresh)

    async def redeem(self, text: str, ehr: str) -> tuple[Handle, Grant]:
        """Find a presented handle and its grant in one round trip. Raises `InvalidHandle`."""
        presented = present(HANDLE, text)
        if presented is None:
            raise InvalidHandle("malformed")
        tag, digest = presented.tag, self._hash("handle", presented.secret)
        with store_errors():
            async with self._redis.pipeline(transaction=False) as pipe:
                pipe.get(keys.issued(tag, "handle", digest))
                pipe.hgetall(keys.grant(tag))
                sealed, fields = await pipe.execute()
        if sealed is None or not fields:
            raise InvalidHandle("unknown, expired or revoked")
        handle = await self._open_handle(tag, digest, sealed)
        grant = await self._grants.unpack(tag, fields)
        if handle.ehr != ehr or grant.terms.ehr != ehr:
            raise InvalidHandle(f"handle {handle.id} is bound to EHR {handle.ehr}")
        if handle.expires_at <= self._clock():
            raise InvalidHandle(f"handle {handle.id} has expired")
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
        tag, digest = presented.tag, self._hash("refresh", presented.secret)
        with store_errors():
            sealed = cast("bytes | None", await self._redis.hget(keys.issued(tag, "refresh", digest), "sealed"))
        if sealed is None:
            raise InvalidGrant("unknown or expired refresh handle")
        fields = await self._open("refresh", tag, digest, sealed)
        return RefreshHandle(tag=tag, digest=digest, **fields)

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
            return int(await self._end_family(self._redis, [keys.handles(tag)], [family]))

    async def live(self, tag: str) -> list[Handle]:
        """List the live handles of a grant, soonest end first."""
        digests = await self._digests(tag)
        with store_errors():
            async with self._redis.pipeline(transaction=False) as pipe:
                for digest in digests:
                    pipe.get(keys.issued(tag, "handle", digest))
                found: list[bytes | None] = await pipe.execute()
        return [await self._open_handle(tag, d, sealed) for d, sealed in zip(digests, found, strict=True) if sealed]

    async def _digests(self, tag: str) -> list[str]:
        with store_errors():
            members = await self._redis.zrangebyscore(keys.handles(tag), self._clock() * 1000, "+inf")
        issued = [cast("bytes", member).decode().split(":") for member in members]
        return [digest for _, kind, digest in issued if kind == "handle"]

    async def issue_code(self, code: Code) -> Secret:
        """Make a one-time authorization code that lives a minute."""
        fields = {
            "app": code.app,
            "ehr": code.ehr,
            "redirect_uri": code.redirect_uri,
            "code_challenge": code.code_challenge,
            "scopes": str(code.scopes),
            "family": code.family,
        }
        secret, digest, _, sealed = await self._make(CODE, "code", code.tag, fields)
        key = keys.issued(code.tag, "code", digest)
        with store_errors():
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.hset(key, mapping={"family": code.family, "sealed": sealed})
                pipe.pexpire(key, CODE_SECONDS * 1000)
                await pipe.execute()
        return secret

    async def take_code(self, text: str) -> Code:
        """Use a code. Raises `InvalidGrant`; a replay also ends what the code gave (RFC 6749 §4.1.2)."""
        presented = present(CODE, text)
        if presented is None:
            raise InvalidGrant("malformed code")
        tag, digest = presented.tag, self._hash("code", presented.secret)
        with store_errors():
            said, *rest = await self._take_code(
                self._redis, [keys.issued(tag, "code", digest)], [REPLAY_SECONDS * 1000]
            )
        if said == b"reused":
            await self.end_family(tag, rest[0].decode())
            raise InvalidGrant("a used code was presented again")
        if said != b"ok":
            raise InvalidGrant("unknown or expired code")
        return Code(tag=tag, **await self._open("code", tag, digest, rest[1]))

    async def issue_launch(self, launch: AppLaunch) -> Secret:
        """Make a one-time `launch` value that lives two minutes."""
        fields = {"app": launch.app, "ehr": launch.ehr, "browser": launch.browser}
        secret, digest, _, sealed = await self._make(LAUNCH, "launch", launch.tag, fields)
        with store_errors():
            await self._redis.set(keys.issued(launch.tag, "launch", digest), sealed, px=LAUNCH_SECONDS * 1000)
        return secret

    async def take_launch(self, text: str) -> AppLaunch:
        """Use a launch value. Raises `InvalidRequest`."""
        presented = present(LAUNCH, text)
        if presented is None:
            raise InvalidRequest("malformed launch", public="launch is not one that this server issued.")
        tag, digest = presented.tag, self._hash("launch", presented.secret)
        with store_errors():
            sealed = cast("bytes | None", await self._redis.getdel(keys.issued(tag, "launch", digest)))
        if sealed is None:
            raise InvalidRequest("unknown, used or expired launch", public="launch is unknown, used or expired.")
        return AppLaunch(tag=tag, **await self._open("launch", tag, digest, sealed))

    async def _make(self, prefix: str, kind: str, tag: str, fields: dict[str, Any]) -> tuple[Secret, str, str, bytes]:
        secret = mint(prefix, tag, self._entropy)
        digest = self._hash(kind, secret)
        sealed = await self._vault.seal(self._bound(kind, tag, digest), json.dumps(fields).encode())
        return secret, digest, f"{fields.get('family', '-')}:{kind}:{digest}", sealed

    async def _open(self, kind: str, tag: str, digest: str, sealed: bytes) -> dict[str, Any]:
        fields: dict[str, Any] = json.loads(await self._vault.open(self._bound(kind, tag, digest), sealed))
        if "scopes" in fields:
            fields["scopes"] = Scopes.parse(fields["scopes"])
        return fields

    async def _open_handle(self, tag: str, digest: str, sealed: bytes) -> Handle:
        return Handle(id=digest[:_ID_LENGTH], tag=tag, **await self._open("handle", tag, digest, sealed))

    def _bound(self, kind: str, tag: str, digest: str) -> RecordContext:
        return RecordContext(kind=kind, id=f"{tag}:{digest}", tenant=self._tenant)
