"""What EHRs were seen to answer, and what becomes of it (spec §21, cases 1 to 8, 10 and 16)."""

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from broker.ehr.token_answer import PROPAGATION_HINT
from broker.refresh.renewal import REFUSED_SECONDS
from broker.scopes import Scopes
from tests.stage import App, BrokerStage, Sandbox
from tests.stage.app import SCOPE
from tests.stories.held import DUE, ENDED, FOREVER, Held, audit_of, bearers, code_of, held_at, hold

# 1: lifetimes


@pytest.mark.parametrize(
    ("fault", "parameters", "lifetime"),
    [
        ("token_expires_in_string", {}, 3600),
        ("token_no_expires_in", {}, 900),
        ("token_expires_in", {"expires_in": 0}, 900),
        ("token_expires_in", {"expires_in": -1}, 900),
        ("token_expires_in", {"expires_in": 59.5}, 59.5),
        ("token_expires_in", {"expires_in": 10**12}, 7 * 86_400),
    ],
)
async def test_a_lifetime_in_any_form_schedules_a_refresh(
    sandbox: Sandbox, redis: Redis, tmp_path: Path, fault: str, parameters: dict[str, Any], lifetime: float
) -> None:
    """(NC-01) (Q8) (TR-07)."""
    sandbox.fault(fault, **parameters)
    async with held_at(sandbox, redis, tmp_path, lifetime=3600, ehr="default_lifetime = 900") as held:
        grant = await held.grant()

    assert grant.expires_at - grant.since == pytest.approx(lifetime, abs=1)
    assert 0.59 * lifetime < grant.renew_at - grant.since < 0.91 * lifetime + 1


async def test_a_refresh_that_says_neither_lifetime_nor_scope_inherits_both(held: Held) -> None:
    """(NC-01) (RF-09)."""
    before = await held.grant()
    held.stage.sandbox.fault("token_members", drop=["expires_in", "scope"])
    held.stage.clock.advance(DUE)

    assert (await held.read()).status_code == 200

    after = await held.grant()
    assert after.generation == 2
    assert after.terms.scopes == before.terms.scopes
    assert after.expires_at - after.since == pytest.approx(100, abs=0.5)


# 2: a refresh token that dies with its access token


async def test_a_grant_that_must_not_be_left_alone_is_renewed_though_nobody_asks(
    sandbox: Sandbox, redis: Redis, tmp_path: Path
) -> None:
    """(NC-02) (RF-07)."""
    sandbox.switch(refresh_while_alive=True)
    async with held_at(sandbox, redis, tmp_path, ehr="refresh_while_alive = true") as held:
        for generation in (2, 3):
            held.stage.clock.advance(DUE)
            await held.stage.broker.keeper.look()
            assert (await held.grant()).generation == generation

        assert (await held.read()).status_code == 200
        assert bearers(sandbox) == ["token 3"]


# 3: refresh tokens that come, or do not


@pytest.mark.parametrize("refresh", ["rotate", "keep", "sometimes"])
async def test_refresh_tokens_that_come_or_do_not_are_never_lost_and_never_sent_twice(
    sandbox: Sandbox, redis: Redis, tmp_path: Path, refresh: str
) -> None:
    """(NC-03) (RF-03) (RF-15) (EP-16) (OR-04)."""
    async with held_at(sandbox, redis, tmp_path, refresh=refresh) as held:
        for _ in range(3):
            held.stage.clock.advance(DUE)
            assert (await held.read()).status_code == 200
        assert (await held.grant()).generation == 4

    assert sandbox.counts()["reuse_alarms"] == 0


# 4: a lost reply, or two at once


async def test_a_lost_reply_ends_in_one_new_launch_and_no_storm(held: Held) -> None:
    """(NC-04) (RF-04) (RF-05)."""
    held.stage.sandbox.fault("token_drop")
    held.stage.clock.advance(ENDED)

    answers = await asyncio.gather(*(held.read() for _ in range(20)))

    assert {(answer.status_code, code_of(answer)) for answer in answers} == {(401, "reauthorization_required")}
    assert held.refreshes() == 1
    assert held.stage.sandbox.counts()["reuse_alarms"] == 0


