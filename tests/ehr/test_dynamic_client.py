"""Registering a dynamic client, and its assertion as a grant: requests and replies (EP-17, OA-14, OA-15)."""

import json
from typing import Any, Literal
from urllib.parse import parse_qsl

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, JWKRegistry

from broker.egress import Answer, Egress
from broker.ehr.dynamic_client import (
    JWT_BEARER,
    DynamicClient,
    DynamicClients,
    assertion,
    new_key,
    parse_registration,
    registration_request,
)
from broker.errors import EhrAnswerLost, EhrError, EhrMisbehaved, EhrRefused, EhrUnreachable
from broker.secret import Secret
from tests.ehr.server import ScriptedServer, hang_up, reply

NOW = 1_700_000_000.75
KEY = new_key("ES384")
REPLY = {"client_id": "instance-1", "token_endpoint_auth_method": "none", "grant_types": [JWT_BEARER]}
TOKENS = {"access_token": "at", "token_type": "Bearer", "expires_in": 3600, "scope": "patient/*.rs"}
URL = "https://ehr.example/token"


def client(**registration: Any) -> DynamicClient:
    return made({"client_id": "instance-1", **registration})


def made(registration: dict[str, Any], key: Secret = KEY) -> DynamicClient:
    return DynamicClient(key, Secret(json.dumps(registration)))


def replied(document: Any, status: int = 201) -> Answer:
    return Answer(status, {}, document if isinstance(document, bytes) else json.dumps(document).encode())


async def test_a_registration_spends_the_token_on_the_public_half_of_a_key(egress: Egress, ehr: ScriptedServer) -> None:
    """Only `software_id` and `jwks`, never `jwks_uri` (EP-17, OA-15)."""
    ehr.answers["/register"] = reply(json.dumps(REPLY), status="201 Created")

    registered = await DynamicClients(egress, lambda: NOW).register(
        f"{ehr.url}/register", software_id="epic-app", key=KEY, initial_token=Secret("once"), timeout=5
    )

    (request,) = ehr.requests
    assert (request.method, request.headers["authorization"]) == ("POST", "Bearer once")
    assert request.headers["content-type"] == "application/json"
    public = {name: value for name, value in json.loads(KEY.reveal()).items() if name != "d"}
    assert json.loads(request.body) == {"software_id": "epic-app", "jwks": {"keys": [public]}}
    assert (registered.client_id, registered.key, registered.secret_ends) == ("instance-1", KEY, None)


@pytest.mark.parametrize(("algorithm", "kind"), [("ES384", "EC"), ("RS384", "RSA")])
def test_a_key_is_new_each_time_and_only_its_public_half_is_sent(
    algorithm: Literal["ES384", "RS384"], kind: str
) -> None:
    """(EP-04, EP-17)"""
    keys = [json.loads(new_key(algorithm).reveal()) for _ in range(2)]
    (sent,) = json.loads(registration_request("app", Secret(json.dumps(keys[0]))))["jwks"]["keys"]

    assert keys[0]["d"] != keys[1]["d"]
    assert (sent["kty"], sent["alg"], sent["use"]) == (kind, algorithm, "sig")
    assert sent["kid"] == JWKRegistry.import_key(keys[0]).thumbprint()
    assert {"d", "p", "q", "dp", "dq", "qi"}.isdisjoint(sent)


@pytest.mark.parametrize("algorithm", ["ES384", "RS384"])
def test_an_assertion_is_of_the_client_for_the_token_endpoint_and_of_minutes(
    algorithm: Literal["ES384", "RS384"],
) -> None:
    """(OA-14, EP-17, EP-04)"""
    key = new_key(algorithm)
    pair = JWKRegistry.import_key(json.loads(key.reveal()))

    token = jwt.decode(assertion(made({"client_id": "me"}, key), URL, now=NOW, jti="one"), pair, algorithms=[algorithm])

    assert token.header == {"typ": "JWT", "alg": algorithm, "kid": pair.kid}
    assert token.claims == {
        "iss": "me",
        "sub": "me",
        "aud": URL,
        "jti": "one",
        "iat": 1_699_999_970,
        "nbf": 1_699_999_970,
        "exp": 1_700_000_240,
    }


async def test_the_assertion_is_the_grant_and_no_proof_of_a_client(egress: Egress, ehr: ScriptedServer) -> None:
    """(OA-14)"""
    ehr.answers["/token"] = reply(json.dumps(TOKENS))
    clients = DynamicClients(egress, lambda: NOW)

    answers = [await clients.token(f"{ehr.url}/token", client(), timeout=5) for _ in range(2)]

    assert [answer.access_token.reveal() for answer in answers] == ["at", "at"]
    forms = [dict(parse_qsl(request.body.decode(), strict_parsing=True)) for request in ehr.requests]
    assert [list(form) for form in forms] == [["grant_type", "assertion", "client_id"]] * 2
    assert {(form["grant_type"], form["client_id"]) for form in forms} == {(JWT_BEARER, "instance-1")}
    assert "authorization" not in ehr.requests[0].headers
    pair = ECKey.import_key(json.loads(KEY.reveal()))
    claims = [jwt.decode(form["assertion"], pair, algorithms=["ES384"]).claims for form in forms]
    assert {claim["aud"] for claim in claims} == {f"{ehr.url}/token"}
    assert len({claim["jti"] for claim in claims}) == 2


