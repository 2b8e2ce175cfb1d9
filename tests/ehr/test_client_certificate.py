"""Mutual TLS on the wire: the simulated EHR knows the broker by its certificate (RFC 8705)."""

import ssl
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

from broker.app.way_out import open_egress
from broker.clock import system_clock, system_entropy
from broker.egress import ClientCertificate, Egress
from broker.ehr.client_auth import mtls_aliases, mutual_tls
from broker.ehr.documents import find_endpoints
from broker.ehr.dpop import DpopProofs
from broker.ehr.endpoints import Endpoints, parse_smart_configuration
from broker.ehr.token_endpoint import TokenEndpoint
from broker.errors import EhrRefused, EhrUnreachable
from broker.keys.certificate import certificate_jwk
from broker.settings import load
from tests.ehr.certificates import SUBJECT, self_signed
from tests.ehr.known import site
from tests.sandbox.oauth.test_program import program


@dataclass(frozen=True)
class Ehr:
    """A sandbox that serves https."""

    base: str
    authority: Path
    identity: ClientCertificate

    def client(self) -> httpx2.Client:
        return httpx2.Client(verify=ssl.create_default_context(cafile=str(self.authority)), trust_env=False)

    def register(self, **how: object) -> None:
        client = {"client_id": "broker", "grant_types": ["client_credentials"], "scopes": "system/*.rs", **how}
        with self.client() as http:
            assert http.post(f"{self.origin}/__clients", json=client).status_code < 300

    @property
    def origin(self) -> str:
        return self.base.removesuffix("/api/FHIR/R4")

    def endpoints(self) -> Endpoints:
        with self.client() as http:
            document = http.get(f"{self.base}/.well-known/smart-configuration").json()
        return parse_smart_configuration(document, self.base)


@pytest.fixture(scope="module")
def tls_ehr(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ehr]:
    folder = tmp_path_factory.mktemp("tls")
    files = self_signed(folder)
    with program("--tls", str(folder), "--client-ca", str(files["certificate"])) as (_, origin):
        identity = ClientCertificate(files["certificate"], files["certificate_key"])
        yield Ehr(f"{origin}/api/FHIR/R4", folder / "ca.pem", identity)


@pytest.fixture
async def tls_egress(tls_ehr: Ehr) -> AsyncIterator[Egress]:
    egress = Egress(allow_loopback_http=True, certificates=ssl.create_default_context(cafile=str(tls_ehr.authority)))
    yield egress
    await egress.close()


async def ask(ehr: Ehr, egress: Egress, identity: ClientCertificate) -> str:
    endpoints = ehr.endpoints()
    authenticate = mutual_tls("broker", identity, mtls_aliases(endpoints))
    answer = await TokenEndpoint(egress, DpopProofs(clock=system_clock, entropy=system_entropy)).client_credentials(
        endpoints.token_endpoint, authenticate, scope="system/Patient.rs", timeout=10
    )
    return str(answer.scope)


@pytest.mark.parametrize("method", ["tls_client_auth", "self_signed_tls_client_auth"])
async def test_a_certificate_is_all_that_the_broker_shows(tls_ehr: Ehr, tls_egress: Egress, method: str) -> None:
    """OA-19, TK-06, TK-08."""
    jwks = {"keys": [certificate_jwk(tls_ehr.identity.certificate.read_bytes())]}
    on_file = {"tls_client_auth_subject_dn": SUBJECT} if method == "tls_client_auth" else {"jwks": jwks}
    tls_ehr.register(authentication=method, **on_file)

    assert await ask(tls_ehr, tls_egress, tls_ehr.identity) == "system/Patient.rs"


async def test_a_certificate_of_somebody_else_is_refused(tls_ehr: Ehr, tls_egress: Egress) -> None:
    """OA-19."""
    tls_ehr.register(authentication="tls_client_auth", tls_client_auth_subject_dn="CN=somebody,C=CH")

    with pytest.raises(EhrRefused, match="invalid_client"):
        await ask(tls_ehr, tls_egress, tls_ehr.identity)


async def test_a_renewed_certificate_is_used_without_a_restart(
    tls_ehr: Ehr, tls_egress: Egress, tmp_path: Path
) -> None:
    """OA-19: the files are read anew for each request; what cannot be read sends nothing."""
    tls_ehr.register(authentication="tls_client_auth", tls_client_auth_subject_dn=SUBJECT)
    own = ClientCertificate(tmp_path / "c.pem", tmp_path / "k.pem")
    own.certificate.write_text("nothing yet")
    own.key.write_text("nothing yet")

    with pytest.raises(EhrUnreachable, match="the client certificate cannot be used"):
        await ask(tls_ehr, tls_egress, own)

    own.certificate.write_bytes(tls_ehr.identity.certificate.read_bytes())
    own.key.write_bytes(tls_ehr.identity.key.read_bytes())
    assert await ask(tls_ehr, tls_egress, own) == "system/Patient.rs"


@pytest.mark.parametrize("named", [True, False], ids=["with ca_file", "without"])
async def test_an_ehr_with_an_authority_of_its_own_is_reached_as_broker_toml_says(
    tls_ehr: Ehr, tmp_path: Path, *, named: bool
) -> None:
    """TK-08: discovery, and a FHIR request with the client certificate beside it."""
    own = f"""
ca_file = "{tls_ehr.authority}"
certificate = "file:{tls_ehr.identity.certificate}"
certificate_key = "file:{tls_ehr.identity.key}"
"""
    toml = f"""
public_url = "https://broker.example"
allow_loopback_http = true
[[ehr]]
id = "general"
fhir_base = "{tls_ehr.base}"
{own if named else ""}
[[registration]]
id = "general-backend"
ehr = "general"
flow = "backend"
client_id = "broker"
scopes = "system/*.rs"
"""
    (tmp_path / "broker.toml").write_text(toml)
    egress = open_egress(load(tmp_path / "broker.toml", {}))
    try:
        if named:
            assert (await find_endpoints(egress, site(tls_ehr.base))).token_endpoint.startswith(tls_ehr.origin)
            async with egress.stream("GET", f"{tls_ehr.base}/metadata", headers={}, timeout=10) as answer:
                assert answer.status == 200
        else:
            with pytest.raises(EhrUnreachable, match="no connection"):
                await find_endpoints(egress, site(tls_ehr.base))
    finally:
        await egress.close()
