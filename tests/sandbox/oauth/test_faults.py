"""Every fault does what its line in the table says, as often as it was asked to."""

from typing import Any

import httpx2
import pytest
from joserfc import jwt
from joserfc.errors import BadSignatureError
from joserfc.jwk import KeySet

from sandbox.faults import FAULTS
from tests.sandbox.oauth.driver import CALLBACK, Driver, redirected

SMART = "/api/FHIR/R4/.well-known/smart-configuration"


@pytest.mark.parametrize(
    ("name", "status", "error"),
    [
        ("token_500", 500, "server_error"),
        ("token_503", 503, "temporarily_unavailable"),
        ("token_429", 429, "slow_down"),
        ("token_invalid_grant", 400, "invalid_grant"),
        ("token_invalid_client", 401, "invalid_client"),
        ("token_html", 200, None),
    ],
)
async def test_a_replaced_token_answer_means_that_nothing_was_processed(
    ehr: Driver, name: str, status: int, error: str | None
) -> None:
    code = await ehr.code()
    await ehr.arm(name)
    answer = await ehr.exchange(code)
    assert answer.status_code == status
    assert (answer.json()["error"] if error else answer.headers["content-type"]) == (
        error or "text/html; charset=utf-8"
    )
    assert (await ehr.exchange(code)).status_code == 200


async def test_retry_after_is_a_parameter(ehr: Driver) -> None:
    await ehr.arm("token_429", retry_after=7)
    assert (await ehr.token(grant_type="refresh_token")).headers["retry-after"] == "7"


@pytest.mark.parametrize(("name", "processed"), [("token_drop_before", False), ("token_drop", True)])
async def test_a_dropped_token_answer_was_processed_or_not_as_the_name_says(
    ehr: Driver, name: str, processed: bool  # noqa: FBT001  # a table column
) -> None:  # fmt: skip
    refresh_token = (await ehr.tokens())["refresh_token"]
    await ehr.arm(name)
    with pytest.raises(ConnectionResetError):
        await ehr.refresh(refresh_token)
    assert (await ehr.refresh(refresh_token)).status_code == (400 if processed else 200)
    assert (await ehr.counts())["reuse_alarms"] == int(processed)


async def test_a_silent_answer_was_processed(ehr: Driver) -> None:
    refresh_token = (await ehr.tokens())["refresh_token"]
    await ehr.arm("token_timeout", seconds=0.01)
    with pytest.raises(ConnectionResetError):
        await ehr.refresh(refresh_token)
    assert (await ehr.refresh(refresh_token)).status_code == 400


@pytest.mark.parametrize("name", ["token_hold", "token_delay"])
async def test_a_slow_answer_is_a_good_one(ehr: Driver, name: str) -> None:
    code = await ehr.code()
    await ehr.arm(name, seconds=0.01)
    assert (await ehr.exchange(code)).status_code == 200
    assert (await ehr.http.get("/__faults")).json() == []


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ({"name": "token_no_expires_in"}, {"expires_in": None}),
        ({"name": "token_expires_in_string"}, {"expires_in": "3600"}),
        ({"name": "token_no_scope"}, {"scope": None}),
        ({"name": "token_scope", "scope": "user/*.cruds"}, {"scope": "user/*.cruds"}),
        ({"name": "token_no_refresh_token"}, {"refresh_token": None}),
        ({"name": "token_lifetime", "seconds": 5}, {"expires_in": 5}),
        ({"name": "token_members", "set": {"token_type": "mac"}, "drop": ["patient"]},
         {"token_type": "mac", "patient": None}),
    ],
)  # fmt: skip
async def test_a_token_answer_can_be_bent(ehr: Driver, fault: dict[str, Any], expected: dict[str, Any]) -> None:
    await ehr.arm(**fault)
    tokens = await ehr.tokens()
    assert {name: tokens.get(name) for name in expected} == expected


async def test_a_withheld_refresh_token_leaves_the_old_one_good(ehr: Driver) -> None:
    refresh_token = (await ehr.tokens())["refresh_token"]
    await ehr.arm("token_no_refresh_token")
    assert "refresh_token" not in (await ehr.refresh(refresh_token)).json()
    assert "refresh_token" in (await ehr.refresh(refresh_token)).json()


