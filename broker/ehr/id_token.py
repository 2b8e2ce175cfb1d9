"""Verify an EHR's id_token (ID-01…ID-08, OIDC Core §3.1.3.7, RFC 8725).

Checks, in order:
(1) the signature, with a key of the issuer's JWK Set and an asymmetric algorithm from the list below (ID-04)
(2) `iss` equals the issuer of openid-configuration exactly, trailing slash included (ID-03)
(3) `aud` holds the client id; `azp` is the client id where there are several audiences
(4) `exp` is ahead, `iat` is not in the future; a minute of leeway
(5) `nonce` is the one that was sent
Not checked here: who `fhirUser` is. The broker passes it on and never fetches it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from joserfc import jws, jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from joserfc.jwt import JWTClaimsRegistry

from broker.clock import Clock
from broker.egress import Egress
from broker.ehr.discovery import Discovery, Endpoints, parse_json_object
from broker.errors import EhrMisbehaved
from broker.secret import Secret

ALGORITHMS: Final = ["RS256", "RS384", "RS512", "PS256", "PS384", "ES256", "ES384"]
LEEWAY_SECONDS: Final = 60
_TIMEOUT_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Identity:
    """What a verified id_token says."""

    issuer: str
    subject: str
    fhir_user: str | None


class IdTokens:
    """Finds the issuer's keys and verifies tokens."""

    def __init__(self, egress: Egress, discovery: Discovery, clock: Clock) -> None:
        self._egress = egress
        self._discovery = discovery
        self._clock = clock

    async def verify(
        self, token: Secret, *, endpoints: Endpoints, fhir_base: str, client_id: str, nonce: Secret | None
    ) -> Identity:
        """Return the identity. Raises `EhrMisbehaved` naming the failed check."""
        configuration = await self._discovery.openid_configuration(endpoints.issuer or fhir_base)
        issuer = configuration.get("issuer")
        if not isinstance(issuer, str) or not issuer:
            raise EhrMisbehaved("the openid-configuration names no issuer (ID-03)")
        keys = await self._keys(str(configuration.get("jwks_uri") or endpoints.jwks_uri or ""))
        claims = verify_signature(token, keys)
        check_claims(claims, issuer=issuer, client_id=client_id, nonce=nonce, now=self._clock())
        user = claims.get("fhirUser") or claims.get("profile")
        return Identity(claims["iss"], claims["sub"], user if isinstance(user, str) else None)

    async def _keys(self, jwks_uri: str) -> KeySet:
        answer = await self._egress.fetch(
            "GET", jwks_uri, headers={"Accept": "application/json"}, timeout=_TIMEOUT_SECONDS
        )
        document = parse_json_object(answer.body) if answer.status == 200 else None
        return parse_jwks(document)


def parse_jwks(document: Mapping[str, Any] | None) -> KeySet:
    """Read a JWK Set; symmetric and unreadable keys are left out. Raises `EhrMisbehaved` if none is left."""
    keys = document.get("keys") if document else None
    usable = []
    for key in keys if isinstance(keys, list) else []:
        if isinstance(key, dict) and key.get("kty") in {"RSA", "EC"}:
            try:
                usable += KeySet.import_key_set({"keys": [key]}).keys
            except (JoseError, ValueError, TypeError, KeyError):
                continue
    if not usable:
        raise EhrMisbehaved("the JWK Set has no usable key (ID-02)")
    return KeySet(usable)


def verify_signature(token: Secret, keys: KeySet) -> dict[str, Any]:
    """Check (1). Raises `EhrMisbehaved`. Keys named inside the token (`jku`, `x5u`, `jwk`) are never used (OA-26)."""
    registry = jws.JWSRegistry(algorithms=ALGORITHMS)
    try:
        return dict(jwt.decode(token.reveal(), keys, algorithms=ALGORITHMS, registry=registry).claims)
    except (JoseError, ValueError, TypeError, KeyError) as error:
        raise EhrMisbehaved(f"the id_token's signature does not verify ({type(error).__name__}) (ID-01)") from None


def check_claims(claims: Mapping[str, Any], *, issuer: str, client_id: str, nonce: Secret | None, now: float) -> None:
    """Checks (2) to (5). Raises `EhrMisbehaved`."""
    registry = JWTClaimsRegistry(
        now=int(now),
        leeway=LEEWAY_SECONDS,
        iss={"essential": True, "value": issuer},
        sub={"essential": True},
        aud={"essential": True, "value": client_id},
        exp={"essential": True},
        iat={"essential": True},
    )
    try:
        registry.validate(dict(claims))
    except JoseError as error:
        raise EhrMisbehaved(f"the id_token is not acceptable ({type(error).__name__}) (ID-01)") from None
    audiences = claims["aud"]
    if isinstance(audiences, list) and len(audiences) > 1 and claims.get("azp") != client_id:
        raise EhrMisbehaved("the id_token has several audiences and azp is not this client (ID-01)")
    if nonce is not None and not nonce.matches(str(claims.get("nonce", ""))):
        raise EhrMisbehaved("the id_token's nonce is not the one that was sent (ID-01)")
