"""Dynamic clients: for one grant the broker registers a client of its own, whose key then asks for tokens (EP-17).

It is Epic's way to offline access without refresh tokens. The assertion made here *is* the grant (RFC 7523 §2.1); the
one of `broker.ehr.client_auth` says who sends another grant (§2.2). Neither can be taken for the other (OA-14).
"""

import json
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal
from urllib.parse import urlencode

from joserfc import jwt
from joserfc.jwk import ECKey, JWKRegistry, Key, KeyParameters, RSAKey

from broker.clock import Clock
from broker.egress import Answer, Egress
from broker.ehr.client_auth import Authenticate, client_secret_basic, client_secret_post, public
from broker.ehr.endpoints import Endpoints, parse_json_object
from broker.ehr.token_answer import TokenAnswer, failure_of, parse_answer
from broker.errors import EhrMisbehaved
from broker.secret import Secret

REGISTER_SCOPE: Final = "system/DynamicClient.register"
"""What a person approves, so that the access token of the launch can be spent on a registration."""
JWT_BEARER: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
ASSERTION_SECONDS: Final = 240
"""EP-04: at most 300; the rest is room for clocks that differ."""
BACKDATE_SECONDS: Final = 30
_RSA_BITS: Final = 3072
_LONGEST_CLIENT_ID: Final = 512
_LATEST_SECONDS: Final = 253_402_300_799
"""The year 9999."""
_METHODS: Final = frozenset({"none", "client_secret_basic", "client_secret_post"})
_KEPT: Final = (
    "client_id",
    "client_secret",
    "client_secret_expires_at",
    "token_endpoint_auth_method",
    "registration_access_token",
    "registration_client_uri",
)


@dataclass(frozen=True, slots=True)
class DynamicClient:
    """A client that was registered for one grant. All of it is kept as the grant's tokens are: sealed."""

    key: Secret
    """A private JWK, whose `alg` is what it signs with."""
    registration: Secret
    """What came back, as JSON: it counts (RFC 7591 §3.2.1). With the token of RFC 7592, where there is one (OA-15)."""

    @property
    def client_id(self) -> str:
        """Who it is at the EHR."""
        return str(self._said["client_id"])

    @property
    def secret_ends(self) -> float | None:
        """When its secret ends, in seconds; None if there is none, or no end (`client_secret_expires_at` 0, OA-15)."""
        end = self._said.get("client_secret_expires_at")
        if "client_secret" not in self._said or not isinstance(end, int | float) or not 0 < end <= _LATEST_SECONDS:
            return None
        return float(end)

    @property
    def authenticate(self) -> Authenticate:
        """How it proves itself beside the assertion: by nothing but its id, unless the EHR gave it a secret."""
        method = _method(self._said)
        if method == "none":
            return public(self.client_id)
        by_secret = client_secret_post if method == "client_secret_post" else client_secret_basic
        return by_secret(self.client_id, Secret(self._said["client_secret"]))

    @property
    def _said(self) -> dict[str, Any]:
        return dict(json.loads(self.registration.reveal()))


class DynamicClients:
    """Registers them, and asks for their tokens. Never retries; asking for a token may be repeated, nothing rotates."""

    def __init__(self, egress: Egress, clock: Clock) -> None:
        self._egress = egress
        self._clock = clock

    async def register(
        self, url: str, *, software_id: str, key: Secret, initial_token: Secret, timeout: float
    ) -> DynamicClient:
        """Spend the one-time token on a registration of `key` (RFC 7591 §3.1). Raises `EhrError`."""
        headers = {
            "Accept": "application/json",
            "Content-Type": "application/json",
            "Authorization": f"Bearer {initial_token.reveal()}",
        }
        content = registration_request(software_id, key)
        answer = await self._egress.fetch("POST", url, headers=headers, content=content, timeout=timeout)
        return DynamicClient(key, Secret(json.dumps(parse_registration(answer))))

    async def token(self, url: str, client: DynamicClient, *, timeout: float) -> TokenAnswer:
        """Return a token for an assertion that is used once (RFC 7523 §2.1). Raises `EhrError`."""
        proof = await client.authenticate(url)
        signed = assertion(client, url, now=self._clock(), jti=str(uuid.uuid4()))
        headers = {
            "Accept": "application/json",
            "Content-Type": "application/x-www-form-urlencoded",
            **proof.headers,
        }
        content = urlencode({"grant_type": JWT_BEARER, "assertion": signed, **proof.fields}).encode()
        return parse_answer(await self._egress.fetch("POST", url, headers=headers, content=content, timeout=timeout))


