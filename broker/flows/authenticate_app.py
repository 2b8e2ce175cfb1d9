"""An app proves who it is at `/oauth/token`, `/oauth/introspect` and `/oauth/revoke`.

One method a request (RFC 6749 §2.3): none (public, PKCE instead), `client_secret_basic` (only its SHA-256 is kept, in
`broker.toml`), or `private_key_jwt` as SMART defines it (CA-01…CA-09).
"""

import asyncio
import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import unquote_plus

from joserfc import jws, jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from redis.asyncio import Redis

from broker.apps import App, Directory
from broker.audit import AuditRecord, AuditTrail
from broker.clock import Clock
from broker.credentials import APP_SECRET, KeyedHash, present
from broker.ehr.client_auth import JWT_BEARER
from broker.ehr.discovery import parse_json_object
from broker.errors import InvalidClient, InvalidRequest
from broker.flows.app_keys import AppKeys
from broker.store import keys
from broker.store.connection import store_errors

ALGORITHMS: Final = ["ES384", "RS384"]
LONGEST_ASSERTION_SECONDS: Final = 300
LEEWAY_SECONDS: Final = 5
_LONGEST_JTI: Final = 256


class AuthenticateApp:
    """Checks an app's proof. Every failure is the same `invalid_client` outside; the audit record names the cause."""

    def __init__(
        self,
        redis: Redis,
        directory: Directory,
        app_keys: AppKeys,
        keyed_hash: KeyedHash,
        audit: AuditTrail,
        *,
        clock: Clock,
    ) -> None:
        self._redis = redis
        self._directory = directory
        self._app_keys = app_keys
        self._hash = keyed_hash
        self._audit = audit
        self._clock = clock

    async def __call__(
        self, form: Mapping[str, str], authorization: str | None, *, audience: str, request_id: str
    ) -> App:
        """Return the app. `audience` is the URL of this very endpoint. Raises `InvalidClient` or `InvalidRequest`."""
        app = None
        try:
            client_id, secret = self._claimed(form, authorization)
            app = self._directory.app(client_id)
            if app is None:
                raise InvalidClient("unknown client_id")
            await self._prove(app, form, secret, audience)
        except (InvalidClient, InvalidRequest) as error:
            self._audit.record(
                AuditRecord(
                    event="app.authenticate",
                    outcome="denied",
                    app=app.id if app else None,
                    reason=error.detail,
                    request_id=request_id,
                )
            )
            raise
        return app

    def _claimed(self, form: Mapping[str, str], authorization: str | None) -> tuple[str, str | None]:
        """Return who the request says it is from, before anything is proved."""
        if authorization is not None:
            if "client_assertion" in form or "client_secret" in form:
                raise InvalidRequest("two ways of authenticating in one request (RFC 6749 §2.3)")
            client_id, secret = _basic(authorization)
        elif "client_assertion" in form:
            client_id, secret = _unverified_subject(form["client_assertion"]), None
        else:
            client_id, secret = form.get("client_id", ""), None
        if form.get("client_id", client_id) != client_id:
            raise InvalidClient("client_id is not the one that authenticates (OA-12)")
        return client_id, secret

    async def _prove(self, app: App, form: Mapping[str, str], secret: str | None, audience: str) -> None:
        method = app.settings.authentication
        if method == "client_secret_basic":
            _check_secret(app, secret)
        elif secret is not None or "client_secret" in form:
            raise InvalidClient(f"app {app.id} authenticates by {method}, not by a secret")
        elif method == "private_key_jwt":
            await self._check_assertion(app, form, audience)
        elif "client_assertion" in form:
            raise InvalidClient(f"app {app.id} is public and has no key")

    async def _check_assertion(self, app: App, form: Mapping[str, str], audience: str) -> None:
        if form.get("client_assertion_type") != JWT_BEARER:
            raise InvalidClient("client_assertion_type is missing or not jwt-bearer (CA-08)")
        assertion = form.get("client_assertion", "")
        claims = await self._verify(app, assertion)
        jti, exp = check_claims(claims, app_id=app.id, audience=audience, now=self._clock())
        digest = self._hash("jti", f"{app.id}\0{jti}")
        keep = int((exp - self._clock() + 2 * LEEWAY_SECONDS) * 1000) + 1000
        with store_errors():
            fresh = await self._redis.set(keys.replay(digest), "1", nx=True, px=keep)
        if not fresh:
            raise InvalidClient("the assertion's jti was used before (CA-09)")

    async def _verify(self, app: App, assertion: str) -> dict[str, Any]:
        try:
            return await asyncio.to_thread(_decode, assertion, await self._app_keys.current(app))
        except InvalidClient:
            newer = await self._app_keys.newer(app)
            if newer is None:
                raise
        return await asyncio.to_thread(_decode, assertion, newer)