# 5: offline access that the scope does not mention


async def test_a_refresh_token_is_used_though_offline_access_is_missing_from_the_scope(
    secret_stage: BrokerStage, secret_app: App
) -> None:
    """(NC-05)."""
    secret_stage.sandbox.fault("token_scope", scope="launch/patient patient/*.rs")
    held = await hold(secret_stage, secret_app)
    assert (await held.grant()).refreshable
    held.stage.clock.advance(DUE)

    assert (await held.read()).status_code == 200

    assert (await held.grant()).generation == 2


# 6: granted scope


@pytest.mark.parametrize(
    ("fault", "left"),
    [
        ("token_scope_wider", "patient/*.rs"),
        ("token_scope_split", "patient/*.rs"),
        ("token_scope_twice", "patient/*.rs"),
        ("token_scope_odd_case", "patient/*.rs"),
        ("token_scope_v1", "patient/*.rs"),
        ("token_scope_words", "patient/*.rs"),
        ("token_scope_blanks", "patient/*.rs"),
        ("token_no_scope", "patient/*.rs"),
    ],
)
async def test_a_handle_has_what_was_granted_and_allowed_and_asked_and_nothing_more(
    secret_stage: BrokerStage, secret_app: App, fault: str, left: str
) -> None:
    """(NC-06) (TR-04) (OA-02) (SC-16) (EP-15) (Q4)."""
    secret_stage.sandbox.fault(fault)

    answer = await secret_app.standalone()

    assert Scopes.parse(answer["scope"]).resources == Scopes.parse(left).resources
    assert "user/" not in answer["scope"]
    held = Held(secret_stage, secret_app, answer["access_token"], f"Patient/{answer['patient']}")
    assert (await held.read()).status_code == 200
    assert (await held.grant()).terms.scope_assumed is (fault == "token_no_scope")


async def test_a_handle_narrows_with_what_was_granted(secret_stage: BrokerStage, secret_app: App) -> None:
    """(NC-06) (TR-04) (TR-05): refused by the broker, before the EHR hears of it."""
    secret_stage.sandbox.fault("token_scope", scope="patient/Patient.read")
    answer = await secret_app.standalone()

    refused = await secret_app.fhir(answer["access_token"], f"Observation?patient={answer['patient']}")

    assert (refused.status_code, code_of(refused)) == (403, "insufficient_scope")
    assert secret_stage.sandbox.journal("fhir") == []


async def test_a_profile_can_insist_on_a_scope_and_the_tokens_go_back(
    sandbox: Sandbox, redis: Redis, tmp_path: Path
) -> None:
    """(Q4)."""
    async with held_at(sandbox, redis, tmp_path, ehr='missing_scope = "refuse"') as held:
        sandbox.fault("token_no_scope")

        landing = await held.app.authorize()

    assert landing.parameters["error"] == "server_error"
    assert len(sandbox.journal("revoke")) == 1


# 7: booleans as strings


@pytest.mark.parametrize("edit", [{"set": {"need_patient_banner": said}} for said in ("false", "FALSE", False)])
async def test_a_boolean_as_a_string_is_a_boolean(
    secret_stage: BrokerStage, secret_app: App, edit: dict[str, Any]
) -> None:
    """(NC-07) (CX-05)."""
    secret_stage.sandbox.fault("token_members", **edit)

    assert (await secret_app.standalone())["need_patient_banner"] is False


# 8: no patient, at first


