"""What the broker asks EHRs besides tokens: to revoke them, and what they think of them (IN-01…IN-08, OA-10)."""

from pathlib import Path

import pytest
from redis.asyncio import Redis

from broker.errors import InvalidRequest, NotFound
from broker.store import keys
from tests.stage import App, BrokerStage, Sandbox
from tests.stories.held import FOREVER, Held, audit_of, held_at, hold


def hints(sandbox: Sandbox) -> list[str]:
    return [entry["parameters"]["token_type_hint"] for entry in sandbox.journal("revoke")]


async def test_the_refresh_token_is_revoked(held: Held) -> None:
    """(IN-06)."""
    assert await held.stage.broker.revoke_grant(held.tag, cause="test") == "revoked"

    assert hints(held.stage.sandbox) == ["refresh_token"]


@pytest.mark.parametrize(("times", "said", "tries"), [(1, "revoked", 2), (2, "revoked", 3), (FOREVER, "failed", 3)])
async def test_later_is_tried_again_and_the_grant_is_gone_in_any_case(
    held: Held, monkeypatch: pytest.MonkeyPatch, times: int, said: str, tries: int
) -> None:
    """(IN-06) (IN-08)."""
    held.stage.sandbox.fault("revoke_503", times=times, retry_after=1)
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    object.__setattr__(held.stage.broker.revoke_grant.ehr_side, "sleep", sleep)
    assert await held.stage.broker.revoke_grant(held.tag, cause="test") == said

    assert hints(held.stage.sandbox) == ["refresh_token"] * tries
    assert slept == [1.0] * (tries - 1)
    assert (await held.grant()).sealed_tokens is None
    assert (await held.read()).status_code == 401


async def test_where_refresh_tokens_are_not_revoked_the_access_token_is(held: Held) -> None:
    """(OA-10)."""
    held.stage.sandbox.fault("revoke_unsupported")

    assert await held.stage.broker.revoke_grant(held.tag, cause="test") == "revoked"

    assert hints(held.stage.sandbox) == ["refresh_token", "access_token"]


async def test_without_a_revocation_endpoint_the_person_is_told_where_to_go(
    secret_stage: BrokerStage, secret_app: App
) -> None:
    """(IN-07)."""
    place = f"{secret_stage.sandbox.origin}/my-apps"
    secret_stage.sandbox.fault("discovery_members", times=FOREVER, set={"management_endpoint": place},
                               drop=["revocation_endpoint"])  # fmt: skip
    held = await hold(secret_stage, secret_app)

    assert await held.stage.broker.revoke_grant(held.tag, cause="test") == "local_only"
    assert await held.stage.broker.revoke_grant.management_endpoint(held.tag) == place
    assert hints(held.stage.sandbox) == []


@pytest.mark.parametrize(
    "fault",
    [
        "id_token_bad_nonce",
        "id_token_no_nonce",
        "id_token_bad_audience",
        "id_token_audiences",
        "id_token_bad_azp",
        "id_token_bad_issuer",
        "id_token_issuer_slash",
        "id_token_expired",
        "id_token_bad_signature",
        "id_token_alg_none",
        "id_token_alg_hs256",
    ],
)
async def test_tokens_that_came_with_a_bad_id_token_are_given_back_and_make_no_grant(
    secret_stage: BrokerStage, secret_app: App, fault: str
) -> None:
    """(ID-01) (ID-03) (ID-04) (OA-26) (OA-27)."""
    secret_stage.sandbox.fault(fault)

    landing = await secret_app.authorize()

    assert landing.parameters["error"] == "server_error"
    assert [tag async for tag in secret_stage.broker.grants.tags()] == []
    assert hints(secret_stage.sandbox) == ["refresh_token"]
    reasons = [line["reason"] for line in audit_of(secret_stage, "grant.revoke")]
    assert reasons[0].startswith("giving back what a failed launch got: the id_token")
    assert reasons[1] == "revoked: failed launch"


@pytest.mark.parametrize(
    ("fault", "known"),
    [
        ("id_token_audiences_azp", True),
        ("id_token_profile", True),
        ("id_token_relative_fhir_user", True),
        ("id_token_foreign_fhir_user", False),
    ],
)
async def test_unusual_id_tokens_that_are_sound_are_accepted(
    secret_stage: BrokerStage, secret_app: App, fault: str, *, known: bool
) -> None:
    """(ID-06) (OA-27) (SC-11)."""
    secret_stage.sandbox.fault(fault)

    held = await hold(secret_stage, secret_app)

    context = (await held.grant()).terms.context
    assert (context.subject is not None, context.fhir_user is not None) == (True, known)


