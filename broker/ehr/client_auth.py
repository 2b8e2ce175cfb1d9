"""How the broker proves to an EHR who it is (TK-03…TK-07, CA-01…CA-11, OA-19).

One method a request, never two (TK-06); where there are several credentials of it, one a request (RG-11).
"""

import base64
import uuid
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal, Protocol
from urllib.parse import quote

from authlib.oauth2.rfc7523 import private_key_jwt_sign
from joserfc.jwk import ECKey, RSAKey
from joserfc.util import json_b64encode, urlsafe_b64encode

from broker.clock import Clock
from broker.egress import ClientCertificate
from broker.ehr.endpoints import Endpoints
from broker.secret import Secret

ASSERTION_SECONDS: Final = 240
"""CA-06: at most 300; the rest is room for clocks that differ."""
BACKDATE_SECONDS: Final = 30
"""CA-11: an EHR whose clock is behind refuses an `iat` in its future."""
JWT_BEARER: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

Algorithm = Literal["ES384", "RS384"]
Naming = Literal["never", "refresh", "always"]
"""Q2: in which authenticated requests the body names `client_id` all the same."""


@dataclass(frozen=True, slots=True)
class Authentication:
    """What a request carries to authenticate. Made anew for each request: an assertion is used once (CA-01)."""

    headers: Mapping[str, str] = field(default_factory=dict)
    fields: Mapping[str, str] = field(default_factory=dict)
    identity: ClientCertificate | None = None
    """What to show in the TLS handshake."""
    url: str | None = None
    """Where the request goes in place of the usual endpoint (RFC 8705 §5)."""

    def __repr__(self) -> str:
        return f"Authentication(headers={sorted(self.headers)}, fields={sorted(self.fields)})"


@dataclass(frozen=True, slots=True)
class Authenticate:
    """Authenticates the requests of one registration."""

    prove: Callable[[str], Awaitable[Authentication]] = field(repr=False)
    """Given the URL of an endpoint, authenticate one request to it. Raises `Unavailable` where it has to ask a KMS."""
    client_id: str
    named: Naming = "never"
    """Whether the body also names `client_id`, for an EHR that demands it beside another proof (Q2, OA-12)."""
    credential: str = field(default="", repr=False)
    """Names what it proves with: a key's `kid`, a secret's id."""
    others: "tuple[Authenticate, ...]" = field(default=(), repr=False)
    """What to try next, in this order, when the EHR says that this one is not the client (RG-11)."""
    heard: "Heard | None" = field(default=None, repr=False)
    """Who wants to know how a request with one of several credentials went."""

    async def __call__(self, url: str, *, refreshing: bool = False) -> Authentication:
        """Return what one request to `url` carries; `refreshing` says that it is a refresh. Raises as `prove`."""
        proof = await self.prove(url)
        if self.named == "always" or (self.named == "refresh" and refreshing):
            return replace(proof, fields={**proof.fields, "client_id": self.client_id})
        return proof  # SMART: a client that authenticates otherwise leaves it out (TK-04)

    def in_turn(self) -> "Iterator[Authenticate]":
        """Yield each credential, the one to try first first."""
        yield self
        yield from (replace(other, named=self.named) for other in self.others)

    def guarded(self, check: Callable[[], None]) -> "Authenticate":
        """Return the same with `check`, called right before each request is sent; where it raises, none is."""

        async def prove(url: str) -> Authentication:
            proof = await self.prove(url)
            check()
            return proof

        return replace(self, prove=prove, others=tuple(other.guarded(check) for other in self.others))


Heard = Callable[[Sequence[str], str], None]
"""Given the credentials that an EHR refused and the one that it then took. It never fails."""


def one_of(authenticates: Sequence[Authenticate], heard: Heard | None = None) -> Authenticate:
    """Return how to authenticate with the first of several credentials, and with the next where it is refused."""
    first, *others = authenticates
    return replace(first, others=tuple(others), heard=heard)


def always(authentication: Authentication, client_id: str) -> Authenticate:
    """Return what proves itself by the same in each request."""

    async def prove(_: str) -> Authentication:
        return authentication

    return Authenticate(prove, client_id)


def public(client_id: str) -> Authenticate:
    """No authentication: `client_id` in the body (TK-03)."""
    return always(Authentication(fields={"client_id": client_id}), client_id)


def client_secret_basic(
    client_id: str, secret: Secret, *, encoding: Literal["rfc6749", "raw"] = "rfc6749"
) -> Authenticate:
    """HTTP Basic (TK-07); `rfc6749` form-encodes both parts first (RFC 6749 §2.3.1, EP-13), `raw` does not (Q1)."""

    async def prove(_: str) -> Authentication:
        parts = (client_id, secret.reveal())
        pair = ":".join(quote(part, safe="") if encoding == "rfc6749" else part for part in parts)
        return Authentication({"Authorization": "Basic " + base64.b64encode(pair.encode()).decode()})

    return Authenticate(prove, client_id)


