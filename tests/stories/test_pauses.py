"""An EHR is not asked for a refresh more often than it wants (OR-04, RF-08), and a session's end is named (RF-10)."""

from pathlib import Path

import pytest
from redis.asyncio import Redis

from broker.grants.sealing import dump_tokens
from tests.stage import App, BrokerStage, Sandbox
from tests.stories.held import ENDED, Held, audit_of, code_of, held_at


@pytest.mark.parametrize("fault", ["token_503", "token_429"])
async def test_retry_after_is_respected(held: Held, fault: str) -> None:
    """(RF-08)."""
    held.stage.sandbox.fault(fault, retry_after=40)
    held.stage.clock.advance(ENDED)

    for code in ("ehr_unreachable", "ehr_held_back", "ehr_held_back"):
        answer = await held.read()
        assert (answer.status_code, code_of(answer)) == (503, code)
        assert 39 <= int(answer.headers["retry-after"]) <= 40
    assert held.refreshes() == 1
    held.stage.clock.advance(39)
    await held.read()
    assert held.refreshes() == 1

    held.stage.clock.advance(1.5)
    assert (await held.read()).status_code == 200
    assert held.refreshes() == 2


async def test_no_two_refreshes_lie_within_the_interval_of_the_profile_not_even_on_401(
    sandbox: Sandbox, redis: Redis, tmp_path: Path
) -> None:
    """(OR-04) (RF-06): the EHR, which throttles for itself, never has to say so."""
    async with held_at(sandbox, redis, tmp_path, refresh="keep", ehr="refresh_interval = 60") as held:
        held.stage.clock.advance(ENDED)
        assert (await held.read()).status_code == 200
        assert held.refreshes() == 1
        held.stage.clock.advance(30)
        sandbox.expire()

        refused = await held.read()

        assert (refused.status_code, code_of(refused)) == (503, "ehr_unreachable")
        assert held.refreshes() == 1
        held.stage.clock.advance(30)
        assert (await held.read()).status_code == 200
        assert held.refreshes() == 2


async def test_the_end_of_a_session_asks_for_a_new_launch_by_name(secret_stage: BrokerStage, secret_app: App) -> None:
    """(RF-10): `online_access` ends with the person's session at the EHR."""
    secret_stage.sandbox.fault("token_lifetime", seconds=100)
    secret_stage.sandbox.fault("token_scope", scope="launch/patient online_access patient/*.rs")
    answer = await secret_app.standalone()
    held = Held(secret_stage, secret_app, answer["access_token"], f"Patient/{answer['patient']}")
    secret_stage.sandbox.fault("token_invalid_grant")
    secret_stage.clock.advance(ENDED)

    for _ in range(2):
        ended = await held.read()
        assert (ended.status_code, code_of(ended)) == (401, "relaunch_required")

    assert (await held.grant()).state == "needs_reauth"
    assert audit_of(secret_stage, "grant.refresh")[-1]["reason"].endswith("as the session ended (RF-10)")


async def test_a_member_that_nobody_knows_is_harmless_and_is_not_kept(held: Held) -> None:
    """(RF-12) (TR-06): such as Oracle's `active_ttl`."""
    held.stage.sandbox.fault("token_members", set={"active_ttl": 120, "__vendor": {"a": 1}})
    held.stage.clock.advance(ENDED)

    assert (await held.read()).status_code == 200

    tokens = await held.stage.broker.grants.open_tokens(await held.grant())
    assert "active_ttl" not in dump_tokens(tokens).decode()
    stored = [await held.stage.redis.dump(key) async for key in held.stage.redis.scan_iter("sb:{*")]
    assert not any(b"active_ttl" in (one or b"") for one in stored)


async def test_vendor_members_reach_apps_only_where_the_profile_names_them(
    sandbox: Sandbox, redis: Redis, tmp_path: Path
) -> None:
    """(CX-09) (EP-14)."""
    name = "__epic.dstu2.patient"
    async with held_at(sandbox, redis, tmp_path, ehr=f'context_extensions = ["{name}"]') as held:
        answer = held.app.answers[-1].json()
        context = (await held.grant()).terms.context

    assert answer[name] == context.extensions[name]
    assert answer[name].startswith("T")
