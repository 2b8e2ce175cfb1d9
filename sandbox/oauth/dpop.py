"""DPoP: a token is good only together with the key it was bound to (RFC 9449, OA-23).

A proof is checked in this order, each failure an `invalid_dpop_proof` whose description names the rule (§4.3):

1. exactly one `DPoP` header, a JWT
2. `typ` is dpop+jwt; `alg` is one of `ALGORITHMS`; `jwk` is a public key
3. the signature, with that key
4. `htm` and `htu` are the method and the URL of the request, without query and fragment
5. `iat` lies within a minute of now, either way
6. `ath` is the hash of the access token, where one is presented
7. `nonce` and `jti`: `Proofs` says, which remembers
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, RSAKey
from starlette.responses import JSONResponse, Response

from sandbox.marks import Entropy, mint
from sandbox.oauth.compact import unpadded, unverified
from sandbox.oauth.errors import OAuthError
from sandbox.oauth.presented import Presented

ALGORITHMS = ("ES256", "ES384", "RS256", "PS256")
WINDOW = 60
"""Seconds a proof is good for, before and after its `iat`."""
NONCE_HEADER = "DPoP-Nonce"
_PRIVATE = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})


class _Registry(jws.JWSRegistry):
    """An RSA key in a header makes it longer than joserfc takes."""

    max_header_length = 2048


@dataclass(frozen=True, slots=True)
class Proof:
    """A proof that passed checks 1 to 6; `thumbprint` names its key (RFC 7638)."""

    thumbprint: str
    jti: str
    nonce: str | None


def verify(presented: Presented, *, now: float, access_token: str | None = None) -> Proof:
    """Return the proof a request carries at the time `now` (seconds), or raise `OAuthError` (invalid_dpop_proof)."""
    try:
        (compact,) = presented.proofs
        header, claims = unverified(compact)
    except ValueError:
        raise invalid_proof("there must be one DPoP header, and it a JWT") from None
    for fault in (_header_fault(header), _claims_fault(claims, presented, now, access_token)):
        if fault:
            raise invalid_proof(fault)
    try:
        key = ECKey.import_key(header["jwk"]) if header["alg"].startswith("ES") else RSAKey.import_key(header["jwk"])
        jws.deserialize_compact(compact, key, registry=_Registry(algorithms=[header["alg"]]))
    except (JoseError, ValueError, TypeError) as error:
        raise invalid_proof(f"the signature or key is not good ({type(error).__name__})") from error
    return Proof(key.thumbprint(), claims["jti"], claims.get("nonce"))


class Proofs:
    """The proofs seen while they were good, and the nonce new ones must carry."""

    def __init__(self, entropy: Entropy) -> None:
        self._entropy = entropy
        self._seen: dict[tuple[str, str], float] = {}
        self._nonce: str | None = None

    def use(self, proof: Proof, now: float, *, demand_nonce: bool, renew: bool) -> None:
        """Take note of a proof, or raise `OAuthError`: `use_dpop_nonce` with the nonce to use, or invalid_dpop_proof.

        `renew` ends the nonce there was. Once a nonce was given out, every proof must carry it.
        """
        if renew or (demand_nonce and self._nonce is None):
            self._nonce = mint("nonce", self._entropy)
        if self._nonce is not None and proof.nonce != self._nonce:
            headers = {NONCE_HEADER: self._nonce}
            raise OAuthError("use_dpop_nonce", "the proof must carry the nonce of this answer", headers=headers)
        self._seen = {key: gone for key, gone in self._seen.items() if gone > now}
        if (proof.thumbprint, proof.jti) in self._seen:
            raise invalid_proof("jti was used before")
        self._seen[proof.thumbprint, proof.jti] = now + 2 * WINDOW


def invalid_proof(description: str) -> OAuthError:
    """Return the refusal of a proof (RFC 9449 §5)."""
    return OAuthError("invalid_dpop_proof", f"DPoP: {description}")


def challenge(refusal: OAuthError) -> Response:
    """Return how the FHIR server tells a refusal (RFC 9449 §7.1)."""
    issue = {"severity": "error", "code": "login", "diagnostics": refusal.description}
    return JSONResponse(
        {"resourceType": "OperationOutcome", "issue": [issue]},
        401,
        {"WWW-Authenticate": f'DPoP error="{refusal.error}", algs="{" ".join(ALGORITHMS)}"', **refusal.headers},
        media_type="application/fhir+json",
    )


def _header_fault(header: Mapping[str, Any]) -> str | None:
    jwk = header.get("jwk")
    if header.get("typ") != "dpop+jwt":
        return "typ must be dpop+jwt"
    if header.get("alg") not in ALGORITHMS:
        return f"alg must be one of {', '.join(ALGORITHMS)}"
    if not isinstance(jwk, dict) or not _PRIVATE.isdisjoint(jwk):
        return "jwk must be a public key"
    return None


def _claims_fault(claims: Mapping[str, Any], presented: Presented, now: float, access_token: str | None) -> str | None:
    iat, jti = claims.get("iat"), claims.get("jti")
    if claims.get("htm") != presented.method:
        return f"htm must be {presented.method}"
    if claims.get("htu") != presented.url:
        return f"htu must be {presented.url}"
    if type(iat) is not int or not now - WINDOW <= iat <= now + WINDOW:
        return "iat must be within a minute of now"
    if not isinstance(jti, str) or not jti:
        return "jti is missing"
    if access_token is not None and claims.get("ath") != unpadded(hashlib.sha256(access_token.encode()).digest()):
        return "ath must be the hash of the access token"
    return None
