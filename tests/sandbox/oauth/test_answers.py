"""What token answers were seen to be like, and how refreshes go at different vendors."""

import base64
import hashlib
import hmac
import json
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx2
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey

from sandbox.oauth.errors import ERROR_URI
from tests.sandbox.oauth.conftest import Start
from tests.sandbox.oauth.driver import FHIR_BASE, ORIGIN, Driver

ASKED = "launch/patient openid patient/Patient.rs patient/Observation.rs"
ASKED_V1 = "launch/patient openid patient/Patient.read patient/Observation.read"


@pytest.mark.parametrize(
    ("name", "scope"),
    [
        ("token_scope_narrower", "launch/patient openid patient/Patient.rs"),
        ("token_scope_wider", f"{ASKED} user/*.cruds"),
        ("token_scope_split",
         "launch/patient openid patient/Patient.r patient/Patient.s patient/Observation.r patient/Observation.s"),
        ("token_scope_twice", f"{ASKED} {ASKED}"),
        ("token_scope_odd_case",
         f"{ASKED_V1} patient/Patient.Read patient/Observation.Read"),
        ("token_scope_v1", ASKED_V1),
        ("token_scope_words", f"profile {ASKED} epic.scanning.dmsusername DEFAULT"),
        ("token_scope_blanks", f"  {ASKED.replace(' ', '  ')} "),
    ],
)  # fmt: skip
async def test_the_eight_kinds_of_granted_scope(ehr: Driver, name: str, scope: str) -> None:
    """(TR-04, OA-02)"""
    await ehr.arm(name)
    assert (await ehr.tokens(scope=ASKED))["scope"] == scope


@pytest.mark.parametrize(
    ("dialect", "scope"),
    [
        ("asked", "patient/Patient.read patient/Observation.rs patient/Encounter.s"),
        ("v1", "patient/Patient.read patient/Observation.read patient/Encounter.s"),
        ("v2", "patient/Patient.rs patient/Observation.rs patient/Encounter.s"),
    ],
)
async def test_granted_scopes_are_written_in_the_dialect_of_the_settings(
    start: Start, dialect: str, scope: str
) -> None:
    """What v1 cannot say stays as it is: a scope never says more than was granted (TR-04)."""
    async with start(scope_dialect=dialect) as ehr:
        await ehr.register()
        asked = "patient/Patient.read patient/Observation.rs patient/Encounter.s"
        assert (await ehr.tokens(scope=asked))["scope"] == scope


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ({"name": "token_type"}, {"token_type": "bEARER"}),
        ({"name": "token_type", "token_type": "mac"}, {"token_type": "mac"}),
        ({"name": "token_expires_in"}, {"expires_in": 0}),
        ({"name": "token_banner_string"}, {"need_patient_banner": "true"}),
    ],
)
async def test_a_member_can_be_odd(ehr: Driver, fault: dict[str, Any], expected: dict[str, Any]) -> None:
    """(TR-02, CX-05)"""
    await ehr.arm(**fault)
    assert (await ehr.tokens()).items() >= expected.items()


async def test_an_answer_can_be_for_several_servers(ehr: Driver) -> None:
    """(TR-10)"""
    await ehr.arm("token_authorization_details")
    tokens = await ehr.tokens()
    here, there = tokens["authorization_details"]
    assert here == {
        "type": "smart_on_fhir",
        "locations": [FHIR_BASE],
        "fhirVersions": ["4.0.1"],
        "scope": tokens["scope"],
        "patient": tokens["patient"],
    }
    assert (there["locations"], there["patient"]) == (["https://elsewhere.invalid/fhir"], "patient-of-another-server")


async def test_context_can_come_with_a_refresh_only(ehr: Driver) -> None:
    """(CX-11)"""
    await ehr.arm("token_context_on_refresh")
    first = await ehr.tokens()
    assert "patient" not in first
    assert "patient" in (await ehr.refresh(first["refresh_token"])).json()
    assert "patient" not in await ehr.tokens()


async def test_a_refresh_can_name_another_patient(ehr: Driver) -> None:
    """(CX-11)"""
    await ehr.arm("token_refresh_patient")
    first = await ehr.tokens()
    assert first["patient"] != "another-patient"
    assert (await ehr.refresh(first["refresh_token"])).json()["patient"] == "another-patient"