async def test_an_audience_that_only_the_profile_accepts_is_audited_each_time(
    sandbox: Sandbox, redis: Redis, tmp_path: Path
) -> None:
    """(OT-04)."""
    sandbox.fault("id_token_bad_audience")
    async with held_at(sandbox, redis, tmp_path, ehr='id_token_audiences = ["another-client"]') as held:
        assert_excepted(held, "id_token_audiences")


async def test_an_issuer_that_only_the_profile_accepts_is_audited_each_time(
    sandbox: Sandbox, redis: Redis, tmp_path: Path
) -> None:
    """(EP-18) (OR-07)."""
    sandbox.fault("discovery_members", times=FOREVER, set={"issuer": f"{sandbox.origin}/tenants/lakeside"})
    async with held_at(sandbox, redis, tmp_path, ehr=f'id_token_issuers = ["{sandbox.issuer}"]') as held:
        assert_excepted(held, "id_token_issuers")


def assert_excepted(held: Held, setting: str) -> None:
    said = [(line["outcome"], line["reason"]) for line in audit_of(held.stage, "id_token.exception")]
    assert said == [("allowed", f"accepted by {setting} of the profile")]


# One token for several servers


async def test_of_authorization_details_only_the_entry_for_this_server_counts(
    secret_stage: BrokerStage, secret_app: App
) -> None:
    """(TR-10)."""
    secret_stage.sandbox.fault("token_authorization_details")

    held = await hold(secret_stage, secret_app)

    patient = (await held.grant()).terms.context.patient
    assert held.path == f"Patient/{patient}"
    assert patient != "patient-of-another-server"
    assert (await held.read()).status_code == 200


async def test_malformed_authorization_details_are_ignored(secret_stage: BrokerStage, secret_app: App) -> None:
    """(TR-10)."""
    secret_stage.sandbox.fault("token_members", set={"authorization_details": {"type": "smart_on_fhir"}})

    held = await hold(secret_stage, secret_app)

    assert (await held.read()).status_code == 200
    assert any("authorization_details" in line["reason"] for line in audit_of(secret_stage, "grant.create"))


# Introspection


@pytest.mark.parametrize(("authentication", "asked"), [("client", "client"), ("bearer", "bearer")])
async def test_an_ehr_can_be_asked_about_a_token(
    sandbox: Sandbox, redis: Redis, tmp_path: Path, authentication: str, asked: str
) -> None:
    """(IN-01) (IN-02) (IN-03) (EP-20)."""
    sandbox.switch(introspection=asked)
    async with held_at(sandbox, redis, tmp_path, ehr=f'introspection_authentication = "{authentication}"') as held:
        assert await held.stage.broker.introspect_grant(held.tag) == []

        assert [entry["parameters"].keys() for entry in sandbox.journal("introspect")] == [{"token", "token_type_hint"}]
        said = [(line["outcome"], line["reason"]) for line in audit_of(held.stage, "grant.introspect")]
        assert said == [("allowed", "asked"), ("allowed", "0 differences")]


async def test_what_the_ehr_says_otherwise_is_named_without_naming_anybody(held: Held) -> None:
    """(IN-02) (IN-04) (IN-05)."""
    introspect, tag = held.stage.broker.introspect_grant, held.tag
    held.stage.sandbox.expire()

    assert await introspect(tag) == ["the EHR says that the token is not active"]

    with pytest.raises(InvalidRequest):
        await introspect(tag)
    assert 0 < await held.stage.redis.ttl(keys.introspected(tag)) <= 60
    assert len(held.stage.sandbox.journal("introspect")) == 1


async def test_nobody_asks_unless_an_operator_does(held: Held) -> None:
    """(IN-05)."""
    await held.read()

    assert held.stage.sandbox.journal("introspect") == []


async def test_an_ehr_without_introspection_is_not_asked(secret_stage: BrokerStage, secret_app: App) -> None:
    """(IN-05) (EP-01)."""
    secret_stage.sandbox.fault("discovery_members", times=FOREVER, set={}, drop=["introspection_endpoint"])
    held = await hold(secret_stage, secret_app)

    with pytest.raises(NotFound):
        await held.stage.broker.introspect_grant(held.tag)
