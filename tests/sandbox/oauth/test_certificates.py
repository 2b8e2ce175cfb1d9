"""Clients known by their certificate (RFC 8705), in this process and over real TLS."""

import base64
import hashlib
import json
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from starlette.types import ASGIApp, Receive, Scope, Send

from tests.sandbox.oauth.conftest import Start
from tests.sandbox.oauth.driver import ORIGIN, Driver
from tests.sandbox.oauth.test_program import program

FORM = {"grant_type": "client_credentials", "scope": "system/*.rs", "client_id": "app"}
SUBJECT = "CN=broker,O=Example Hospital,C=CH"
MTLS = f"{ORIGIN}/oauth2/mtls"


@dataclass(frozen=True, slots=True)
class Identity:
    """A self-signed certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)

    def files(self, directory: Path) -> tuple[Path, Path]:
        certificate, key = directory / "client.pem", directory / "client-key.pem"
        certificate.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))
        encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        key.write_bytes(self.key.private_bytes(encoding, form, serialization.NoEncryption()))
        return certificate, key


def identity(subject: str = SUBJECT) -> Identity:
    key = ec.generate_private_key(ec.SECP256R1())
    name, now = x509.Name.from_rfc4514_string(subject), datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    valid = builder.not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(hours=1))
    return Identity(valid.sign(key, hashes.SHA256()), key)


class Presenting:
    """The sandbox behind a TLS that has seen a client certificate."""

    def __init__(self, app: ASGIApp, certificate: bytes | None) -> None:
        self._app = app
        self._certificate = certificate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"] = {"client_certificate": self._certificate}
        await self._app(scope, receive, send)


@pytest.fixture(scope="module")
def broker() -> Identity:
    return identity()


@pytest.fixture
async def mtls_ehr(start: Start) -> AsyncIterator[Driver]:
    async with start(client_ca=Path("clients.pem")) as driver:
        yield driver


async def asked(ehr: Driver, certificate: bytes | None, url: str = f"{MTLS}/token", **form: str) -> httpx2.Response:
    transport = ehr.http._transport
    assert isinstance(transport, httpx2.ASGITransport)
    seen = httpx2.ASGITransport(Presenting(transport.app, certificate))
    async with httpx2.AsyncClient(transport=seen) as http:
        return await http.post(url, data=form or FORM)


async def register(ehr: Driver, **members: Any) -> None:
    await ehr.register(grant_types=["client_credentials"], scopes="system/*.rs", **members)


async def test_a_client_is_known_by_the_subject_of_its_certificate(mtls_ehr: Driver, broker: Identity) -> None:
    """RFC 8705 §2.1 (OA-19)."""
    await register(mtls_ehr, authentication="tls_client_auth", tls_client_auth_subject_dn=SUBJECT)
    assert (await asked(mtls_ehr, broker.der)).json()["token_type"] == "Bearer"
    for stranger in (identity("CN=another,O=Example Hospital,C=CH").der, None):
        answer = await asked(mtls_ehr, stranger)
        assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")


@pytest.mark.parametrize("member", ["x5c", "x5t#S256"])
async def test_a_client_is_known_by_a_certificate_it_published(mtls_ehr: Driver, broker: Identity, member: str) -> None:
    """RFC 8705 §2.2 (OA-19)."""
    thumbprint = base64.urlsafe_b64encode(hashlib.sha256(broker.der).digest()).rstrip(b"=").decode()
    value = [base64.b64encode(broker.der).decode()] if member == "x5c" else thumbprint
    key_set = {"keys": [{"kty": "EC", member: value}]}
    await register(mtls_ehr, authentication="self_signed_tls_client_auth", jwks=key_set)
    assert (await asked(mtls_ehr, broker.der)).json()["token_type"] == "Bearer"
    assert (await asked(mtls_ehr, identity().der)).json()["error"] == "invalid_client"


async def test_only_the_aliases_look_at_certificates(mtls_ehr: Driver, broker: Identity) -> None:
    """RFC 8705 §5 (OA-19)."""
    await register(mtls_ehr, authentication="tls_client_auth", tls_client_auth_subject_dn=SUBJECT)
    assert (await asked(mtls_ehr, broker.der, f"{ORIGIN}/oauth2/token")).json()["error"] == "invalid_client"
    document = (await mtls_ehr.http.get("/api/FHIR/R4/.well-known/smart-configuration")).json()
    names = ("token", "introspection", "revocation", "pushed_authorization_request")
    paths = ("token", "introspect", "revoke", "par")
    assert document["mtls_endpoint_aliases"] == {
        f"{name}_endpoint": f"{MTLS}/{path}" for name, path in zip(names, paths, strict=True)
    }
    assert document["token_endpoint_auth_methods_supported"][-2:] == ["tls_client_auth", "self_signed_tls_client_auth"]


async def test_a_certificate_beside_another_method_changes_nothing(mtls_ehr: Driver, broker: Identity) -> None:
    await register(mtls_ehr, authentication="client_secret_post", client_secret="s")
    assert (await asked(mtls_ehr, broker.der)).json()["error"] == "invalid_client"
    assert "access_token" in (await asked(mtls_ehr, broker.der, **FORM, client_secret="s")).json()


async def test_the_other_endpoints_know_certificates_too(mtls_ehr: Driver, broker: Identity) -> None:
    await register(mtls_ehr, authentication="tls_client_auth", tls_client_auth_subject_dn=SUBJECT)
    form = {"client_id": "app", "token": (await asked(mtls_ehr, broker.der)).json()["access_token"]}
    assert (await asked(mtls_ehr, broker.der, f"{MTLS}/introspect", **form)).json()["active"] is True
    assert (await asked(mtls_ehr, broker.der, f"{MTLS}/revoke", **form)).status_code == 200
    assert (await asked(mtls_ehr, broker.der, f"{MTLS}/introspect", **form)).json() == {"active": False}


def test_the_program_speaks_tls_and_asks_for_a_certificate(tmp_path: Path, broker: Identity) -> None:
    """(OA-19)"""
    certificate, key = broker.files(tmp_path)
    client = {
        "client_id": "app", "authentication": "tls_client_auth", "tls_client_auth_subject_dn": SUBJECT,
        "grant_types": ["client_credentials"], "scopes": "system/*.rs",
    }  # fmt: skip
    clients = tmp_path / "clients.json"
    clients.write_text(json.dumps(client))
    options = ("--tls", str(tmp_path / "tls"), "--client-ca", str(certificate), "--client", str(clients))
    with program(*options) as (_, url):
        assert url.startswith("https://127.0.0.1:")
        trusting = ssl.create_default_context(cafile=str(tmp_path / "tls" / "ca.pem"))
        alias = httpx2.get(f"{url}/api/FHIR/R4/.well-known/smart-configuration", verify=trusting).json()[
            "mtls_endpoint_aliases"
        ]["token_endpoint"]
        assert httpx2.post(alias, data=FORM, verify=trusting).json()["error"] == "invalid_client"
        trusting.load_cert_chain(certificate, key)
        with httpx2.Client(verify=trusting) as http:
            token = http.post(alias, data=FORM).json()["access_token"]
            headers = {"Authorization": f"Bearer {token}"}
            assert http.get(f"{url}/api/FHIR/R4/Patient", headers=headers).status_code == 200
        stranger = ssl.create_default_context(cafile=str(tmp_path / "tls" / "ca.pem"))
        other = tmp_path / "other"
        other.mkdir()
        stranger.load_cert_chain(*identity().files(other))
        with pytest.raises(httpx2.TransportError):
            httpx2.post(alias, data=FORM, verify=stranger)


def test_the_key_of_the_program_is_for_its_user_alone(tmp_path: Path) -> None:
    with program("--tls", str(tmp_path)):
        assert {path.name for path in tmp_path.iterdir()} == {"ca.pem", "server.pem", "server-key.pem"}
        assert (tmp_path / "server-key.pem").stat().st_mode & 0o777 == 0o600
