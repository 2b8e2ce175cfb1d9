"""One whole journey at each vendor the sandbox can play, with the broker's profile of that vendor (Q1 to Q9)."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from tests.stage import App, BrokerStage, Sandbox, open_stage
from tests.stage.broker import EHR
from tests.stories.held import Held, audit_of, until

SECRET = "s/+: %2F?é"
SCOPE = "launch/patient openid fhirUser offline_access patient/Patient.rs patient/Observation.rs"


@dataclass(frozen=True, slots=True)
class Vendor:
    """What the broker has to be told of one vendor besides the name of its profile, and what comes of it."""

    profile: str
    authentication: str = "client_secret_basic"
    ehr: str = ""
    """More of its `[[ehr]]` table; `{origin}` stands for the vendor's."""
    client: dict[str, str] = field(default_factory=dict)
    """What the vendor knows of the broker's client."""
    identity: bool = True
    """Whether an id_token is expected and believed."""
    at_ehr: str = "revoked"
    """What becomes of the tokens there when the grant is revoked (IN-06, IN-07)."""


VENDORS = {
    "epic": Vendor(
        "epic",
        "private_key_jwt",
        at_ehr="local_only",
        client={"token_endpoint_auth_signing_alg": "ES384"},
    ),
    "oracle": Vendor(
        "oracle",
        ehr='id_token_issuers = ["{origin}/tenants/lakeside/oidc/idsps/lakeside/"]',
        client={"client_secret": SECRET},
    ),
    "athena": Vendor("athena", client={"client_secret": SECRET}),
    "smart-launcher": Vendor("smart-launcher", client={"client_secret": SECRET}, at_ehr="local_only"),
    "inferno": Vendor("smart-launcher", client={"client_secret": SECRET}, at_ehr="local_only"),
}


@dataclass(frozen=True, slots=True)
class Visit:
    """A broker at a vendor, and an app."""

    vendor: Vendor
    stage: BrokerStage
    app: App


@asynccontextmanager
async def visiting(name: str, sandbox: Sandbox, redis: Redis, state: Path) -> AsyncIterator[Visit]:
    vendor = VENDORS[name]
    sandbox.play(name)
    table = f'profile = "{vendor.profile}"\n{vendor.ehr.format(origin=sandbox.origin)}'
    async with open_stage(
        sandbox, redis, state, authentication=vendor.authentication, ehr=table, client=vendor.client
    ) as stage:
        app = stage.app()
        yield Visit(vendor, stage, app)
        await app.close()


@pytest.mark.parametrize("name", VENDORS)
async def test_probe(name, sandbox, redis, tmp_path):
    async with visiting(name, sandbox, redis, tmp_path) as visit:
        landing = await visit.app.authorize(scope=SCOPE)
        print(landing)
        print(visit.stage.audit_lines())
        print(sandbox.journal("token"))
        answer = await visit.app.exchange(landing)
        print(answer)
        handle = answer["access_token"]
        print(await visit.app.fhir(handle, f"Patient/{answer['patient']}"))
        b = await visit.app.fhir(handle, f"Observation?patient={answer['patient']}&_count=2")
        print(b.json()["link"])
        nxt = {l["relation"]: l["url"] for l in b.json()["link"]}["next"].removeprefix(visit.app.base).lstrip("/")
        b = await visit.app.fhir(handle, nxt)
        print(b.status_code, b.json().get("link"), b.text[:300])
        print(audit_of(visit.stage, "handle.use")[-1])
        sandbox.expire()
        x = await visit.app.fhir(handle, f"Patient/{answer['patient']}")
        print("after expire", x.status_code, x.text[:200])
        print(await visit.stage.broker.revoke_grant(handle[4:16], cause="test"))
        assert False