def registration_warning(endpoints: Endpoints) -> str | None:
    """Say that the EHR has no place to register a dynamic client; None if it has."""
    return None if endpoints.registration_endpoint else "dynamic_client = true without a registration_endpoint (EP-17)"


def new_key(algorithm: Literal["ES384", "RS384"]) -> Secret:
    """Make the key of one grant, a private JWK; for RS384 that takes a while."""
    about: KeyParameters = {"use": "sig", "alg": algorithm}
    key: Key
    if algorithm == "ES384":
        key = ECKey.generate_key("P-384", about, private=True, auto_kid=True)
    else:
        key = RSAKey.generate_key(_RSA_BITS, about, private=True, auto_kid=True)
    return Secret(json.dumps(key.as_dict(private=True)))


def registration_request(software_id: str, key: Secret) -> bytes:
    """Return the body: what is registered, and the public half of its key; `jwks` alone, never `jwks_uri` (OA-15)."""
    return json.dumps({"software_id": software_id, "jwks": {"keys": [_pair(key).as_dict(private=False)]}}).encode()


def parse_registration(answer: Answer) -> dict[str, Any]:
    """Return what came back, of it what is used (OA-15). An error without a reason is one all the same (EP-17).

    Raises `EhrRefused`, `EhrUnreachable` for "later", `EhrMisbehaved` for a reply that cannot be used.
    """
    document = parse_json_object(answer.body)
    if (failure := failure_of(answer, document, "registration")) is not None:
        raise failure
    if not 200 <= answer.status < 300 or document is None:
        raise EhrMisbehaved(f"the registration endpoint answered status {answer.status} without a JSON object (OA-04)")
    if (fault := next(_faults(document), None)) is not None:
        raise EhrMisbehaved(f"the registration came back {fault} (OA-15)")
    return {name: document[name] for name in _KEPT if document.get(name) is not None}


def assertion(client: DynamicClient, url: str, *, now: float, jti: str) -> str:
    """Return a signed assertion for the token endpoint `url` at the time `now` (seconds)."""
    pair = _pair(client.key)
    algorithm = str(pair.alg)
    claims = {
        "iss": client.client_id,
        "sub": client.client_id,
        "aud": url,
        "jti": jti,
        "iat": int(now) - BACKDATE_SECONDS,
        "nbf": int(now) - BACKDATE_SECONDS,
        "exp": int(now) + ASSERTION_SECONDS,
    }
    return jwt.encode({"typ": "JWT", "alg": algorithm, "kid": pair.kid}, claims, pair, algorithms=[algorithm])


def _faults(document: Mapping[str, Any]) -> Iterator[str]:
    client_id, grants, method = document.get("client_id"), document.get("grant_types"), _method(document)
    if not isinstance(client_id, str) or not 0 < len(client_id) <= _LONGEST_CLIENT_ID or not client_id.isprintable():
        yield "without a client_id"
    if document.get("jwks") is not None and document.get("jwks_uri") is not None:
        yield "with both jwks and jwks_uri"
    if isinstance(grants, list) and JWT_BEARER not in grants:
        yield "without the grant jwt-bearer"
    if method not in _METHODS:
        yield "with another token_endpoint_auth_method than none or a secret's"
    elif method != "none" and not isinstance(document.get("client_secret"), str):
        yield "for a secret, and without it"


def _method(registration: Mapping[str, Any]) -> str:
    secret = registration.get("client_secret") is not None
    return str(registration.get("token_endpoint_auth_method") or ("client_secret_basic" if secret else "none"))


def _pair(key: Secret) -> Key:
    return JWKRegistry.import_key(json.loads(key.reveal()))
