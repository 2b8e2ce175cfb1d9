import json
from typing import Any
from urllib.parse import parse_qsl

import pytest

from broker.egress import Egress
from broker.ehr.client_auth import Authenticate, Authentication, always, client_secret_basic, public
from broker.ehr.token_endpoint import TokenEndpoint
from broker.errors import EhrAnswerLost, EhrError, EhrMisbehaved, EhrRefused, EhrUnreachable
from broker.secret import Secret
from tests.ehr.known import proofs
from tests.ehr.server import ScriptedServer, hang_up, reply

GOOD: dict[str, Any] = {"access_token": "at", "token_type": "Bearer", "expires_in": 3600, "scope": "patient/*.rs"}
BASIC = client_secret_basic("broker", Secret("secret"))


async def ask(endpoint: TokenEndpoint, url: str, authenticate: Authenticate = BASIC) -> None:
    await endpoint.exchange_code(
        url,
        authenticate,
        code=Secret("c+/=%&"),
        redirect_uri="https://broker.example/callback/epic",
        code_verifier=Secret("v"),
        timeout=5,
    )


async def test_a_code_is_exchanged_with_exactly_this_request(egress: Egress, ehr: ScriptedServer) -> None:
    """TK-01, TK-02, TK-04."""
    ehr.answers["/token"] = reply(json.dumps(GOOD))

    await ask(TokenEndpoint(egress, proofs()), f"{ehr.url}/token")

    (request,) = ehr.requests
    assert request.method == "POST"
    assert request.headers["content-type"] == "application/x-www-form-urlencoded"
    assert request.headers["accept"] == "application/json"
    assert request.headers["authorization"] == "Basic YnJva2VyOnNlY3JldA=="
    assert parse_qsl(request.body.decode(), strict_parsing=True) == [
        ("grant_type", "authorization_code"),
        ("redirect_uri", "https://broker.example/callback/epic"),
        ("code", "c+/=%&"),
        ("code_verifier", "v"),
    ]


async def test_a_public_client_sends_its_id_and_no_authorization(egress: Egress, ehr: ScriptedServer) -> None:
    """TK-03."""
    ehr.answers["/token"] = reply(json.dumps(GOOD))

    await ask(TokenEndpoint(egress, proofs()), f"{ehr.url}/token", public("broker"))

    assert "authorization" not in ehr.requests[0].headers
    assert parse_qsl(ehr.requests[0].body.decode())[-1] == ("client_id", "broker")


async def test_a_refresh_sends_no_scope(egress: Egress, ehr: ScriptedServer) -> None:
    """RF-01, RF-02."""
    ehr.answers["/token"] = reply(json.dumps(GOOD))

    await TokenEndpoint(egress, proofs()).refresh(f"{ehr.url}/token", BASIC, refresh_token=Secret("r+t"), timeout=5)

    assert parse_qsl(ehr.requests[0].body.decode()) == [("grant_type", "refresh_token"), ("refresh_token", "r+t")]
    assert ehr.requests[0].headers["authorization"] == "Basic YnJva2VyOnNlY3JldA=="


async def test_client_credentials_always_send_a_scope(egress: Egress, ehr: ScriptedServer) -> None:
    """BS-03."""
    ehr.answers["/token"] = reply(json.dumps(GOOD))
    signed = Authentication({}, {"client_assertion_type": "t", "client_assertion": "a.b.c"})

    await TokenEndpoint(egress, proofs()).client_credentials(
        f"{ehr.url}/token", always(signed, "broker"), scope="system/*.rs system/Patient.r", timeout=5
    )

    assert parse_qsl(ehr.requests[0].body.decode()) == [
        ("grant_type", "client_credentials"),
        ("scope", "system/*.rs system/Patient.r"),
        ("client_assertion_type", "t"),
        ("client_assertion", "a.b.c"),
    ]


async def test_each_request_is_authenticated_anew_for_the_endpoint_it_goes_to(
    egress: Egress, ehr: ScriptedServer
) -> None:
    """CA-01, CA-05."""
    ehr.answers["/token"] = reply(json.dumps(GOOD))
    asked: list[str] = []

    async def authenticate(token_endpoint: str) -> Authentication:
        asked.append(token_endpoint)
        return Authentication({}, {"client_assertion": str(len(asked))})

    for _ in range(2):
        await ask(TokenEndpoint(egress, proofs()), f"{ehr.url}/token", Authenticate(authenticate, "broker"))

    assert asked == [f"{ehr.url}/token"] * 2
    assert [parse_qsl(request.body.decode())[-1][1] for request in ehr.requests] == ["1", "2"]


async def test_a_lost_answer_is_not_asked_for_again(egress: Egress, ehr: ScriptedServer) -> None:
    """RF-05."""
    ehr.answers["/token"] = hang_up

    with pytest.raises(EhrAnswerLost):
        await TokenEndpoint(egress, proofs()).refresh(f"{ehr.url}/token", BASIC, refresh_token=Secret("rt"), timeout=5)

    assert len(ehr.requests) == 1


@pytest.mark.parametrize("status", ["200 OK", "204 No Content"])
async def test_a_revocation_sends_the_token_and_its_kind(egress: Egress, ehr: ScriptedServer, status: str) -> None:
    """IN-06."""
    ehr.answers["/revoke"] = reply("", status=status)

    await TokenEndpoint(egress, proofs()).revoke(
        f"{ehr.url}/revoke", BASIC, token=Secret("r+t"), hint="refresh_token", timeout=5
    )

    assert parse_qsl(ehr.requests[0].body.decode()) == [("token", "r+t"), ("token_type_hint", "refresh_token")]
    assert ehr.requests[0].headers["authorization"] == "Basic YnJva2VyOnNlY3JldA=="


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        ("", "503 Later", EhrUnreachable),
        ("", "404 Not Found", EhrMisbehaved),
        ('{"error": "unsupported_token_type"}', "400 Bad Request", EhrRefused),
    ],
)
async def test_a_revocation_that_did_not_happen_says_why(
    egress: Egress, ehr: ScriptedServer, body: str, status: str, error: type[EhrError]
) -> None:
    """IN-06, OA-10."""
    ehr.answers["/revoke"] = reply(body, status=status)

    with pytest.raises(error):
        await TokenEndpoint(egress, proofs()).revoke(f"{ehr.url}/revoke", BASIC, token=Secret("t"), hint="x", timeout=5)


async def test_an_introspection_posts_the_token(egress: Egress, ehr: ScriptedServer) -> None:
    """IN-01."""
    ehr.answers["/introspect"] = reply('{"active": true, "scope": "patient/*.rs"}')

    said = await TokenEndpoint(egress, proofs()).introspect(
        f"{ehr.url}/introspect", BASIC, token=Secret("a+t"), timeout=5
    )

    assert (said.active, said.scope) == (True, "patient/*.rs")
    assert ehr.requests[0].method == "POST"
    assert parse_qsl(ehr.requests[0].body.decode()) == [("token", "a+t"), ("token_type_hint", "access_token")]
