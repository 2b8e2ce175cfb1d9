"""Launches: one authorization at an EHR in progress. Used once, minutes-long, bound to the browser that began it."""

import json
from dataclasses import asdict, dataclass, field
from typing import Final, cast

from redis.asyncio import Redis

from broker.clock import Entropy
from broker.credentials import KeyedHash, random_text
from broker.errors import InvalidRequest
from broker.secret import Secret
from broker.store import keys
from broker.store.connection import store_errors
from broker.vault import RecordContext, Vault

LAUNCH_SECONDS: Final = 600
"""How long a person may take to log in at the EHR."""
_STATE_LENGTH: Final = 43


@dataclass(frozen=True, slots=True)
class AppRequest:
    """What an app asked at `/oauth/authorize`; it is answered when the EHR has authorized."""

    redirect_uri: str
    state: str = field(repr=False)
    code_challenge: str
    scope: str = field(repr=False)
    """What the app may get of what it asked, in canonical form."""
    nonce: str | None = field(default=None, repr=False)
    """Goes into the app's id_token as it came (OIDC Core §3.1.2.1)."""
    detailed: bool = False
    """Whether it asked by `authorization_details`, and is answered by them, too (RFC 9396 §7)."""
    dpop_jkt: str | None = None
    """The thumbprint of the key that the code is to be bound to (RFC 9449 §10)."""


@dataclass(frozen=True, slots=True)
class Reauthorizes:
    """The grant that a launch is to authorize again, and the link that it was begun by."""

    tag: str
    link: str
    """The keyed hash of the link: it is used up when the grant has its new tokens."""


@dataclass(frozen=True, slots=True)
class Launch:
    """Everything the callback must know again."""

    registration: str
    ehr: str
    app: str
    scope: str = field(repr=False)
    """What was asked of the EHR."""
    code_verifier: Secret
    nonce: Secret
    browser: str
    """Keyed hash of the cookie of the browser that began it (CB-02)."""
    app_request: AppRequest | None
    """None in an EHR launch: the app has asked nothing yet."""
    reauthorizes: Reauthorizes | None = None
    """None where a grant of its own comes of it."""


@dataclass(frozen=True, slots=True)
class Browser:
    """The cookie that ties a launch to one browser. Each launch has its own, so tabs do not meet (AL-21)."""

    cookie: str
    value: Secret


class Launches:
    """Keeps launches between the redirect to the EHR and its callback."""

    def __init__(self, redis: Redis, vault: Vault, keyed_hash: KeyedHash, *, tenant: str, entropy: Entropy) -> None:
        self._redis = redis
        self._vault = vault
        self._hash = keyed_hash
        self._tenant = tenant
        self._entropy = entropy

    def secret(self) -> Secret:
        """Make a `state`, a nonce, a code verifier or a cookie: 256 random bits (AL-10)."""
        return Secret(random_text(self._entropy))

    def browser_of(self, value: Secret | str) -> str:
        """Return what a launch remembers of a browser's cookie."""
        return self._hash("browser", value)

    def cookie_of(self, state: Secret | str) -> str:
        """Return the name of the cookie that belongs to a launch; it tells nothing about `state`."""
        return f"sb_launch_{self._hash('state', state)[:16]}"

    async def begin(self, state: Secret, launch: Launch) -> None:
        """Store the launch, sealed, under the keyed hash of its `state`."""
        digest = self._hash("state", state)
        fields = {
            **{name: getattr(launch, name) for name in ("registration", "ehr", "app", "scope", "browser")},
            "code_verifier": launch.code_verifier.reveal(),
            "nonce": launch.nonce.reveal(),
            "app_request": asdict(launch.app_request) if launch.app_request else None,
            "reauthorizes": asdict(launch.reauthorizes) if launch.reauthorizes else None,
        }
        sealed = await self._vault.seal(self._bound(digest), json.dumps(fields).encode(), ehr=launch.ehr)
        with store_errors():
            await self._redis.set(keys.launch(digest), sealed, px=LAUNCH_SECONDS * 1000)

    async def take(self, state: str) -> Launch:
        """Use a launch. Raises `InvalidRequest` when `state` is not one of ours, was used, or is too old (CB-01)."""
        public = "state is unknown, used or expired. Start again from the EHR or the app."
        if len(state) != _STATE_LENGTH:
            raise InvalidRequest("state is not one that the broker issued", public=public)
        digest = self._hash("state", state)
        with store_errors():
            sealed = cast("bytes | None", await self._redis.getdel(keys.launch(digest)))
        if sealed is None:
            raise InvalidRequest("state is unknown, used or expired", public=public)
        fields = json.loads(await self._vault.open(self._bound(digest), sealed))
        request, again = fields.pop("app_request"), fields.pop("reauthorizes", None)
        verifier, nonce = Secret(fields.pop("code_verifier")), Secret(fields.pop("nonce"))
        return Launch(
            **fields,
            code_verifier=verifier,
            nonce=nonce,
            app_request=AppRequest(**request) if request else None,
            reauthorizes=Reauthorizes(**again) if again else None,
        )

    def _bound(self, digest: str) -> RecordContext:
        return RecordContext(kind="launch", id=digest, tenant=self._tenant)
