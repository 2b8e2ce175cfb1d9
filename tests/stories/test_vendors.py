"""A whole journey at each vendor that the sandbox can play, with the broker's profile of that vendor (Q1 to Q9)."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

import pytest
from redis.asyncio import Redis

from broker.profiles import profile
from tests.stage import App, BrokerStage, Sandbox, open_stage
from tests.stories.held import SHORT_DUE, SHORT_LIFETIME, audit_of
from tests.stories.test_journeys import some_patient

Kind: TypeAlias = Literal["standalone", "EHR launch"]

SCOPE = "openid fhirUser offline_access patient/Patient.rs patient/Observation.rs"
SECRET = "s/+: %2F?é"
HAS_SECRET = {"client_secret": SECRET}
LETTERS = {"v1": {"read", "write", "*"}, "v2": {"rs", "cud", "cruds"}}


@dataclass(frozen=True, slots=True)
class Vendor:
    """What the broker is told of one vendor, and what comes of it."""

    profile: str
    authentication: str = "client_secret_basic"
    ehr: str = ""
    """More of its `[[ehr]]` table; `{origin}` stands for the vendor's."""
    client: dict[str, str] = field(default_factory=lambda: dict(HAS_SECRET))
    """What the vendor has on file of the broker."""
    scopes: Literal["v1", "v2"] = "v2"
    """How it is asked for scopes (Q9)."""
    dies_with_access: bool = False
    """Whether a grant must be refreshed before its access token ends (RF-07)."""
    revoked: str = "revoked"
    """What becomes of the tokens there when the grant is revoked (IN-07)."""


VENDORS = {
    "epic": Vendor("epic", "private_key_jwt", client={}, revoked="local_only"),
    "oracle": Vendor(
        "oracle",
        ehr='id_token_issuers = ["{origin}/tenants/lakeside/oidc/idsps/lakeside/"]',
        scopes="v1",
    ),
    "athena": Vendor("athena", dies_with_access=True),
    "smart-launcher": Vendor("smart-launcher", revoked="local_only"),
    "inferno": Vendor("generic", ehr='basic_encoding = "raw"', revoked="local_only"),
}


@asynccontextmanager
async def visiting(name: str, sandbox: Sandbox, redis: Redis, state: Path) -> AsyncIterator[tuple[BrokerStage, App]]:
    """A broker at a vendor, and an app."""
    vendor = VENDORS[name]
    sandbox.play(name)
    async with stage_of(vendor, sandbox, redis, state, vendor.ehr.format(origin=sandbox.origin)) as stage:
        app = stage.app()
        try:
            yield stage, app
        finally:
            await app.close()


def stage_of(
    vendor: Vendor, sandbox: Sandbox, redis: Redis, state: Path, ehr: str
) -> AbstractAsyncContextManager[BrokerStage]:
    """A stage that says nothing of the vendor but its profile, its client and `ehr`."""
    return open_stage(
        sandbox,
        redis,
        state,
        authentication=vendor.authentication,
        refresh_tokens=profile(vendor.profile).refresh_tokens,
        ehr=f'profile = "{vendor.profile}"\n{ehr}',
        client={"refresh": None, **vendor.client},
    )


async def started(kind: Kind, stage: BrokerStage, app: App) -> dict[str, Any]:
    """What the app gets from a launch of this kind."""
    if kind == "standalone":
        return await app.standalone(scope=f"launch/patient {SCOPE}")
    patient = await some_patient(app)
    answer = await app.launched(stage.sandbox.launch("broker-launch", patient), scope=f"launch {SCOPE}")
    assert answer["patient"] == patient
    return answer


async def ids_of_two_pages(app: App, handle: str, path: str) -> list[list[str]]:
    """The ids on the first two pages of a search, the second got by its link alone."""
    pages = []
    for _ in range(2):
        bundle = (await app.fhir(handle, path)).json()
        pages.append([entry["resource"]["id"] for entry in bundle["entry"]])
        (link,) = [link["url"] for link in bundle["link"] if link["relation"] == "next"]
        assert link.startswith(app.base)
        path = link.removeprefix(app.base).removeprefix("/")
    return pages


@pytest.mark.parametrize("kind", ["standalone", "EHR launch"])
@pytest.mark.parametrize("name", VENDORS)
async def test_a_vendor_is_used_from_launch_to_revocation_with_its_profile_alone(
    sandbox: Sandbox, redis: Redis, tmp_path: Path, name: str, kind: Kind
) -> None:
    """(NC-09) (NC-13) (NC-17) (PX-07) (Q1) (Q9) (OR-06) (EP-16) (OT-01) (RF-07)."""
    vendor = VENDORS[name]
    async with visiting(name, sandbox, redis, tmp_path) as (stage, app):
        if vendor.dies_with_access:
            sandbox.fault("token_lifetime", seconds=SHORT_LIFETIME)
        answer = await started(kind, stage, app)
        handle, patient = answer["access_token"], answer["patient"]
        grant = await stage.broker.grants.read(handle[4:16])
        asked = sandbox.journal("authorize")[-1]["parameters"]["scope"].split()
        letters = {scope.rpartition(".")[2] for scope in asked if scope.startswith("patient/")}
        assert set() < letters <= LETTERS[vendor.scopes]
        assert grant.terms.context.subject is not None

        assert (await app.fhir(handle, f"Patient/{patient}")).json()["id"] == patient
        first, second = await ids_of_two_pages(app, handle, f"Observation?patient={patient}&_count=2")
        assert (len(first), len(second), len({*first, *second})) == (2, 2, 4)

        if vendor.dies_with_access:
            stage.clock.advance(SHORT_DUE)
        else:
            sandbox.expire()
        assert (await app.fhir(handle, f"Patient/{patient}")).status_code == 200
        assert (await stage.broker.grants.read(grant.tag)).generation == 2

        assert await stage.broker.revoke_grant(grant.tag, cause="test") == vendor.revoked
        assert (await app.fhir(handle, f"Patient/{patient}")).status_code == 401


async def test_oracles_other_issuer_is_believed_where_the_operator_names_it_and_each_time_on_record(
    sandbox: Sandbox, redis: Redis, tmp_path: Path
) -> None:
    """(OR-07) (ID-03) (NC-13)."""
    async with visiting("oracle", sandbox, redis, tmp_path) as (stage, app):
        await app.standalone()

        reasons = [line["reason"] for line in audit_of(stage, "id_token.exception")]
    assert reasons == ["accepted by id_token_issuers of the profile"]


async def test_oracles_other_issuer_is_not_believed_where_nobody_names_it(
    sandbox: Sandbox, redis: Redis, tmp_path: Path
) -> None:
    """(OR-07) (ID-03) (NC-13): without its slash it is another issuer, too."""
    sandbox.play("oracle")
    slashless = f'id_token_issuers = ["{sandbox.origin}/tenants/lakeside/oidc/idsps/lakeside"]'
    async with stage_of(VENDORS["oracle"], sandbox, redis, tmp_path, slashless) as stage:
        app = stage.app()
        landing = await app.authorize()
        await app.close()

        assert landing.parameters["error"] == "server_error"
        assert "issuer is not one that is expected (ID-03)" in audit_of(stage, "launch.finish")[-1]["reason"]
        assert [tag async for tag in stage.broker.grants.tags()] == []
