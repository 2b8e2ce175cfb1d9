"""Verify an EHR's id_token (ID-01…ID-08, OIDC Core §3.1.3.7, RFC 8725).

Checks, in order:
(1) the signature, with a key of the issuer's JWK Set and an asymmetric algorithm from the list below (ID-04)
(2) `iss` is the issuer of smart-configuration (without one, the FHIR base), or one that the profile names, trailing
    slash included (ID-03); the openid-configuration found there calls itself the same (OA-17)
(3) `aud` holds the client id, or an audience that the profile names (OT-04)
(4) `azp`, if there is one, is the client id; it must be there when there are several audiences
(5) `exp` is ahead, `iat` is not in the future; a minute of leeway
(6) `nonce` is the one that was sent
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
from broker.ehr.discovery import Discovery
from broker.ehr.endpoints import Endpoints
from broker.ehr.issuer_keys import IssuerKeys
from broker.ehr.site import Site
from broker.ehr.unverified import unverified_claims, unverified_header
from broker.errors import EhrMisbehaved
from broker.origins import origin
from broker.secret import Secret

ALGORITHMS: Final = ["RS256", "RS384", "RS512", "PS256", "PS384", "ES256", "ES384"]
LEEWAY_SECONDS: Final = 60


@dataclass(frozen=True, slots=True)
class Identity:
    """What a verified id_token says."""

    issuer: str
    subject: str
    fhir_user: str | None
    exception: str | None = None
    """Which rule of the profile it needed to be accepted, for the audit trail (EP-18, OT-04)."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What an id_token has to say. The first issuer and audience are the proper ones, the others the profile's."""

    issuers: tuple[str, ...]
    client_id: str
    audiences: tuple[str, ...] = ()
    nonce: Secret | None = None


class IdTokens:
    """Finds the issuer's keys and verifies tokens."""

    def __init__(self, discovery: Discovery, issuer_keys: IssuerKeys, clock: Clock) -> None:
        self._discovery = discovery
        self._issuer_keys = issuer_keys
        self._clock = clock

    async def verify(
        self, token: Secret, *, site: Site, endpoints: Endpoints, client_id: str, nonce: Secret | None
    ) -> Identity:
        """Return the identity. Raises `EhrMisbehaved` naming the failed check, `EhrUnreachable` without its keys."""
        profile = site.profile
        issuers = (endpoints.issuer or site.fhir_base, *profile.id_token_issuers)
        issuer = (unverified_claims(token) or {}).get("iss")
        if issuer not in issuers:  # nothing is fetched from a place that only the token names
            raise EhrMisbehaved("the id_token's issuer is not one that is expected (ID-03)")
        configuration = await self._discovery.openid_configuration(issuer, place=profile.metadata_path)
        if configuration.get("issuer") != issuer:
            raise EhrMisbehaved("the openid-configuration of the id_token's issuer names another one (ID-03, OA-17)")
        jwks_uri = str(configuration.get("jwks_uri") or _own_jwks_uri(endpoints, issuer, site.fhir_base))
        claims = verify_signature(token, await self._issuer_keys.find(jwks_uri, key_id(token)))
        expected = Expected(issuers, client_id, profile.id_token_audiences, nonce)
        exception = check_claims(claims, expected, now=self._clock())
        user = claims.get("fhirUser") or claims.get("profile")
        return Identity(claims["iss"], claims["sub"], user if isinstance(user, str) else None, exception)


def _own_jwks_uri(endpoints: Endpoints, issuer: str, fhir_base: str) -> str:
    """Return where smart-configuration says the keys are, where it may say so: no EHR vouches for another's issuer.

    Raises `EhrMisbehaved`.
    """
    named = endpoints.jwks_uri
    if named is None or (origin(issuer) not in {origin(named), origin(fhir_base)}):
        raise EhrMisbehaved("the openid-configuration of the id_token's issuer names no jwks_uri (ID-02)")
    return named


def key_id(token: Secret) -> str | None:
    """Return the `kid` that a token names, before anything is verified: it only picks among the issuer's keys."""
    kid = (unverified_header(token) or {}).get("kid")
    return kid if isinstance(kid, str) else None


def verify_signature(token: Secret, keys: KeySet) -> dict[str, Any]:
    """Check (1). Raises `EhrMisbehaved`. Keys named inside the token (`jku`, `x5u`, `jwk`) are never used (OA-26)."""
    registry = jws.JWSRegistry(algorithms=ALGORITHMS)
    try:
        return dict(jwt.decode(token.reveal(), keys, algorithms=ALGORITHMS, registry=registry).claims)
    except (JoseError, ValueError, TypeError, KeyError) as error:
        raise EhrMisbehaved(f"the id_token's signature does not verify ({type(error).__name__}) (ID-01)") from None


def check_claims(claims: Mapping[str, Any], expected: Expected, *, now: float) -> str | None:
    """Checks (2) to (6). Returns which exception of the profile it took, if any. Raises `EhrMisbehaved`."""
    registry = JWTClaimsRegistry(
        now=int(now),
        leeway=LEEWAY_SECONDS,
        iss={"essential": True, "values": list(expected.issuers)},
        sub={"essential": True},
        aud={"essential": True, "values": [expected.client_id, *expected.audiences]},
        exp={"essential": True},
        iat={"essential": True},
    )
    try:
        registry.validate(dict(claims))
    except JoseError as error:
        raise EhrMisbehaved(f"the id_token is not acceptable ({type(error).__name__}) (ID-01)") from None
    audiences = claims["aud"] if isinstance(claims["aud"], list) else [claims["aud"]]
    _check_party(claims, audiences, expected.client_id)
    if expected.nonce is not None and not expected.nonce.matches(str(claims.get("nonce", ""))):
        raise EhrMisbehaved("the id_token's nonce is not the one that was sent (ID-01)")
    if expected.client_id not in audiences:
        return "id_token_audiences"
    return None if claims["iss"] == expected.issuers[0] else "id_token_issuers"


def _check_party(claims: Mapping[str, Any], audiences: list[Any], client_id: str) -> None:
    if "azp" in claims and claims["azp"] != client_id:
        raise EhrMisbehaved("the id_token's azp is not this client (ID-01)")
    if len(audiences) > 1 and "azp" not in claims:
        raise EhrMisbehaved("the id_token has several audiences and no azp (ID-01)")
