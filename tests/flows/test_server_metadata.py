"""What the broker may say of itself, by what is configured and what the EHR lists. Pure."""

from collections.abc import Collection
from typing import Any

import pytest

from broker.apps import Directory
from broker.flows.exchange_handle import GRANT_TYPE as TOKEN_EXCHANGE
from broker.flows.server_metadata import (
    Use,
    authentication_methods,
    binds_certificates,
    capabilities,
    grant_types,
    scopes,
)
from broker.settings import Settings

LAUNCH = "launch launch/patient launch/encounter openid fhirUser offline_access online_access patient/*.rs user/*.rs"
EHR_CAPABILITIES = {
    *("launch-ehr", "launch-standalone", "sso-openid-connect", "permission-offline", "permission-online"),
    *("context-banner", "context-style", "context-ehr-patient", "context-ehr-encounter"),
    *("context-standalone-patient", "context-standalone-encounter", "permission-patient", "permission-user"),
}
OWN = {"authorize-post", "client-public", "permission-v1", "permission-v2"}


def uses(access: str, *, launched: bool = True, flow: str = "launch", app: dict[str, Any] | None = None) -> list[Use]:
    """Return the use of one EHR that one app has, by these scopes."""
    registration = {"id": "r", "ehr": "e", "flow": flow, "client_id": "c", "scopes": access}
    client: dict[str, Any] = {"id": "a", "authentication": "none", "redirect_uris": ["https://app.example/"]}
    client |= {"launch_uri": "https://app.example/launch", "access": [{"registration": "r", "scopes": access}]}
    settings = Settings.model_validate(
        {
            "public_url": "https://broker.example",
            "ehr": [{"id": "e", "fhir_base": "https://ehr.example/r4"}],
            "registration": [registration | ({"app": "a"} if launched and flow == "launch" else {})],
            "app": [client | (app or {})],
        }
    )
    (known,) = Directory(settings).apps
    return [Use(known, known.allowances[0])]


def test_everything_is_listed_where_everything_holds() -> None:
    """DS-16."""
    assert set(capabilities(uses(LAUNCH), EHR_CAPABILITIES)) == EHR_CAPABILITIES | OWN


@pytest.mark.parametrize("lacking", sorted(EHR_CAPABILITIES))
def test_what_the_ehr_does_not_list_is_not_promised_in_its_name(lacking: str) -> None:
    """DS-16: each of these needs the EHR, too."""
    assert set(capabilities(uses(LAUNCH), EHR_CAPABILITIES - {lacking})) == (EHR_CAPABILITIES | OWN) - {lacking}


@pytest.mark.parametrize(
    ("word", "capability"),
    [
        ("openid", {"sso-openid-connect"}),
        ("offline_access", {"permission-offline"}),
        ("online_access", {"permission-online"}),
        ("launch/patient", {"context-standalone-patient"}),
        ("launch/encounter", {"context-standalone-encounter"}),
        ("patient/*.rs", {"permission-patient"}),
        ("user/*.rs", {"permission-user"}),
    ],
)
def test_what_no_app_may_have_is_not_listed(word: str, capability: set[str]) -> None:
    """DS-16: each of these needs a scope that some app may have."""
    access = " ".join(scope for scope in LAUNCH.split() if scope != word)

    assert set(capabilities(uses(access), EHR_CAPABILITIES)) == (EHR_CAPABILITIES | OWN) - capability


def test_without_an_app_to_launch_there_is_no_ehr_launch() -> None:
    """DS-16."""
    missing = {"launch-ehr", "context-ehr-patient", "context-ehr-encounter"}

    assert set(capabilities(uses(LAUNCH, launched=False), EHR_CAPABILITIES)) == (EHR_CAPABILITIES | OWN) - missing


def test_of_an_ehr_that_lists_nothing_only_what_configuration_shows_is_said() -> None:
    """DS-11: such an EHR says where its endpoints are, and nothing of what it can do."""
    unknown = {"context-banner", "context-style", "context-ehr-encounter", "context-standalone-encounter"}

    assert set(capabilities(uses(LAUNCH), None)) == (EHR_CAPABILITIES | OWN) - unknown


def test_nobody_means_nothing() -> None:
    assert (capabilities([], EHR_CAPABILITIES), grant_types([]), authentication_methods([])) == ([], [], [])
    assert scopes([], identity=True) == []


@pytest.mark.parametrize(
    ("access", "flow", "expected"),
    [
        ("patient/*.rs", "launch", ["authorization_code"]),
        ("patient/*.rs offline_access", "launch", ["authorization_code", "refresh_token"]),
        ("patient/*.rs online_access", "launch", ["authorization_code", "refresh_token"]),
        ("system/*.rs", "backend", ["client_credentials"]),
    ],
)
def test_grant_types_are_those_that_some_app_can_use(access: str, flow: str, expected: Collection[str]) -> None:
    """DS-03."""
    keyed = {"authentication": "private_key_jwt", "jwks_uri": "https://app.example/jwks"}

    assert grant_types(uses(access, flow=flow, app=keyed)) == [*expected, TOKEN_EXCHANGE]


def test_openid_is_listed_where_it_is_kept() -> None:
    """DS-05, DS-08."""
    assert scopes(uses("openid patient/*.rs"), identity=True) == ["openid", "patient/*.rs"]
    assert scopes(uses("openid patient/*.rs"), identity=False) == ["patient/*.rs"]


def test_certificates_are_spoken_of_where_some_app_s_handles_are_bound_to_one() -> None:
    """RFC 8705 §3.3 (OA-19)."""
    by_certificate = {"authentication": "tls_client_auth", "tls_client_auth_san_dns": "app.example"}
    free = uses("system/*.rs", flow="backend", app=by_certificate)
    bound = uses("system/*.rs", flow="backend", app={**by_certificate, "certificate_bound": True})

    assert [binds_certificates(some) for some in (free, bound, free + bound)] == [False, True, True]
