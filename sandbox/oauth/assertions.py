"""Client assertions: the checks of `private_key_jwt`, as SMART and Epic demand them (CA-01…CA-11, EP-04, OA-13).

In this order, each failure an `invalid_client` whose description names the rule:

1. three base64url parts, header and claims JSON objects
2. `typ` is JWT; `alg` is RS384 or ES384, or the one of the registration; `kid` is given; `jku`,
   if given, is the registered URL                                                                     CA-02, CA-03
3. exactly one key of that `kid` in the client's key set, of the type `alg` needs, RSA >= 2048 bits     CA-09, EP-04
4. the signature                                                                                       OA-13
5. `iss` = `sub` = client_id                                                                           CA-04
6. `aud` is the endpoint posted to                                                                     CA-05
7. `exp`, `nbf`, `iat`: numbers, not past or future, span at most five minutes                         CA-06, CA-11
8. `jti` is a string of at most 151 characters (CA-07); that it is new is for `Replays` to say         CA-01
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, RSAKey

from sandbox.oauth.compact import base64url, unverified
from sandbox.oauth.errors import invalid_client

TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
ALGORITHMS = ("RS384", "ES384")
"""What is taken of a client that registered no algorithm of its own."""
LIFETIME = 300
"""Seconds: the most between now and `exp`, and between `iat` or `nbf` and `exp`."""
JTI_LENGTH = 151
RSA_BITS = 2048


@dataclass(frozen=True, slots=True)
class UnverifiedAssertion:
    """An assertion that was read, and of which nothing may be believed yet."""

    compact: str = field(repr=False)
    header: Mapping[str, Any]
    claims: Mapping[str, Any]

    @classmethod
    def read(cls, compact: str) -> Self:
        """Return the parts of a compact JWS, or raise `OAuthError` (check 1)."""
        try:
            return cls(compact, *unverified(compact))
        except ValueError:
            raise invalid_client("client_assertion is not a JWT") from None

    @property
    def client_id(self) -> str:
        """Whom it claims to be from."""
        return str(self.claims.get("sub", ""))

    @property
    def kid(self) -> str:
        """The key it claims to be signed with."""
        return str(self.header.get("kid", ""))


def verify(
    assertion: UnverifiedAssertion,
    *,
    client_id: str,
    key_set: Mapping[str, Any],
    jwks_uri: str | None,
    algorithms: tuple[str, ...] = ALGORITHMS,
    audiences: tuple[str, ...],
    now: float,
) -> None:
    """Run checks 2 to 8 at the time `now` (seconds); raise `OAuthError` (invalid_client) at the first that fails."""
    for fault in (
        _header_fault(assertion.header, jwks_uri, algorithms),
        _signature_fault(assertion, key_set),
        _party_fault(assertion.claims, client_id, audiences),
        _time_fault(assertion.claims, now),
        _jti_fault(assertion.claims.get("jti")),
    ):
        if fault:
            raise invalid_client(f"client_assertion: {fault}")


class Replays:
    """The `jti` values seen, each kept until its assertion has expired."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], float] = {}
        self._sweep_at = 0.0

    def use(self, assertion: UnverifiedAssertion, now: float) -> None:
        """Take note of a verified assertion, or raise `OAuthError` when it was used before (CA-09)."""
        if self._sweep_at <= now:
            self._seen = {key: expires_at for key, expires_at in self._seen.items() if expires_at > now}
            self._sweep_at = now + LIFETIME
        key = (assertion.client_id, assertion.claims["jti"])
        if key in self._seen:
            raise invalid_client("client_assertion: jti was used before")
        self._seen[key] = assertion.claims["exp"]


def _header_fault(header: Mapping[str, Any], jwks_uri: str | None, algorithms: tuple[str, ...]) -> str | None:
    if header.get("typ") != "JWT":
        return "typ must be JWT"
    if header.get("alg") not in algorithms:
        return f"alg must be one of {', '.join(algorithms)}"
    if not isinstance(header.get("kid"), str) or not header["kid"]:
        return "kid is missing"
    if "jku" in header and header["jku"] != jwks_uri:
        return "jku is not the registered JWK Set URL"
    return None


def _signature_fault(assertion: UnverifiedAssertion, key_set: Mapping[str, Any]) -> str | None:
    keys = [key for key in key_set.get("keys", ()) if isinstance(key, dict) and key.get("kid") == assertion.kid]
    if len(keys) != 1:
        return f"the JWK Set holds {len(keys)} keys of this kid, not one"
    algorithm = assertion.header["alg"]
    try:
        key = _public_key(keys[0], algorithm)
        jws.deserialize_compact(assertion.compact, key, algorithms=[algorithm])
    except (JoseError, ValueError, TypeError) as error:
        return f"the signature or key is not good ({type(error).__name__})"
    return None


def _public_key(document: dict[str, Any], algorithm: str) -> RSAKey | ECKey:
    if document.get("use", "sig") != "sig" or document.get("alg", algorithm) != algorithm:
        raise ValueError("the key is published for another use")
    if algorithm == "ES384":
        if document.get("crv") != "P-384":
            raise ValueError("ES384 needs a P-384 key")
        return ECKey.import_key(document)
    if int.from_bytes(base64url(str(document.get("n", "")))).bit_length() < RSA_BITS:
        raise ValueError("the RSA key is too short")
    return RSAKey.import_key(document)


def _party_fault(claims: Mapping[str, Any], client_id: str, audiences: tuple[str, ...]) -> str | None:
    if claims.get("iss") != client_id or claims.get("sub") != client_id:
        return "iss and sub must both be the client_id"
    if claims.get("aud") not in audiences:
        return f"aud must be {audiences[0]}"
    return None


def _time_fault(claims: Mapping[str, Any], now: float) -> str | None:
    times = {name: claims[name] for name in ("exp", "nbf", "iat") if name in claims}
    if any(type(value) is not int for value in times.values()) or "exp" not in times:
        return "exp, and nbf and iat where given, must be whole numbers of seconds"
    expires_at = times.pop("exp")
    if not now < expires_at <= now + LIFETIME:
        return "exp must be ahead by no more than five minutes"
    if late := [name for name, value in times.items() if value > now]:
        return f"{late[0]} is in the future"
    if early := [name for name, value in times.items() if expires_at - value > LIFETIME]:
        return f"{early[0]} and exp are more than five minutes apart"
    return None


def _jti_fault(jti: Any) -> str | None:
    if not isinstance(jti, str) or not 0 < len(jti) <= JTI_LENGTH:
        return f"jti must be a string of 1 to {JTI_LENGTH} characters"
    return None
