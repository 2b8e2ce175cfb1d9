"""What an EHR's documents say about its endpoints: read, judged, and put into words. Pure.

A document is only something if it is a JSON object (DS-14). What is missing or odd in it becomes a warning that names
it; without a token endpoint, or without S256 among the PKCE methods that it lists, it is refused (DS-03, DS-06).
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

from broker.errors import EhrMisbehaved
from broker.origins import origin

OAUTH_URIS: Final = "http://fhir-registry.smarthealthit.org/StructureDefinition/oauth-uris"
URL_MEMBERS: Final = (
    "authorization_endpoint",
    "token_endpoint",
    "introspection_endpoint",
    "revocation_endpoint",
    "registration_endpoint",
    "management_endpoint",
    "pushed_authorization_request_endpoint",
    "jwks_uri",
)
"""The members that are addresses the broker, or a person on its word, goes to."""
_OAUTH_PARTS: Final = {
    "authorization_endpoint": "authorize",
    "token_endpoint": "token",
    "introspection_endpoint": "introspect",
    "revocation_endpoint": "revoke",
    "registration_endpoint": "register",
    "management_endpoint": "manage",
}
_REQUIRED: Final = ("capabilities", "grant_types_supported", "code_challenge_methods_supported")
_SSO: Final = "sso-openid-connect"
_PLAIN: Final = re.compile(r"[\x21-\x5b\x5d-\x7e]+")
"""Visible ASCII, without the backslash that browsers take for a slash."""


@dataclass(frozen=True, slots=True)
class Endpoints:
    """What discovery found. URLs are absolute."""

    token_endpoint: str
    authorization_endpoint: str | None = None
    introspection_endpoint: str | None = None
    revocation_endpoint: str | None = None
    registration_endpoint: str | None = None
    management_endpoint: str | None = None
    """Where a person ends the authorizations of apps."""
    pushed_authorization_request_endpoint: str | None = None
    jwks_uri: str | None = None
    issuer: str | None = None
    mtls_endpoint_aliases: Mapping[str, str] = field(default_factory=dict)
    """The endpoints that ask for a client certificate, by member (RFC 8705 §5)."""
    capabilities: tuple[str, ...] = ()
    grant_types: tuple[str, ...] = ()
    """Shown, never a gate: athenahealth leaves refresh_token out and grants it (OT-01)."""
    authentication_methods: tuple[str, ...] = ()
    signing_algorithms: tuple[str, ...] = ()
    dpop_algorithms: tuple[str, ...] = ()
    """RFC 9449 §5.1."""
    iss_in_callback: bool = False
    """RFC 9207 §3: the callback carries `iss`, and one without it is refused (CB-08)."""
    pushed_requests_required: bool = False
    """RFC 9126 §5."""
    source: str = "smart-configuration"
    warnings: tuple[str, ...] = ()
    """Sentences made from names of members; each says which rule is not met."""
    document: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """Everything that the server said, kept as it is (DS-09)."""

    @property
    def sso_off(self) -> str | None:
        """Why id_tokens of this EHR are not used, should it send one; None if nothing stands against it (DS-05)."""
        if self.source != "smart-configuration":
            return "there is no smart-configuration to name an issuer (DS-05, DS-11)"
        lacking = [name for name in ("issuer", "jwks_uri") if getattr(self, name) is None]
        return f"{_SSO} is listed without {' and '.join(lacking)} (DS-05)" if self.has(_SSO) and lacking else None

    def has(self, capability: str) -> bool:
        """Whether the EHR lists this capability."""
        return capability in self.capabilities

    def urls(self) -> dict[str, str]:
        """Return every address in it by its member's name."""
        own = {name: url for name in URL_MEMBERS if (url := getattr(self, name)) is not None}
        return own | {f"mtls_endpoint_aliases.{name}": url for name, url in self.mtls_endpoint_aliases.items()}


