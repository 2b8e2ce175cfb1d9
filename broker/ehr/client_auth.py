"""How the broker proves to an EHR who it is (TK-03…TK-07, CA-01…CA-08). One method a request, never two (TK-06)."""

import base64
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import quote

from authlib.oauth2.rfc7523 import private_key_jwt_sign
from joserfc.jwk import ECKey, RSAKey

from broker.clock import Clock
from broker.secret import Secret

ASSERTION_SECONDS: Final = 240
"""CA-06: at most 300; the rest is room for clocks that differ."""
BACKDATE_SECONDS: Final = 30
"""CA-11: an EHR whose clock is behind refuses an `iat` in its future."""
JWT_BEARER: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


@dataclass(frozen=True, slots=True)
class Authentication:
    """What a token request carries to authenticate. Made anew for each request: an assertion is used once (CA-01)."""

    headers: dict[str, str]
    fields: dict[str, str]

    def __repr__(self) -> str:
        return f"Authentication(headers={sorted(self.headers)}, fields={sorted(self.fields)})"


Authenticate = Callable[[str], Authentication]
"""Given the token endpoint, authenticate one request to it."""


def public(client_id: str) -> Authenticate:
    """No authentication: `client_id` in the body (TK-03)."""
    return lambda _: Authentication({}, {"client_id": client_id})


def client_secret_basic(client_id: str, secret: Secret) -> Authenticate:
    """HTTP Basic with both parts form-encoded first (RFC 6749 §2.3.1, EP-13)."""

    def authenticate(_: str) -> Authentication:
        pair = f"{quote(client_id, safe='')}:{quote(secret.reveal(), safe='')}"
        return Authentication({"Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}, {})

    return authenticate


def private_key_jwt(
    client_id: str, key: ECKey | RSAKey, algorithm: Literal["ES384", "RS384"], clock: Clock
) -> Authenticate:
    """A signed assertion (SMART `private_key_jwt`): fresh `jti`, `aud` the token endpoint as a string, `kid` set."""

    def authenticate(token_endpoint: str) -> Authentication:
        now = int(clock())
        assertion: str = private_key_jwt_sign(
            key,
            client_id,
            token_endpoint,
            alg=algorithm,
            claims={"jti": str(uuid.uuid4()), "nbf": now - BACKDATE_SECONDS},
            header={"kid": key.kid, "typ": "JWT"},
            issued_at=now - BACKDATE_SECONDS,
            expires_at=now + ASSERTION_SECONDS,
        )
        return Authentication({}, {"client_assertion_type": JWT_BEARER, "client_assertion": assertion})

    return authenticate
