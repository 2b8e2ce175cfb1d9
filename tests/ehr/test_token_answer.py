import json
from typing import Any

import pytest

from broker.egress import Answer
from broker.ehr.token_answer import (
    LONGEST_PAUSE_SECONDS,
    PROPAGATION_HINT,
    TokenAnswer,
    at_server,
    parse_answer,
    parse_lifetime,
    parse_retry_after,
)
from broker.errors import EhrAnswerUnreadable, EhrMisbehaved, EhrRefused, EhrUnreachable
from broker.secret import Secret

GOOD: dict[str, Any] = {"access_token": "at", "token_type": "Bearer", "expires_in": 3600, "scope": "patient/*.rs"}
WEEK = 7 * 86_400.0
BASE = "https://ehr.example/r4"
ORACLE = "https://authorization.cerner.com/errors/urn%3Acerner%3Aerror%3Aauthorization-server%3Aoauth2%3A"


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
        (86_400, 86_400),
        (60, 60),
        (None, None),
        (0, None),
        ("0", None),
        (-1, None),
        ("-1", None),
        (True, None),
        (False, None),
        ("", None),
        ("soon", None),
        ("3600.5", None),
        ("1e3", None),
        ("٣٦٠٠", None),
        ("9" * 5000, None),
        (float("nan"), None),
        (float("inf"), None),
        (float("-inf"), None),
        ([3600], None),
        ({"seconds": 3600}, None),
    ],
)
def test_a_lifetime_is_a_positive_number_of_at_most_a_week(written: object, seconds: float | None) -> None:
    """Q8, TR-07, NC-01."""
    lifetime = parse_lifetime(written)

    assert lifetime == seconds
    assert type(lifetime) is (float if seconds else type(None))


@pytest.mark.parametrize("name", ["refresh_token_expires_in", "refresh_expires_in"])
def test_the_end_of_a_refresh_token_is_read_where_the_ehr_says_it(name: str) -> None:
    """RF-13."""
    assert parse(**{name: "7776000"}).refresh_lifetime == 7_776_000
    assert parse(**{name: 86_400}).refresh_lifetime == 86_400
    assert parse().refresh_lifetime is None


@pytest.mark.parametrize("token_type", ["Bearer", "bearer", "BEARER"])
def test_a_token_type_compares_without_case(token_type: str) -> None:
    """TR-02, EP-14."""
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
    """TR-08, OA-21, EP-19."""
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
    """OA-03, OR-03, NC-10: keyed on `error`, status second."""
    document = {"error": error, "error_description": None, "access_token": "at"}

    with pytest.raises(EhrRefused) as refused:
        parse_answer(answer(document, status))

    assert refused.value.error == error
    hint = PROPAGATION_HINT if error == "invalid_client" else ""
    assert refused.value.detail == f"the token endpoint answered {error} (status {status}){hint}"


@pytest.mark.parametrize("error", ["canary", "Invalid_Grant", "invalid_grant ", "a\nb"])
def test_an_error_nobody_defined_is_refused_and_not_repeated(error: str) -> None:
    with pytest.raises(EhrRefused) as refused:
        parse_answer(answer({"error": error, "error_uri": ["x"]}, 400))

    assert refused.value.error == "unknown_error"
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
    """OA-04, NC-10."""
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


# Oracle's only word: OR-03


@pytest.mark.parametrize(
    ("uri", "code"),
    [
        (f"{ORACLE}grant%3Aunknown-tenant/instances/1a2b?client=x", "oauth2:grant:unknown-tenant"),
        (f"{ORACLE}grant%3Ainvalid-client", "oauth2:grant:invalid-client"),
    ],
)
def test_the_urn_of_an_error_uri_reaches_the_operator(uri: str, code: str) -> None:
    """OR-03, NC-10: the error has no other text."""
    with pytest.raises(EhrRefused) as refused:
        parse_answer(answer({"error": "invalid_client", "error_uri": uri}, 401))

    urn = f"urn:cerner:error:authorization-server:{code}"
    assert refused.value.detail == (
        f"the token endpoint answered invalid_client (status 401, ehr_error_code {urn}){PROPAGATION_HINT}"
    )
    assert "cerner" not in refused.value.public