async def test_a_refresh_can_give_an_id_token_of_another_user(ehr: Driver) -> None:
    """(ID-08)"""
    keys = KeySet.import_key_set((await ehr.http.get("/oauth2/jwks")).json())
    tokens = await ehr.tokens()
    for sub in ("", "somebody-else"):
        await ehr.arm("token_refresh_id_token", sub=sub)
        tokens = (await ehr.refresh(tokens["refresh_token"])).json()
        claims = jwt.decode(tokens["id_token"], keys, algorithms=["RS256"]).claims
        assert claims["sub"] == (sub or "sandbox-doctor")
    assert "id_token" not in (await ehr.refresh(tokens["refresh_token"])).json()


async def test_an_access_token_can_be_long_and_still_work(ehr: Driver) -> None:
    """(EP-19)"""
    await ehr.arm("token_size", bytes=6000)
    token = (await ehr.tokens(scope="patient/*.rs"))["access_token"]
    assert len(token) == len("canary-at-") + 8000
    assert (await ehr.fhir(token, "Patient")).status_code == 200


async def test_a_shorter_lifetime_is_kept_to(ehr: Driver) -> None:
    await ehr.arm("token_lifetime", seconds=5)
    for _ in range(2):
        token = (await ehr.tokens())["access_token"]
        ehr.now.seconds += 5
        assert (await ehr.fhir(token, "Patient")).status_code == 401


@pytest.mark.parametrize(
    ("name", "claim", "value"),
    [
        ("id_token_bad_nonce", "nonce", "not-the-nonce"),
        ("id_token_bad_audience", "aud", "another-client"),
        ("id_token_bad_issuer", "iss", "https://issuer.invalid"),
        ("id_token_expired", "exp", 1),
    ],
)
async def test_an_id_token_can_lie(ehr: Driver, name: str, claim: str, value: object) -> None:
    await ehr.arm(name)
    keys = KeySet.import_key_set((await ehr.http.get("/oauth2/jwks")).json())
    lying, honest = [(await ehr.tokens())["id_token"] for _ in range(2)]
    assert jwt.decode(lying, keys, algorithms=["RS256"]).claims[claim] == value
    assert jwt.decode(honest, keys, algorithms=["RS256"]).claims[claim] != value


async def test_an_id_token_can_be_forged(ehr: Driver) -> None:
    await ehr.arm("id_token_bad_signature")
    keys = KeySet.import_key_set((await ehr.http.get("/oauth2/jwks")).json())
    with pytest.raises(BadSignatureError):
        jwt.decode((await ehr.tokens())["id_token"], keys, algorithms=["RS256"])


@pytest.mark.parametrize(
    ("name", "path", "status", "content_type"),
    [
        ("discovery_404", SMART, 404, "application/fhir+json"),
        ("discovery_500", SMART, 500, "application/fhir+json"),
        ("discovery_html", SMART, 200, "text/html; charset=utf-8"),
        ("metadata_html", "/api/FHIR/R4/metadata", 200, "text/html; charset=utf-8"),
        ("metadata_500", "/api/FHIR/R4/metadata", 500, "application/fhir+json"),
        ("jwks_down", "/oauth2/jwks", 503, "text/html; charset=utf-8"),
        ("fhir_401", "/api/FHIR/R4/Patient", 401, "application/fhir+json"),
        ("fhir_403", "/api/FHIR/R4/Patient", 403, "application/fhir+json"),
        ("fhir_429", "/api/FHIR/R4/Patient", 429, "application/fhir+json"),
        ("fhir_500", "/api/FHIR/R4/Patient", 500, "application/fhir+json"),
        ("fhir_html", "/api/FHIR/R4/Patient", 200, "text/html; charset=utf-8"),
    ],
)
async def test_other_answers_can_be_replaced_once(
    ehr: Driver, name: str, path: str, status: int, content_type: str
) -> None:
    headers = {"Authorization": f"Bearer {(await ehr.tokens(scope='patient/*.rs'))['access_token']}"}
    await ehr.arm(name)
    struck, spared = [await ehr.http.get(path, headers=headers) for _ in range(2)]
    assert (struck.status_code, struck.headers["content-type"]) == (status, content_type)
    assert spared.status_code == 200
    assert spared.content != struck.content


async def test_a_refused_fhir_call_carries_its_challenge(ehr: Driver) -> None:
    for name, challenge in (
        ("fhir_401", 'Bearer error="invalid_token"'),
        ("fhir_403", 'Bearer error="insufficient_scope"'),
    ):
        await ehr.arm(name)
        assert (await ehr.fhir("any", "Patient")).headers["www-authenticate"] == challenge


