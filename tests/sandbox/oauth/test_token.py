"""The token endpoint: what a code, a refresh token and a backend client get, and what they get once only."""

import asyncio
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import KeySet

from tests.sandbox.oauth.conftest import Start
from tests.sandbox.oauth.driver import FHIR_BASE, ORIGIN, Driver


async def test_a_code_gives_everything_that_was_granted(ehr: Driver) -> None:
    """TR-01, TR-03, CX-01, CX-05, CX-07."""
    answer = await ehr.exchange(await ehr.code())
    tokens = answer.json()
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["pragma"] == "no-cache"
    assert tokens.keys() == {
        "access_token", "token_type", "expires_in", "scope", "refresh_token", "id_token", "patient",
        "need_patient_banner", "smart_style_url", "__epic.dstu2.patient",
    }  # fmt: skip
    assert tokens["access_token"].startswith("canary-at-")
    assert tokens["refresh_token"].startswith("canary-rt-")
    assert (tokens["token_type"], tokens["expires_in"]) == ("Bearer", 3600)
    assert tokens["scope"] == "launch/patient openid fhirUser offline_access patient/Observation.rs"
    assert tokens["need_patient_banner"] is True
    assert (await ehr.http.get(tokens["smart_style_url"])).json()["color_background"] == "#f5f7f9"


async def test_the_id_token_names_the_user_and_verifies_with_the_published_key(ehr: Driver) -> None:
    """ID-04, ID-06."""
    tokens = await ehr.tokens()
    keys = KeySet.import_key_set((await ehr.http.get("/oauth2/jwks")).json())
    claims = jwt.decode(tokens["id_token"], keys, algorithms=["RS256"]).claims
    now = int(ehr.now())
    assert claims.pop("fhirUser").startswith(f"{FHIR_BASE}/Practitioner/")
    assert claims == {
        "iss": f"{ORIGIN}/oauth2",
        "sub": "sandbox-doctor",
        "aud": "app",
        "iat": now,
        "exp": now + 300,
        "nonce": "the-nonce",
    }


async def test_an_access_token_opens_the_fhir_server_until_it_expires(ehr: Driver) -> None:
    tokens = await ehr.tokens()
    path = f"Observation?patient={tokens['patient']}"
    assert (await ehr.fhir(tokens["access_token"], path)).status_code == 200
    ehr.now.seconds += 3600
    assert (await ehr.fhir(tokens["access_token"], path)).status_code == 401


async def test_scopes_the_client_may_not_have_are_not_granted(ehr: Driver) -> None:
    """TR-04."""
    tokens = await ehr.tokens(scope="openid patient/*.cruds user/*.rs")
    assert tokens["scope"] == "openid patient/*.rs"
    assert "refresh_token" not in tokens


async def test_a_code_used_twice_ends_what_it_gave(ehr: Driver) -> None:
    """CB-03."""
    code = await ehr.code()
    tokens = (await ehr.exchange(code)).json()
    again = await ehr.exchange(code)
    assert (again.status_code, again.json()["error"]) == (400, "invalid_grant")
    assert (await ehr.fhir(tokens["access_token"], "Patient")).status_code == 401
    assert (await ehr.refresh(tokens["refresh_token"])).json()["error"] == "invalid_grant"
    assert (await ehr.counts())["code_replays"] == 1


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"code": "canary-code-made-up"}, "invalid_grant"),
        ({"code": ""}, "invalid_request"),
        ({"redirect_uri": "http://app.example/other"}, "invalid_grant"),
        ({"redirect_uri": ""}, "invalid_request"),
        ({"code_verifier": "w" * 43}, "invalid_grant"),
        ({"code_verifier": "v" * 42}, "invalid_grant"),
        ({"code_verifier": ""}, "invalid_request"),
        ({"grant_type": "password"}, "unsupported_grant_type"),
        ({"grant_type": "client_credentials"}, "unauthorized_client"),
        ({"grant_type": ""}, "invalid_request"),
    ],
)
async def test_a_wrong_exchange_is_refused(ehr: Driver, changes: dict[str, str], error: str) -> None:
    """OA-03, OA-16."""
    answer = await ehr.exchange(await ehr.code(), **changes)
    assert (answer.status_code, answer.json()["error"]) == (400, error)


async def test_a_code_lives_for_one_minute(ehr: Driver) -> None:
    """CB-03."""
    code = await ehr.code()
    ehr.now.seconds += 60
    assert (await ehr.exchange(code)).json()["error"] == "invalid_grant"


async def test_a_code_of_one_client_is_no_use_to_another(ehr: Driver) -> None:
    """CB-03."""
    code = await ehr.code()
    await ehr.register("another")
    assert (await ehr.exchange(code)).json()["error"] == "invalid_grant"


async def test_a_rotated_refresh_token_works_once(ehr: Driver) -> None:
    """RF-09, RF-15."""
    first = await ehr.tokens()
    second = (await ehr.refresh(first["refresh_token"])).json()
    assert second["refresh_token"] != first["refresh_token"]
    assert second["scope"] == first["scope"]
    assert second["patient"] == first["patient"]
    third = (await ehr.refresh(second["refresh_token"])).json()
    assert (await ehr.counts())["reuse_alarms"] == 0
    assert (await ehr.refresh(second["refresh_token"])).json()["error"] == "invalid_grant"
    assert (await ehr.refresh(third["refresh_token"])).json()["error"] == "invalid_grant"
    assert (await ehr.fhir(third["access_token"], "Patient")).status_code == 401
    assert (await ehr.counts())["reuse_alarms"] == 1


