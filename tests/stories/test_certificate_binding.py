"""Handles that work with a client certificate alone, behind a declared proxy that ends TLS (RFC 8705 §3; HB-03)."""

import base64
import hashlib
from collections.abc import AsyncIterator
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import httpx2
import pytest
from cryptography.x509 import Certificate
from redis.asyncio import Redis

from broker.app import open_broker
from broker.settings.deployment import CertificateHeader
from broker.vault import LocalKeyring
from tests.refusals.certificates import certificate, der, nginx, rfc9440
from tests.refusals.refusal import assert_outcome
from tests.stage import App, BrokerStage, Sandbox, open_stage
from tests.stage.broker import APP_SECRET_TEXT, KEY
from tests.stories.test_exchange import ACCESS_TOKEN, GRANT_TYPE, acting, records

PROXIES = CertificateHeader("Client-Cert", (ip_network("127.0.0.2"),))
OWN, OTHER = certificate("CN=own"), certificate("CN=other")
INVALID_TOKEN = 'Bearer realm="token broker", error="invalid_token"'


def x5t(one: Certificate) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(der(one)).digest()).decode().rstrip("=")


WAREHOUSE = f"""
[[app]]
id = "warehouse"
authentication = "self_signed_tls_client_auth"
certificate_thumbprints = ["{x5t(OWN)}", "{x5t(OTHER)}"]
certificate_bound = true
[[app.access]]
registration = "sandbox-backend"
scopes = "system/Patient.rs"
"""
SUMMARY = acting("summary", "growth-chart", "launch/patient patient/Patient.rs")


@pytest.fixture
async def stage(sandbox: Sandbox, redis: Redis, tmp_path: Path) -> AsyncIterator[BrokerStage]:
    more = WAREHOUSE + SUMMARY
    async with open_stage(sandbox, redis, tmp_path, more=more, certificate_header=PROXIES) as stage:
        yield stage


@pytest.fixture
async def proxy(stage: BrokerStage) -> AsyncIterator[httpx2.AsyncClient]:
    """A declared proxy, by the address that it connects from."""
    transport = httpx2.AsyncHTTPTransport(local_address="127.0.0.2")
    async with httpx2.AsyncClient(transport=transport, base_url=stage.public_url, timeout=30) as http:
        yield http


def shown(one: Certificate | None) -> dict[str, str]:
    return {} if one is None else {"Client-Cert": rfc9440(one)}


async def post(
    caller: httpx2.AsyncClient,
    path: str,
    form: dict[str, str],
    with_: Certificate | None,
    auth: tuple[str, str] | None = None,
) -> httpx2.Response:
    return await caller.post(path, data=form, headers=shown(with_), auth=auth or httpx2.USE_CLIENT_DEFAULT)


async def sign_in(proxy: httpx2.AsyncClient, stage: BrokerStage, with_: Certificate) -> dict[str, Any]:
    form = {"grant_type": "client_credentials", "client_id": "warehouse", "scope": "system/Patient.rs"}
    answer = await post(proxy, "/oauth/token", {**form, "resource": stage.base}, with_)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def exchange(
    caller: httpx2.AsyncClient,
    handle: str,
    with_: Certificate | None,
    *,
    auth: tuple[str, str] | None = None,
    **more: str,
) -> httpx2.Response:
    form = {"grant_type": GRANT_TYPE, "subject_token": handle, "subject_token_type": ACCESS_TOKEN, **more}
    named = {} if auth else {"client_id": "growth-chart"}
    return await post(caller, "/oauth/token", form | named, with_, auth)


async def get(caller: httpx2.AsyncClient, handle: str, path: str, with_: Certificate | None) -> httpx2.Response:
    headers = {"Authorization": f"Bearer {handle}", **shown(with_)}
    return await caller.get(f"/fhir/sandbox/{path}", headers=headers)


async def test_a_policy_binds_every_handle_of_an_app_to_its_certificate(
    stage: BrokerStage, proxy: httpx2.AsyncClient, reports: App
) -> None:
    """OA-19, HB-03, HB-06."""
    given = await sign_in(proxy, stage, OWN)
    handle = given["access_token"]
    assert given["token_type"] == "Bearer"
    calls = stage.sandbox.counts()["fhir"]

    assert (await get(proxy, handle, "Patient?_count=1", OWN)).status_code == 200
    as_nginx = {"Authorization": f"Bearer {handle}", "Client-Cert": nginx(OWN)}
    assert (await proxy.get("/fhir/sandbox/Patient?_count=1", headers=as_nginx)).status_code == 200
    for with_ in (None, OTHER):
        refused = await get(proxy, handle, "Patient?_count=1", with_)
        assert_outcome(refused, 401, "invalid_token", challenge=INVALID_TOKEN, hides=[handle])
    assert_outcome(await reports.fhir(handle, "Patient?_count=1"), 401, "invalid_token", challenge=INVALID_TOKEN)
    forged = await reports.fhir(handle, "Patient?_count=1", headers=shown(OWN))
    assert_outcome(forged, 400, "invalid_request")
    unreadable = {"Authorization": f"Bearer {handle}", "Client-Cert": "nonsense"}
    assert_outcome(await proxy.get("/fhir/sandbox/Patient?_count=1", headers=unreadable), 400, "invalid_request")
    assert stage.sandbox.counts()["fhir"] == calls + 2

    told = (await post(proxy, "/oauth/introspect", {"token": handle, "client_id": "warehouse"}, OTHER)).json()
    assert (told["active"], told["cnf"]) == (True, {"x5t#S256": x5t(OWN)})
    denied = [record["reason"] for record in records(stage, "handle.use") if record["outcome"] == "denied"]
    assert [reason.rpartition(", and ")[2] for reason in denied] == [
        "none was shown",
        "another one was shown",
        "none was shown",
        "invalid_request: the declared proxy's client certificate header cannot be read",
    ]


