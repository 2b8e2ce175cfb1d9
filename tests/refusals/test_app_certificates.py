"""Apps that a certificate proves, behind a declared proxy that ends TLS (RFC 8705, RFC 9440; OA-19, OA-25)."""

import base64
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from ipaddress import ip_network

import httpx2
import pytest
import pytest_asyncio
from cryptography import x509

from broker.settings.deployment import CertificateHeader
from broker.store.connection import connect
from broker.store.embedded import EmbeddedServer
from tests.refusals.certificates import certificate, der, nginx, of_version_8, rfc9440, with_odd_names
from tests.refusals.refusal import assert_oauth_error, assert_outcome, audited
from tests.stage import BrokerStage, MovableClock, Sandbox, open_stage
from tests.stage.broker import APP_SECRET_TEXT

pytestmark = pytest.mark.asyncio(loop_scope="module")

PROXY, SOMEBODY = "127.0.0.2", "127.0.0.1"
HEADER = CertificateHeader("Client-Cert", (ip_network("127.0.0.2"), ip_network("10.0.0.0/8")))
SPIFFE_ID = "spiffe://example.org/ns/ehr/sa/etl"


NO_NAMES, EDI_PARTY = bytes.fromhex("3000"), bytes.fromhex("3006a504a1020c00")
"""What alternative names can be: none, and of a kind that is not supported."""
ETL: list[x509.GeneralName] = [x509.DNSName("www.example"), x509.DNSName("etl.acme.example")]
BY_DN = certificate()
BY_DNS = certificate("CN=x", names=ETL)
BY_URI = certificate("CN=x", names=[x509.UniformResourceIdentifier(SPIFFE_ID)])
OWN = certificate("CN=self")
IN_KEYS = certificate("CN=in keys")
IN_KEYS_TEXT = base64.b64encode(der(IN_KEYS)).decode()
APPS = {
    "by-dn": ("tls_client_auth", 'tls_client_auth_subject_dn = "CN=etl,O=Acme\\\\, Inc.,C=US"', BY_DN),
    "by-dns": ("tls_client_auth", 'tls_client_auth_san_dns = "etl.acme.example"', BY_DNS),
    "by-uri": ("tls_client_auth", f'tls_client_auth_san_uri = "{SPIFFE_ID}"', BY_URI),
    "own": (
        "self_signed_tls_client_auth",
        f'certificate_thumbprints = ["{base64.urlsafe_b64encode(hashlib.sha256(der(OWN)).digest()).decode()[:43]}"]',
        OWN,
    ),
    "in-keys": (
        "self_signed_tls_client_auth",
        f'jwks = {{keys = [{{kty = "EC", crv = "P-256", x = "x", y = "y", x5c = ["{IN_KEYS_TEXT}"]}}]}}',
        IN_KEYS,
    ),
}
MORE = """
[[app]]
id = "{id}"
authentication = "{method}"
{key}
[[app.access]]
registration = "sandbox-backend"
scopes = "system/Patient.rs"
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(
    sandbox_process: Sandbox, valkey: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[BrokerStage]:
    sandbox_process.reset()
    redis = connect(valkey.url())
    await redis.flushall()
    more = "".join(MORE.format(id=id_, method=method, key=key) for id_, (method, key, _) in APPS.items())
    state = tmp_path_factory.mktemp("stage")
    async with open_stage(sandbox_process, redis, state, more=more, certificate_header=HEADER) as stage:
        yield stage
    await redis.aclose()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def callers(stage: BrokerStage) -> AsyncIterator[dict[str, httpx2.AsyncClient]]:
    """The declared proxy and somebody else, by the address they connect from."""
    async with AsyncExitStack() as clients:
        yield {
            address: await clients.enter_async_context(
                httpx2.AsyncClient(
                    transport=httpx2.AsyncHTTPTransport(local_address=address), base_url=stage.public_url, timeout=20
                )
            )
            for address in (PROXY, SOMEBODY)
        }


@pytest.fixture
def proxy(callers: dict[str, httpx2.AsyncClient]) -> httpx2.AsyncClient:
    return callers[PROXY]


@pytest.fixture
def somebody(callers: dict[str, httpx2.AsyncClient]) -> httpx2.AsyncClient:
    return callers[SOMEBODY]


async def sign_in(caller: httpx2.AsyncClient, client_id: str, shown: str | None, **headers: str) -> httpx2.Response:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    if shown is not None:
        sent["Client-Cert"] = shown
    form = {"grant_type": "client_credentials", "client_id": client_id, "scope": "system/Patient.rs"}
    base = f"{caller.base_url}".rstrip("/")
    return await caller.post("/oauth/token", data={**form, "resource": f"{base}/fhir/sandbox"}, headers=sent)


@pytest.mark.parametrize("client_id", APPS)
@pytest.mark.parametrize("write", [rfc9440, nginx], ids=["rfc9440", "nginx"])
async def test_an_app_is_known_by_the_certificate_that_the_proxy_passes_on(
    proxy: httpx2.AsyncClient, client_id: str, write: Callable[[x509.Certificate], str]
) -> None:
    """OA-19."""
    answer = await sign_in(proxy, client_id, write(APPS[client_id][2]), X_Forwarded_For="203.0.113.9")

    assert answer.status_code == 200, answer.text
    assert answer.json()["scope"] == "system/Patient.rs"


@pytest.mark.parametrize("client_id", APPS)
@pytest.mark.parametrize("shown", [*APPS, None])
async def test_no_certificate_is_good_for_another_app(
    stage: BrokerStage, proxy: httpx2.AsyncClient, client_id: str, shown: str | None
) -> None:
    """OA-19."""
    if shown == client_id:
        return
    cause = "no client certificate" if shown is None else "the client certificate "
    with audited(stage, "app.authenticate", "denied", cause):
        answer = await sign_in(proxy, client_id, shown and rfc9440(APPS[shown][2]))

    assert_oauth_error(answer, 401, "invalid_client", hides=[cause])


@pytest.mark.parametrize(
    ("client_id", "shown", "cause"),
    [
        ("by-dn", certificate("CN=etl,O=Acme"), "names somebody else"),
        ("by-dn", certificate("C=US,O=Acme\\, Inc.,CN=etl"), "names somebody else"),
        ("by-dn", certificate("CN=ETL,O=Acme\\, Inc.,C=US"), "names somebody else"),
        ("by-dn", certificate("CN=etl+O=Acme\\, Inc.,C=US"), "names somebody else"),
        ("by-dn", certificate("CN=y", names=[x509.DNSName("etl")]), "names somebody else"),
        ("by-dns", certificate("CN=etl.acme.example"), "names somebody else"),
        ("by-dns", certificate("CN=x", names=[x509.DNSName("*.acme.example")]), "names somebody else"),
        ("by-dns", certificate("CN=x", names=[x509.DNSName("etl.acme.example.evil")]), "names somebody else"),
        ("by-dns", certificate("CN=x", names=[x509.RFC822Name("etl.acme.example")]), "names somebody else"),
        ("by-uri", certificate("CN=x", names=[x509.DNSName("example.org")]), "names somebody else"),
        (
            "by-uri",
            certificate("CN=x", names=[x509.UniformResourceIdentifier(f"{SPIFFE_ID}2")]),
            "names somebody else",
        ),
        ("by-dns", with_odd_names(certificate("CN=x", names=ETL, odd_extension=NO_NAMES)), "names somebody else"),
        ("by-dns", with_odd_names(certificate("CN=x", odd_extension=EDI_PARTY)), "names somebody else"),
        ("own", certificate("CN=self"), "is not one of the app's"),
    ],
)
async def test_names_are_compared_exactly(
    stage: BrokerStage, proxy: httpx2.AsyncClient, client_id: str, shown: x509.Certificate, cause: str
) -> None:
    """OA-19."""
    with audited(stage, "app.authenticate", "denied", f"the client certificate {cause}"):
        answer = await sign_in(proxy, client_id, rfc9440(shown))

    assert_oauth_error(answer, 401, "invalid_client", hides=[cause])


@pytest.mark.parametrize("days", [-2, 31])
async def test_a_certificate_is_good_in_its_time_only(
    stage: BrokerStage, proxy: httpx2.AsyncClient, borrowed_clock: MovableClock, days: int
) -> None:
    borrowed_clock.advance(days * 86400)
    with audited(stage, "app.authenticate", "denied", "the client certificate has expired, or is not yet valid"):
        assert_oauth_error(await sign_in(proxy, "own", rfc9440(OWN)), 401, "invalid_client")


@pytest.mark.parametrize("forwarded", [{}, {"X_Forwarded_For": PROXY}, {"X_Forwarded_For": "10.0.0.1, 127.0.0.2"}])
@pytest.mark.parametrize("shown", [rfc9440(OWN), nginx(OWN), "", "nonsense"], ids=["rfc9440", "nginx", "empty", "text"])
async def test_the_header_is_a_forgery_from_anybody_but_a_declared_proxy(
    stage: BrokerStage, somebody: httpx2.AsyncClient, shown: str, forwarded: dict[str, str]
) -> None:
    """OA-25."""
    with audited(stage, "app.authenticate", "denied", "from an address that is no declared proxy (OA-25)"):
        answer = await sign_in(somebody, "own", shown, **forwarded)

    assert_oauth_error(answer, 400, "invalid_request", hides=["proxy", "certificate"])


async def test_a_forgery_is_refused_at_every_route(stage: BrokerStage, somebody: httpx2.AsyncClient) -> None:
    """OA-25."""
    with audited(stage, "app.authenticate", "denied", "no declared proxy"):
        answer = await somebody.get("/fhir/sandbox/Patient/1", headers={"Client-Cert": rfc9440(OWN)})

    assert_outcome(answer, 400, "invalid_request")


async def test_who_sends_no_header_is_nobody_to_refuse(stage: BrokerStage, somebody: httpx2.AsyncClient) -> None:
    answer = await somebody.post("/oauth/introspect", data={"token": "x"}, auth=("reports", APP_SECRET_TEXT))

    assert answer.json() == {"active": False}


async def test_two_headers_are_one_too_many(stage: BrokerStage, proxy: httpx2.AsyncClient) -> None:
    """OA-25: a proxy that appends has not replaced what the client sent."""
    twice = [("Client-Cert", rfc9440(OWN)), ("Client-Cert", rfc9440(BY_DN))]
    with audited(stage, "app.authenticate", "denied", "two client certificate headers"):
        answer = await proxy.post("/oauth/token", data={"client_id": "own"}, headers=twice)

    assert_oauth_error(answer, 400, "invalid_request")


@pytest.mark.parametrize(
    "shown",
    [
        "nonsense",
        "::",
        ":AAAA:",
        ":====:",
        rfc9440(OWN).strip(":"),
        f"{rfc9440(OWN)};a=1",
        f"{rfc9440(OWN)}, {rfc9440(BY_DN)}",
        of_version_8(OWN),
        nginx(OWN)[:-40],
        nginx(OWN) + nginx(BY_DN),
    ],
)
async def test_what_is_no_certificate_is_refused(stage: BrokerStage, proxy: httpx2.AsyncClient, shown: str) -> None:
    with audited(stage, "app.authenticate", "denied", "the declared proxy's client certificate header cannot be read"):
        answer = await sign_in(proxy, "own", shown)

    assert_oauth_error(answer, 400, "invalid_request")


@pytest.mark.parametrize(
    ("more", "cause"),
    [
        ({"client_secret": "x"}, "app own authenticates by self_signed_tls_client_auth, not by a secret"),
        ({"client_assertion": "a.b.c"}, "app own authenticates by self_signed_tls_client_auth, not by an assertion"),
    ],
)
async def test_a_certificate_goes_with_no_second_proof(
    stage: BrokerStage, proxy: httpx2.AsyncClient, more: dict[str, str], cause: str
) -> None:
    """TK-06."""
    headers = {"Client-Cert": rfc9440(OWN)}
    with audited(stage, "app.authenticate", "denied", cause):
        answer = await proxy.post("/oauth/token", data={"client_id": "own", **more}, headers=headers)

    assert_oauth_error(answer, 401, "invalid_client")


async def test_a_certificate_does_not_stand_in_for_another_proof(stage: BrokerStage, proxy: httpx2.AsyncClient) -> None:
    with audited(stage, "app.authenticate", "denied", "no secret, or one that this broker never made"):
        assert_oauth_error(await sign_in(proxy, "reports", rfc9440(OWN)), 401, "invalid_client")
