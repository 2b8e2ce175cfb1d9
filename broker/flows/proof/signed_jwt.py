"""Read and verify a signed JWT (RFC 7515, RFC 8725): the algorithms are pinned, the key is chosen by `kid` alone.

Keys that a token brings itself or points to (`jwk`, `x5c`, `jku`, `x5u`) are never used.
"""

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeGuard

from joserfc import jws, jwt
from joserfc.errors import JoseError
from joserfc.jwk import Key

from broker.ehr.unverified import unverified_header
from broker.errors import InvalidClient
from broker.secret import Secret

LEEWAY_SECONDS: Final = 5
LONGEST: Final = 8192
"""Characters."""
_LAST: Final = 2**53
"""Seconds: whole numbers beyond it are not exact as a float, and some are none at all."""
_TYPES: Final = frozenset({"JWT", "JOSE"})
_KEY_TYPES: Final = {"RS": "RSA", "PS": "RSA", "ES": "EC"}


@dataclass(frozen=True, slots=True)
class Header:
    """What a token says of its signature, before that is verified."""

    algorithm: str
    kid: str
    jku: object


def read_header(token: str, algorithms: Collection[str]) -> Header:
    """Read a token's header. Raises `InvalidClient` for one that could never verify (CA-02, OA-26)."""
    if len(token) > LONGEST:
        raise InvalidClient(f"the assertion is longer than {LONGEST} characters")
    header = unverified_header(Secret(token)) or {}
    algorithm, kid = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or algorithm not in algorithms:
        raise InvalidClient(f"the assertion's alg is not one of {', '.join(sorted(algorithms))} (CA-09, OA-26)")
    if not isinstance(kid, str) or not kid or str(header.get("typ", "JWT")).upper() not in _TYPES:
        raise InvalidClient("the assertion's header has no kid, or its typ is not JWT (CA-02)")
    if "crit" in header:
        raise InvalidClient("the assertion's header has extensions that must be understood, and are not (OA-26)")
    return Header(algorithm, kid, header.get("jku"))


async def verify(token: str, header: Header, key: Key) -> dict[str, Any]:
    """Return the claims of a token that this key has signed. Raises `InvalidClient` (CA-09, OA-13)."""
    if key.key_type != _KEY_TYPES[header.algorithm[:2]]:
        raise InvalidClient("the assertion's kid names a key of another type than its alg (CA-09)")
    return await asyncio.to_thread(_decode, token, header.algorithm, key)


def check_times(claims: Mapping[str, Any], *, now: float, longest: float) -> float:
    """Return `exp`, which is ahead, but not by more than `longest` seconds. Raises `InvalidClient` (CA-06, CA-11)."""
    exp = claims.get("exp")
    if not is_time(exp):
        raise InvalidClient("the assertion has no usable exp (CA-06)")
    if not now - LEEWAY_SECONDS < exp <= now + longest + LEEWAY_SECONDS:
        raise InvalidClient(f"the assertion has expired, or lives longer than {longest:g} s (CA-06)")
    for claim in ("nbf", "iat"):
        moment = claims.get(claim, 0)
        if not is_time(moment) or moment > now + LEEWAY_SECONDS:
            raise InvalidClient(f"the assertion's {claim} is not a time in the past (CA-11)")
    return exp


def is_time(value: object) -> TypeGuard[float]:
    """Whether a claim is a NumericDate (RFC 7519 §2), of a size that can be reckoned with."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LAST


def _decode(token: str, algorithm: str, key: Key) -> dict[str, Any]:
    try:
        return dict(
            jwt.decode(token, key, algorithms=[algorithm], registry=jws.JWSRegistry(algorithms=[algorithm])).claims
        )
    except (JoseError, ValueError, TypeError, KeyError) as error:
        raise InvalidClient(f"the assertion does not verify ({type(error).__name__}) (OA-13)") from None
