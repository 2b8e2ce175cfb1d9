"""The three documents a client may discover the server by. They promise what the sandbox does, and nothing else."""

from collections.abc import Mapping
from typing import Any

from sandbox.oauth import dpop
from sandbox.oauth.assertions import ALGORITHMS
from sandbox.oauth.clients import GRANT_TYPES, JWT_BEARER
from sandbox.oauth.scopes import CONTEXT_SCOPES, IDENTITY_SCOPES, REFRESH_SCOPES
from sandbox.settings import Settings

AUTHENTICATION_METHODS = ["client_secret_basic", "client_secret_post", "private_key_jwt"]
CERTIFICATE_METHODS = ["tls_client_auth", "self_signed_tls_client_auth"]
SCOPES = [
    *IDENTITY_SCOPES,
    *CONTEXT_SCOPES,
    *REFRESH_SCOPES,
    "patient/*.rs",
    "user/*.cruds",
    "system/*.rs",
    "patient/*.read",
    "user/*.read",
    "user/*.write",
    "system/*.read",
]
CAPABILITIES = [
    "launch-ehr",
    "launch-standalone",
    "authorize-post",
    "client-public",
    "client-confidential-symmetric",
    "client-confidential-asymmetric",
    "sso-openid-connect",
    "context-banner",
    "context-style",
    "context-ehr-patient",
    "context-ehr-encounter",
    "context-standalone-patient",
    "context-standalone-encounter",
    "permission-offline",
    "permission-online",
    "permission-patient",
    "permission-user",
    "permission-v1",
    "permission-v2",
]

_OAUTH_URIS = {
    "authorization_endpoint": "authorize",
    "token_endpoint": "token",
    "registration_endpoint": "register",
    "management_endpoint": "manage",
    "introspection_endpoint": "introspect",
    "revocation_endpoint": "revoke",
}


def smart_configuration(settings: Settings) -> dict[str, Any]:
    """Return `{fhir base}/.well-known/smart-configuration` (DS-03…DS-10, DS-16)."""
    return {**_shared(settings), "capabilities": CAPABILITIES}


def openid_configuration(settings: Settings) -> dict[str, Any]:
    """Return `{issuer}/.well-known/openid-configuration` (ID-02, OIDC Discovery §3)."""
    return {
        **_shared(settings),
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "claims_supported": ["iss", "sub", "aud", "exp", "iat", "nonce", "fhirUser"],
    }


def oauth_uris(document: Mapping[str, Any]) -> dict[str, str]:
    """Return what the CapabilityStatement names in its `oauth-uris` extension, from a SMART configuration (DS-11)."""
    return {part: document[name] for name, part in _OAUTH_URIS.items() if name in document}


def smart_style() -> dict[str, str]:
    """Return the styling document that `smart_style_url` points at (CX-07)."""
    return {
        "color_background": "#f5f7f9",
        "color_error": "#a4262c",
        "color_highlight": "#1b6b93",
        "color_modal_backdrop": "#00000066",
        "color_success": "#2e7d32",
        "color_text": "#1d2733",
        "dim_border_radius": "6px",
        "dim_font_size": "15px",
        "dim_spacing_size": "16px",
        "font_family_body": "system-ui, sans-serif",
        "font_family_heading": "system-ui, sans-serif",
    }


def _shared(settings: Settings) -> dict[str, Any]:
    document = {
        "issuer": settings.issuer,
        "jwks_uri": settings.jwks_uri,
        "authorization_endpoint": settings.authorization_endpoint,
        "token_endpoint": settings.token_endpoint,
        "introspection_endpoint": settings.introspection_endpoint,
        "revocation_endpoint": settings.revocation_endpoint,
        "grant_types_supported": list(GRANT_TYPES),
        "response_types_supported": ["code"],
        "code_challenge_methods_supported": ["S256"],
        "token_endpoint_auth_methods_supported": AUTHENTICATION_METHODS,
        "token_endpoint_auth_signing_alg_values_supported": list(ALGORITHMS),
        "scopes_supported": SCOPES,
        **_offered(settings),
    }
    if settings.revocation == "off":
        del document["revocation_endpoint"]
    return document


def _offered(settings: Settings) -> dict[str, Any]:
    """Return the members of what the sandbox does only when it is told to."""
    aliases = settings.mtls_endpoint_aliases
    offers: tuple[tuple[bool, dict[str, Any]], ...] = (
        (settings.response_iss, {"authorization_response_iss_parameter_supported": True}),
        (settings.dpop, {"dpop_signing_alg_values_supported": list(dpop.ALGORITHMS)}),
        (settings.dynamic_clients, {
            "registration_endpoint": settings.registration_endpoint,
            "grant_types_supported": [*GRANT_TYPES, JWT_BEARER],
        }),
        (settings.pushed_requests != "off", {
            "pushed_authorization_request_endpoint": settings.pushed_authorization_request_endpoint,
            "require_pushed_authorization_requests": settings.pushed_requests == "required",
        }),
        (settings.client_ca is not None, {
            "mtls_endpoint_aliases": aliases,
            "token_endpoint_auth_methods_supported": [*AUTHENTICATION_METHODS, *CERTIFICATE_METHODS],
        }),
    )  # fmt: skip
    return {name: value for is_on, members in offers if is_on for name, value in members.items()}
