"""DPoP: who sends a request proves with it that they hold a key (RFC 9449, OA-23, HB-03). No I/O.

A proof is checked in this order; each failure is an `InvalidDpopProof` whose detail names the rule (§4.3):

1. there is one proof, a compact JWS in canonical base64url
2. `typ` is dpop+jwt; `alg` is one of `ALGORITHMS`; `jwk` is a public key that fits it
3. the signature verifies with that key
4. `htm` and `htu` are the method and the URL of the request, without query and fragment
5. `iat` is within `WINDOW_SECONDS` of now; `jti` is there
6. `ath` is the hash of the access token, where one comes along

That a proof is used once, and carries the nonce where one is demanded, is for its receiver to see to.
"""

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, RSAKey

from broker.errors import InvalidDpopProof
from broker.origins import origin
from broker.secret import Secret

ALGORITHMS: Final = ("ES256", "ES384", "RS256", "PS256")
"""What a proof may be signed with: asymmetric ones only, each written out."""
OWN_ALGORITHMS: Final[tuple[Literal["ES256", "ES384"], ...]] = ("ES256", "ES384")
"""What the broker signs its own proofs with, the preferred one first."""
WINDOW_SECONDS: Final = 60
"""How far the `iat` of a proof may lie from now, either way; as long as that its `jti` is remembered."""
NONCE_SECONDS: Final = 300
"""How long one nonce is given out; it is taken as long again."""
_LONGEST_PROOF: Final = 8192
_LONGEST_JTI: Final = 256
_CURVES: Final = {"ES256": "P-256", "ES384": "P-384"}
_RSA_BITS: Final = range(2048, 4097)
_PRIVATE: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
_ESCAPED: Final = re.compile(r"%([0-9A-Fa-f]{2})")
_UNRESERVED: Final = re.compile(r"[A-Za-z0-9\-._~]")


class _Registry(jws.JWSRegistry):
    """An RSA key in a header makes it longer than joserfc takes by itself."""

    max_header_length = 2048


@dataclass(frozen=True, slots=True)
class DpopProof:
    """A proof that is good, as far as it alone can tell."""

    jkt: str
    """The thumbprint of its key (RFC 7638): what a token is bound to."""
    jti: str
    nonce: str | None


def verify(proofs: Sequence[str], *, method: str, url: str, now: float, token: str | None = None) -> DpopProof:
    """Return the proof that a request of that method to that URL carries, at the time `now` (seconds).

    `token` is the access token that came along. Raises `InvalidDpopProof`.
    """
    if len(proofs) != 1:
        raise InvalidDpopProof("there is no DPoP proof, or more than one")
    claims, jkt = _verified(proofs[0])
    if claims.get("htm") != method:
        raise InvalidDpopProof("htm is not the method of the request")
    if not _is_same_url(claims.get("htu"), url):
        raise InvalidDpopProof("htu is not the URL of the request")
    iat, jti, nonce = claims.get("iat"), claims.get("jti"), claims.get("nonce")
    early, late = now - WINDOW_SECONDS, now + WINDOW_SECONDS
    if isinstance(iat, bool) or not isinstance(iat, int | float) or not early <= iat <= late:
        raise InvalidDpopProof(f"iat is not within {WINDOW_SECONDS} s of now")
    if not isinstance(jti, str) or not 0 < len(jti) <= _LONGEST_JTI or not jti.isascii():
        raise InvalidDpopProof("jti is missing, too long or not ASCII")
    if token is not None and claims.get("ath") != hash_of(token):
        raise InvalidDpopProof("ath is not the hash of the access token")
    return DpopProof(jkt, jti, nonce if isinstance(nonce, str) else None)


def hash_of(token: str) -> str:
    """Return the `ath` of an access token (§4.2)."""
    return _encoded(hashlib.sha256(token.encode()).digest())


def new_key(algorithm: Literal["ES256", "ES384"]) -> Secret:
    """Make a key for one grant; it is kept as PEM."""
    return Secret(ECKey.generate_key(_CURVES[algorithm], private=True).as_pem(private=True).decode())


