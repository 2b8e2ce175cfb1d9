"""The id_token: who signed in (OIDC Core §2), the key it is signed with, and how both can be bent."""

import hashlib
import hmac
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from joserfc import jwt
from joserfc.jwk import RSAKey

from sandbox.faults import Armed
from sandbox.oauth.compact import unpadded
from sandbox.oauth.ledger import Authorization
from sandbox.oauth.users import User
from sandbox.settings import Settings

LIFETIME = 300
"""Seconds (EP-18)."""
_UNSIGNED = b'{"typ":"JWT","alg":"none"}'


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
        return jwt.encode(self._header("RS256"), dict(claims), self.private)

    def forge(self, claims: Mapping[str, Any]) -> str:
        """Return a JWT that names this key and is signed with another."""
        return jwt.encode(self._header("RS256"), dict(claims), RSAKey.generate_key(2048))

    def confuse(self, claims: Mapping[str, Any]) -> str:
        """Return a JWT whose HS256 secret is the public key, which everybody has (ID-04, RFC 8725 §3.1)."""
        # By hand, because joserfc is right not to do it.
        parts = (json.dumps(part).encode() for part in (self._header("HS256"), dict(claims)))
        signed = ".".join(unpadded(part) for part in parts)
        pem = self.private.as_bytes("PEM", private=False)
        return f"{signed}.{unpadded(hmac.digest(pem, signed.encode(), hashlib.sha256))}"

    def leave_unsigned(self, claims: Mapping[str, Any]) -> str:
        """Return a JWT of `alg` none (ID-04)."""
        return f"{unpadded(_UNSIGNED)}.{self.sign(claims).split('.')[1]}."

    def _header(self, algorithm: str) -> dict[str, Any]:
        return {"typ": "JWT", "alg": algorithm, "kid": self.private.kid}


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


def issue(key: SigningKey, claims: Mapping[str, Any], faults: Iterable[Armed]) -> str:
    """Return the id_token of these claims, bent by the faults that strike."""
    sign, bent = key.sign, dict(claims)
    for struck in faults:
        if struck.fault.effect in _SIGNATURES:
            sign = partial(_SIGNATURES[struck.fault.effect], key)
        else:
            bent = _CLAIMS[struck.fault.effect](bent, struck.parameters)
    return sign(bent)


def _renamed(claims: Mapping[str, Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
    old, new = parameters["claim"], parameters["to"]
    return {new if name == old else name: value for name, value in claims.items()}


def _relative(claims: Mapping[str, Any], _parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {**claims, "fhirUser": "/".join(claims.get("fhirUser", "").split("/")[-2:])}


_SIGNATURES: Mapping[str, Callable[[SigningKey, Mapping[str, Any]], str]] = {
    "forge": SigningKey.forge,
    "confuse": SigningKey.confuse,
    "unsigned": SigningKey.leave_unsigned,
}
_CLAIMS: Mapping[str, Callable[[Mapping[str, Any], Mapping[str, Any]], dict[str, Any]]] = {
    "claim": lambda claims, parameters: {**claims, parameters["claim"]: parameters["value"]},
    "unclaim": lambda claims, parameters: {n: v for n, v in claims.items() if n != parameters["claim"]},
    "audiences": lambda claims, parameters: {**claims, "aud": [claims["aud"], parameters["other"]]},
    "audiences_azp": lambda claims, parameters: {
        **claims, "aud": [claims["aud"], parameters["other"]], "azp": claims["aud"],
    },
    "slash": lambda claims, _: {**claims, "iss": f"{claims['iss']}/"},
    "rename": _renamed,
    "relative": _relative,
}  # fmt: skip
