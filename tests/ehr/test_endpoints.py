from typing import Any

import pytest

from broker.ehr.endpoints import (
    Endpoints,
    method_warning,
    parse_json_object,
    parse_oauth_uris,
    parse_smart_configuration,
)
from broker.errors import EhrMisbehaved
from tests.ehr.documents import DOCUMENT, OAUTH_URIS, statement

BASE = "https://ehr.example/fhir/r4"


def test_a_smart_configuration_is_read() -> None:
    endpoints = parse_smart_configuration(
        {
            **DOCUMENT,
            "introspection_endpoint": "https://auth.example/introspect",
            "revocation_endpoint": "https://auth.example/revoke",
            "issuer": "https://auth.example/",
            "jwks_uri": "https://auth.example/jwks",
            "authorization_response_iss_parameter_supported": True,
        },
        BASE,
    )

    assert endpoints == Endpoints(
        token_endpoint="https://auth.example/token",
        authorization_endpoint="https://auth.example/authorize",
        introspection_endpoint="https://auth.example/introspect",
        revocation_endpoint="https://auth.example/revoke",
        issuer="https://auth.example/",
        jwks_uri="https://auth.example/jwks",
        capabilities=("launch-ehr", "client-confidential-asymmetric", "https://ehr.example/capability"),
        grant_types=("authorization_code",),
        iss_in_callback=True,
        source="smart-configuration",
        document=endpoints.document,
    )


def test_what_else_the_server_says_is_kept() -> None:
    """Optional and unknown fields, and capabilities that are not SMART's, are kept as they are (DS-09, DS-16)."""
    optional = {
        "registration_endpoint": "https://auth.example/register",
        "management_endpoint": "https://auth.example/manage",
        "pushed_authorization_request_endpoint": "https://auth.example/par",
        "token_endpoint_auth_methods_supported": ["private_key_jwt"],
        "token_endpoint_auth_signing_alg_values_supported": ["RS384", "ES384"],
        "response_types_supported": ["code"],
        "associated_endpoints": [{"url": "https://ehr.example/app-state", "capabilities": ["smart-app-state"]}],
        "user_access_brand_bundle": "https://b.example/brands.json",
        "user_access_brand_identifier": {"system": "urn:x", "value": "1"},
        "smart_app_state_endpoint": "https://ehr.example/app-state",
        "x": [1],
    }
    document = {**DOCUMENT, **optional}

    found = parse_smart_configuration(document, BASE)

    assert found.document == document
    assert "https://ehr.example/capability" in found.capabilities
    assert (found.registration_endpoint, found.management_endpoint, found.pushed_authorization_request_endpoint) == (
        "https://auth.example/register",
        "https://auth.example/manage",
        "https://auth.example/par",
    )
    assert (found.authentication_methods, found.signing_algorithms) == (("private_key_jwt",), ("RS384", "ES384"))


def test_a_document_like_epics_is_read() -> None:
    """No introspection, revocation or registration endpoint, no algorithms; its issuer is no FHIR base (EP-01)."""
    root = "https://fhir.epic.com/interconnect-fhir-oauth"
    document = {
        "issuer": f"{root}/oauth2",
        "jwks_uri": f"{root}/oauth2/keys",
        "authorization_endpoint": f"{root}/oauth2/authorize",
        "token_endpoint": f"{root}/oauth2/token",
        "token_endpoint_auth_methods_supported": ["client_secret_post", "client_secret_basic", "private_key_jwt"],
        "scopes_supported": ["fhirUser", "launch", "openid", "profile"],
        "grant_types_supported": ["authorization_code", "client_credentials"],
        "code_challenge_methods_supported": ["S256"],
        "capabilities": ["launch-ehr", "launch-standalone", "sso-openid-connect", "permission-v1", "permission-v2"],
    }

    found = parse_smart_configuration(document, f"{root}/api/FHIR/R4")

    assert (found.introspection_endpoint, found.revocation_endpoint, found.registration_endpoint) == (None, None, None)
    assert (found.issuer, found.signing_algorithms, found.sso_off) == (f"{root}/oauth2", (), None)
    assert found.warnings == ()
    assert method_warning(found, "private_key_jwt", "ES384") is None