@pytest.mark.parametrize(
    ("name", "status", "body"),
    [
        ("token_text", 403, b"Forbidden by the gateway"),
        ("token_error_null", 401, b'{"error":"invalid_client","error_description":null}'),
    ],
)
async def test_an_error_can_be_of_no_help(ehr: Driver, name: str, status: int, body: bytes) -> None:
    """(OA-03, OA-04, EP-17)"""
    code = await ehr.code()
    await ehr.arm(name)
    answer = await ehr.exchange(code)
    assert (answer.status_code, answer.content) == (status, body)
    assert (await ehr.exchange(code)).status_code == 200


async def test_an_error_can_be_an_address(ehr: Driver) -> None:
    """(OR-03)"""
    await ehr.arm("token_error_uri")
    error = (await ehr.token(grant_type="refresh_token")).json()
    assert error.keys() == {"error", "error_uri"}
    assert "urn%3Asandbox%3Aerror" in error["error_uri"]


@pytest.mark.parametrize(
    ("rule", "content"),
    [
        ("full", b'{"error":"invalid_request","error_description":"refresh_token is missing"}'),
        ("bare", b'{"error":"invalid_request"}'),
        ("null", b'{"error":"invalid_request","error_description":null}'),
        ("text", b"Request refused: invalid_request"),
        ("uri", b'{"error":"invalid_request","error_uri":"' + ERROR_URI.encode() + b'invalid_request"}'),
    ],
)
async def test_how_the_token_endpoint_says_no_is_a_setting(start: Start, rule: str, content: bytes) -> None:
    """(OA-03, OA-04, OR-03)"""
    async with start(token_errors=rule) as ehr:
        await ehr.register()
        answer = await ehr.token(grant_type="refresh_token")
        assert (answer.status_code, answer.content) == (400, content)


async def test_every_second_refresh_can_rotate(start: Start) -> None:
    """(RF-03)"""
    async with start(refresh="sometimes") as ehr:
        await ehr.register()
        refresh_token = (await ehr.tokens())["refresh_token"]
        changed = []
        for _ in range(4):
            answer = (await ehr.refresh(refresh_token)).json()
            changed.append("refresh_token" in answer)
            refresh_token = answer.get("refresh_token", refresh_token)
        assert changed == [False, True, False, True]
        assert (await ehr.counts())["reuse_alarms"] == 0


async def test_what_a_client_registered_comes_before_the_setting(start: Start) -> None:
    async with start(refresh="none") as ehr:
        await ehr.register()
        assert "refresh_token" not in await ehr.tokens()
        await ehr.register(refresh="rotate")
        assert "refresh_token" in await ehr.tokens()


async def test_a_refresh_can_need_a_live_access_token(start: Start) -> None:
    """athenahealth (RF-07)."""
    async with start(refresh_while_alive=True) as ehr:
        await ehr.register()
        tokens = await ehr.tokens()
        ehr.now.seconds += 3599
        tokens = (await ehr.refresh(tokens["refresh_token"])).json()
        await ehr.http.post("/__expire")
        assert (await ehr.refresh(tokens["refresh_token"])).json()["error"] == "invalid_grant"


async def test_refreshes_can_be_kept_apart(start: Start) -> None:
    """Oracle (OR-04)."""
    async with start(refresh_interval=60) as ehr:
        await ehr.register()
        tokens = (await ehr.refresh((await ehr.tokens())["refresh_token"])).json()
        ehr.now.seconds += 20.5
        early = await ehr.refresh(tokens["refresh_token"])
        assert (early.status_code, early.headers["retry-after"]) == (429, "40")
        ehr.now.seconds += 40
        assert (await ehr.refresh(tokens["refresh_token"])).status_code == 200


@pytest.mark.parametrize(("name", "dots", "ending"), [("token_jwt", 2, ""), ("token_ending", 0, "+/==")])
async def test_an_access_token_of_any_form_works(ehr: Driver, name: str, dots: int, ending: str) -> None:
    """(EP-19, TR-08)"""
    await ehr.arm(name)
    token = (await ehr.tokens(scope="patient/*.rs"))["access_token"]
    assert (token.count("."), token.endswith(ending)) == (dots, True)
    assert "canary-at-" in token
    assert (await ehr.fhir(token, "Patient")).status_code == 200