@pytest.mark.parametrize(
    "uri", ["https://ehr.example/help?patient=canary", "urn:x:error:CANARY", "canary", 5, None, ["urn:x:error:y"]]
)
def test_any_other_error_uri_reaches_nobody(uri: object) -> None:
    """OA-04, CB-04."""
    with pytest.raises(EhrRefused) as refused:
        parse_answer(answer({"error": "invalid_grant", "error_uri": uri}, 400))

    assert refused.value.detail == "the token endpoint answered invalid_grant (status 400)"


# Later, but when: RF-08

NOON = "Mon, 23 Nov 2026 12:00:00 GMT"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 0),
        ({"retry-after": "120"}, 120),
        ({"retry-after": " 7 "}, 7),
        ({"retry-after": "999999999"}, LONGEST_PAUSE_SECONDS),
        ({"retry-after": "-5"}, 0),
        ({"retry-after": "1.5"}, 0),
        ({"retry-after": "soon"}, 0),
        ({"retry-after": "٣"}, 0),
        ({"retry-after": "Mon, 23 Nov 2026 12:02:00 GMT", "date": NOON}, 120),
        ({"retry-after": "Mon, 23 Nov 2026 11:00:00 GMT", "date": NOON}, 0),
        ({"retry-after": "Tue, 23 Nov 2027 12:00:00 GMT", "date": NOON}, LONGEST_PAUSE_SECONDS),
        ({"retry-after": "Mon, 23 Nov 2026 12:02:00 GMT"}, 0),
        ({"retry-after": "Mon, 23 Nov 2026 12:02:00", "date": NOON}, 0),
        ({"retry-after": "Mon, 01 Jan 99999999999999999999 00:00:00 GMT", "date": NOON}, 0),
    ],
)
def test_retry_after_is_seconds_or_a_date_and_at_most_a_day(headers: dict[str, str], seconds: float) -> None:
    assert parse_retry_after(headers) == seconds


@pytest.mark.parametrize("status", [429, 503])
def test_later_says_how_much_later(status: int) -> None:
    """RF-08."""
    with pytest.raises(EhrUnreachable) as later:
        parse_answer(Answer(status, {"retry-after": "90"}, b"slow down"))

    assert later.value.retry_after == 90


# One token for several servers: TR-10

ENTRY = {"type": "smart_on_fhir", "locations": [BASE], "scope": "patient/Patient.rs", "patient": "here"}
ELSEWHERE = {**ENTRY, "locations": ["https://other.example/r4"], "patient": "there", "scope": "user/*.cruds"}


def here(details: object, **members: object) -> TokenAnswer:
    return at_server(parse(authorization_details=details, **members), BASE)


@pytest.mark.parametrize("place", [BASE, f"{BASE}/"])
def test_the_entry_for_this_server_stands_in_place_of_the_top_level(place: str) -> None:
    """TR-10: the patient of the top level may be another server's."""
    said = here([ELSEWHERE, {**ENTRY, "locations": ["x", place]}], patient="there", encounter="there", tenant="clinic")

    assert said.scope == "patient/Patient.rs"
    assert said.members["patient"] == "here"
    assert "encounter" not in said.members
    assert said.members["tenant"] == "clinic"
    assert said.note is None


@pytest.mark.parametrize(
    "details", [None, [], [ELSEWHERE], [{"type": "other", "locations": [BASE]}], [{"type": "payment", "locations": 5}]]
)
def test_entries_for_other_places_and_of_other_types_are_not_used(details: object) -> None:
    """TR-10."""
    said = here(details, patient="p1")

    assert (said.scope, said.members["patient"], said.note) == ("patient/*.rs", "p1", None)


@pytest.mark.parametrize(
    "details",
    [
        "smart_on_fhir",
        ENTRY,
        [5],
        [{}],
        [{"type": 5}],
        [{**ENTRY, "locations": BASE}],
        [{**ENTRY, "locations": [5]}],
        [{**ENTRY, "scope": ["patient/*.rs"]}],
        [ENTRY, None],
    ],
)
def test_malformed_details_are_ignored_and_noted(details: object) -> None:
    """TR-10."""
    said = here(details, patient="p1")

    assert (said.scope, said.members["patient"]) == ("patient/*.rs", "p1")
    assert said.note == "authorization_details is malformed and was ignored (TR-10)"
