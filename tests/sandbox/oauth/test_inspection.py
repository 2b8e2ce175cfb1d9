"""Introspection and revocation."""

import httpx2
import pytest

from tests.sandbox.oauth.driver import FHIR_BASE, ORIGIN, Driver


async def test_a_live_access_token_is_described_to_its_client(ehr: Driver) -> None:
    tokens = await ehr.tokens()
    described = (await introspect(ehr, tokens["access_token"])).json()
    now = int(ehr.now())
    assert described.pop("fhirUser").startswith(f"{FHIR_BASE}/Practitioner/")
    assert described == {
        "active": True,
        "scope": tokens["scope"],
        "client_id": "app",
        "patient": tokens["patient"],
        "iss": f"{ORIGIN}/oauth2",
        "sub": "sandbox-doctor",
        "iat": now,
        "exp": now + 3600,
        "token_type": "Bearer",
    }


async def test_a_refresh_token_is_described_too(ehr: Driver) -> None:
    tokens = await ehr.tokens()
    described = (await introspect(ehr, tokens["refresh_token"])).json()
    assert (described["active"], described["scope"]) == (True, tokens["scope"])


async def test_a_bearer_token_will_do_instead_of_client_authentication(ehr: Driver) -> None:
    token = (await ehr.tokens())["access_token"]
    for bearer, status in ((token, 200), ("canary-at-made-up", 401)):
        answer = await ehr.http.post(
            "/oauth2/introspect", data={"token": token}, headers={"Authorization": f"Bearer {bearer}"}
        )
        assert answer.status_code == status


async def test_a_public_client_cannot_introspect_without_a_token(ehr: Driver) -> None:
    await ehr.register(authentication="none")
    answer = await ehr.http.post("/oauth2/introspect", data={"token": "x", "client_id": "app"})
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")


async def test_nothing_is_said_about_tokens_that_are_dead_unknown_or_anothers(ehr: Driver) -> None:
    tokens = await ehr.tokens()
    await ehr.refresh(tokens["refresh_token"])
    await ehr.http.post("/__expire")
    for token in (tokens["access_token"], tokens["refresh_token"], "canary-at-made-up"):
        assert (await introspect(ehr, token)).json() == {"active": False}
    live = (await ehr.tokens())["access_token"]
    await ehr.register("another")
    assert (await introspect(ehr, live)).json() == {"active": False}


async def test_introspection_wants_a_token(ehr: Driver) -> None:
    assert (await introspect(ehr, "")).json()["error"] == "invalid_request"


async def test_revoking_an_access_token_ends_it_alone(ehr: Driver) -> None:
    tokens = await ehr.tokens()
    assert (await revoke(ehr, tokens["access_token"])).status_code == 200
    assert (await ehr.fhir(tokens["access_token"], "Patient")).status_code == 401
    assert (await ehr.refresh(tokens["refresh_token"])).status_code == 200


async def test_revoking_a_refresh_token_ends_the_family(ehr: Driver) -> None:
    tokens = await ehr.tokens()
    assert (await revoke(ehr, tokens["refresh_token"])).status_code == 200
    assert (await ehr.fhir(tokens["access_token"], "Patient")).status_code == 401
    assert (await ehr.refresh(tokens["refresh_token"])).json()["error"] == "invalid_grant"


async def test_revoking_what_nobody_knows_is_no_error(ehr: Driver) -> None:
    assert (await revoke(ehr, "canary-at-made-up")).status_code == 200


@pytest.mark.parametrize("kind", ["access_token", "refresh_token"])
async def test_a_client_cannot_revoke_anothers_token(ehr: Driver, kind: str) -> None:
    tokens = await ehr.tokens()
    secret = ehr.secret
    await ehr.register("another")
    assert (await revoke(ehr, tokens[kind])).json()["error"] == "unauthorized_client"
    ehr.client_id, ehr.secret = "app", secret
    assert (await introspect(ehr, tokens[kind])).json()["active"] is True


async def introspect(ehr: Driver, token: str) -> httpx2.Response:
    return await ehr.http.post("/oauth2/introspect", data={"token": token}, auth=(ehr.client_id, ehr.secret))


async def revoke(ehr: Driver, token: str) -> httpx2.Response:
    return await ehr.http.post("/oauth2/revoke", data={"token": token}, auth=(ehr.client_id, ehr.secret))