def make_proof(
    key: Secret, *, method: str, url: str, now: float, jti: str, nonce: str | None = None, token: Secret | None = None
) -> str:
    """Sign a proof for one request: its method, its URL, and the access token that goes along (§4.2)."""
    pair = ECKey.import_key(key.reveal())
    algorithm = next(name for name, curve in _CURVES.items() if curve == pair.curve_name)
    header = {"typ": "dpop+jwt", "alg": algorithm, "jwk": pair.as_dict(private=False)}
    claims = {
        "jti": jti,
        "htm": method,
        "htu": url.partition("#")[0].partition("?")[0],
        "iat": int(now),
        "nonce": nonce,
        "ath": None if token is None else hash_of(token.reveal()),
    }
    said = {name: value for name, value in claims.items() if value is not None}
    return jws.serialize_compact(header, json.dumps(said).encode(), pair, registry=_Registry(algorithms=[algorithm]))


class Nonces:
    """Nonces that need no memory: keyed hashes of the time, the same on every replica (§8)."""

    def __init__(self, keyed_hash: Callable[[str, str], str]) -> None:
        self._hash = keyed_hash

    def current(self, now: float) -> str:
        """Return the nonce to give out."""
        return self._of(int(now // NONCE_SECONDS))

    def accepts(self, nonce: str | None, now: float) -> bool:
        """Whether it was given out at most two periods ago."""
        period, presented = int(now // NONCE_SECONDS), (nonce or "").encode(errors="surrogatepass")
        return any(hmac.compare_digest(presented, self._of(one).encode()) for one in (period, period - 1))

    def _of(self, period: int) -> str:
        return self._hash("dpop-nonce", str(period))[:43]


def _verified(compact: str) -> tuple[dict[str, Any], str]:
    """Return the claims and the key's thumbprint of a proof whose signature is good (rules 1 to 3)."""
    header = _unverified_header(compact)
    algorithm, jwk = header.get("alg"), header.get("jwk")
    if header.get("typ") != "dpop+jwt":
        raise InvalidDpopProof("typ is not dpop+jwt")
    if algorithm not in ALGORITHMS:
        raise InvalidDpopProof("alg is not one of the offered ones")
    if not isinstance(jwk, dict) or not _PRIVATE.isdisjoint(jwk):
        raise InvalidDpopProof("jwk is missing, or not a public key")
    try:
        key = _public_key(algorithm, jwk)
        signed = jws.deserialize_compact(compact, key, registry=_Registry(algorithms=[algorithm]))
        claims = json.loads(signed.payload)
        jkt = key.thumbprint()
    except (JoseError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise InvalidDpopProof(f"the proof does not verify ({type(error).__name__})") from None
    if not isinstance(claims, dict):
        raise InvalidDpopProof("the proof holds no claims")
    return claims, jkt


def _unverified_header(compact: str) -> dict[str, Any]:
    """Return the header, which names the key that must have signed it; a signature has one spelling only."""
    try:
        if len(compact) > _LONGEST_PROOF:
            raise ValueError(compact)
        header, *_ = (_decoded(part) for part in _three(compact))
        document = json.loads(header)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise InvalidDpopProof("the proof is not a JWS")
    return document


def _three(compact: str) -> tuple[str, str, str]:
    header, payload, signature = compact.split(".")
    return header, payload, signature


def _public_key(algorithm: str, jwk: Mapping[str, Any]) -> ECKey | RSAKey:
    """Raises `ValueError` for a key that does not fit, or that would make one check cost what its sender likes."""
    if algorithm in _CURVES:
        if jwk.get("crv") != _CURVES[algorithm]:
            raise ValueError("curve")
        return ECKey.import_key(dict(jwk))
    if int.from_bytes(_decoded(jwk["n"])).bit_length() not in _RSA_BITS or jwk.get("e") != "AQAB":
        raise ValueError("size or exponent")
    return RSAKey.import_key(dict(jwk))


def _is_same_url(htu: object, url: str) -> bool:
    """Compare as RFC 3986 §6.2.2 and §6.2.3 normalise, without query and fragment (§4.3 rule 9)."""
    try:
        return isinstance(htu, str) and _normal(htu) == _normal(url)
    except ValueError:
        return False


def _normal(url: str) -> tuple[str, str]:
    if not (place := origin(url)):
        raise ValueError(url)
    return place, _ESCAPED.sub(lambda match: _unescaped(match[1]), urlsplit(url).path) or "/"


def _unescaped(digits: str) -> str:
    character = chr(int(digits, 16))
    return character if _UNRESERVED.fullmatch(character) else f"%{digits.upper()}"


def _decoded(segment: str) -> bytes:
    decoded = base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    if _encoded(decoded) != segment:
        raise ValueError("not canonical")
    return decoded


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
