"""Whom the sandbox plays: what is known of each vendor's server, as data, with its source.

A personality is a set of settings, and what differs in the documents that clients discover it by.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sandbox.settings import Settings

_JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"  # noqa: S105  # a grant type
_ORIGIN = "{origin}"
_OKTA_METHODS = ["client_secret_basic", "client_secret_post", "client_secret_jwt", "private_key_jwt", "none"]
_ATHENA_CAPABILITIES = [
    "launch-ehr", "launch-standalone", "client-confidential-symmetric", "client-confidential-asymmetric",
    "client-public", "sso-openid-connect", "context-ehr-patient", "context-ehr-encounter", "authorize-post",
    "context-standalone-patient", "permission-offline", "permission-patient", "permission-user", "permission-v1",
    "permission-v2", "context-banner", "context-style", "health-cards",
]  # fmt: skip
_ORACLE_CAPABILITIES = [
    "authorize-post", "launch-ehr", "launch-standalone", "client-public", "client-confidential-asymmetric",
    "client-confidential-symmetric", "sso-openid-connect", "context-banner", "context-style", "context-ehr-patient",
    "context-ehr-encounter", "permission-patient", "permission-user", "permission-offline", "permission-online",
    "permission-v1", "permission-v2", "health-cards",
]  # fmt: skip
_INFERNO_CAPABILITIES = [
    "launch-ehr", "launch-standalone", "authorize-post", "client-public", "client-confidential-symmetric",
    "client-confidential-asymmetric", "permission-offline", "permission-online", "permission-patient",
    "permission-user", "permission-v1", "permission-v2", "context-ehr-patient", "context-standalone-patient",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Personality:
    """One vendor's habits."""

    says: str
    """What is different about it, with the source."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What it changes of `Settings`, by name."""
    sets: Mapping[str, Any] = field(default_factory=dict)
    """Members of its smart-configuration; `{origin}` stands for the public URL."""
    drops: tuple[str, ...] = ()
    """Members its smart-configuration does not have."""

    def dress(self, document: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
        """Return a smart-configuration as this vendor shows it."""
        kept = {name: value for name, value in document.items() if name not in self.drops}
        return kept | {name: _filled_in(value, settings) for name, value in self.sets.items()}


def _filled_in(value: Any, settings: Settings) -> Any:
    return value.replace(_ORIGIN, settings.public_url) if isinstance(value, str) else value


def wear(settings: Settings, name: str) -> Settings:
    """Return the settings of the sandbox when it plays `name`; raises `ValueError` for an unknown one."""
    if name not in PERSONALITIES:
        raise ValueError(f"name is one of {', '.join(PERSONALITIES)}")
    return replace(settings, **{**PERSONALITIES[name].settings, "personality": name})


PERSONALITIES: Mapping[str, Personality] = {
    "generic": Personality(
        "the sandbox as the rest of this page describes it, with a brand bundle (BR-02)",
        sets={
            "user_access_brand_bundle": f"{_ORIGIN}/brands.json",
            "user_access_brand_identifier": {"system": "urn:ietf:rfc:3986", "value": "https://lakeside.example"},
        },
    ),
    "epic": Personality(
        "fewer endpoints and no signing algorithms in its document, five scopes and no clinical one (EP-01, DS-08); "
        "refresh tokens stay (EP-16); introspection by bearer token (EP-20); posted requests in EHR launches only "
        "(EP-11); errors with `error_description` null, dynamic clients (EP-17)",
        {
            "refresh": "keep",
            "introspection": "bearer",
            "refuse_standalone_post": True,
            "token_errors": "null",
            "dynamic_clients": True,
            "page_links": "session-id",
        },
        {
            "scopes_supported": ["epic.scanning.dmsusername", "fhirUser", "launch", "openid", "profile"],
            "grant_types_supported": [
                "authorization_code", "refresh_token", "client_credentials", _JWT_BEARER, _TOKEN_EXCHANGE,
            ],
            "token_endpoint_auth_methods_supported": ["client_secret_post", "client_secret_basic", "private_key_jwt"],
            "response_modes_supported": ["query"],
        },
        (
            "introspection_endpoint", "revocation_endpoint", "registration_endpoint",
            "token_endpoint_auth_signing_alg_values_supported",
        ),
    ),
    "oracle": Personality(
        "endpoints of smart-v1 under a tenant (OR-02); errors are an `error_uri` (OR-03); tokens of 570 seconds, "
        "refresh tokens stay, one refresh a minute (OR-04); no wildcard scopes, client_secret_post is not listed "
        "(OR-06); scopes of v2 are advertised and refused, Basic credentials raw (Q1, Q9); another issuer in "
        "id_tokens, with a slash (OR-07); one bulk job at a time (OR-08); revoking leaves access tokens alive (IN-08)",
        {
            "access_token_lifetime": 570,
            "refresh": "keep",
            "refresh_interval": 60,
            "token_errors": "uri",
            "revocation": "refresh-token",
            "refuse_wildcards": True,
            "refuse_v2_scopes": True,
            "basic_encoding": "raw",
            "oauth_path": "/tenants/lakeside/protocols/oauth2/profiles/smart-v1",
            "issuer_path": "/tenants/lakeside/oidc/idsps/lakeside/",
            "metadata_format": "json",
            "page_links": "page-context",
            "one_bulk_job": True,
        },
        {
            "issuer": f"{_ORIGIN}/tenants/lakeside",
            "management_endpoint": f"{_ORIGIN}/tenants/lakeside/personas/provider/my-authorizations",
            "grant_types_supported": ["authorization_code", "client_credentials"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic", "private_key_jwt"],
            "scopes_supported": [
                "fhirUser", "launch", "offline_access", "online_access", "openid", "patient/Observation.crus",
                "patient/Observation.read", "patient/Patient.read", "patient/Patient.rs", "profile",
                "system/Patient.read", "user/Practitioner.read",
            ],
            "capabilities": _ORACLE_CAPABILITIES,
        },
    ),
    "athena": Personality(
        "an issuer on another host, an odd `token_endpoint_auth_methods`, no refresh_token among the grant types and "
        "no scopes listed (OT-01); a refresh works only while the access token lives (RF-07)",
        {
            "refresh_while_alive": True,
            "oauth_path": "/oauth2/v1",
            "issuer_path": "/oauth2/aus0lakeside",
            "issuer_on_other_host": True,
            "metadata_format": "json",
        },
        {
            "grant_types_supported": ["authorization_code", "client_credentials"],
            "response_types_supported": ["code", "token", "id_token", "code id_token", "code token"],
            "token_endpoint_auth_methods_supported": _OKTA_METHODS,
            "token_endpoint_auth_methods": _OKTA_METHODS,
            "capabilities": _ATHENA_CAPABILITIES,
        },
        ("scopes_supported", "token_endpoint_auth_signing_alg_values_supported"),
    ),
    "smart-launcher": Personality(
        "the FHIR base is the issuer, and what is called context-banner elsewhere is context-passthrough-banner "
        "(launch.smarthealthit.org, smart-launcher-v2); no revocation endpoint; raw Basic credentials (Q1)",
        {
            "oauth_path": "/v/r4/auth",
            "issuer_path": "/api/FHIR/R4",
            "metadata_format": "json",
            "refresh": "keep",
            "basic_encoding": "raw",
            "revocation": "off",
        },
        {
            "grant_types_supported": ["authorization_code", "client_credentials"],
            "response_types_supported": ["code", "token", "id_token", "token id_token", "refresh_token"],
            "scopes_supported": [
                "openid", "profile", "fhirUser", "launch", "launch/patient", "launch/encounter",
                "launch/questionnaire", "patient/*.*", "user/*.*", "offline_access",
            ],
            "capabilities": [
                "launch-ehr", "launch-standalone", "client-public", "client-confidential-symmetric",
                "client-confidential-asymmetric", "sso-openid-connect", "context-passthrough-banner",
                "context-passthrough-style", "context-ehr-patient", "context-ehr-encounter",
                "context-standalone-patient", "context-standalone-encounter", "permission-offline",
                "permission-patient", "permission-user", "permission-v1", "permission-v2", "authorize-post",
            ],
        },
        ("token_endpoint_auth_signing_alg_values_supported", "revocation_endpoint"),
    ),
    "inferno": Personality(
        "no issuer, no jwks_uri, no sso-openid-connect, three scopes; the FHIR base is the issuer of its id_tokens; "
        "codes of ten minutes, tokens of an hour; the refresh token is sent again and again; raw Basic credentials "
        "(Q1; Inferno's SMART client suite, 2.2)",
        {
            "code_lifetime": 600,
            "access_token_lifetime": 3600,
            "refresh": "repeat",
            "basic_encoding": "raw",
            "issuer_path": "/api/FHIR/R4",
            "metadata_format": "json",
            "revocation": "off",
        },
        {"scopes_supported": ["openid", "fhirUser", "offline_access"], "capabilities": _INFERNO_CAPABILITIES},
        ("issuer", "jwks_uri", "introspection_endpoint", "revocation_endpoint"),
    ),
}  # fmt: skip
