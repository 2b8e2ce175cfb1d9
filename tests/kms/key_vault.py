"""Azure Key Vault in memory, behind Azure's own client: its requests are answered instead of sent."""

import base64
import json
import re
import secrets
import time
from io import BytesIO
from typing import Any, Final

import requests
from azure.core.credentials import AccessToken
from azure.core.pipeline.transport import RequestsTransport
from azure.keyvault.keys import KeyClient
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from broker.kms.azure_server import CLIENT_OPTIONS

URL: Final = "https://tests.vault.azure.net"
_OAEP: Final = padding.OAEP(mgf=padding.MGF1(SHA256()), algorithm=SHA256(), label=None)
_PATH: Final = re.compile(r"/(keys|deletedkeys)/([0-9a-zA-Z-]{1,127})(?:/([0-9a-z]+))?(?:/([a-z]+))?")
_CHALLENGE: Final = 'Bearer authorization="https://login.microsoftonline.com/t", resource="https://vault.azure.net"'
_PURGE_SECONDS: Final = 90 * 86_400
PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


class FakeVault(requests.adapters.BaseAdapter):  # type: ignore[misc]  # requests has no types here
    """Answers what `KeyClient` sends."""

    def __init__(self) -> None:
        super().__init__()
        self.keys: dict[str, dict[str, PrivateKey]] = {}
        self.deleted: dict[str, dict[str, PrivateKey]] = {}
        self.refuses: int | None = None
        """The status of each answer."""
        self.is_down = False

    def client(self, url: str) -> KeyClient:
        """Return Azure's client, talking to this."""
        session = requests.Session()
        session.mount("https://", self)
        transport = RequestsTransport(session=session, session_owner=False)
        return KeyClient(url, _Credential(), transport=transport, **CLIENT_OPTIONS | {"retry_total": 0})

    def close(self) -> None:
        """Close nothing."""

    def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
        """Answer one request."""
        if self.is_down:
            raise requests.exceptions.ConnectionError
        found = _PATH.fullmatch(request.path_url.partition("?")[0].rstrip("/"))
        assert found is not None, request.path_url
        if "Authorization" not in request.headers:
            return _response(request, 401, {}, {"WWW-Authenticate": _CHALLENGE})
        if self.refuses:
            return _response(request, self.refuses, {"error": {"code": "Refused", "message": "as asked"}}, {})
        return _response(request, *self._answer(str(request.method), request.body, *found.groups()), {})

    def _answer(
        self, method: str, body: Any, kind: str, name: str, version: str | None, verb: str | None
    ) -> tuple[int, Any]:
        sent = json.loads(body) if body else {}
        if method == "POST" and version == "create":
            return self._create(name, sent)
        place = self.keys if kind == "keys" else self.deleted
        if name not in place or (version and version not in place[name]):
            return 404, {"error": {"code": "KeyNotFound", "message": name}}
        if method == "DELETE":
            self.deleted[name] = self.keys.pop(name)
            return 200, self._bundle(name, None, self.deleted)
        if verb is None:
            return 200, self._bundle(name, version, place)
        return self._use(place[name][str(version)], verb, sent)

    def _create(self, name: str, sent: Any) -> tuple[int, Any]:
        if name in self.deleted:
            return 409, {"error": {"code": "Conflict", "message": "deleted but recoverable"}}
        made: PrivateKey = (
            rsa.generate_private_key(65537, sent["key_size"])
            if sent["kty"] == "RSA"
            else ec.generate_private_key(ec.SECP256R1())
        )
        self.keys.setdefault(name, {})[secrets.token_hex(16)] = made
        return 200, self._bundle(name, None, self.keys)

    def _bundle(self, name: str, version: str | None, place: dict[str, dict[str, PrivateKey]]) -> Any:
        version = version or list(place[name])[-1]
        key = place[name][version]
        deleted = (
            {
                "recoveryId": f"{URL}/deletedkeys/{name}",
                "deletedDate": int(time.time()),
                "scheduledPurgeDate": int(time.time()) + _PURGE_SECONDS,
            }
            if place is self.deleted
            else {}
        )
        return {
            "key": {"kid": f"{URL}/keys/{name}/{version}", **_public(key)},
            "attributes": {"enabled": True},
            **deleted,
        }

    def _use(self, key: PrivateKey, verb: str, sent: Any) -> tuple[int, Any]:
        value = _decoded(sent["value"])
        if isinstance(key, rsa.RSAPrivateKey):
            assert (verb, sent["alg"]) == ("unwrapkey", "RSA-OAEP-256")
            try:
                return 200, {"value": _encoded(key.decrypt(value, _OAEP))}
            except ValueError:
                return 400, {"error": {"code": "BadParameter", "message": "the value is not valid"}}
        assert (verb, sent["alg"]) == ("sign", "ES256")
        r, s = decode_dss_signature(key.sign(value, ec.ECDSA(Prehashed(SHA256()))))
        return 200, {"value": _encoded(r.to_bytes(32, "big") + s.to_bytes(32, "big"))}


def _response(request: Any, status: int, body: Any, headers: dict[str, str]) -> requests.Response:
    response = requests.Response()
    response.status_code, response.url, response.request = status, str(request.url), request
    response.headers.update({"Content-Type": "application/json", **headers})
    response.raw = BytesIO(json.dumps(body).encode())
    return response


class _Credential:
    def get_token(self, *_: str, **__: Any) -> AccessToken:
        return AccessToken("none", int(time.time()) + 3600)


def _public(key: PrivateKey) -> dict[str, Any]:
    numbers = key.public_key().public_numbers()
    if isinstance(numbers, rsa.RSAPublicNumbers):
        size = (numbers.n.bit_length() + 7) // 8
        return {
            "kty": "RSA",
            "key_ops": ["wrapKey", "unwrapKey"],
            "n": _encoded(numbers.n.to_bytes(size, "big")),
            "e": "AQAB",
        }
    x, y = (part.to_bytes(32, "big") for part in (numbers.x, numbers.y))
    return {"kty": "EC", "crv": "P-256", "key_ops": ["sign", "verify"], "x": _encoded(x), "y": _encoded(y)}


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
