"""Keys of an app that authenticates by assertion, and the server it publishes them on."""

import json
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

from joserfc import jws, jwt
from joserfc.jwk import ECKey, OctKey, RSAKey

from broker.ehr.client_auth import JWT_BEARER

Algorithm = Literal["RS384", "ES384"]
ANY_ALGORITHM = jws.JWSRegistry(algorithms=["RS384", "ES384", "RS256", "HS256", "none"])


@dataclass(frozen=True)
class Keys:
    """One key of each kind that SMART knows, and one that nobody published."""

    rsa: RSAKey
    ec: ECKey
    foreign: ECKey

    @classmethod
    def generate(cls) -> "Keys":
        rsa = RSAKey.generate_key(2048, {"kid": "rsa"})
        return cls(rsa, ECKey.generate_key("P-384", {"kid": "ec"}), ECKey.generate_key("P-384", {"kid": "ec"}))

    def published(self) -> dict[str, Any]:
        """Return the JWK Set."""
        return {"keys": [key.as_dict(private=False) for key in (self.rsa, self.ec)]}

    def assertion(
        self,
        app: str,
        audience: str,
        *,
        key: RSAKey | ECKey | OctKey | None = None,
        header: dict[str, Any] | None = None,
        claims: dict[str, Any] | None = None,
    ) -> str:
        """Sign a good assertion with ES384; `header` and `claims` replace members, or remove them (None)."""
        now = int(time.time())
        good_header = {"alg": "ES384", "kid": "ec", "typ": "JWT"}
        good = {"iss": app, "sub": app, "aud": audience, "exp": now + 240, "iat": now, "jti": str(uuid.uuid4())}
        return jwt.encode(
            present(good_header | (header or {})),
            present(good | (claims or {})),
            key or self.ec,
            algorithms=list(ANY_ALGORITHM.allowed or ()),
            registry=ANY_ALGORITHM,
        )


def present(members: dict[str, Any]) -> dict[str, Any]:
    """Return the members that are not None."""
    return {name: value for name, value in members.items() if value is not None}


def proof(assertion: str) -> dict[str, str]:
    """Return the form parameters that carry an assertion (CA-08)."""
    return {"client_assertion_type": JWT_BEARER, "client_assertion": assertion}


@dataclass
class KeyServer:
    """Where an app publishes its keys; they can be replaced."""

    url: str
    key_set: dict[str, Any]
    fetches: list[str] = field(default_factory=list)
    status: int = 200
    cache_control: str = ""


@contextmanager
def running_key_server(key_set: dict[str, Any]) -> Iterator[KeyServer]:
    """Serve a JWK Set on a free port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            published.fetches.append(self.path)
            body = json.dumps(published.key_set).encode()
            self.send_response(published.status)
            self.send_header("Cache-Control", published.cache_control)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the library's name
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        published = KeyServer(f"http://127.0.0.1:{server.server_address[1]}/jwks", key_set)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield published
        finally:
            server.shutdown()
            thread.join()