def parse_json_object(body: bytes) -> dict[str, Any] | None:
    """Return the JSON object in `body`, or None for HTML, XML, lists and everything else (DS-14, OA-04)."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def parse_smart_configuration(document: Mapping[str, Any], fhir_base: str) -> Endpoints:
    """Read a SMART configuration. Raises `EhrMisbehaved`."""
    urls = {name: _endpoint(document.get(name), fhir_base) for name in URL_MEMBERS}
    methods = document.get("code_challenge_methods_supported")
    if isinstance(methods, list) and methods and "S256" not in methods:
        raise EhrMisbehaved("the EHR lists PKCE methods without S256 (DS-06)")
    if urls["token_endpoint"] is None:
        raise EhrMisbehaved("token_endpoint is not a URL (DS-03)")
    aliases = document.get("mtls_endpoint_aliases")
    named = {name: _endpoint(url, fhir_base) for name, url in _dict(aliases).items() if name in URL_MEMBERS}
    return Endpoints(
        **urls,  # type: ignore[arg-type]  # token_endpoint was checked above
        issuer=_text(document.get("issuer")),
        mtls_endpoint_aliases={name: url for name, url in named.items() if url is not None},
        capabilities=_texts(document.get("capabilities")),
        grant_types=_texts(document.get("grant_types_supported")),
        authentication_methods=_texts(document.get("token_endpoint_auth_methods_supported")),
        signing_algorithms=_texts(document.get("token_endpoint_auth_signing_alg_values_supported")),
        dpop_algorithms=_texts(document.get("dpop_signing_alg_values_supported")),
        iss_in_callback=document.get("authorization_response_iss_parameter_supported") is True,
        pushed_requests_required=document.get("require_pushed_authorization_requests") is True,
        warnings=tuple(_warnings(document, urls)),
        document=document,
    )


def parse_oauth_uris(statement: Mapping[str, Any], fhir_base: str) -> Endpoints | None:
    """Read the `oauth-uris` extension of a CapabilityStatement (DS-11); None if it names no token endpoint."""
    found: dict[str, object] = {}
    for rest in _list(statement.get("rest")):
        for extension in _list(_dict(rest.get("security")).get("extension")):
            if extension.get("url") == OAUTH_URIS:
                parts = _list(extension.get("extension"))
                found |= {str(part.get("url")): part.get("valueUri") for part in parts}
    urls = {name: _endpoint(found.get(part), fhir_base) for name, part in _OAUTH_PARTS.items()}
    if urls["token_endpoint"] is None:
        return None
    return Endpoints(
        **urls,  # type: ignore[arg-type]  # checked just above
        source="metadata",
        warnings=("there is no smart-configuration; the CapabilityStatement names the endpoints (DS-11)",),
    )


def method_warning(endpoints: Endpoints, authentication: str, algorithm: str) -> str | None:
    """Say that the EHR does not list how a registration authenticates, naming both sides (DS-10); None if all is well.

    It is no refusal: the lists are optional, and some EHRs leave out what they accept (OR-06).
    """
    listed, algorithms = endpoints.authentication_methods, endpoints.signing_algorithms
    known = ("client_secret_basic", "client_secret_post", "private_key_jwt", "tls_client_auth", "none")
    if authentication != "none" and listed and authentication not in listed:
        return f"{authentication} is used, and the EHR lists {_names(listed, known)} (DS-10)"
    if authentication == "private_key_jwt" and algorithms and algorithm not in algorithms:
        return (
            f"{algorithm} is used, and the EHR lists {_names(algorithms, ('RS256', 'RS384', 'ES256', 'ES384'))} (DS-10)"
        )
    return None


def _names(listed: tuple[str, ...], known: tuple[str, ...]) -> str:
    named = [name for name in known if name in listed]
    return ", ".join(named) if named else "none that is known here"


def _warnings(document: Mapping[str, Any], urls: Mapping[str, str | None]) -> Iterator[str]:
    for name in _REQUIRED:
        if not isinstance(document.get(name), list):
            yield f"{name} is missing (DS-03)"
    if "plain" in _texts(document.get("code_challenge_methods_supported")):
        yield "plain is listed as a PKCE method; it is never used (DS-06)"
    capabilities = _texts(document.get("capabilities"))
    if urls["authorization_endpoint"] is None and {"launch-ehr", "launch-standalone"} & set(capabilities):
        yield "launches are offered without authorization_endpoint (DS-04)"
    lacking = [
        name
        for name, value in (("issuer", _text(document.get("issuer"))), ("jwks_uri", urls["jwks_uri"]))
        if value is None
    ]
    if _SSO in capabilities and lacking:
        yield f"{_SSO} is listed without {' and '.join(lacking)}: id_tokens are not used (DS-05)"
    for name in URL_MEMBERS:
        value = document.get(name)
        if urls[name] is not None and isinstance(value, str) and not urlsplit(value).netloc:
            yield f"{name} is relative; it is taken from the FHIR base (DS-07)"
        elif value is not None and urls[name] is None:
            yield f"{name} is not a URL, so it counts as absent (DS-07)"


def _endpoint(value: object, fhir_base: str) -> str | None:
    """Make a URL absolute against the FHIR base (DS-07); None if absent, not http(s), or ambiguous."""
    if not isinstance(value, str) or not _PLAIN.fullmatch(value):
        return None
    try:
        url = urljoin(f"{fhir_base}/", value)
        callable_at_all = origin(url) and urlsplit(url).port != 0
    except ValueError:
        return None
    return url if callable_at_all else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _texts(value: object) -> tuple[str, ...]:
    return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