@pytest.mark.parametrize(
    ("method", "authorization", "named"),
    [
        (None, "Basic aW5zdGFuY2UtMTpzJTJGMQ==", None),
        ("client_secret_basic", "Basic aW5zdGFuY2UtMTpzJTJGMQ==", None),
        ("client_secret_post", None, "s/1"),
    ],
)
async def test_a_secret_that_came_back_is_used(
    egress: Egress, ehr: ScriptedServer, method: str | None, authorization: str | None, named: str | None
) -> None:
    """What came back counts (OA-15)."""
    ehr.answers["/token"] = reply(json.dumps(TOKENS))
    came = parse_registration(
        replied({**REPLY, "client_secret": "s/1", "client_secret_expires_at": 0, "token_endpoint_auth_method": method})
    )

    await DynamicClients(egress, lambda: NOW).token(f"{ehr.url}/token", made(came), timeout=5)

    (request,) = ehr.requests
    assert request.headers.get("authorization") == authorization
    assert dict(parse_qsl(request.body.decode())).get("client_secret") == named


@pytest.mark.parametrize(
    ("members", "ends"),
    [
        ({}, None),
        ({"client_secret": "s", "client_secret_expires_at": 0}, None),
        ({"client_secret": "s", "client_secret_expires_at": 1_800_000_000}, 1_800_000_000.0),
        ({"client_secret": "s", "client_secret_expires_at": "soon"}, None),
        ({"client_secret": "s", "client_secret_expires_at": 10**30}, None),
        ({"client_secret_expires_at": 1_800_000_000}, None),
    ],
)
def test_the_end_of_a_secret_is_read_and_zero_is_never(members: dict[str, Any], ends: float | None) -> None:
    """(OA-15)"""
    assert client(**members).secret_ends == ends


def test_of_a_reply_what_is_used_is_kept_and_the_management_token_too() -> None:
    """RFC 7592 §3 (OA-15)."""
    managed = {"registration_access_token": "m", "registration_client_uri": "https://ehr.example/register/1"}
    said: dict[str, Any] = {
        **REPLY,
        **managed,
        "client_secret": None,
        "jwks": {"keys": []},
        "software_id": "app",
        "scope": "x",
    }
    assert parse_registration(replied(said)) == {
        "client_id": "instance-1",
        "token_endpoint_auth_method": "none",
        **managed,
    }


@pytest.mark.parametrize(
    ("document", "status", "error", "detail"),
    [
        ({"error": "invalid_client_metadata", "error_description": None}, 400, EhrRefused, "invalid_client_metadata"),
        ({"error": "invalid_redirect_uri"}, 400, EhrRefused, "invalid_redirect_uri"),
        ({"error": "invalid_software_statement"}, 400, EhrRefused, "invalid_software_statement"),
        ({"error": "unapproved_software_statement"}, 400, EhrRefused, "unapproved_software_statement"),
        ({"error": "invalid_token", "error_description": None}, 401, EhrRefused, "invalid_token"),
        ({"error": "<script>"}, 400, EhrRefused, "unknown_error"),
        (b"<html>", 404, EhrMisbehaved, "status 404 without a JSON object"),
        (b"", 503, EhrUnreachable, "status 503"),
        ([], 201, EhrMisbehaved, "status 201 without a JSON object"),
        ({}, 201, EhrMisbehaved, "without a client_id"),
        ({**REPLY, "client_id": ""}, 201, EhrMisbehaved, "without a client_id"),
        ({**REPLY, "client_id": "a\nb"}, 201, EhrMisbehaved, "without a client_id"),
        ({**REPLY, "client_id": "i" * 513}, 201, EhrMisbehaved, "without a client_id"),
        ({**REPLY, "jwks": {}, "jwks_uri": "https://x.example"}, 201, EhrMisbehaved, "with both jwks and jwks_uri"),
        ({**REPLY, "grant_types": ["refresh_token"]}, 201, EhrMisbehaved, "without the grant jwt-bearer"),
        ({**REPLY, "token_endpoint_auth_method": "tls_client_auth"}, 201, EhrMisbehaved, "another token_endpoint_auth"),
        (
            {**REPLY, "token_endpoint_auth_method": "client_secret_post"},
            201,
            EhrMisbehaved,
            "for a secret, and without",
        ),
    ],
)
def test_a_reply_that_registers_nothing_says_why(
    document: Any, status: int, error: type[EhrError], detail: str
) -> None:
    """Also where the description is null (EP-17, OA-15)."""
    with pytest.raises(error) as raised:
        parse_registration(replied(document, status))
    assert detail in raised.value.detail


@pytest.mark.parametrize("path", ["/register", "/token"])
async def test_an_answer_that_is_lost_is_not_asked_for_again_here(
    egress: Egress, ehr: ScriptedServer, path: str
) -> None:
    """(EP-17)"""
    ehr.answers[path] = hang_up
    clients = DynamicClients(egress, lambda: NOW)
    url, once = f"{ehr.url}{path}", Secret("once")
    registering = clients.register(url, software_id="app", key=KEY, initial_token=once, timeout=5)
    asking = clients.token(url, client(), timeout=5)
    sent, unsent = (asking, registering) if path == "/token" else (registering, asking)
    unsent.close()
    with pytest.raises(EhrAnswerLost):
        await sent
    assert len(ehr.requests) == 1


def test_a_dynamic_client_is_not_printed_with_its_secrets() -> None:
    """(EP-17)"""
    shown = repr(client(client_secret="hush", registration_access_token="hush"))
    assert "hush" not in shown
    assert "instance-1" not in shown
    assert json.loads(KEY.reveal())["d"] not in shown
