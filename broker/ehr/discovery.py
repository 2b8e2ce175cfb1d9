"""Where an EHR's endpoints are: `.well-known/smart-configuration`, else the CapabilityStatement (DS-01…DS-14).

An answer is a document only if it is a JSON object; HTML with status 200 is a miss (DS-14).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

from broker.clock import Clock
from broker.egress import Egress
from broker.errors import EhrAnswerLost, EhrMisbehaved, EhrUnreachable

CACHE_SECONDS: Final = 3600.0
_TIMEOUT_SECONDS: Final = 10.0
_METADATA_BYTES: Final = 16 << 20
OAUTH_URIS: Final = "http://fhir-registry.smarthealthit.org/StructureDefinition/oauth-uris"
_ENDPOINTS: Final = {
    "authorization_endpoint": "authorize",
    "token_endpoint": "token",
    "introspection_endpoint": "introspect",
    "revocation_endpoint": "revoke",
}


@dataclass(frozen=True, slots=True)
class Endpoints:
    """What discovery found. URLs are absolute."""

    token_endpoint: str
    authorization_endpoint: str | None = None
    introspection_endpoint: str | None = None
    revocation_endpoint: str | None = None
    issuer: str | None = None
    jwks_uri: str | None = None
    capabilities: tuple[str, ...] = ()
    iss_in_callback: bool = False
    """RFC 9207 §3: the callback carries `iss`, and one without it is refused (CB-08)."""
    source: str = "smart-configuration"
    document: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """Everything else the server said, kept as it is (DS-09)."""


class Discovery:
    """Finds endpoints and remembers them for an hour (DS-13)."""

    def __init__(self, egress: Egress, clock: Clock) -> None:
        self._egress = egress
        self._clock = clock
        self._known: dict[str, tuple[float, Endpoints]] = {}

    async def endpoints(self, fhir_base: str) -> Endpoints:
        """Return the EHR's endpoints. Raises `EhrMisbehaved` or `EhrUnreachable`."""
        known = self._known.get(fhir_base)
        if known is not None and known[0] > self._clock():
            return known[1]
        found = await self._discover(fhir_base)
        self._known[fhir_base] = (self._clock() + CACHE_SECONDS, found)
        return found

    def forget(self, fhir_base: str) -> None:
        """Look again next time: an endpoint answered as if it had moved (DS-13)."""
        self._known.pop(fhir_base, None)

    async def _discover(self, fhir_base: str) -> Endpoints:
        url = f"{fhir_base}/.well-known/smart-configuration"
        document = await self._document(url, "application/json")
        if document is not None and "token_endpoint" in document:
            return parse_smart_configuration(document, fhir_base)
        statement = await self._document(f"{fhir_base}/metadata", "application/fhir+json", _METADATA_BYTES)
        found = parse_oauth_uris(statement or {}, fhir_base)
        if found is None:
            raise EhrMisbehaved("neither smart-configuration nor metadata names a token endpoint (DS-03, DS-11)")
        return found

    async def _document(self, url: str, accept: str, limit: int = 1 << 20) -> dict[str, Any] | None:
        headers = {"Accept": accept}
        try:
            answer = await self._egress.fetch("GET", url, headers=headers, timeout=_TIMEOUT_SECONDS, limit=limit)
        except EhrAnswerLost as lost:  # a GET can be sent again; it must not be taken for a lost token answer (RF-05)
            raise EhrUnreachable(f"discovery: {lost.detail}") from None
        if answer.status == 429 or answer.status >= 500:
            raise EhrUnreachable(f"discovery was answered with status {answer.status}")
        if answer.status != 200:
            return None
        return parse_json_object(answer.body)

    async def openid_configuration(self, issuer: str) -> dict[str, Any]:
        """Return the OpenID Provider's configuration (ID-02). Raises `EhrMisbehaved`."""
        url = f"{issuer.rstrip('/')}/.well-known/openid-configuration"
        document = await self._document(url, "application/json")
        if document is None:
            raise EhrMisbehaved("the issuer has no openid-configuration (ID-02)")
        return document


def parse_json_object(body: bytes) -> dict[str, Any] | None:
    """Return the JSON object in `body`, or None for HTML, XML, lists and everything else (DS-14, OA-04)."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def parse_smart_configuration(document: Mapping[str, Any], fhir_base: str) -> Endpoints:
    """Read a SMART configuration. Raises `EhrMisbehaved`."""
    endpoints = {name: _endpoint(document.get(name), fhir_base) for name in _ENDPOINTS}
    methods = document.get("code_challenge_methods_supported")
    if isinstance(methods, list) and methods and "S256" not in methods:
        raise EhrMisbehaved("the EHR lists PKCE methods without S256 (DS-06)")
    if endpoints["token_endpoint"] is None:
        raise EhrMisbehaved("token_endpoint is not a URL (DS-03)")
    capabilities = document.get("capabilities")
    return Endpoints(
        **endpoints,  # type: ignore[arg-type]  # token_endpoint was checked above
        issuer=_text(document.get("issuer")),
        jwks_uri=_endpoint(document.get("jwks_uri"), fhir_base),
        capabilities=tuple(c for c in capabilities if isinstance(c, str)) if isinstance(capabilities, list) else (),
        iss_in_callback=document.get("authorization_response_iss_parameter_supported") is True,
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
    endpoints = {name: _endpoint(found.get(part), fhir_base) for name, part in _ENDPOINTS.items()}
    if endpoints["token_endpoint"] is None:
        return None
    return Endpoints(**endpoints, source="metadata")  # type: ignore[arg-type]  # checked just above


def _endpoint(value: object, fhir_base: str) -> str | None:
    """Make a URL absolute against the FHIR base (DS-07); None when it is absent or not http(s)."""
    if not isinstance(value, str) or not value:
        return None
    try:
        url = urljoin(f"{fhir_base}/", value)
        return url if urlsplit(url).scheme in {"https", "http"} else None
    except ValueError:
        return None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
