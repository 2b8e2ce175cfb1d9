"""`private_key_jwt` as SMART defines it (CA-01…CA-11): an assertion that the app signs itself, used once.

Whom it is for (`aud`): the endpoint it is sent to, the token endpoint, or the issuer, and nobody else. SMART says the
URL posted to (CA-05); clients send the token endpoint's to introspection and revocation too; the successor of RFC 7523
wants the issuer. All three name this broker alone, and a `jti` works once at all of them together.
"""

from collections.abc import Mapping
from typing import Any, Final

from broker.apps import App
from broker.clock import Clock
from broker.credentials import KeyedHash
from broker.ehr.client_auth import JWT_BEARER
from broker.ehr.unverified import unverified_claims
from broker.errors import InvalidClient
from broker.flows.proof.key_sets import KeySets, KeySource
from broker.flows.proof.proof import Proof
from broker.flows.proof.signed_jwt import LEEWAY_SECONDS, check_times, read_header, verify
from broker.secret import Secret
from broker.store import keys
from broker.store.connection import store_errors
from broker.store.shared import SharedConnections

ALGORITHMS: Final = ("ES384", "RS384")
LONGEST_ASSERTION_SECONDS: Final = 300
_LONGEST_JTI: Final = 256


class PrivateKeyJwt:
    """Checks assertions that apps sign."""

    def __init__(
        self, shared: SharedConnections, key_sets: KeySets, keyed_hash: KeyedHash, clock: Clock, public_url: str
    ) -> None:
        self._shared = shared
        self._key_sets = key_sets
        self._hash = keyed_hash
        self._clock = clock
        self._public_url = public_url

    async def check(self, app: App, proof: Proof) -> None:
        """Raises `InvalidClient`, `StoreUnavailable`."""
        assertion = proof.assertion
        if assertion is None or proof.form.get("client_assertion_type") != JWT_BEARER:
            raise InvalidClient("client_assertion or client_assertion_type is missing, or not jwt-bearer (CA-08)")
        if (unverified_claims(Secret(assertion)) or {}).get("sub") != app.id:
            raise InvalidClient("client_id is not the one that authenticates (OA-12)")
        header = read_header(assertion, ALGORITHMS)
        if header.jku not in (None, app.settings.jwks_uri):
            raise InvalidClient("the assertion's jku is not the registered JWK Set URL (CA-03, CA-09)")
        source = KeySource(f"app {app.id}", jwks=app.settings.jwks, uri=app.settings.jwks_uri)
        claims = await verify(assertion, header, await self._key_sets.key(source, header.kid))
        audiences = {proof.endpoint, f"{self._public_url}/oauth/token", self._public_url}
        jti, exp = check_claims(claims, app_id=app.id, audiences=audiences, now=self._clock())
        await self._use(app, jti, exp)

    async def _use(self, app: App, jti: str, exp: float) -> None:
        digest = self._hash("jti", f"{app.id}\0{jti}")
        keep = int((exp - self._clock() + 2 * LEEWAY_SECONDS) * 1000) + 1000
        with store_errors():
            fresh = await self._shared.execute_command("SET", keys.replay(digest), "1", "NX", "PX", keep)
        if not fresh:
            raise InvalidClient("the assertion's jti was used before (CA-09)")


def check_claims(claims: Mapping[str, Any], *, app_id: str, audiences: set[str], now: float) -> tuple[str, float]:
    """Return `jti` and `exp`. Raises `InvalidClient` (CA-04…CA-07, OA-13)."""
    jti, audience = claims.get("jti"), claims.get("aud")
    if claims.get("iss") != app_id or claims.get("sub") != app_id:
        raise InvalidClient("the assertion's iss and sub are not the client_id (CA-04)")
    named = audience if isinstance(audience, list) else [audience]
    if len(named) != 1 or not isinstance(named[0], str) or named[0] not in audiences:
        raise InvalidClient("the assertion's aud is not this broker's alone (CA-05)")
    if not isinstance(jti, str) or not 0 < len(jti) <= _LONGEST_JTI or not jti.isascii():
        raise InvalidClient("the assertion has no usable jti (CA-07)")
    return jti, check_times(claims, now=now, longest=LONGEST_ASSERTION_SECONDS)
