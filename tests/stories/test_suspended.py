"""A refresh that is about somebody else than the grant ends it: a security event, never an update (CX-11, ID-08)."""

from typing import Any

import pytest

from broker.grants import Grant
from tests.stage import App, BrokerStage
from tests.stories.held import DUE, Held, audit_of, code_of

PATIENT = "the refresh named another patient than the grant (CX-11)"
USER = "the id_token of the refresh changed issuer, subject or audience (ID-08)"


@pytest.mark.parametrize(
    ("fault", "parameters", "cause"),
    [
        ("token_refresh_patient", {}, PATIENT),
        ("token_refresh_id_token", {"sub": "somebody-else"}, USER),
        ("token_members", {"set": {"id_token": "e30.eyJzdWIiOiJ4In0.x"}}, USER),
    ],
)
async def test_a_refresh_about_somebody_else_suspends_the_grant(
    held: Held, fault: str, parameters: dict[str, Any], cause: str
) -> None:
    """(CX-11) (ID-08)."""
    sandbox, before = held.stage.sandbox, await held.grant()
    sandbox.fault(fault, **parameters)
    held.stage.clock.advance(DUE)

    for _ in range(2):
        answer = await held.read()
        assert (answer.status_code, code_of(answer)) == (401, "reauthorization_required")

    grant = await held.grant()
    assert (grant.state, grant.cause, grant.sealed_tokens) == ("suspended", cause, None)
    assert grant.terms == before.terms
    said = [(line["outcome"], line["reason"]) for line in audit_of(held.stage, "grant.suspended")]
    assert said == [("denied", cause), ("allowed", "at the EHR: revoked")]
    assert held.refreshes() == 1
    assert sandbox.journal("fhir") == []
    issued = [entry["sha256"][:16] for entry in sandbox.journal("issued") if entry["token"] == "refresh_token"]
    assert sandbox.journal("revoke")[-1]["parameters"]["token"] == f"sha256:{issued[-1]}"


async def test_a_suspended_grant_can_be_revoked_and_not_revived(held: Held) -> None:
    """(CX-11)."""
    held.stage.sandbox.fault("token_refresh_patient")
    held.stage.clock.advance(DUE)
    await held.read()

    answer = await held.app.token(grant_type="refresh_token", refresh_token=held.refresh_handle)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")
    assert await held.stage.broker.revoke_grant(held.tag, cause="test") == "local_only"
    assert (await held.grant()).state == "revoked"


async def test_a_refresh_may_bring_an_id_token_of_the_same_user(held: Held) -> None:
    """(ID-08)."""
    before = (await held.grant()).terms.context
    assert before.subject is not None
    held.stage.sandbox.fault("token_refresh_id_token")
    held.stage.clock.advance(DUE)

    assert (await held.read()).status_code == 200

    assert (await held.grant()).terms.context == before


async def grant_of(stage: BrokerStage, app: App, scope: str) -> tuple[Held, Grant]:
    stage.sandbox.fault("token_lifetime", seconds=100)
    answer = await app.standalone(scope=scope)
    held = Held(stage, app, answer["access_token"], f"Patient/{answer['patient']}")
    return held, await held.grant()


async def test_who_signed_in_may_be_said_by_a_refresh_first(secret_stage: BrokerStage, secret_app: App) -> None:
    """(CX-11): verified like any id_token."""
    secret_stage.sandbox.fault("token_members", drop=["id_token"])
    held, grant = await grant_of(secret_stage, secret_app, "launch/patient openid fhirUser offline_access patient/*.rs")
    assert (grant.terms.context.subject, grant.terms.context.fhir_user) == (None, None)
    secret_stage.sandbox.fault("token_refresh_id_token")
    secret_stage.clock.advance(DUE)

    assert (await held.read()).status_code == 200

    context = (await held.grant()).terms.context
    assert context.issuer == secret_stage.sandbox.issuer
    assert None not in (context.subject, context.fhir_user)


async def test_an_id_token_of_a_refresh_that_does_not_verify_says_nothing(
    secret_stage: BrokerStage, secret_app: App
) -> None:
    """(CX-11) (ID-01): the grant goes on without it."""
    secret_stage.sandbox.fault("token_members", drop=["id_token"])
    held, _ = await grant_of(secret_stage, secret_app, "launch/patient openid fhirUser offline_access patient/*.rs")
    secret_stage.sandbox.fault("token_members", set={"id_token": "e30.e30.x"})
    secret_stage.clock.advance(DUE)

    assert (await held.read()).status_code == 200

    grant = await held.grant()
    assert (grant.state, grant.generation, grant.terms.context.subject) == ("active", 2, None)
