"""The documents that discovery reads: which addresses are asked, in which order, and what counts as an answer."""

from collections.abc import Container, Mapping
from dataclasses import replace
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from broker.egress import ANSWER_BYTES, Egress
from broker.ehr.endpoints import Endpoints, parse_json_object, parse_oauth_uris, parse_smart_configuration
from broker.ehr.site import Site
from broker.errors import EhrAnswerLost, EhrError, EhrMisbehaved, EhrUnreachable
from broker.origins import origin

_TIMEOUT_SECONDS: Final = 10.0
_ISSUER_TIMEOUT_SECONDS: Final = 3.0
"""Only a warning hangs on it."""
_METADATA_BYTES: Final = 16 << 20


async def find_endpoints(egress: Egress, site: Site) -> Endpoints:
    """Ask the EHR: `.well-known/smart-configuration`, else the CapabilityStatement (DS-01, DS-11).

    Where the operator has named the token endpoint, neither has to be there (OR-02). Raises `EhrMisbehaved`,
    `EhrUnreachable`.
    """
    url = f"{site.fhir_base}/.well-known/smart-configuration"
    document = await _document(egress, url, site.headers("application/json"))
    if document is not None and "token_endpoint" in document:
        found = parse_smart_configuration(document, site.fhir_base)
        return replace(found, warnings=(*found.warnings, *await _issuer_warnings(egress, site, found)))
    headers = site.headers(site.profile.fhir_accept)
    statement = await _document(egress, f"{site.fhir_base}/metadata", headers, _METADATA_BYTES)
    named = parse_oauth_uris(statement or {}, site.fhir_base)
    if named is None and site.token_endpoint is not None:
        return Endpoints(site.token_endpoint, source="broker.toml")
    if named is None:
        raise EhrMisbehaved("neither smart-configuration nor metadata names a token endpoint (DS-03, DS-11)")
    return named


async def find_openid_configuration(
    egress: Egress,
    issuer: str,
    *,
    place: Literal["append", "insert"],
    timeout: float = _TIMEOUT_SECONDS,
    document_name: Literal["openid-configuration", "oauth-authorization-server"] = "openid-configuration",
) -> dict[str, Any]:
    """Return the OpenID Provider's configuration (ID-02), from `place` or else from the other one (Q6).

    OpenID Connect Discovery §4 appends to the issuer, RFC 8414 §3 inserts before its path. Raises `EhrMisbehaved`,
    `EhrUnreachable`.
    """
    if not origin(issuer):
        raise EhrMisbehaved("the issuer is not a URL (ID-02)")
    name, parts, base = f"/.well-known/{document_name}", urlsplit(issuer), issuer.rstrip("/")
    appended, inserted = f"{base}{name}", f"{parts.scheme}://{parts.netloc}{name}{parts.path.rstrip('/')}"
    for url in dict.fromkeys((appended, inserted) if place == "append" else (inserted, appended)):
        if (document := await _document(egress, url, {"Accept": "application/json"}, timeout=timeout)) is not None:
            return document
    raise EhrMisbehaved(f"the issuer has no {document_name} (ID-02)")


def require_callable(egress: Egress, found: Endpoints, *, unused: Container[str] = ()) -> Endpoints:
    """Return the endpoints without those that could never be called: not https, or a private address (DS-15).

    `unused` are those that the operator has said otherwise (OR-02). Raises `EhrMisbehaved` when the token endpoint is
    one that could never be called.
    """
    refused = {}
    for name, url in found.urls().items():
        if name in unused:
            continue
        try:
            egress.require_callable(url)
        except EhrMisbehaved as error:
            if name == "token_endpoint":
                raise EhrMisbehaved(f"the token endpoint cannot be used: {error.detail}") from None
            refused[name] = f"{name} is left out: {error.detail}"
    aliases = {n: u for n, u in found.mtls_endpoint_aliases.items() if f"mtls_endpoint_aliases.{n}" not in refused}
    kept = replace(found, mtls_endpoint_aliases=aliases, warnings=(*found.warnings, *refused.values()))
    members: dict[str, Any] = {name: None for name in refused if "." not in name}
    return replace(kept, **members)


async def _issuer_warnings(egress: Egress, site: Site, found: Endpoints) -> tuple[str, ...]:
    if found.issuer is None or not found.has("sso-openid-connect"):
        return ()
    try:
        document = await find_openid_configuration(
            egress, found.issuer, place=site.profile.metadata_path, timeout=_ISSUER_TIMEOUT_SECONDS
        )
    except EhrError:
        return ("openid-configuration of the issuer cannot be read (ID-02)",)
    same = document.get("issuer") == found.issuer
    return () if same else ("openid-configuration names another issuer than the one it is found by (OA-17)",)


async def _document(
    egress: Egress,
    url: str,
    headers: Mapping[str, str],
    limit: int = ANSWER_BYTES,
    *,
    timeout: float = _TIMEOUT_SECONDS,
) -> dict[str, Any] | None:
    try:
        answer = await egress.fetch("GET", url, headers=headers, timeout=timeout, limit=limit)
    except EhrAnswerLost as lost:  # a GET can be sent again; it must not be taken for a lost token answer (RF-05)
        raise EhrUnreachable(f"discovery: {lost.detail}") from None
    if answer.status == 429 or answer.status >= 500:
        raise EhrUnreachable(f"discovery was answered with status {answer.status}")
    return parse_json_object(answer.body) if answer.status == 200 else None
