"""`broker ehrs`: what discovery found, and taking over what moved."""

from pathlib import Path

from redis.asyncio import Redis

from broker.ehr.discovery import AGAIN_SECONDS
from broker.store import keys
from tests.commands.program import Operator
from tests.stage import App, BrokerStage, Sandbox, open_stage

MOVED = "http://127.0.0.1:9/token"


async def move(stage: BrokerStage, app: App) -> None:
    """Let the EHR's documents name another port, and the broker see it."""
    await app.standalone()
    stage.clock.advance(AGAIN_SECONDS)
    stage.sandbox.fault("token_invalid_client")
    await app.authorize()
    stage.sandbox.fault("discovery_members", times=-1, set={"token_endpoint": MOVED})
    await app.standalone()


async def test_an_ehr_that_was_never_asked_is_listed_as_such(at_stage: Operator) -> None:
    said = await at_stage.run("ehrs", "list", "--json")

    (row,) = said.json()
    assert (said.status, row["ehr"], row["state"]) == (0, "sandbox", "not seen yet")


async def test_the_list_shows_whether_the_token_endpoint_is_asked_now(at_stage: Operator, stage: BrokerStage) -> None:
    """RF-08."""
    listed = ("ehrs", "list", "--json")
    (row,) = (await at_stage.run(*listed)).json()
    assert (row["gate"], row["gate_until"], row["token_requests"]) == ("open", None, 0)

    await stage.redis.hset(keys.gate("sandbox"), "paused", "4102444800")
    await stage.redis.zadd(keys.gate_slots("sandbox"), {"one": 4102444800, "of a replica that died": 1})

    (row,) = (await at_stage.run(*listed)).json()
    assert (row["gate"], row["gate_until"], row["token_requests"]) == ("paused", "2100-01-01T00:00:00Z", 1)


async def test_the_list_shows_each_parsed_member_and_keeps_the_rest(
    at_stage: Operator, stage: BrokerStage, app: App
) -> None:
    """(DS-09, DS-16, DS-17)"""
    stage.sandbox.fault("discovery_members", set={"x_unknown": [1], "capabilities": [*SETS, "https://a.example/c"]})
    await app.authorize()

    (row,) = (await at_stage.run("ehrs", "list", "--json")).json()

    origin = stage.sandbox.origin
    assert row["state"] == "pinned"
    assert row["token_endpoint"] == f"{origin}/oauth2/token"
    assert row["authorization_endpoint"] == f"{origin}/oauth2/authorize"
    assert row["jwks_uri"].startswith(origin)
    assert row["issuer"] == stage.sandbox.issuer
    assert row["document"]["x_unknown"] == [1]
    assert row["features"]["launch-ehr"]
    assert not row["features"]["sso-openid-connect"]
    assert row["other_capabilities"] == ["https://a.example/c"]
    assert row["capability_sets"] == ["Patient-EHR", "Clinician-EHR"]


SETS = [
    "launch-ehr",
    "client-public",
    "context-ehr-patient",
    "context-ehr-encounter",
    "permission-patient",
    "permission-user",
]


async def test_warnings_and_unlisted_methods_are_shown(at_stage: Operator, stage: BrokerStage, app: App) -> None:
    """(DS-03, DS-05, DS-10)"""
    members = {"token_endpoint_auth_methods_supported": ["client_secret_basic"]}
    stage.sandbox.fault("discovery_members", set=members, drop=["grant_types_supported", "jwks_uri"])
    await app.authorize()

    (row,) = (await at_stage.run("ehrs", "list", "--json")).json()

    assert "grant_types_supported is missing (DS-03)" in row["warnings"]
    assert "sso-openid-connect is listed without jwks_uri: id_tokens are not used (DS-05)" in row["warnings"]
    unlisted = "private_key_jwt is used, and the EHR lists client_secret_basic (DS-10)"
    assert f"registration sandbox-launch: {unlisted}" in row["warnings"]
    assert (row["sso"], row["sso_off"]) == (False, "sso-openid-connect is listed without jwks_uri (DS-05)")


async def test_check_says_the_same_of_what_the_ehr_says_now(at_stage: Operator, stage: BrokerStage) -> None:
    """(DS-03, OA-17)"""
    stage.sandbox.fault("discovery_no_grant_types_supported")
    stage.sandbox.fault("openid_wrong_issuer")

    said = await at_stage.run("check", "--json")

    warnings = {finding["text"] for finding in said.json() if (finding["part"], finding["level"]) == ("ehr", "warning")}
    assert said.status == 0
    assert {
        "sandbox: grant_types_supported is missing (DS-03)",
        "sandbox: openid-configuration names another issuer than the one it is found by (OA-17)",
    } <= warnings


async def test_a_quarantine_is_listed_with_old_and_new_and_approved_for_the_running_broker(
    operator: Operator, sandbox: Sandbox, redis: Redis, tmp_path: Path
) -> None:
    """(DS-15)"""
    async with open_stage(sandbox, redis, tmp_path, authentication="client_secret_basic") as stage:
        app = stage.app()
        try:
            (operator.home / "broker.toml").write_text((stage.state / "broker.toml").read_text())
            await move(stage, app)
            await approve(operator.but(STAGE_SECRET="not needed here"), sandbox.origin)
            landing = await app.authorize()
        finally:
            await app.close()

    assert landing.parameters["error"] == "temporarily_unavailable"


async def approve(at_stage: Operator, known: str) -> None:
    (row,) = (await at_stage.run("ehrs", "list", "--json")).json()
    assert row["state"] == "quarantined"
    assert row["token_endpoint"] == f"{known}/oauth2/token"
    moved = {"member": "token_endpoint", "pinned": known, "found": "http://127.0.0.1:9"}
    assert row["quarantined"] == [moved]
    table = (await at_stage.run("ehrs", "list")).out
    assert f"token_endpoint: {known.removeprefix('http://')} -> 127.0.0.1:9" in table

    said = await at_stage.run("ehrs", "approve", "sandbox", "--json")
    assert (said.status, said.json()) == (0, [{"ehr": "sandbox", "approved": [moved]}])

    (row,) = (await at_stage.run("ehrs", "list", "--json")).json()
    assert (row["state"], row["token_endpoint"], row["quarantined"]) == ("pinned", MOVED, [])


async def test_an_approval_of_nothing_fails(at_stage: Operator) -> None:
    for name, cause in (("sandbox", "nothing is quarantined for EHR sandbox"), ("no", "there is no EHR 'no'")):
        said = await at_stage.run("ehrs", "approve", name)

        assert (said.status, said.err) == (1, f"broker: not_found: {cause}\n")