async def test_401_for_all_lasts_until_it_is_disarmed(ehr: Driver) -> None:
    token = (await ehr.tokens(scope="patient/*.rs"))["access_token"]
    await ehr.arm("fhir_401_all")
    assert [(await ehr.fhir(token, "Patient")).status_code for _ in range(3)] == [401] * 3
    assert (await ehr.http.delete("/__faults")).status_code == 204
    assert (await ehr.fhir(token, "Patient")).status_code == 200


async def test_a_fhir_call_can_be_redirected_delayed_dropped_and_cut(ehr: Driver) -> None:
    token = (await ehr.tokens(scope="patient/*.rs"))["access_token"]
    await ehr.arm("fhir_redirect", location="https://evil.example/")
    assert (await ehr.fhir(token, "Patient")).headers["location"] == "https://evil.example/"
    await ehr.arm("fhir_delay", seconds=0.01)
    assert (await ehr.fhir(token, "Patient")).status_code == 200
    for name in ("fhir_drop", "fhir_drop_mid_body"):
        await ehr.arm(name)
        with pytest.raises(ConnectionResetError):
            await ehr.fhir(token, "Patient")


async def test_discovery_can_be_dropped_delayed_and_bent(ehr: Driver) -> None:
    await ehr.arm("discovery_drop")
    with pytest.raises(ConnectionResetError):
        await ehr.http.get(SMART)
    await ehr.arm("discovery_delay", seconds=0.01)
    await ehr.arm("discovery_members", set={"token_endpoint": "token"}, drop=["jwks_uri"])
    document = (await ehr.http.get(SMART)).json()
    assert document["token_endpoint"] == "token"
    assert "jwks_uri" not in document


async def test_authorization_can_fail_and_mislead(ehr: Driver) -> None:
    await ehr.arm("authorize_error", error="temporarily_unavailable", error_uri="https://ehr.example/urn")
    assert redirected(await ehr.authorize()) == {
        "error": "temporarily_unavailable",
        "error_description": "a fault was armed",
        "error_uri": "https://ehr.example/urn",
        "state": "the-state",
    }
    await ehr.arm("authorize_wrong_state")
    assert redirected(await ehr.authorize())["state"] == "not-the-state"
    await ehr.arm("authorize_wrong_iss")
    assert redirected(await ehr.authorize())["iss"] == "https://issuer.invalid"
    await ehr.arm("authorize_no_iss")
    assert "iss" not in redirected(await ehr.authorize())


async def test_one_request_can_skip_the_pages(staffed_ehr: Driver) -> None:
    await staffed_ehr.arm("authorize_auto_approve")
    assert (await staffed_ehr.authorize()).headers["location"].startswith(CALLBACK)
    assert (await staffed_ehr.authorize()).status_code == 200


async def test_a_fault_strikes_as_often_as_asked_and_only_the_client_it_is_for(ehr: Driver) -> None:
    await ehr.arm("token_500", times=2, client_id="app")
    await ehr.arm("token_429")
    statuses = [(await ehr.token(grant_type="refresh_token")).status_code for _ in range(4)]
    assert statuses == [500, 500, 429, 400]
    await ehr.arm("token_500", client_id="another")
    assert (await ehr.token(grant_type="refresh_token")).status_code == 400
    assert (await ehr.http.get("/__faults")).json() == [
        {"name": "token_500", "left": 1, "struck": 0, "client_id": "another", "status": 500, "error": "server_error",
         "error_description": "a fault was armed"}
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({"name": "token_410"}, ", ".join(sorted(fault.name for fault in FAULTS))),
        ({}, "name is one of"),
        ([], "name is one of"),
        ({"name": "token_500", "times": 0}, "times is a positive number"),
        ({"name": "token_500", "times": -2}, "times is a positive number"),
        ({"name": "token_500", "times": True}, "times is a positive number"),
        ({"name": "token_500", "client_id": 1}, "client_id is a string"),
        ({"name": "token_drop", "seconds": 1}, "token_drop takes no parameters, not seconds"),
        ({"name": "token_delay", "seconds": "1"}, "seconds must be like 1"),
        ({"name": "token_delay", "seconds": True}, "seconds must be like 1"),
    ],
)
async def test_a_fault_that_makes_no_sense_is_refused(ehr: Driver, document: object, says: str) -> None:
    answer = await ehr.http.post("/__faults", json=document)
    assert answer.status_code == 400
    assert says in answer.json()["error"]


async def test_a_body_that_is_not_json_is_refused(ehr: Driver) -> None:
    answer: httpx2.Response = await ehr.http.post("/__faults", content=b"{")
    assert (answer.status_code, answer.json()) == (400, {"error": "the body is not JSON"})
