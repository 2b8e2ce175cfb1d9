"""Dynamic clients as at Epic: registered once with a user's approval, then on their own."""

import json
from collections.abc import Mapping
from typing import Any

import httpx2
import pytest
from joserfc import jws
from joserfc.jwk import RSAKey

from sandbox.oauth.clients import JWT_BEARER
from tests.sandbox.oauth.conftest import Start
from tests.sandbox.oauth.driver import ORIGIN, SCOPES, Driver

REGISTER = "system/DynamicClient.register"
KEY = RSAKey.generate_key(2048, {"kid": "device"})
JWKS = {"keys": [KEY.as_dict(private=False)]}


async def initial_token(ehr: Driver) -> str:
    await ehr.register(scopes=f"{SCOPES} {REGISTER}")
    return str((await ehr.tokens(scope=f"launch/patient openid fhirUser patient/*.rs {REGISTER}"))["access_token"])


async def register(ehr: Driver, token: str, **changes: Any) -> httpx2.Response:
    document = {"software_id": ehr.client_id, "jwks": JWKS, **changes}
    return await ehr.http.post("/oauth2/register", json=document, headers={"Authorization": f"Bearer {token}"})


async def trade(ehr: Driver, client_id: str, **claims: Any) -> httpx2.Response:
    form = {"grant_type": JWT_BEARER, "assertion": signed(ehr, client_id, claims), "client_id": client_id}
    return await ehr.http.post("/oauth2/token", data=form)


def signed(ehr: Driver, client_id: str, claims: Mapping[str, Any]) -> str:
    now = int(ehr.now())
    good = {"iss": client_id, "sub": client_id, "aud": f"{ORIGIN}/oauth2/token", "exp": now + 240, "jti": "one"}
    payload = json.dumps({**good, **claims}).encode()
    return jws.serialize_compact({"typ": "JWT", "alg": "RS256", "kid": "device"}, payload, KEY, algorithms=["RS256"])


async def test_an_instance_gets_access_tokens_without_its_user(start: Start) -> None:
    """(EP-17, OA-14)"""
    async with start(dynamic_clients=True) as ehr:
        answer = await register(ehr, await initial_token(ehr))
        registered = answer.json()
        assert answer.status_code == 201
        assert registered.keys() == {
            "client_id", "client_id_issued_at", "software_id", "jwks", "token_endpoint_auth_method", "grant_types",
            "scope",
        }  # fmt: skip
        assert (registered["software_id"], registered["token_endpoint_auth_method"]) == ("app", "none")
        for jti in ("one", "two"):
            tokens = (await trade(ehr, registered["client_id"], jti=jti)).json()
            assert tokens["scope"] == "launch/patient openid fhirUser patient/*.rs"
            assert (await ehr.fhir(tokens["access_token"], f"Patient/{tokens['patient']}")).status_code == 200
            assert "refresh_token" not in tokens


async def test_the_initial_token_registers_one_instance(start: Start) -> None:
    """(EP-17)"""
    async with start(dynamic_clients=True) as ehr:
        token = await initial_token(ehr)
        assert [(await register(ehr, token)).status_code for _ in range(2)] == [201, 401]
        assert (await ehr.counts())["register"] == 2


async def test_another_token_registers_nothing(start: Start) -> None:
    async with start(dynamic_clients=True) as ehr:
        await ehr.register()
        answer = await register(ehr, (await ehr.tokens())["access_token"])
        assert (answer.status_code, answer.json()) == (401, {"error": "invalid_token", "error_description": None})


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"software_id": "another"}, "invalid_client_metadata"),
        ({"jwks": {"keys": []}}, "invalid_client_metadata"),
        ({"jwks": {"keys": [KEY.as_dict(private=True)]}}, "invalid_client_metadata"),
        ({"jwks": {"keys": [{"kty": "RSA"}]}}, "invalid_request"),
        ({"jwks": None}, "invalid_request"),
    ],
)
async def test_a_bad_registration_is_refused_without_a_reason_and_costs_nothing(
    start: Start, changes: dict[str, Any], error: str
) -> None:
    """(EP-17, OA-15)"""
    async with start(dynamic_clients=True) as ehr:
        token = await initial_token(ehr)
        answer = await register(ehr, token, **changes)
        assert (answer.status_code, answer.json()) == (400, {"error": error, "error_description": None})
        assert (await register(ehr, token)).status_code == 201


@pytest.mark.parametrize("claims", [{"aud": "https://elsewhere.example/"}, {"sub": "another"}, {"exp": 1}, {"jti": ""}])
async def test_a_bad_assertion_is_refused_without_a_reason(start: Start, claims: dict[str, Any]) -> None:
    """(EP-17)"""
    async with start(dynamic_clients=True) as ehr:
        registered = (await register(ehr, await initial_token(ehr))).json()
        answer = await trade(ehr, registered["client_id"], **claims)
        assert (answer.status_code, answer.json()) == (400, {"error": "invalid_grant", "error_description": None})


async def test_an_assertion_is_good_once(start: Start) -> None:
    async with start(dynamic_clients=True) as ehr:
        registered = (await register(ehr, await initial_token(ehr))).json()
        assert [(await trade(ehr, registered["client_id"])).status_code for _ in range(2)] == [200, 400]


async def test_instances_are_forgotten_with_everything_else(start: Start) -> None:
    async with start(dynamic_clients=True) as ehr:
        registered = (await register(ehr, await initial_token(ehr))).json()
        await ehr.http.post("/__reset")
        assert (await trade(ehr, registered["client_id"])).json()["error"] == "invalid_client"
        assert [client["client_id"] for client in (await ehr.http.get("/__clients")).json()] == ["app"]


async def test_it_is_advertised_where_it_is_on_and_absent_where_it_is_not(start: Start) -> None:
    async with start(dynamic_clients=True) as ehr:
        document = (await ehr.http.get("/api/FHIR/R4/.well-known/smart-configuration")).json()
        assert document["registration_endpoint"] == f"{ORIGIN}/oauth2/register"
        assert JWT_BEARER in document["grant_types_supported"]
    async with start() as ehr:
        assert (await register(ehr, await initial_token(ehr))).status_code == 404
        await ehr.register(authentication="none")
        assert (await trade(ehr, "app")).json()["error"] == "unsupported_grant_type"