@pytest.mark.parametrize(("name", "length"), [("code_size", 8000), ("code_jwt", 0), ("code_ending", 0)])
async def test_a_code_of_any_form_works(ehr: Driver, name: str, length: int) -> None:
    """(EP-19, TK-01)"""
    await ehr.arm(name)
    code = await ehr.code()
    assert len(code) >= length
    assert (await ehr.exchange(code)).status_code == 200


async def test_everything_can_look_like_a_jwt(start: Start) -> None:
    """(EP-19)"""
    async with start(token_shape="jwt") as ehr:
        await ehr.register()
        patient = (await ehr.tokens())["patient"]
        launch = await ehr.launch(patient=patient)
        code = await ehr.code(launch=launch, scope="launch patient/*.rs")
        token = (await ehr.exchange(code)).json()["access_token"]
        for value in (launch, code, token):
            header = value.split(".")[0]
            assert json.loads(base64.urlsafe_b64decode(header + "=" * (-len(header) % 4)))["typ"] == "JWT"
            assert value.split(".")[2].startswith("canary-")


async def test_a_launch_can_be_long(ehr: Driver) -> None:
    """(AL-06)"""
    await ehr.arm("launch_size")
    answer = await ehr.http.post("/__launch", json={"client_id": "app", "patient": (await ehr.tokens())["patient"]})
    launch = dict(parse_qsl(urlsplit(answer.json()["url"]).query))["launch"]
    assert len(launch) == len("canary-launch-") + 4000
    assert (await ehr.tokens(launch=launch, scope="launch patient/*.rs"))["patient"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("id_token_no_nonce", {"nonce": None}),
        ("id_token_audiences", {"aud": ["app", "another-client"], "azp": None}),
        ("id_token_audiences_azp", {"aud": ["app", "another-client"], "azp": "app"}),
        ("id_token_bad_azp", {"aud": "app", "azp": "another-client"}),
        ("id_token_issuer_slash", {"iss": f"{ORIGIN}/oauth2/"}),
        ("id_token_foreign_fhir_user", {"fhirUser": "https://elsewhere.invalid/fhir/Practitioner/1"}),
    ],
)
async def test_an_id_token_can_be_odd(ehr: Driver, name: str, expected: dict[str, Any]) -> None:
    """(ID-01, ID-03, ID-06, OA-27)"""
    await ehr.arm(name)
    claims = await verified(ehr, (await ehr.tokens())["id_token"])
    assert {claim: claims.get(claim) for claim in expected} == expected


async def test_who_signed_in_can_be_said_in_other_ways(ehr: Driver) -> None:
    """(ID-06)"""
    usual = (await verified(ehr, (await ehr.tokens())["id_token"]))["fhirUser"]
    await ehr.arm("id_token_profile")
    claims = await verified(ehr, (await ehr.tokens())["id_token"])
    assert (claims.get("fhirUser"), claims["profile"]) == (None, usual)
    await ehr.arm("id_token_relative_fhir_user")
    relative = (await verified(ehr, (await ehr.tokens())["id_token"]))["fhirUser"]
    assert usual == f"{FHIR_BASE}/{relative}"


async def test_an_id_token_can_be_unsigned(ehr: Driver) -> None:
    """(ID-04)"""
    await ehr.arm("id_token_alg_none")
    header, _claims, signature = (await ehr.tokens())["id_token"].split(".")
    assert json.loads(base64.urlsafe_b64decode(header + "=" * (-len(header) % 4))) == {"typ": "JWT", "alg": "none"}
    assert signature == ""


async def test_an_id_token_can_be_signed_with_what_everybody_knows(ehr: Driver) -> None:
    """(ID-04)"""
    await ehr.arm("id_token_alg_hs256")
    token = (await ehr.tokens())["id_token"]
    (key,) = (await ehr.http.get("/oauth2/jwks")).json()["keys"]
    pem = RSAKey.import_key(key).public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    signed, _, signature = token.rpartition(".")
    expected = hmac.digest(pem, signed.encode(), hashlib.sha256)
    assert base64.urlsafe_b64encode(expected).rstrip(b"=").decode() == signature


async def verified(ehr: Driver, id_token: str) -> dict[str, Any]:
    answer: httpx2.Response = await ehr.http.get("/oauth2/jwks")
    return dict(jwt.decode(id_token, KeySet.import_key_set(answer.json()), algorithms=["RS256"]).claims)
