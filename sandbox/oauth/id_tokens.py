"""The id_token: who signed in (OIDC Core §2), and the key it is signed with."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from joserfc import jwt
from joserfc.jwk import RSAKey

from sandbox.oauth.ledger import Authorization
from sandbox.oauth.users import User
from sandbox.settings import Settings

LIFETIME = 300
"""Seconds (EP-18)."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """The RS256 key of this run."""

    private: RSAKey

    @classmethod
    def generate(cls) -> "SigningKey":
        """Return a fresh 2048-bit key; its kid is its RFC 7638 thumbprint."""
        return cls(RSAKey.generate_key(2048, {"use": "sig", "alg": "RS256"}, auto_kid=True))

    def key_set(self) -> dict[str, Any]:
        """Return the public JWK Set of bare keys (ID-05)."""
        return {"keys": [self.private.as_dict(private=False)]}

    def sign(self, claims: Mapping[str, Any]) -> str:
        """Return a signed JWT."""
        return jwt.encode({"typ": "JWT", "alg": "RS256", "kid": self.private.kid}, dict(claims), self.private)

    def forge(self, claims: Mapping[str, Any]) -> str:
        """Return a JWT that names this key and is signed with another."""
        return jwt.encode(
            {"typ": "JWT", "alg": "RS256", "kid": self.private.kid}, dict(claims), RSAKey.generate_key(2048)
        )


def claims_of(settings: Settings, authorization: Authorization, user: User, now: float) -> dict[str, Any]:
    """Return the claims; `fhirUser` is absolute (ID-06) and present when its scope was granted."""
    claims: dict[str, Any] = {
        "iss": settings.issuer,
        "sub": user.sub,
        "aud": authorization.client_id,
        "iat": int(now),
        "exp": int(now) + LIFETIME,
    }
    if authorization.nonce is not None:
        claims["nonce"] = authorization.nonce
    if "fhirUser" in authorization.scopes:
        claims["fhirUser"] = f"{settings.fhir_base}/{user.fhir_user}"
    return claims
