"""What came after plain launches: keys, pushed requests, tabs, clients and handles of a grant's own, other proofs."""

import base64
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx2
from joserfc import jwt
from joserfc.jwk import RSAKey
from redis.asyncio import Redis

from broker.dpop import new_key
from broker.ehr import dpop
from broker.ehr.client_auth import JWT_BEARER
from broker.ehr.dynamic_client import REGISTER_SCOPE, DynamicClient, DynamicClients
from broker.flows.exchange_handle import GRANT_TYPE
from broker.flows.exchange_request import ACCESS_TOKEN
from broker.secret import Secret
from broker.settings.deployment import CertificateHeader
from tests.leaks.evidence import Evidence, listening
from tests.refusals.certificates import certificate, rfc9440
from tests.stage import BrokerStage, Sandbox, open_stage
from tests.stage.app import ORIGIN, REDIRECT_URI
from tests.stage.broker import SANDBOX_SCOPES
from tests.stage.prover import Prover
from tests.stories.tab import Tab

PROXY = "127.0.0.2"
PLATFORM, AUDIENCE = "https://kubernetes.default.svc.cluster.local", "https://broker.example.org"
REGISTRATION = 'dpop = true\nframe_ancestors = ["https://ehr.example"]'
MORE = f"""
[[registration]]
id = "dynamic"
ehr = "sandbox"
flow = "launch"
client_id = "broker-dynamic"
scopes = "launch/patient patient/*.rs"
dynamic_client = true

[[app]]
id = "long-lived"
authentication = "none"
redirect_uris = ["{REDIRECT_URI}"]
[[app.access]]
registration = "dynamic"
scopes = "launch/patient patient/*.rs"

[[issuer]]
id = "k8s"
issuer = "{PLATFORM}"
audience = "{AUDIENCE}"
jwks_file = "cluster.json"

[[app]]
id = "job"
authentication = "workload_identity"
[app.workload]
issuer = "k8s"
subject = "system:serviceaccount:ehr:job"
[[app.access]]
registration = "sandbox-backend"
scopes = "system/Patient.rs"

[[app]]
id = "etl"
authentication = "tls_client_auth"
tls_client_auth_subject_dn = "CN=etl,O=Acme\\\\, Inc.,C=US"
[[app.access]]
registration = "sandbox-backend"
scopes = "system/Patient.rs"
"""


@contextmanager
def watched_keys(evidence: Evidence) -> Iterator[None]:
    """Note the keys that are made for one grant, and what an EHR gave a dynamic client."""
    register = DynamicClients.register

    def make_and_note(*arguments: Any) -> Secret:
        made = new_key(*arguments)
        evidence.add("proof key of a grant", *(line for line in made.reveal().splitlines() if "KEY" not in line))
        return made

    async def register_and_note(self: DynamicClients, url: str, **options: Any) -> DynamicClient:
        client = await register(self, url, **options)
        evidence.add("dynamic client", json.loads(client.key.reveal())["d"], client.client_id)
        evidence.reprs += [repr(client), str(client)]
        return client

    with (
        patch.object(dpop, "new_key", make_and_note),
        patch.object(DynamicClients, "register", register_and_note),
    ):
        yield


@asynccontextmanager
async def open_newer(sandbox: Sandbox, redis: Redis, folder: Path, key: RSAKey) -> AsyncIterator[BrokerStage]:
    """Serve a broker that does all of it, for an EHR that demands what it can."""
    sandbox.switch(dpop=True, dynamic_clients=True)
    (folder / "cluster.json").write_text(json.dumps({"keys": [key.as_dict(private=False)]}))
    proxies = CertificateHeader("Client-Cert", (ip_network(PROXY),))
    async with open_stage(
        sandbox, redis, folder, registration=REGISTRATION, more=MORE, certificate_header=proxies
    ) as stage:
        sandbox.register(
            client_id="broker-dynamic",
            authentication="private_key_jwt",
            jwks_uri=f"{stage.public_url}/jwks/dynamic",
            redirect_uris=[f"{stage.public_url}/callback/dynamic"],
            scopes=f"{SANDBOX_SCOPES} {REGISTER_SCOPE}",
        )
        yield stage