def test_athenas_odd_key_is_kept_and_changes_nothing() -> None:
    """The issuer lies on an Okta host; refresh_token is not among the grant types and works (OT-01)."""
    document = {
        **DOCUMENT,
        "issuer": "https://athena.okta.example/oauth2/aus2",
        "token_endpoint_auth_methods": ["client_secret_basic"],
        "grant_types_supported": ["authorization_code"],
        "capabilities": ["launch-ehr", "permission-offline"],
    }

    found = parse_smart_configuration(document, BASE)

    assert found.authentication_methods == ()
    assert found.document["token_endpoint_auth_methods"] == ["client_secret_basic"]
    assert found.warnings == ()


def test_endpoints_for_client_certificates_are_read() -> None:
    aliases = {"token_endpoint": "https://mtls.example/token", "other": "https://mtls.example/x", "jwks_uri": 5}

    found = parse_smart_configuration({**DOCUMENT, "mtls_endpoint_aliases": aliases}, BASE)

    assert found.mtls_endpoint_aliases == {"token_endpoint": "https://mtls.example/token"}
    assert found.urls()["mtls_endpoint_aliases.token_endpoint"] == "https://mtls.example/token"


def test_a_sound_document_gives_no_warning() -> None:
    assert parse_smart_configuration(DOCUMENT, BASE).warnings == ()


@pytest.mark.parametrize(
    ("changes", "warning"),
    [
        ({"capabilities": None}, "capabilities is missing (DS-03)"),
        ({"grant_types_supported": None}, "grant_types_supported is missing (DS-03)"),
        ({"code_challenge_methods_supported": None}, "code_challenge_methods_supported is missing (DS-03)"),
        (
            {"code_challenge_methods_supported": ["plain", "S256"]},
            "plain is listed as a PKCE method; it is never used (DS-06)",
        ),
        ({"authorization_endpoint": None}, "launches are offered without authorization_endpoint (DS-04)"),
        (
            {"capabilities": ["sso-openid-connect"]},
            "sso-openid-connect is listed without issuer and jwks_uri: id_tokens are not used (DS-05)",
        ),
        (
            {"capabilities": ["sso-openid-connect"], "issuer": "https://auth.example"},
            "sso-openid-connect is listed without jwks_uri: id_tokens are not used (DS-05)",
        ),
        ({"token_endpoint": "/token"}, "token_endpoint is relative; it is taken from the FHIR base (DS-07)"),
        ({"revocation_endpoint": "mailto:a@b"}, "revocation_endpoint is not a URL, so it counts as absent (DS-07)"),
    ],
)
def test_what_is_missing_or_odd_is_a_warning_that_names_it(changes: dict[str, object], warning: str) -> None:
    """A document is taken with a named warning, not refused and no crash (DS-03, DS-04, DS-05, DS-06, DS-07)."""
    said = {name: value for name, value in {**DOCUMENT, **changes}.items() if value is not None}

    assert parse_smart_configuration(said, BASE).warnings == (warning,)


@pytest.mark.parametrize(
    ("lacking", "reason"),
    [
        ((), None),
        (("issuer",), "sso-openid-connect is listed without issuer (DS-05)"),
        (("jwks_uri",), "sso-openid-connect is listed without jwks_uri (DS-05)"),
        (("issuer", "jwks_uri"), "sso-openid-connect is listed without issuer and jwks_uri (DS-05)"),
    ],
)
def test_id_tokens_are_off_with_the_reason_when_the_pair_is_incomplete(
    lacking: tuple[str, ...], reason: str | None
) -> None:
    """(DS-05)"""
    whole = {"issuer": "https://auth.example", "jwks_uri": "https://auth.example/jwks"}
    pair = {name: url for name, url in whole.items() if name not in lacking}

    assert (
        parse_smart_configuration({**DOCUMENT, "capabilities": ["sso-openid-connect"], **pair}, BASE).sso_off == reason
    )


def test_id_tokens_are_off_where_only_metadata_names_the_endpoints() -> None:
    """(DS-05, DS-11)"""
    found = parse_oauth_uris(statement(token="https://a.example/token"), BASE)

    assert found is not None
    assert found.sso_off == "there is no smart-configuration to name an issuer (DS-05, DS-11)"