async def test_without_a_patient_every_call_for_the_patient_is_refused_until_a_refresh_names_one(
    secret_stage: BrokerStage, secret_app: App
) -> None:
    """(NC-08) (CX-10) (CX-11) (EP-14)."""
    sandbox = secret_stage.sandbox
    sandbox.fault("token_context_on_refresh")
    sandbox.fault("token_lifetime", seconds=100)
    answer = await secret_app.standalone()
    assert "patient" not in answer
    held = Held(secret_stage, secret_app, answer["access_token"], "Observation?code=1")
    refused = await held.read()
    assert (refused.status_code, code_of(refused)) == (403, "insufficient_scope")
    assert (await held.grant()).terms.context_missing

    await (
        held.stage.broker.keeper.look()
    )  # no call would cause the refresh: each is refused before a token is asked for

    grant = await held.grant()
    assert not grant.terms.context_missing
    assert grant.terms.context.patient is not None
    assert (await secret_app.fhir(held.handle, f"Patient/{grant.terms.context.patient}")).status_code == 200


# 10: errors that say nothing

URN = "ehr_error_code urn:sandbox:error:oauth2:invalid-client"


@pytest.mark.parametrize(
    ("fault", "code", "reason"),
    [
        (
            "token_error_null",
            "ehr_refused",
            f"the token endpoint answered invalid_client (status 401){PROPAGATION_HINT}",
        ),
        (
            "token_error_uri",
            "ehr_refused",
            f"the token endpoint answered invalid_client (status 400, {URN}){PROPAGATION_HINT}",
        ),
        ("token_text", "ehr_misbehaved", "the token endpoint answered status 403 without a JSON object (OA-04)"),
    ],
)
async def test_an_error_that_says_nothing_keeps_the_grant_and_tells_the_operator_what_there_is(
    held: Held, fault: str, code: str, reason: str
) -> None:
    """(NC-10) (OA-03) (OA-04) (OR-03)."""
    held.stage.sandbox.fault(fault)
    held.stage.clock.advance(ENDED)

    answer = await held.read()

    assert (answer.status_code, code_of(answer)) == (502, code)
    assert audit_of(held.stage, "grant.refresh")[-1]["reason"] == reason
    assert "gateway" not in answer.text
    assert (await held.grant()).state == "active"


async def test_a_refused_client_is_not_sent_again_and_again(held: Held) -> None:
    """(NC-10) (EP-03)."""
    held.stage.sandbox.fault("token_invalid_client", times=FOREVER)
    held.stage.clock.advance(ENDED)

    answers = [await held.read() for _ in range(10)]

    assert (answers[0].status_code, code_of(answers[0])) == (502, "ehr_refused")
    assert {(answer.status_code, code_of(answer)) for answer in answers[1:]} == {(503, "ehr_unreachable")}
    assert held.refreshes() == 1
    held.stage.clock.advance(REFUSED_SECONDS)
    await held.read()
    assert held.refreshes() == 2


# 16: codes and tokens of any length and look


@pytest.mark.parametrize("fault", ["code_size", "code_jwt", "code_ending", "token_size", "token_jwt", "token_ending"])
async def test_codes_and_tokens_are_text_of_any_length_and_look(
    secret_stage: BrokerStage, secret_app: App, fault: str
) -> None:
    """(NC-16) (TR-08) (EP-19) (TK-01)."""
    secret_stage.sandbox.fault(fault)

    held = await hold(secret_stage, secret_app)

    assert (await held.read()).status_code == 200


async def test_a_token_that_looks_like_a_jwt_is_not_read(secret_stage: BrokerStage, secret_app: App) -> None:
    """(NC-16) (TR-08) (OA-21): its claims contradict the answer, and nobody looks."""
    claims = base64.urlsafe_b64encode(json.dumps({"exp": 1, "scope": "", "patient": "x"}).encode()).decode()
    secret_stage.sandbox.fault("token_members", set={"access_token": f"e30.{claims.rstrip('=')}.x"})

    answer = await secret_app.standalone(scope=SCOPE)

    grant = await secret_stage.broker.grants.read(answer["access_token"][4:16])
    assert grant.expires_at > secret_stage.clock() + 3000
    assert grant.terms.context.patient == answer["patient"] != "x"