def check_claims(claims: Mapping[str, Any], *, app_id: str, audience: str, now: float) -> tuple[str, float]:
    """Return `jti` and `exp`. Raises `InvalidClient` (CA-04…CA-07, OA-13)."""
    jti, exp = claims.get("jti"), claims.get("exp")
    if claims.get("iss") != app_id or claims.get("sub") != app_id:
        raise InvalidClient("the assertion's iss and sub are not the client_id (CA-04)")
    if claims.get("aud") not in (audience, [audience]):
        raise InvalidClient("the assertion's aud is not this endpoint's URL (CA-05)")
    if (
        isinstance(exp, bool)
        or not isinstance(exp, int | float)
        or not isinstance(jti, str)
        or not 0 < len(jti) <= _LONGEST_JTI
        or not jti.isascii()
    ):
        raise InvalidClient("the assertion has no usable exp or jti (CA-06, CA-07)")
    if not now - LEEWAY_SECONDS < exp <= now + LONGEST_ASSERTION_SECONDS + LEEWAY_SECONDS:  # NaN is refused, too
        raise InvalidClient("the assertion has expired, or lives longer than 5 minutes (CA-06)")
    for claim in ("nbf", "iat"):
        value = claims.get(claim, 0)
        if isinstance(value, bool) or not isinstance(value, int | float) or not value <= now + LEEWAY_SECONDS:
            raise InvalidClient(f"the assertion's {claim} is not a time in the past (CA-11)")
    return jti, float(exp)


def _decode(assertion: str, key_set: KeySet) -> dict[str, Any]:
    try:
        token = jwt.decode(assertion, key_set, algorithms=ALGORITHMS, registry=jws.JWSRegistry(algorithms=ALGORITHMS))
    except (JoseError, ValueError, TypeError, KeyError) as error:
        raise InvalidClient(f"the assertion does not verify ({type(error).__name__}) (OA-13)") from None
    if str(token.header.get("typ", "JWT")).upper() != "JWT" or "kid" not in token.header:
        raise InvalidClient("the assertion's header has no kid, or its typ is not JWT (CA-02)")
    return dict(token.claims)


def _check_secret(app: App, presented: str | None) -> None:
    if presented is None or present(APP_SECRET, presented) is None:
        raise InvalidClient("no secret, or one that this broker never made")
    digest = "sha256:" + hashlib.sha256(presented.encode()).hexdigest()
    if not hmac.compare_digest(digest, str(app.settings.secret_hash)):
        raise InvalidClient("wrong secret")


def _basic(authorization: str) -> tuple[str, str]:
    """Read HTTP Basic; both parts are form-encoded (RFC 6749 §2.3.1)."""
    scheme, _, encoded = authorization.partition(" ")
    try:
        client_id, separator, secret = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        separator = client_id = secret = ""
    if scheme.lower() != "basic" or not separator:
        raise InvalidClient("the Authorization header is not HTTP Basic")
    return unquote_plus(client_id), unquote_plus(secret)


def _unverified_subject(assertion: str) -> str:
    """Return the `sub` that an assertion claims, to find the key that must have signed it."""
    try:
        padded = assertion.split(".")[1] + "=="
        unverified_claims = parse_json_object(base64.urlsafe_b64decode(padded)) or {}
    except (IndexError, ValueError):
        unverified_claims = {}
    subject = unverified_claims.get("sub")
    if not isinstance(subject, str):
        raise InvalidClient("the assertion is not a JWT with a subject")
    return subject
