"""Introspection and revocation."""

import httpx2
import pytest

from tests.sandbox.oauth.conftest import Start
from tests.sandbox.oauth.driver import FHIR_BASE, ORIGIN, Driver


async def test_a_live_access_token_is_described_to_its_client(ehr: Driver) -> None:
    """IN-02."""
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
    """IN-03."""
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
    """IN-04."""
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
    """OA-10."""
    tokens = await ehr.tokens()
    assert (await revoke(ehr, tokens["refresh_token"])).status_code == 200
    assert (await ehr.fhir(tokens["access_token"], "Patient")).status_code == 401
    assert (await ehr.refresh(tokens["refresh_token"])).json()["error"] == "invalid_grant"


async def test_revoking_what_nobody_knows_is_no_error(ehr: Driver) -> None:
    """IN-06."""
    assert (await revoke(ehr, "canary-at-made-up")).status_code == 200


@pytest.mark.parametrize("kind", ["access_token", "refresh_token"])
async def test_a_client_cannot_revoke_anothers_token(ehr: Driver, kind: str) -> None:
    tokens = await ehr.tokens()
    secret = ehr.secret
    await ehr.register("another")
    assert (await revoke(ehr, tokens[kind])).json()["error"] == "unauthorized_client"
    ehr.client_id, ehr.secret = "app", secret
    assert (await introspect(ehr, tokens[kind])).json()["active"] is True


@pytest.mark.parametrize(("rule", "by_client", "by_bearer"), [
    ("any", 200, 200), ("client", 200, 401), ("bearer", 401, 200),
])  # fmt: skip
async def test_what_authorizes_introspection_is_a_setting(
    start: Start, rule: str, by_client: int, by_bearer: int
) -> None:
    """(IN-03, EP-20)"""
    async with start(introspection=rule) as ehr:
        await ehr.register()
        token = (await ehr.tokens())["access_token"]
        assert (await introspect(ehr, token)).status_code == by_client
        answer = await ehr.http.post(
            "/oauth2/introspect", data={"token": token}, headers={"Authorization": f"Bearer {token}"}
        )
        assert answer.status_code == by_bearer


async def test_introspection_tells_the_launch_and_the_user(ehr: Driver) -> None:
    """(IN-02)"""
    scope = "launch/patient launch/encounter openid fhirUser patient/*.rs"
    tokens = await ehr.tokens(scope=scope)
    described = (await introspect(ehr, tokens["access_token"])).json()
    assert {name: described[name] for name in ("patient", "encounter", "iss", "sub")} == {
        "patient": tokens["patient"],
        "encounter": tokens["encounter"],
        "iss": f"{ORIGIN}/oauth2",
        "sub": "sandbox-doctor",
    }


async def test_revoking_a_refresh_token_can_leave_its_access_tokens_alive(start: Start) -> None:
    """(IN-08)"""
    async with start(revocation="refresh-token") as ehr:
        await ehr.register()
        tokens = await ehr.tokens(scope="offline_access patient/*.rs")
        assert (await revoke(ehr, tokens["refresh_token"])).status_code == 200
        assert (await ehr.refresh(tokens["refresh_token"])).json()["error"] == "invalid_grant"
        assert (await ehr.fhir(tokens["access_token"], "Patient")).status_code == 200


async def test_there_can_be_no_revocation(start: Start) -> None:
    """(IN-07)"""
    async with start(revocation="off") as ehr:
        await ehr.register()
        document = (await ehr.http.get("/api/FHIR/R4/.well-known/smart-configuration")).json()
        assert "revocation_endpoint" not in document
        tokens = await ehr.tokens()
        assert (await revoke(ehr, tokens["refresh_token"])).status_code == 404
        assert (await ehr.refresh(tokens["refresh_token"])).status_code == 200


@pytest.mark.parametrize(("name", "status", "error"), [
    ("revoke_503", 503, "temporarily_unavailable"), ("revoke_unsupported", 400, "unsupported_token_type"),
])  # fmt: skip
async def test_a_revocation_can_fail_at_first(ehr: Driver, name: str, status: int, error: str) -> None:
    """(IN-06, OA-10)"""
    tokens = await ehr.tokens()
    await ehr.arm(name)
    answer = await revoke(ehr, tokens["refresh_token"])
    assert (answer.status_code, answer.json()["error"]) == (status, error)
    assert (await revoke(ehr, tokens["refresh_token"])).status_code == 200
    assert (await ehr.refresh(tokens["refresh_token"])).json()["error"] == "invalid_grant"


async def test_introspection_can_fail_at_first(ehr: Driver) -> None:
    token = (await ehr.tokens())["access_token"]
    await ehr.arm("introspect_503")
    assert [(await introspect(ehr, token)).status_code for _ in range(2)] == [503, 200]


async def introspect(ehr: Driver, token: str) -> httpx2.Response:
    return await ehr.http.post("/oauth2/introspect", data={"token": token}, auth=(ehr.client_id, ehr.secret))


async def revoke(ehr: Driver, token: str) -> httpx2.Response:
    return await ehr.http.post("/oauth2/revoke", data={"token": token}, auth=(ehr.client_id, ehr.secret))