def test_without_the_capability_nothing_stands_against_an_id_token() -> None:
    """An EHR that lists no sso capability may send one all the same (DS-05, ID-02)."""
    assert parse_smart_configuration(DOCUMENT, BASE).sso_off is None


@pytest.mark.parametrize(
    ("used", "listed", "algorithms", "warning"),
    [
        (("private_key_jwt", "ES384"), ["private_key_jwt"], ["RS384", "ES384"], None),
        (("private_key_jwt", "ES384"), [], [], None),
        (("none", "ES384"), ["private_key_jwt"], ["RS384"], None),
        (
            ("client_secret_basic", "ES384"),
            ["private_key_jwt", "client_secret_post", "<script>"],
            [],
            "client_secret_basic is used, and the EHR lists client_secret_post, private_key_jwt (DS-10)",
        ),
        (
            ("private_key_jwt", "ES384"),
            ["private_key_jwt"],
            ["RS384"],
            "ES384 is used, and the EHR lists RS384 (DS-10)",
        ),
        (
            ("private_key_jwt", "RS384"),
            ["<script>"],
            [],
            "private_key_jwt is used, and the EHR lists none that is known here (DS-10)",
        ),
    ],
)
def test_a_method_that_the_ehr_does_not_list_is_a_warning_naming_both_sides(
    used: tuple[str, str], listed: list[str], algorithms: list[str], warning: str | None
) -> None:
    """What the EHR wrote itself is never quoted (DS-10)."""
    document = {
        **DOCUMENT,
        "token_endpoint_auth_methods_supported": listed,
        "token_endpoint_auth_signing_alg_values_supported": algorithms,
    }

    assert method_warning(parse_smart_configuration(document, BASE), *used) == warning


def test_a_backend_only_ehr_needs_no_authorization_endpoint() -> None:
    """Stored without a crash; launches are refused where they begin (DS-04)."""
    endpoints = parse_smart_configuration({"token_endpoint": "https://auth.example/token"}, BASE)

    assert endpoints.authorization_endpoint is None
    assert endpoints.capabilities == ()


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("https://auth.example/token", "https://auth.example/token"),
        ("/auth/token", "https://ehr.example/auth/token"),
        ("auth/token", "https://ehr.example/fhir/r4/auth/token"),
        ("../token", "https://ehr.example/fhir/token"),
        ("//auth.example/token", "https://auth.example/token"),
        ("http://auth.example/token", "http://auth.example/token"),  # refused later, by egress
    ],
)
def test_a_relative_endpoint_is_joined_to_the_fhir_base(written: str, meant: str) -> None:
    """Exactly as a URL-join of the FHIR base (DS-07)."""
    assert parse_smart_configuration({**DOCUMENT, "token_endpoint": written}, BASE).token_endpoint == meant


@pytest.mark.parametrize(
    "url", [None, "", 5, [], {}, "javascript:alert(1)", "mailto:a@b", "file:///etc/passwd", "https://[::1"]
)
def test_a_token_endpoint_that_is_no_url_is_refused(url: object) -> None:
    """Without a token endpoint nothing can be done (DS-03)."""
    with pytest.raises(EhrMisbehaved, match="token_endpoint is not a URL"):
        parse_smart_configuration({**DOCUMENT, "token_endpoint": url}, BASE)


@pytest.mark.parametrize("methods", [["plain"], ["s256"], ["S512", "plain"], [5]])
def test_an_ehr_that_lists_pkce_without_s256_is_refused(methods: list[object]) -> None:
    """(DS-06)"""
    with pytest.raises(EhrMisbehaved, match="PKCE methods without S256"):
        parse_smart_configuration({**DOCUMENT, "code_challenge_methods_supported": methods}, BASE)


@pytest.mark.parametrize("methods", [["S256"], ["S256", "plain"], [], None, "S256"])
def test_an_ehr_that_lists_s256_or_nothing_is_accepted(methods: object) -> None:
    """S256 is sent all the same (DS-06)."""
    endpoints = parse_smart_configuration({**DOCUMENT, "code_challenge_methods_supported": methods}, BASE)

    assert endpoints.token_endpoint == "https://auth.example/token"


