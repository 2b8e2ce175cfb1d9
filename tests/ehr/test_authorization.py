import json
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.egress import Answer
from broker.ehr.authorization import (
    LONGEST_URL_BYTES,
    audience,
    authorization_request,
    authorization_url,
    choose_delivery,
    parse_callback,
    parse_pushed,
    pushed_url,
)
from broker.ehr.endpoints import Endpoints
from broker.ehr.error_uri import ehr_error_code
from broker.errors import AccessDenied, BrokerError, EhrMisbehaved, EhrRefused, EhrUnreachable, InvalidRequest
from broker.profiles import Profile, profile, profile_names
from broker.secret import Secret

ISSUER = "https://auth.example/"
VERIFIER = Secret("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk")


def url_for(
    endpoint: str = "https://auth.example/authorize",
    *,
    scope: str = "launch openid fhirUser patient/*.rs",
    launch: str | None = "xyz",
    aud: str | None = "https://ehr.example/FHIR/R4/",
    resource: str | None = None,
) -> str:
    request = authorization_request(
        client_id="broker",
        redirect_uri="https://broker.example/callback/epic",
        scope=scope,
        state=Secret("the-state"),
        nonce=Secret("the-nonce"),
        code_verifier=VERIFIER,
        audience=aud,
        resource=resource,
        launch=launch,
    )
    return authorization_url(endpoint, request)


def said(**settings: Any) -> Profile:
    return profile("generic").model_copy(update=settings)


def parameters_of(url: str) -> list[tuple[str, str]]:
    return parse_qsl(urlsplit(url).query, keep_blank_values=True, strict_parsing=True)


def test_an_ehr_launch_asks_with_exactly_these_parameters() -> None:
    """AL-03, AL-04, AL-05, AL-06, AL-08, AL-10, AL-11, AL-12, AL-17, AL-18, EP-10, ID-07.

    The challenge is the one of RFC 7636, appendix B.
    """
    assert url_for().startswith("https://auth.example/authorize?")
    assert parameters_of(url_for()) == [
        ("response_type", "code"),
        ("client_id", "broker"),
        ("redirect_uri", "https://broker.example/callback/epic"),
        ("scope", "launch openid fhirUser patient/*.rs"),
        ("state", "the-state"),
        ("aud", "https://ehr.example/FHIR/R4/"),
        ("launch", "xyz"),
        ("nonce", "the-nonce"),
        ("code_challenge", "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"),
        ("code_challenge_method", "S256"),
    ]


@pytest.mark.parametrize("launch", [None, ""])
def test_a_standalone_launch_has_no_launch_parameter(launch: str | None) -> None:
    """AL-07, OA-01."""
    assert "launch" not in dict(parameters_of(url_for(launch=launch)))


@pytest.mark.parametrize("scope", ["launch patient/*.rs", "openidx", "https://x.example/openid"])
def test_without_openid_there_is_no_nonce(scope: str) -> None:
    """AL-18."""
    assert "nonce" not in dict(parameters_of(url_for(scope=scope)))


def test_the_verifier_never_leaves() -> None:
    """AL-12."""
    assert VERIFIER.reveal() not in url_for()


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=4096))
def test_the_launch_value_is_echoed_unchanged(launch: str) -> None:
    """AL-06."""
    assert dict(parameters_of(url_for(launch=launch)))["launch"] == launch