def client_secret_post(client_id: str, secret: Secret) -> Authenticate:
    """Id and secret in the body: only for an EHR that takes nothing better (OA-05)."""

    async def prove(_: str) -> Authentication:
        return Authentication(fields={"client_id": client_id, "client_secret": secret.reveal()})

    return Authenticate(prove, client_id)


class Signer(Protocol):
    """Signs assertions by one key, in this process or where the key is."""

    async def sign(self, client_id: str, audience: str, header: Mapping[str, str], now: int) -> str:
        """Return a compact JWS of an assertion with a fresh `jti`; `now` is in seconds. Raises `Unavailable`."""
        ...


@dataclass(frozen=True, slots=True)
class OwnKey:
    """A private key in this process."""

    key: ECKey | RSAKey = field(repr=False)
    algorithm: Algorithm

    async def sign(self, client_id: str, audience: str, header: Mapping[str, str], now: int) -> str:
        """Sign at once."""
        signed: str = private_key_jwt_sign(
            self.key,
            client_id,
            audience,
            alg=self.algorithm,
            claims={"jti": str(uuid.uuid4()), "nbf": now - BACKDATE_SECONDS},
            header=dict(header),
            issued_at=now - BACKDATE_SECONDS,
            expires_at=now + ASSERTION_SECONDS,
        )
        return signed


@dataclass(frozen=True, slots=True)
class KeyElsewhere:
    """A private key that never is in this process: whoever holds it gives a JOSE signature for bytes (RG-07)."""

    sign_bytes: Callable[[bytes], Awaitable[bytes]] = field(repr=False)
    algorithm: Algorithm

    async def sign(self, client_id: str, audience: str, header: Mapping[str, str], now: int) -> str:
        """Write the assertion here (RFC 7515 §5.1) and have it signed there."""
        claims = {
            "iss": client_id,
            "sub": client_id,
            "aud": audience,
            "iat": now - BACKDATE_SECONDS,
            "exp": now + ASSERTION_SECONDS,
            "jti": str(uuid.uuid4()),
            "nbf": now - BACKDATE_SECONDS,
        }
        signed = json_b64encode({"alg": self.algorithm, **header}) + b"." + json_b64encode(claims)
        return (signed + b"." + urlsafe_b64encode(await self.sign_bytes(signed))).decode("ascii")


def private_key_jwt(
    client_id: str,
    signer: Signer,
    clock: Clock,
    *,
    kid: str,
    audience: str | None = None,
    jku: str | None = None,
) -> Authenticate:
    """A signed assertion (SMART `private_key_jwt`) with a fresh `jti` for each request, also a repeated one (CA-01).

    `audience` None is the URL that is posted to (CA-05, Q3). `jku` is the registered JWK Set URL, or nothing (CA-03).
    """
    header = {"kid": kid, "typ": "JWT", **({"jku": jku} if jku else {})}

    async def prove(url: str) -> Authentication:
        assertion = await signer.sign(client_id, audience or url, header, int(clock()))
        return Authentication(fields={"client_assertion_type": JWT_BEARER, "client_assertion": assertion})

    return Authenticate(prove, client_id)


def mutual_tls(client_id: str, identity: ClientCertificate, aliases: Mapping[str, str]) -> Authenticate:
    """`tls_client_auth` and `self_signed_tls_client_auth`: the certificate proves, `client_id` names (RFC 8705 §2).

    `aliases` tells where a request to an endpoint goes instead: the `mtls_endpoint_aliases` (RFC 8705 §5).
    """

    async def prove(url: str) -> Authentication:
        return Authentication({}, {"client_id": client_id}, identity, aliases.get(url))

    return Authenticate(prove, client_id)


def assertion_audience(setting: str, endpoints: Endpoints) -> str | None:
    """Return the `aud` of assertions as a profile wants it (Q3); None is the URL that is posted to."""
    if setting == "token_endpoint":
        return None
    return endpoints.issuer if setting == "issuer" else setting


def mtls_aliases(endpoints: Endpoints) -> dict[str, str]:
    """Return, by the usual URL of an endpoint, the one for clients that show a certificate (RFC 8705 §5)."""
    usual = {name: getattr(endpoints, name) for name in endpoints.mtls_endpoint_aliases}
    return {usual[name]: url for name, url in endpoints.mtls_endpoint_aliases.items() if usual[name] is not None}
