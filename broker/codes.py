"""Codes and launches: used once, each leads an app to its handle."""

from dataclasses import dataclass, field
from typing import Final, cast

from redis.asyncio import Redis

from broker.credentials import CODE, LAUNCH, present
from broker.errors import InvalidGrant, InvalidRequest
from broker.handles import Handles
from broker.issued import IssuedRecords
from broker.scopes import Scopes
from broker.secret import Secret
from broker.store import keys
from broker.store.connection import Script, store_errors
from broker.store.scripts import script

CODE_SECONDS: Final = 60
"""CB-03: a code is used at once."""
LAUNCH_SECONDS: Final = 120
REPLAY_SECONDS: Final = 600
"""A used code is remembered this long, so that its replay ends what it gave."""


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
    nonce: str | None = field(default=None, repr=False)
    detailed: bool = False
    """Whether the app asked by `authorization_details` (RFC 9396)."""
    dpop_jkt: str | None = None
    """The thumbprint of the key that the code is for (RFC 9449 §10)."""


@dataclass(frozen=True, slots=True)
class AppLaunch:
    """A one-time `launch` value of the broker's own, handed to an app's launch URI."""

    tag: str
    app: str
    ehr: str
    browser: str
    """Keyed hash of the cookie of the browser that finished the EHR's launch (CB-02)."""


class Codes:
    """Issues codes and launches, and takes them back, once."""

    def __init__(self, redis: Redis, records: IssuedRecords, handles: Handles) -> None:
        self._redis = redis
        self._records = records
        self._handles = handles
        self._store: Script = script("store_code")
        self._take: Script = script("take_code")

    async def issue(self, code: Code) -> Secret:
        """Make a one-time authorization code that lives a minute."""
        fields = {
            "app": code.app,
            "ehr": code.ehr,
            "redirect_uri": code.redirect_uri,
            "code_challenge": code.code_challenge,
            "scopes": str(code.scopes),
            "family": code.family,
            "nonce": code.nonce,
            "detailed": code.detailed,
            "dpop_jkt": code.dpop_jkt,
        }
        made = await self._records.make(CODE, "code", code.tag, fields, lifetime=CODE_SECONDS)
        key = keys.issued(code.tag, "code", made.digest)
        await self._store(self._redis, [key], [CODE_SECONDS * 1000, code.family, made.sealed])
        return made.secret

    async def take(self, text: str) -> Code:
        """Use a code. Raises `InvalidGrant`; a replay also ends what the code gave (RFC 6749 §4.1.2)."""
        presented = present(CODE, text)
        if presented is None:
            raise InvalidGrant("malformed code")
        tag, digest = presented.tag, self._records.digest("code", presented.secret)
        with store_errors():
            said, *rest = await self._take(self._redis, [keys.issued(tag, "code", digest)], [REPLAY_SECONDS * 1000])
        if said == b"reused":
            await self._handles.end_family(tag, rest[0].decode())
            raise InvalidGrant("a used code was presented again")
        if said != b"ok":
            raise InvalidGrant("unknown or expired code")
        opened = await self._records.open("code", tag, digest, rest[1])
        if opened is None:
            raise InvalidGrant("expired code")
        return Code(tag=tag, **opened.fields)

    async def issue_launch(self, launch: AppLaunch) -> Secret:
        """Make a one-time `launch` value that lives two minutes."""
        fields = {"app": launch.app, "ehr": launch.ehr, "browser": launch.browser}
        made = await self._records.make(LAUNCH, "launch", launch.tag, fields, lifetime=LAUNCH_SECONDS)
        with store_errors():
            await self._redis.set(keys.issued(launch.tag, "launch", made.digest), made.sealed, px=LAUNCH_SECONDS * 1000)
        return made.secret

    async def take_launch(self, text: str) -> AppLaunch:
        """Use a launch value. Raises `InvalidRequest`."""
        presented = present(LAUNCH, text)
        if presented is None:
            raise InvalidRequest("malformed launch", public="launch is not one that this server issued.")
        tag, digest = presented.tag, self._records.digest("launch", presented.secret)
        with store_errors():
            sealed = cast("bytes | None", await self._redis.getdel(keys.issued(tag, "launch", digest)))
        opened = await self._records.open("launch", tag, digest, sealed) if sealed else None
        if opened is None:
            raise InvalidRequest("unknown, used or expired launch", public="launch is unknown, used or expired.")
        return AppLaunch(tag=tag, **opened.fields)
