import json
from typing import Any
from urllib.parse import parse_qsl

import pytest

from broker.egress import Answer, Egress
from broker.ehr.client_auth import Authenticate, Authentication, client_secret_basic, public
from broker.ehr.token_endpoint import TokenAnswer, TokenEndpoint, parse_answer, parse_lifetime
from broker.errors import EhrAnswerLost, EhrAnswerUnreadable, EhrMisbehaved, EhrRefused, EhrUnreachable
from broker.secret import Secret
from tests.ehr.server import ScriptedServer, hang_up, reply

GOOD: dict[str, Any] = {"access_token": "at", "token_type": "Bearer", "expires_in": 3600, "scope": "patient/*.rs"}
WEEK = 7 * 86_400.0
BASIC = client_secret_basic("broker", Secret("secret"))


def answer(document: object, status: int = 200) -> Answer:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return Answer(status, {"content-type": "text/plain"}, body)


def parse(**members: object) -> TokenAnswer:
    return parse_answer(answer({**GOOD, **members}))


def test_a_token_answer_is_read() -> None:
    """TR-01, TR-06."""
    assert parse(refresh_token="rt", id_token="it", patient="p1", __vendor=[1]) == TokenAnswer(
        access_token=Secret("at"),
        refresh_token=Secret("rt"),
        id_token=Secret("it"),
        lifetime=3600,
        scope="patient/*.rs",
        members={
            "token_type": "Bearer",
            "expires_in": 3600,
            "scope": "patient/*.rs",
            "patient": "p1",
            "__vendor": [1],
        },
    )


def test_a_token_answer_does_not_show_tokens_or_members() -> None:
    shown = repr(parse(access_token="canary", refresh_token="canary", id_token="canary", patient="canary"))

    assert "canary" not in shown


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        (3600, 3600),
        (1, 1),
        (59.5, 59.5),
        ("3600", 3600),
        (" 3600 ", 3600),
        (WEEK, WEEK),
        (WEEK + 1, WEEK),
        ("31536000", WEEK),
        (10**400, WEEK),
        ("9" * 20, WEEK),
        (None, 300),
        (0, 300),
        ("0", 300),
        (-1, 300),
        ("-1", 300),
        (True, 300),
        (False, 300),
        ("", 300),
        ("soon", 300),
        ("3600.5", 300),
        ("1e3", 300),
        ("٣٦٠٠", 300),
        ("9" * 5000, 300),
        (float("nan"), 300),
        (float("inf"), 300),
        (float("-inf"), 300),
        ([3600], 300),
        ({"seconds": 3600}, 300),
    ],
)
def test_a_lifetime_is_a_positive_number_of_at_most_a_week_or_five_minutes(written: object, seconds: float) -> None:
    """Q8, spec §21 case 1."""
    lifetime = parse_lifetime(written)

    assert lifetime == seconds
    assert type(lifetime) is float


def test_an_answer_without_a_lifetime_lives_five_minutes() -> None:
    assert parse_answer(answer({"access_token": "at", "token_type": "Bearer"})).lifetime == 300


@pytest.mark.parametrize("token_type", ["Bearer", "bearer", "BEARER"])
def test_a_token_type_compares_without_case(token_type: str) -> None:
    """TR-02."""
    assert parse(token_type=token_type).access_token == Secret("at")


@pytest.mark.parametrize("token_type", ["mac", "DPoP", "", " bearer", None, 5, ["Bearer"]])
def test_another_token_type_is_refused(token_type: object) -> None:
    """TR-02."""
    with pytest.raises(EhrAnswerUnreadable, match="TR-02"):
        parse(token_type=token_type)


def test_an_absent_token_type_is_taken_for_bearer() -> None:
    assert parse_answer(answer({"access_token": "at"})).access_token == Secret("at")


@pytest.mark.parametrize(("scope", "kept"), [("", ""), ("a b ", "a b "), (None, None), (5, None), (["a"], None)])
def test_a_scope_is_text_or_absent(scope: object, kept: str | None) -> None:
    """Q4."""
    assert parse(scope=scope).scope == kept


@pytest.mark.parametrize("token", ["x", "t.o-k_e~n+/=", "e" * 8192, "e" * 65_536, '"quoted"'])
def test_a_token_is_opaque_text(token: str) -> None:
    """TR-08."""
    assert parse(access_token=token, refresh_token=token).refresh_token == Secret(token)


@pytest.mark.parametrize(
    "token", ["é", "\ud800", "a\r\nX-Header: b", "a\0", "a\tb", "e" * 65_537, 5, True, ["at"], {"token": "at"}]
)
@pytest.mark.parametrize("name", ["access_token", "refresh_token", "id_token"])
def test_what_cannot_stand_in_a_header_is_no_token(name: str, token: object) -> None:
    with pytest.raises(EhrAnswerUnreadable, match=f"{name} is not a token"):
        parse(**{name: token})


@pytest.mark.parametrize("absent", [None, ""])
def test_an_empty_token_is_absent(absent: object) -> None:
    assert parse(refresh_token=absent, id_token=absent).refresh_token is None
    with pytest.raises(EhrAnswerUnreadable, match="TR-01"):
        parse(access_token=absent)