@pytest.mark.parametrize(
    ("member", "value"),
    [("capabilities", "launch-ehr"), ("capabilities", {"a": 1}), ("issuer", 5), ("jwks_uri", []), ("issuer", "")],
)
def test_a_member_of_the_wrong_kind_counts_as_absent(member: str, value: object) -> None:
    endpoints = parse_smart_configuration({**DOCUMENT, "capabilities": [], member: value}, BASE)

    assert (endpoints.capabilities, endpoints.issuer, endpoints.jwks_uri) == ((), None, None)


@pytest.mark.parametrize("announced", ["true", 1, None, False, []])
def test_iss_in_the_callback_is_required_only_if_announced_as_true(announced: object) -> None:
    """CB-08."""
    document = {**DOCUMENT, "authorization_response_iss_parameter_supported": announced}

    assert parse_smart_configuration(document, BASE).iss_in_callback is False


def test_endpoints_do_not_show_the_whole_document() -> None:
    assert "grant_types_supported" not in repr(parse_smart_configuration(DOCUMENT, BASE))


def test_the_oauth_uris_of_a_capability_statement_are_read() -> None:
    """(DS-11)"""
    found = parse_oauth_uris(
        statement(authorize="https://a.example/authorize", token="/token", revoke="https://a.example/revoke"), BASE
    )

    assert found == Endpoints(
        token_endpoint="https://ehr.example/token",
        authorization_endpoint="https://a.example/authorize",
        revocation_endpoint="https://a.example/revoke",
        source="metadata",
        warnings=("there is no smart-configuration; the CapabilityStatement names the endpoints (DS-11)",),
    )


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"rest": None},
        {"rest": {"security": {}}},
        {"rest": ["server", None, 5]},
        {"rest": [{"security": []}]},
        {"rest": [{"security": {"extension": {"url": OAUTH_URIS}}}]},
        {"rest": [{"security": {"extension": [{"url": OAUTH_URIS}]}}]},
        {"rest": [{"security": {"extension": [{"url": OAUTH_URIS, "extension": [{"url": "token"}]}]}}]},
        statement(authorize="https://a.example/authorize"),
        statement(token=None),
        statement(token=5),
        statement(token="javascript:alert(1)"),
    ],
)
def test_a_capability_statement_without_a_token_endpoint_names_none(document: dict[str, Any]) -> None:
    assert parse_oauth_uris(document, BASE) is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b'[{"token_endpoint":"https://a"}]',
        b'"text"',
        b"5",
        b"null",
        b"{",
        b"{'a':1}",
        b"\xff\xfe",
        b"\x80abc",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"a":' + b"9" * 5000 + b"}",
    ],
)
def test_what_is_not_a_json_object_is_no_document(body: bytes) -> None:
    """HTML, XML, lists and noise (DS-14, OA-04)."""
    assert parse_json_object(body) is None


@pytest.mark.parametrize("body", [b"{}", b' {"a":1} ', b'\xef\xbb\xbf{"a":1}', '{"a":"ü"}'.encode()])
def test_a_json_object_is_a_document(body: bytes) -> None:
    assert parse_json_object(body) is not None


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example\\@auth.example/authorize",
        "https://auth.example\\evil",
        "https://x@auth.example/authorize",
        "https://x:y@auth.example/authorize",
        "//x@auth.example/authorize",
        " https://auth.example/authorize",
        "https://auth.ex\tample/authorize",
        "https://auth.example/a b",
        "https://auth.example/\x00",
        "https://auth.exämple/authorize",
        "https://auth.example/\u00e4",
    ],
)
def test_a_url_that_not_everybody_reads_alike_counts_as_absent(url: str) -> None:
    """A browser goes to another host than the one that was compared (DS-07, DS-15)."""
    found = parse_smart_configuration({**DOCUMENT, "authorization_endpoint": url}, "https://ehr.example")

    assert found.authorization_endpoint is None
    assert "authorization_endpoint is not a URL, so it counts as absent (DS-07)" in found.warnings