async def test_a_bound_handle_does_not_work_where_no_proxy_is_declared(
    stage: BrokerStage, proxy: httpx2.AsyncClient, tmp_path: Path
) -> None:
    """HB-03: a replica that cannot know the certificate does not do without it."""
    handle = (await sign_in(proxy, stage, OWN))["access_token"]
    file = tmp_path / "second.jsonl"
    async with (
        open_broker(
            stage.broker.settings,
            redis=stage.redis,
            kek=LocalKeyring([KEY]),
            audit_file=file,
            clock=stage.clock,
            keep_every=None,
        ) as second,
        httpx2.AsyncClient(transport=httpx2.ASGITransport(app=second.application), base_url=stage.public_url) as http,
    ):
        calls = stage.sandbox.counts()["fhir"]
        assert (await get(http, handle, "Patient?_count=1", OWN)).status_code == 401
        assert stage.sandbox.counts()["fhir"] == calls
    assert "is bound to a certificate, and none was shown" in file.read_text()


async def test_any_app_can_bind_a_handle_to_the_certificate_that_it_shows(
    stage: BrokerStage, proxy: httpx2.AsyncClient, app: App
) -> None:
    """RFC 8705 §4, HB-03, HB-05: also a public one, whose name proves nothing."""
    given = await app.standalone()
    free, path = given["access_token"], f"Patient/{given['patient']}"
    unasked = (await exchange(proxy, free, OWN)).json()["access_token"]
    assert (await get(proxy, unasked, path, None)).status_code == 200, "a certificate alone binds nothing"

    bound = (await exchange(proxy, free, OWN, certificate_bound="true")).json()["access_token"]

    statuses = [(await get(proxy, bound, path, with_)).status_code for with_ in (OWN, OTHER, None)]
    assert statuses == [200, 401, 401]
    asked = {"token": bound, "client_id": "growth-chart"}
    told = [(await post(proxy, "/oauth/introspect", asked, with_)).json() for with_ in (OWN, OTHER, None)]
    assert told[0]["cnf"] == {"x5t#S256": x5t(OWN)}
    assert told[1:] == [{"active": False}] * 2, "who found it is not told whose record it is for"

    calls = stage.sandbox.counts()
    for with_ in (OTHER, None):
        taken_off = await exchange(proxy, bound, with_)
        assert (taken_off.status_code, taken_off.json()["error"]) == (400, "invalid_grant")
    kept = (await exchange(proxy, bound, OWN)).json()["access_token"]
    assert [(await get(proxy, kept, path, with_)).status_code for with_ in (OWN, None)] == [200, 401]
    for value, cause in (("true", "A certificate-bound token needs"), ("yes", "certificate_bound can only be true")):
        refused = await exchange(proxy, free, None, certificate_bound=value)
        assert (refused.status_code, refused.json()["error"]) == (400, "invalid_request")
        assert refused.json()["error_description"].startswith(cause)
    assert stage.sandbox.counts()["token"] == calls["token"]


async def test_an_app_that_authenticates_binds_what_it_exchanges_to_its_own_certificate(
    stage: BrokerStage, proxy: httpx2.AsyncClient, app: App
) -> None:
    """HB-03, HB-05."""
    given = await app.standalone()
    path, auth = f"Patient/{given['patient']}", ("summary", APP_SECRET_TEXT)
    bound = (await exchange(proxy, given["access_token"], OWN, certificate_bound="true")).json()["access_token"]

    without = await exchange(proxy, bound, None, auth=auth)
    acting_with_other = (await exchange(proxy, bound, OTHER, auth=auth)).json()["access_token"]

    assert without.json()["error"] == "invalid_grant"
    statuses = [(await get(proxy, acting_with_other, path, with_)).status_code for with_ in (OTHER, OWN, None)]
    assert statuses == [200, 401, 401]


async def test_the_metadata_say_that_some_handles_are_bound(stage: BrokerStage, app: App) -> None:
    """RFC 8705 §3.3."""
    for path in ("/.well-known/oauth-authorization-server", "/fhir/sandbox/.well-known/smart-configuration"):
        described = (await app.http.get(f"{stage.public_url}{path}")).json()
        assert described["tls_client_certificate_bound_access_tokens"] is True
