"""A grant is renewed before it is needed, as the EHR wants it, and never beyond what was granted (RF-01…RF-11)."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from tests.stage import App, BrokerStage, Sandbox
from tests.stories.held import (
    DUE,
    LIFETIME,
    SHORT_DUE,
    SHORT_LIFETIME,
    Held,
    audit_of,
    bearers,
    code_of,
    held_at,
    hold,
)

# When


@pytest.mark.parametrize(
    ("after", "refreshes", "bearer"), [(59, 0, "token 1"), (DUE, 1, "token 2"), (150, 1, "token 2")]
)
async def test_a_token_is_renewed_before_the_call_once_it_is_due(
    held: Held, after: int, refreshes: int, bearer: str
) -> None:
    """RF-06."""
    held.stage.clock.advance(after)

    assert (await held.read()).status_code == 200

    assert held.refreshes() == refreshes
    assert bearers(held.stage.sandbox) == [bearer]
    assert (await held.grant()).generation == 1 + refreshes


async def test_each_refresh_is_audited_before_and_after(held: Held) -> None:
    """HB-09."""
    held.stage.clock.advance(DUE)
    await held.read()

    said = [(line["outcome"], line["reason"], line["generation"]) for line in audit_of(held.stage, "grant.refresh")]
    assert said == [("allowed", "due", 1), ("allowed", "answered, and the store said ok", 1)]


@pytest.mark.parametrize(
    ("fault", "parameters", "lifetime"),
    [
        ("token_no_expires_in", {}, 300),
        ("token_members", {"set": {"expires_in": 0}}, 300),
        ("token_members", {"set": {"expires_in": "soon"}}, 300),
        ("token_expires_in_string", {}, LIFETIME),
    ],
)
async def test_a_lifetime_is_read_as_it_comes_or_taken_to_be_300_seconds(
    secret_stage: BrokerStage, secret_app: App, fault: str, parameters: dict[str, Any], lifetime: int
) -> None:
    """Q8, RF-06, RF-09, TR-07, NC-01."""
    stage = secret_stage
    stage.sandbox.fault(fault, **parameters)
    held = await hold(stage, secret_app)
    grant = await held.grant()

    assert grant.expires_at - grant.since == pytest.approx(lifetime, abs=0.5)
    assert 0.6 * lifetime <= grant.renew_at - grant.since + 0.5 <= 0.9 * lifetime + 1
    stage.sandbox.fault(fault, **parameters)
    stage.clock.advance(lifetime - 5)
    if lifetime < 300:  # the handle itself lives 300 seconds
        assert (await held.read()).status_code == 200
        assert held.refreshes() == 1


# With what: RF-01, RF-02, RF-03


@pytest.mark.parametrize(
    ("authentication", "sent", "header"),
    [
        ("none", {"client_id"}, False),
        ("client_secret_basic", set(), True),
        ("private_key_jwt", {"client_assertion_type", "client_assertion"}, False),
    ],
)
async def test_a_refresh_authenticates_as_the_code_exchange_did_and_asks_for_no_scope(
    sandbox: Sandbox, redis: Redis, tmp_path: Path, authentication: str, sent: set[str], *, header: bool
) -> None:
    """RF-01, RF-02."""
    async with held_at(sandbox, redis, tmp_path, authentication=authentication, lifetime=SHORT_LIFETIME) as held:
        held.stage.clock.advance(SHORT_DUE)
        assert (await held.read()).status_code == 200

    exchange, refresh = sandbox.journal("token")
    assert refresh["status"] == 200
    assert set(refresh["parameters"]) == {"grant_type", "refresh_token"} | sent
    assert refresh["authorization"] is exchange["authorization"] is header


@pytest.mark.parametrize(
    ("refresh", "withheld_at", "distinct"),
    [("rotate", None, 3), ("keep", None, 1), ("rotate", 0, 2), ("rotate", 1, 2)],
    ids=["always rotates", "never rotates", "omits the first", "omits the second"],
)
async def test_a_new_refresh_token_replaces_the_old_and_a_missing_one_does_not(
    sandbox: Sandbox, redis: Redis, tmp_path: Path, refresh: str, withheld_at: int | None, distinct: int
) -> None:
    """RF-03, RF-15, EP-16, OR-04, NC-03."""
    async with held_at(sandbox, redis, tmp_path, refresh=refresh) as held:
        for number in range(3):
            if number == withheld_at:
                sandbox.fault("token_no_refresh_token")
            held.stage.clock.advance(DUE)
            assert (await held.read()).status_code == 200

    spent = [entry["parameters"]["refresh_token"] for entry in sandbox.journal("token")[1:]]
    assert len(spent) == 3
    assert len(set(spent)) == distinct
    assert sandbox.counts()["reuse_alarms"] == 0


# What was granted: RF-09, RF-11


@pytest.mark.parametrize(
    ("fault", "parameters", "kept", "recorded"),
    [
        (
            "token_scope",
            {"scope": "{before} patient/*.cruds user/*.rs"},
            None,
            True,
        ),
        ("token_no_scope", {}, None, False),
        ("token_scope", {"scope": "patient/Patient.rs"}, "patient/Patient.rs", False),
    ],
    ids=["wider", "not said", "narrower"],
)
async def test_the_scope_of_a_grant_shrinks_with_a_refresh_but_never_grows(
    held: Held, fault: str, parameters: dict[str, str], kept: str | None, *, recorded: bool
) -> None:
    """RF-09, RF-11, TR-04."""
    before = str((await held.grant()).terms.scopes)
    held.stage.sandbox.fault(fault, **{name: text.format(before=before) for name, text in parameters.items()})
    held.stage.clock.advance(DUE)

    assert (await held.read()).status_code == 200

    assert str((await held.grant()).terms.scopes) == (kept or before)
    assert any("RF-11" in line["reason"] for line in audit_of(held.stage, "grant.refresh")) is recorded
    observations = await held.app.fhir(held.handle, f"Observation?patient={held.path}")
    assert observations.status_code == (403 if kept else 200)


async def test_having_a_refresh_token_decides_and_not_the_word_for_it(stage: BrokerStage, app: App) -> None:
    """SC-12, NC-05: Epic grants offline access without saying so."""
    stage.sandbox.fault("token_scope", scope="launch/patient patient/*.rs")
    held = await hold(stage, app)
    stage.clock.advance(DUE)

    assert (await held.read()).status_code == 200

    assert "offline_access" not in (await held.grant()).terms.scopes.others
    assert held.refreshes() == 1


# Backend services: BS-06, BS-10


async def backend(stage: BrokerStage, reports: App, lifetime: int = SHORT_LIFETIME) -> Held:
    stage.sandbox.fault("token_lifetime", seconds=lifetime)
    answer = await reports.token(grant_type="client_credentials", scope="system/Patient.rs", resource=reports.base)
    assert answer.status_code == 200, answer.text
    return Held(stage, reports, answer.json()["access_token"], "Patient?_count=1")


@pytest.mark.parametrize("after", [SHORT_DUE, SHORT_LIFETIME + 1])
async def test_a_backend_token_is_renewed_by_a_new_assertion_once_for_all(
    stage: BrokerStage, reports: App, after: int
) -> None:
    """BS-03, BS-06, BS-10, CA-01, OA-07."""
    held = await backend(stage, reports)
    stage.clock.advance(after)

    answers = await asyncio.gather(*(held.read() for _ in range(20)))

    assert {answer.status_code for answer in answers} == {200}
    first, second = stage.sandbox.journal("token")
    assert set(second["parameters"]) == {"grant_type", "scope", "client_assertion_type", "client_assertion"}
    assert first["parameters"]["client_assertion"] != second["parameters"]["client_assertion"]


async def test_a_backend_token_whose_renewal_is_lost_is_asked_for_again(stage: BrokerStage, reports: App) -> None:
    """BS-06."""
    held = await backend(stage, reports)
    stage.sandbox.fault("token_drop")
    stage.clock.advance(SHORT_LIFETIME + 1)

    lost = await held.read()

    assert (lost.status_code, code_of(lost)) == (504, "ehr_answer_lost")
    assert (await held.read()).status_code == 200
    assert stage.sandbox.counts()["token.client_credentials"] == 3


async def test_two_hundred_jobs_share_one_backend_token(stage: BrokerStage, reports: App) -> None:
    """BS-10."""
    await backend(stage, reports, LIFETIME)
    ask = {"grant_type": "client_credentials", "scope": "system/Patient.rs", "resource": reports.base}

    answers = [a for _ in range(4) for a in await asyncio.gather(*(reports.token(**ask) for _ in range(50)))]

    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["access_token"] for answer in answers}) == 200
    assert stage.sandbox.counts()["token.client_credentials"] == 1


async def test_each_set_of_scopes_has_a_token_of_its_own(stage: BrokerStage, reports: App) -> None:
    """BS-07."""
    for scope in ("system/Patient.rs", "system/Observation.r", "system/Patient.rs"):
        answer = await reports.token(grant_type="client_credentials", scope=scope, resource=reports.base)
        assert answer.json()["scope"] == scope

    asked = [entry["parameters"]["scope"] for entry in stage.sandbox.journal("token")]
    assert asked == ["system/Patient.rs", "system/Observation.r"]


async def test_a_pointer_turned_to_another_grant_is_not_followed(stage: BrokerStage, app: App, reports: App) -> None:
    launched = await hold(stage, app)
    await backend(stage, reports)
    (pointer,) = [key async for key in stage.redis.scan_iter("sb:backend:*")]
    await stage.redis.set(pointer, launched.tag)

    held = await backend(stage, reports)

    assert held.tag != launched.tag
    assert stage.sandbox.counts()["token.client_credentials"] == 2