async def test_of_many_refreshes_at_once_one_succeeds(ehr: Driver) -> None:
    refresh_token = (await ehr.tokens())["refresh_token"]
    answers = await asyncio.gather(*(ehr.refresh(refresh_token) for _ in range(5)))
    assert sorted(answer.status_code for answer in answers) == [200, 400, 400, 400, 400]


async def test_a_kept_refresh_token_is_not_sent_again(ehr: Driver) -> None:
    """RF-09, EP-16."""
    await ehr.register(refresh="keep")
    refresh_token = (await ehr.tokens())["refresh_token"]
    for _ in range(2):
        answer = (await ehr.refresh(refresh_token)).json()
        assert answer["access_token"].startswith("canary-at-")
        assert "refresh_token" not in answer


@pytest.mark.parametrize("members", [{"refresh": "none"}, {"grant_types": ["authorization_code"]}])
async def test_a_client_without_refresh_gets_no_refresh_token(ehr: Driver, members: dict[str, Any]) -> None:
    await ehr.register(**members)
    assert "refresh_token" not in await ehr.tokens()


async def test_a_refresh_may_narrow_the_scope_and_the_next_one_has_it_all_again(ehr: Driver) -> None:
    """RF-02."""
    first = await ehr.tokens()
    narrow = (await ehr.refresh(first["refresh_token"], scope="openid")).json()
    assert narrow["scope"] == "openid"
    assert (await ehr.refresh(narrow["refresh_token"])).json()["scope"] == first["scope"]


async def test_a_refused_scope_does_not_cost_the_refresh_token(ehr: Driver) -> None:
    """RF-02."""
    refresh_token = (await ehr.tokens())["refresh_token"]
    assert (await ehr.refresh(refresh_token, scope="user/*.cruds")).json()["error"] == "invalid_scope"
    assert (await ehr.refresh(refresh_token)).status_code == 200


async def test_a_refresh_token_of_one_client_is_no_use_to_another(ehr: Driver) -> None:
    refresh_token = (await ehr.tokens())["refresh_token"]
    await ehr.register("another")
    assert (await ehr.refresh(refresh_token)).json()["error"] == "invalid_grant"
    assert (await ehr.counts())["reuse_alarms"] == 0


@pytest.mark.parametrize(("scope", "status"), [("offline_access", 200), ("online_access", 400)])
async def test_online_access_ends_with_the_session_and_offline_access_does_not(
    ehr: Driver, scope: str, status: int
) -> None:
    """RF-10."""
    refresh_token = (await ehr.tokens(scope=f"{scope} patient/*.rs"))["refresh_token"]
    ehr.now.seconds += 28_800
    assert (await ehr.refresh(refresh_token)).status_code == status


async def test_a_backend_client_gets_system_scopes_for_five_minutes_and_nothing_else(ehr: Driver) -> None:
    """BS-05, BS-06, OA-07."""
    await ehr.register(grant_types=["client_credentials"], scopes="system/*.rs patient/*.rs offline_access")
    answer = await ehr.token(
        grant_type="client_credentials", scope="system/Observation.rs system/Patient.c patient/*.rs offline_access"
    )
    tokens = answer.json()
    assert tokens.keys() == {"access_token", "token_type", "expires_in", "scope"}
    assert (tokens["scope"], tokens["expires_in"]) == ("system/Observation.rs", 300)


@pytest.mark.parametrize(
    ("scope", "error"), [("", "invalid_request"), ("patient/*.rs", "invalid_scope"), ("system/*.d", "invalid_scope")]
)
async def test_a_backend_client_that_asks_for_nothing_it_may_have_is_refused(
    ehr: Driver, scope: str, error: str
) -> None:
    """BS-08."""
    await ehr.register(grant_types=["client_credentials"], scopes="system/*.rs")
    answer = await ehr.token(grant_type="client_credentials", scope=scope)
    assert (answer.status_code, answer.json()["error"]) == (400, error)


async def test_all_access_tokens_can_be_made_to_expire_now(ehr: Driver) -> None:
    tokens = await ehr.tokens()
    assert (await ehr.http.post("/__expire")).json() == {"expired": 1}
    assert (await ehr.fhir(tokens["access_token"], "Patient")).status_code == 401
    assert (await ehr.refresh(tokens["refresh_token"])).status_code == 200


async def test_the_lifetime_of_access_tokens_is_a_setting(start: Start) -> None:
    """TR-07."""
    async with start(access_token_lifetime=90) as ehr:
        await ehr.register()
        assert (await ehr.tokens())["expires_in"] == 90


@pytest.mark.parametrize(
    ("content", "content_type"),
    [
        (b'{"grant_type": "authorization_code"}', "application/json"),
        (b"grant_type=refresh_token&grant_type=refresh_token", "application/x-www-form-urlencoded"),
        (b"grant_type=%ff", "application/x-www-form-urlencoded"),
        (b"&".join(b"a%d=1" % number for number in range(101)), "application/x-www-form-urlencoded"),
    ],
)
async def test_a_body_that_is_no_proper_form_is_refused(ehr: Driver, content: bytes, content_type: str) -> None:
    """OA-01."""
    answer = await ehr.http.post("/oauth2/token", content=content, headers={"Content-Type": content_type})
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")


async def test_parameters_in_the_url_of_the_token_endpoint_are_refused(ehr: Driver) -> None:
    answer = await ehr.http.post("/oauth2/token?client_id=app", data={"grant_type": "refresh_token"})
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