async def newer_journeys(stage: BrokerStage, evidence: Evidence, key: RSAKey) -> None:
    """Play each of them, well and with what is refused."""
    await launched_in_a_tab(stage, evidence)
    await registered_for_one_grant(stage, evidence)
    await proved_otherwise(stage, evidence, key)


async def launched_in_a_tab(stage: BrokerStage, evidence: Evidence) -> None:
    """A pushed launch without cookies, by an app with a key; its handle is traded for narrower ones."""
    tab = Tab(stops_at=ORIGIN, cookies=False)
    async with listening(Prover(stage.base, browser=tab), evidence, stage.public_url) as app:
        assert isinstance(app, Prover)
        given = await app.standalone(scope="launch/patient offline_access patient/*.rs")
        evidence.phi.append(given["patient"])
        path, handle = f"Patient/{given['patient']}", given["access_token"]
        proof = app.proof("GET", f"{app.base}/{path}", token=handle)
        for proofs in ([proof], [proof], [], [f"{proof}x"], [handle]):
            await app.fhir(handle, path, proofs=proofs)
        await app.fhir(handle, path, scheme="Bearer", proofs=[])
        subject = {"grant_type": GRANT_TYPE, "subject_token_type": ACCESS_TOKEN, "subject_token": handle}
        narrow = (await app.token(**subject, patient=given["patient"], uses="1")).json()["access_token"]
        assert [(await app.fhir(narrow, path)).status_code for _ in range(2)] == [200, 401]
        for refused in ({"patient": "somebody"}, {"actor_token": handle}, {"scope": handle}, {"audience": handle}):
            await app.token(**{**subject, **refused})
        await app.token(grant_type="refresh_token", refresh_token=given["refresh_token"])
        evidence.add("proof of an app", proof)


async def registered_for_one_grant(stage: BrokerStage, evidence: Evidence) -> None:
    """A client for this grant alone asks for its token, and for another once it has ended."""
    async with listening(stage.app("long-lived"), evidence, stage.public_url) as app:
        given = await app.standalone(scope="launch/patient patient/*.rs")
        path = f"Patient/{given['patient']}"
        assert (await app.fhir(given["access_token"], path)).status_code == 200
        stage.sandbox.fault("token_invalid_grant")
        await app.authorize(scope="launch/patient patient/*.rs")
        stage.sandbox.clear_faults()
        assert await stage.broker.revoke_grant(given["access_token"][4:16], cause="test") == "revoked"


async def proved_otherwise(stage: BrokerStage, evidence: Evidence, key: RSAKey) -> None:
    """By what a platform gave, and by a certificate that a proxy passes on; each also spoiled."""
    now, subject = int(time.time()), "system:serviceaccount:ehr:job"
    claims = {"iss": PLATFORM, "sub": subject, "aud": AUDIENCE, "iat": now, "nbf": now, "exp": now + 300}
    token = jwt.encode({"alg": "RS256", "kid": key.kid}, claims, key)
    shown = rfc9440(certificate())
    evidence.add("token of a workload", token)
    evidence.add("certificate of an app", shown, base64.b64encode(shown.encode()).decode())
    form = {"grant_type": "client_credentials", "scope": "system/Patient.rs", "resource": stage.base}
    by_token = {**form, "client_id": "job", "client_assertion_type": JWT_BEARER}
    async with listening(stage.app("job"), evidence, stage.public_url) as app:
        sent = [await app.token(**by_token, client_assertion=one) for one in (token, f"{token}x", token[:-9])]
    assert [answer.status_code for answer in sent] == [200, 401, 401]
    proxied = httpx2.AsyncClient(transport=httpx2.AsyncHTTPTransport(local_address=PROXY), timeout=20)
    etl = stage.app("etl")
    await etl.http.aclose()
    etl.http = proxied
    async with listening(etl, evidence, stage.public_url) as app:
        for header, status in ((shown, 200), (shown[:-30], 400), (rfc9440(certificate("CN=other")), 401)):
            proxied.headers["Client-Cert"] = header
            assert (await app.token(**form)).status_code == status