@pytest.mark.parametrize("status", [200, 400, 401, 403, 429, 500])
@pytest.mark.parametrize(
    "error",
    [
        "invalid_request",
        "invalid_client",
        "invalid_grant",
        "unauthorized_client",
        "unsupported_grant_type",
        "invalid_scope",
    ],
)
def test_an_oauth_error_counts_whatever_its_status(status: int, error: str) -> None:
    """OA-03: keyed on `error`, status second."""
    document = {"error": error, "error_description": None, "error_uri": "https://ehr.example/1", "access_token": "at"}

    with pytest.raises(EhrRefused) as refused:
        parse_answer(answer(document, status))

    assert (refused.value.error, refused.value.error_uri) == (error, "https://ehr.example/1")
    assert refused.value.detail == f"the token endpoint answered {error} (status {status})"


@pytest.mark.parametrize("error", ["canary", "Invalid_Grant", "invalid_grant ", "a\nb"])
def test_an_error_nobody_defined_is_refused_and_not_repeated(error: str) -> None:
    with pytest.raises(EhrRefused) as refused:
        parse_answer(answer({"error": error, "error_uri": ["x"]}, 400))

    assert (refused.value.error, refused.value.error_uri) == ("unknown_error", None)
    assert "canary" not in refused.value.detail + refused.value.public


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"{}", b"[]", {"error": "server_error"}, {"error": "slow_down"}, {"error": None}, GOOD]
)
def test_later_is_no_refusal(status: int, body: object) -> None:
    """RF-08: the refresh token is kept."""
    with pytest.raises(EhrUnreachable, match=f"status {status}"):
        parse_answer(answer(body, status))


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b"<!doctype html>"),
        (200, b" \n<html>"),
        (302, b""),
        (400, b"Bad Request"),
        (400, {}),
        (401, b"<html>"),
        (403, GOOD),
    ],
)
def test_an_answer_that_means_nothing_is_misbehaviour(status: int, body: object) -> None:
    """OA-04."""
    with pytest.raises(EhrMisbehaved, match=rf"status {status} without a JSON object"):
        parse_answer(answer(body, status))


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b""),
        (200, b"access_token=at&token_type=bearer"),
        (200, b"[]"),
        (200, b'[{"access_token":"at"}]'),
        (200, b'"at"'),
        (200, b"null"),
        (200, b'{"access_token":"at"'),
        (200, {"error": None}),
        (200, {"error": {"code": 1}}),
        (204, b""),
    ],
)
def test_a_success_that_cannot_be_used_is_as_good_as_lost(status: int, body: object) -> None:
    """RF-05: the EHR may have replaced the refresh token."""
    with pytest.raises(EhrAnswerUnreadable, match="TR-01"):
        parse_answer(answer(body, status))


def test_any_success_with_a_token_is_one() -> None:
    assert parse_answer(answer(GOOD, 201)).access_token.matches("at")


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

    await ask(TokenEndpoint(egress), f"{ehr.url}/token")

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

    await ask(TokenEndpoint(egress), f"{ehr.url}/token", public("broker"))

    assert "authorization" not in ehr.requests[0].headers
    assert parse_qsl(ehr.requests[0].body.decode())[-1] == ("client_id", "broker")


async def test_a_refresh_sends_no_scope(egress: Egress, ehr: ScriptedServer) -> None:
    """RF-01, RF-02."""
    ehr.answers["/token"] = reply(json.dumps(GOOD))

    await TokenEndpoint(egress).refresh(f"{ehr.url}/token", BASIC, refresh_token=Secret("r+t"), timeout=5)

    assert parse_qsl(ehr.requests[0].body.decode()) == [("grant_type", "refresh_token"), ("refresh_token", "r+t")]
    assert ehr.requests[0].headers["authorization"] == "Basic YnJva2VyOnNlY3JldA=="


async def test_client_credentials_always_send_a_scope(egress: Egress, ehr: ScriptedServer) -> None:
    """BS-03."""
    ehr.answers["/token"] = reply(json.dumps(GOOD))
    signed = Authentication({}, {"client_assertion_type": "t", "client_assertion": "a.b.c"})

    await TokenEndpoint(egress).client_credentials(
        f"{ehr.url}/token", lambda _: signed, scope="system/*.rs system/Patient.r", timeout=5
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

    def authenticate(token_endpoint: str) -> Authentication:
        asked.append(token_endpoint)
        return Authentication({}, {"client_assertion": str(len(asked))})

    for _ in range(2):
        await ask(TokenEndpoint(egress), f"{ehr.url}/token", authenticate)

    assert asked == [f"{ehr.url}/token"] * 2
    assert [parse_qsl(request.body.decode())[-1][1] for request in ehr.requests] == ["1", "2"]


async def test_a_lost_answer_is_not_asked_for_again(egress: Egress, ehr: ScriptedServer) -> None:
    """RF-05."""
    ehr.answers["/token"] = hang_up

    with pytest.raises(EhrAnswerLost):
        await TokenEndpoint(egress).refresh(f"{ehr.url}/token", BASIC, refresh_token=Secret("rt"), timeout=5)

    assert len(ehr.requests) == 1


@pytest.mark.parametrize("status", ["200 OK", "503 Later"])
async def test_a_revocation_sends_the_token_and_its_kind(egress: Egress, ehr: ScriptedServer, status: str) -> None:
    """IN-06."""
    ehr.answers["/revoke"] = reply("", status=status)

    said = await TokenEndpoint(egress).revoke(
        f"{ehr.url}/revoke", BASIC, token=Secret("r+t"), hint="refresh_token", timeout=5
    )

    assert said == int(status[:3])
    assert parse_qsl(ehr.requests[0].body.decode()) == [("token", "r+t"), ("token_type_hint", "refresh_token")]
    assert ehr.requests[0].headers["authorization"] == "Basic YnJva2VyOnNlY3JldA=="