@pytest.mark.parametrize("length", [4096, 65_536])
def test_a_long_launch_value_is_echoed_unchanged(length: int) -> None:
    """AL-06, EP-19, NC-16."""
    assert dict(parameters_of(url_for(launch="a+/=%& " * (length // 7))))["launch"] == "a+/=%& " * (length // 7)


def test_an_endpoint_keeps_its_own_query() -> None:
    assert parameters_of(url_for("https://auth.example/authorize?tenant=1"))[:2] == [
        ("tenant", "1"),
        ("response_type", "code"),
    ]


@pytest.mark.parametrize(
    ("parameters", "iss_required"),
    [
        ({"code": "c+/=%"}, False),
        ({"code": "c+/=%", "state": "s", "unknown": "x"}, False),
        ({"code": "c+/=%", "iss": ISSUER}, False),
        ({"code": "c+/=%", "iss": ISSUER}, True),
    ],
)
def test_a_callback_with_a_code_is_accepted(parameters: dict[str, str], *, iss_required: bool) -> None:
    """CB-08: the correct `iss`."""
    """CB-08."""
    assert parse_callback(parameters, issuer=ISSUER, iss_required=iss_required) == Secret("c+/=%")


def test_a_code_of_100_kilobytes_is_taken_as_it_is() -> None:
    """EP-19, NC-16."""
    assert parse_callback({"code": "c" * 100_000}, issuer=None, iss_required=False) == Secret("c" * 100_000)


@pytest.mark.parametrize(
    ("iss", "iss_required"),
    [
        (None, True),
        ("", True),
        ("https://evil.example/", True),
        ("https://evil.example/", False),
        ("https://auth.example", False),
        ("HTTPS://auth.example/", False),
        ("https://auth.example//", False),
        ("", False),
    ],
)
@pytest.mark.parametrize("outcome", [{"code": "c"}, {"error": "access_denied"}, {}])
def test_a_callback_of_another_issuer_is_refused_before_anything_else(
    iss: str | None, outcome: dict[str, str], *, iss_required: bool
) -> None:
    """CB-07, CB-08, Q5, NC-13: simple string comparison (RFC 9207 §2.4)."""
    parameters = outcome if iss is None else {**outcome, "iss": iss}

    with pytest.raises(InvalidRequest) as raised:
        parse_callback(parameters, issuer=ISSUER, iss_required=iss_required)

    assert "evil" not in raised.value.detail


def test_a_required_iss_that_can_be_compared_with_nothing_is_refused() -> None:
    """CB-08: nothing fails open."""
    with pytest.raises(EhrMisbehaved, match="names no issuer"):
        parse_callback({"code": "c", "iss": ISSUER}, issuer=None, iss_required=True)


@pytest.mark.parametrize(
    ("error", "known"),
    [
        ("access_denied", "access_denied"),
        ("server_error", "server_error"),
        ("vendor_error", "vendor_error"),
        ("<script>alert(1)</script>", "an unreadable error"),
        ("access denied", "an unreadable error"),
        ("a\r\nSet-Cookie: x", "an unreadable error"),
        ("' OR 1=1", "an unreadable error"),
        ("é", "an unreadable error"),
        ("", "an unreadable error"),
        ("a" * 100_000, "an unreadable error"),
    ],
)
def test_an_error_callback_is_a_denial_that_repeats_codes_alone(error: str, known: str) -> None:
    """CB-04, CB-05."""
    parameters = {"error": error, "error_description": "canary", "error_uri": "https://canary.example", "code": "c"}

    with pytest.raises(AccessDenied) as raised:
        parse_callback(parameters, issuer=None, iss_required=False)

    assert raised.value.detail == f"the EHR answered {known}"
    assert raised.value.public == AccessDenied.says


@pytest.mark.parametrize("parameters", [{}, {"code": ""}, {"state": "s"}])
def test_a_callback_with_neither_code_nor_error_is_refused(parameters: dict[str, str]) -> None:
    with pytest.raises(EhrMisbehaved, match="neither code nor error"):
        parse_callback(parameters, issuer=ISSUER, iss_required=False)


ORACLE = "https://authorization.cerner.com/errors/{}/instances/6c3-4a?client=x&tenant=y"
UNKNOWN_TENANT = "urn:cerner:error:authorization-server:oauth2:grant:unknown-tenant"


@pytest.mark.parametrize(
    ("error_uri", "code"),
    [
        (ORACLE.format(UNKNOWN_TENANT.replace(":", "%3A")), UNKNOWN_TENANT),
        (ORACLE.format(UNKNOWN_TENANT.replace(":", "%3a")), UNKNOWN_TENANT),
        (ORACLE.format(UNKNOWN_TENANT), UNKNOWN_TENANT),
        (UNKNOWN_TENANT, UNKNOWN_TENANT),
        (f"{UNKNOWN_TENANT}?x=y", UNKNOWN_TENANT),
        (f"{UNKNOWN_TENANT}\r\nSet-Cookie: a=b", None),
        (f"{UNKNOWN_TENANT}<script>", None),
        ("urn:cerner:error:Smith", None),
        ("urn:cerner:error:", None),
        ("urn:cerner:patient:smith", None),
        ("https://ehr.example/errors/42", None),
        (ORACLE.format("urn%253Acerner%253Aerror%253Aa"), None),
        ("https://e.example/" + "a" * 5000 + "/" + UNKNOWN_TENANT, None),
        ("", None),
        (None, None),
    ],
)
def test_of_an_error_uri_only_a_safe_urn_is_kept(error_uri: str | None, code: str | None) -> None:
    """OR-03, CB-04."""
    assert ehr_error_code(error_uri) == code


def test_the_operator_learns_the_urn_of_an_error_callback_and_the_person_nothing() -> None:
    """OR-03, CB-04."""
    parameters = {"error": "invalid_request", "error_uri": ORACLE.format(UNKNOWN_TENANT.replace(":", "%3A"))}

    with pytest.raises(AccessDenied) as raised:
        parse_callback(parameters, issuer=None, iss_required=False)

    assert raised.value.detail == f"the EHR answered invalid_request ({UNKNOWN_TENANT})"
    assert raised.value.public == AccessDenied.says


@pytest.mark.parametrize(
    ("setting", "slash", "base", "aud"),
    [
        ("fhir_base", "keep", "https://ehr.example/R4", "https://ehr.example/R4"),
        ("fhir_base", "keep", "https://EHR.example/R4/", "https://EHR.example/R4/"),
        ("fhir_base", "strip", "https://ehr.example/R4/", "https://ehr.example/R4"),
        ("fhir_base", "strip", "https://ehr.example/R4", "https://ehr.example/R4"),
        ("fhir_base", "add", "https://ehr.example/R4", "https://ehr.example/R4/"),
        ("fhir_base", "add", "https://ehr.example/R4/", "https://ehr.example/R4/"),
        ("https://other.example/aud", "keep", "https://ehr.example/R4/", "https://other.example/aud"),
        ("https://other.example/aud", "add", "https://ehr.example/R4", "https://other.example/aud/"),
        ("omit", "keep", "https://ehr.example/R4", None),
        ("omit", "add", "https://ehr.example/R4", None),
    ],
)
def test_the_audience_is_what_the_vendor_wants(setting: str, slash: str, base: str, aud: str | None) -> None:
    """AL-11, OT-02, EP-10, NC-14: byte for byte the launch's `iss`, unless Q7 says otherwise."""
    wanted = audience(said(authorize_audience=setting, audience_slash=slash), base)

    assert wanted == aud
    assert dict(parameters_of(url_for(aud=wanted))).get("aud") == aud


@pytest.mark.parametrize("resource", [None, "https://ehr.example/R4"])
def test_resource_is_sent_beside_aud_only_where_it_is_wanted(resource: str | None) -> None:
    """AL-13, OA-20."""
    sent = dict(parameters_of(url_for(resource=resource)))

    assert (sent["aud"], sent.get("resource")) == ("https://ehr.example/FHIR/R4/", resource)


SHORT, LONG = "u" * LONGEST_URL_BYTES, "u" * (LONGEST_URL_BYTES + 1)


@pytest.mark.parametrize(
    ("url", "listed", "offered", "required", "setting", "by_ehr", "delivery"),
    [
        (SHORT, True, True, False, "any_launch", True, "query"),
        (LONG, True, True, False, "any_launch", False, "form"),
        (LONG, True, False, False, "any_launch", True, "form"),
        (LONG, True, False, False, "ehr_launch", True, "form"),
        (LONG, True, False, False, "ehr_launch", False, "query"),
        (LONG, True, True, False, "ehr_launch", False, "pushed"),
        (LONG, True, False, False, "never", True, "query"),
        (LONG, False, False, False, "any_launch", True, "query"),
        (LONG, False, True, False, "any_launch", True, "pushed"),
        (SHORT, True, True, True, "any_launch", True, "pushed"),
        (LONG, True, True, True, "any_launch", True, "pushed"),
    ],
)
def test_a_long_request_goes_another_way_where_the_ehr_and_its_profile_allow_one(
    url: str, setting: str, delivery: str, *, listed: bool, offered: bool, required: bool, by_ehr: bool
) -> None:
    """AL-14, AL-15, EP-11, OA-22, NC-16."""
    endpoints = Endpoints(
        "https://auth.example/token",
        capabilities=("authorize-post",) if listed else (),
        pushed_authorization_request_endpoint="https://auth.example/par" if offered else None,
        pushed_requests_required=required,
    )

    assert choose_delivery(url, endpoints, said(authorize_post=setting), launched_by_ehr=by_ehr) == delivery


def test_a_pushed_request_that_is_demanded_and_not_offered_is_not_sent_otherwise() -> None:
    """OA-22, RFC 9126 §5."""
    endpoints = Endpoints("https://auth.example/token", pushed_requests_required=True)

    with pytest.raises(EhrMisbehaved, match="no endpoint"):
        choose_delivery(SHORT, endpoints, said(), launched_by_ehr=True)


def test_epic_is_sent_no_form_in_a_standalone_launch() -> None:
    """EP-11."""
    endpoints = Endpoints("https://auth.example/token", capabilities=("authorize-post",))

    assert choose_delivery(LONG, endpoints, profile("epic"), launched_by_ehr=False) == "query"
    assert choose_delivery(LONG, endpoints, profile("epic"), launched_by_ehr=True) == "form"


@pytest.mark.parametrize("name", profile_names())
def test_every_profile_has_an_audience_that_can_be_sent_or_none(name: str) -> None:
    """OT-02, Q7."""
    assert audience(profile(name), "https://ehr.example/R4") in {
        None,
        "https://ehr.example/R4",
        "https://ehr.example/R4/",
    }


def test_a_pushed_request_is_named_by_client_and_request_uri_alone() -> None:
    """OA-22, RFC 9126 §4."""
    url = pushed_url("https://auth.example/authorize?tenant=1", "broker", Secret("urn:request:1"))

    assert parameters_of(url) == [("tenant", "1"), ("client_id", "broker"), ("request_uri", "urn:request:1")]


def answered(status: int, **document: object) -> Answer:
    return Answer(status, {}, json.dumps(document).encode())


@pytest.mark.parametrize("status", [200, 201])
def test_the_answer_to_a_pushed_request_is_its_request_uri(status: int) -> None:
    """OA-22."""
    assert parse_pushed(answered(status, request_uri="urn:r:1", expires_in=60)) == Secret("urn:r:1")


@pytest.mark.parametrize(
    ("answer", "error", "cause"),
    [
        (answered(400, error="invalid_request"), EhrRefused, "answered invalid_request"),
        (answered(401, error="invalid_client", error_description="canary"), EhrRefused, "answered invalid_client"),
        (answered(400, error="<script>"), EhrRefused, "unknown_error"),
        (answered(503), EhrUnreachable, "status 503"),
        (answered(429), EhrUnreachable, "status 429"),
        (answered(201, expires_in=60), EhrMisbehaved, "no request_uri"),
        (answered(302, request_uri="urn:r:1"), EhrMisbehaved, "status 302"),
        (answered(201, request_uri=7), EhrMisbehaved, "no request_uri"),
        (Answer(200, {}, b"<html>"), EhrMisbehaved, "no request_uri"),
    ],
)
def test_a_pushed_request_that_fails_says_why_from_codes_alone(
    answer: Answer, error: type[BrokerError], cause: str
) -> None:
    """OA-22, OA-04."""
    with pytest.raises(error) as raised:
        parse_pushed(answer)

    assert cause in raised.value.detail
    assert "canary" not in raised.value.detail
