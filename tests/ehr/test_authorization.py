from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.ehr.authorization import authorization_url, parse_callback
from broker.errors import AccessDenied, EhrMisbehaved, InvalidRequest
from broker.secret import Secret

ISSUER = "https://auth.example/"
VERIFIER = Secret("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk")


def url_for(
    endpoint: str = "https://auth.example/authorize",
    *,
    scope: str = "launch openid fhirUser patient/*.rs",
    launch: str | None = "xyz",
) -> str:
    return authorization_url(
        endpoint,
        client_id="broker",
        redirect_uri="https://broker.example/callback/epic",
        scope=scope,
        state=Secret("the-state"),
        nonce=Secret("the-nonce"),
        code_verifier=VERIFIER,
        audience="https://ehr.example/FHIR/R4/",
        launch=launch,
    )


def parameters_of(url: str) -> list[tuple[str, str]]:
    return parse_qsl(urlsplit(url).query, keep_blank_values=True, strict_parsing=True)


def test_an_ehr_launch_asks_with_exactly_these_parameters() -> None:
    """AL-03 to AL-12, AL-18; the challenge is the one of RFC 7636, appendix B."""
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
    """AL-06."""
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
    assert parse_callback(parameters, issuer=ISSUER, iss_required=iss_required) == Secret("c+/=%")


def test_a_code_of_100_kilobytes_is_taken_as_it_is() -> None:
    """Spec §21 case 16."""
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
    """CB-07, CB-08: simple string comparison (RFC 9207 §2.4)."""
    parameters = outcome if iss is None else {**outcome, "iss": iss}

    with pytest.raises(InvalidRequest) as raised:
        parse_callback(parameters, issuer=ISSUER, iss_required=iss_required)

    assert "evil" not in raised.value.detail


@pytest.mark.parametrize(
    ("error", "said"),
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
def test_an_error_callback_is_a_denial_that_repeats_codes_alone(error: str, said: str) -> None:
    """CB-04, CB-05."""
    parameters = {"error": error, "error_description": "canary", "error_uri": "https://canary.example", "code": "c"}

    with pytest.raises(AccessDenied) as raised:
        parse_callback(parameters, issuer=None, iss_required=False)

    assert raised.value.detail == f"the EHR answered {said}"
    assert raised.value.public == AccessDenied.says


@pytest.mark.parametrize("parameters", [{}, {"code": ""}, {"state": "s"}])
def test_a_callback_with_neither_code_nor_error_is_refused(parameters: dict[str, str]) -> None:
    with pytest.raises(EhrMisbehaved, match="neither code nor error"):
        parse_callback(parameters, issuer=ISSUER, iss_required=False)
